# SPDX-License-Identifier: GPL-2.0-or-later
"""systemd as the first process of a small machine in the balancer's network
namespace, with its journal, to run our unit as it will be run.

Its root is an overlay over this machine's (or another folder): what is
installed into it is gone with it.  It has process, mount and control group
namespaces of its own; nothing but the journal and what the test asks for is
started.  It dies with the script that started it.
"""
import json
import os
import signal
import subprocess
from pathlib import Path

import sandbox
import tap
from lab import BUILD, ROOT, Reconciler, group_of, wait_for

HERE = Path(__file__).resolve().parent
TARGET = "xlb-test.target"


def unified():
    """Where control groups of version 2 are mounted, or None."""
    with open("/proc/self/mounts") as f:
        found = [line.split()[1] for line in f if line.split()[2] == "cgroup2"]
    return found[0] if found else None


class Systemd:
    """lab: whose balancer's namespace it lives in.  below: what its root shows."""

    def __init__(self, lab, below="/"):
        groups = unified()
        if not Path("/lib/systemd/systemd").exists() or not groups or not os.access(groups, os.W_OK):
            raise tap.Skip("no systemd here, or no control groups of version 2 to make some in")
        self.lab = lab
        self.folder = lab.scratch / "systemd"
        self.root = self.folder / "root"
        self.below = below
        self.group = group_of(str(lab.scratch), "systemd")
        self.process = None
        self.pid = None
        for name in ("up", "work", "root"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        # A folder below a bind mount of its own: the overlay can't be made
        # over what has it inside.
        sandbox.mount("overlay", self.root, "overlay", 0,
                      f"lowerdir={below},upperdir={self.folder}/up,workdir={self.folder}/work")

    def install(self):
        """`make install` of what has been built, which is not built again."""
        subprocess.run(["make", "-s", "install", f"B={BUILD}", f"DESTDIR={self.root}",
                        f"--assume-old={BUILD}/xlb-reconcile"],
                       cwd=ROOT, check=True, stdout=subprocess.DEVNULL)

    def start(self):
        argv = ["unshare", "--pid", "--mount", "--ipc", "--uts", "--fork", "--kill-child",
                "bash", HERE / "systemd-inner.sh", self.root, unified(), self.group, TARGET]
        self.process = self.lab.lb.start(argv, "systemd")
        wait_for(self._first_process, "systemd to start", 30)
        wait_for(lambda: self.run("systemctl", "is-active", "systemd-journald").stdout.strip()
                 == "active", "systemd to be up", 60, 0.1)
        self.lab.more_logs.append(self.log)
        return self

    def _first_process(self):
        assert self.process.poll() is None, self.process.log.read_text()
        # nsenter has become unshare, whose child is systemd in the end.
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        children = Path(path).read_text().split()
        if not children or Path(f"/proc/{children[0]}/comm").read_text().strip() != "systemd":
            return False
        self.pid = int(children[0])
        return True

    def command(self, *argv):
        return ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--ipc", "--uts",
                "--root", "--wd", "--", *map(str, argv)]

    def run(self, *argv, check=False, timeout=60):
        done = subprocess.run(self.command(*argv), text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(map(str, argv))}: status {done.returncode}:\n"
                                 f"{done.stdout}{done.stderr}")
        return done

    def show(self, unit, name):
        return self.run("systemctl", "show", "--value", "-p", name, unit).stdout.strip()

    def journal(self, *words):
        """Entries of our unit, oldest first, as dicts."""
        done = self.run("journalctl", "-q", "-o", "json", "-u", "xlb-reconcile", *words)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def log(self):
        return self.run("journalctl", "-q", "--no-pager", "-n", "60").stdout

    def stop(self):
        if self.process and self.process.poll() is None:
            # systemd's end is that of all it has started.
            os.kill(self.pid or self.process.pid, signal.SIGKILL)
            self.process.wait()
        sandbox.umount(self.root, lazy=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Installed(Reconciler):
    """xlb as installed into a Systemd's root, started by its unit."""

    def __init__(self, sd, text):
        super().__init__(sd.lab, sd.root / "etc/xlb/services.yaml", state=sd.root / "var/lib/xlb")
        self.sd = sd
        self.bpffs = Path("/sys/fs/bpf/xlb")
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(text)

    def start(self, *_):
        self.sd.run("systemctl", "start", "xlb-reconcile", check=True)
        return self

    def stop(self):
        self.sd.run("systemctl", "stop", "xlb-reconcile", check=True)

    def verb(self, *words, check=False):
        return self.sd.run("xlb-reconcile", *self.options, *words, check=check, timeout=330)

    def pid(self):
        pid = int(self.sd.show("xlb-reconcile", "MainPID"))
        assert pid > 0, "the service doesn't run:\n" + self.sd.log()
        return pid

    def alive(self):
        if self.sd.show("xlb-reconcile", "ActiveState") not in ("active", "activating", "reloading"):
            raise AssertionError("the service has ended:\n" + self.sd.log())
        return True
