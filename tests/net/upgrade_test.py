#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The Debian package in a machine with systemd: installed, upgraded to another
build and back while packets are counted, removed and purged.

XLB_DEB_ROOT names a folder with a system to do it in (packaging/deb-test.sh
makes a clean one); without it an overlay over this machine's own."""
import os
import re
import shutil

import netlab
import lab
import systemd
import tap
from lab import wait_for
from netlab import TARGETS, Load, check

lab.enter()
UNIT = "xlb-reconcile"
BELOW = os.environ.get("XLB_DEB_ROOT", "/")
DEBS = lab.BUILD / "tests" / "debs"
RATE = 300  # datagrams a second and target
UDP = {"nat v4": "192.0.2.10", "nat v6": "[2001:db8::10]",
       "dsr v4": "192.0.2.20", "dsr v6": "[2001:db8::20]"}


def make():
    made = lab.Lab(client_addresses=20)
    for i in range(2):
        netlab.serve(made.add_backend(f"b{i + 1}"))
    made.sd = systemd.Systemd(made, BELOW)
    # In containers it often forbids that packages start what they bring.
    (made.sd.root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)
    for n in (1, 2):
        shutil.copy(DEBS / f"xlb_{n}.0.deb", made.sd.root / f"xlb_{n}.0.deb")
    made.sd.start()
    return made


def dpkg(made, *words):
    return made.sd.run("env", "DEBIAN_FRONTEND=noninteractive", "dpkg", *words, check=True)


def version(made):
    return made.sd.run("xlb-reconcile", "--version", check=True).stdout.split()[-1]


def running_version(made):
    """Of the process that runs, whose file may be another by now."""
    pid = made.xlb.pid()
    return made.sd.run(f"/proc/{pid}/exe", "--version", check=True).stdout.split()[-1]


def programs(made):
    """Tags (hashes of their instructions) of what is pinned, by pin."""
    found = {}
    for pin in made.sd.run("ls", "/sys/fs/bpf/xlb", check=True).stdout.split():
        if pin.startswith("prog_"):
            out = made.sd.run("bpftool", "prog", "show", "pinned", f"/sys/fs/bpf/xlb/{pin}").stdout
            tag = re.search(r"tag ([0-9a-f]+)", out)
            found[pin] = tag.group(1) if tag else out
    return found


@tap.test
def installed(made):
    """dpkg -i: the program and its manual are there, and nothing runs until it is asked to"""
    dpkg(made, "-i", "/xlb_1.0.deb")
    assert version(made) == "1.0"
    assert made.sd.show(UNIT, "ActiveState") == "inactive"
    assert made.sd.show(UNIT, "UnitFileState") == "disabled"
    done = made.sd.run("xlb-reconcile", "-f", "/usr/share/doc/xlb/examples/minimal/services.yaml",
                       "check", check=True)
    assert "is valid" in done.stdout, done.stdout
    listed = made.sd.run("dpkg", "-L", "xlb", check=True).stdout.splitlines()
    for page in ("man8/xlb-reconcile.8.gz", "man5/xlb-services.yaml.5.gz"):
        assert f"/usr/share/man/{page}" in listed, listed
    made.xlb = systemd.Installed(made.sd, netlab.services(made.backends)).start()
    netlab.wait_serving(made)


class Traffic:
    """Datagrams that are counted one by one, connections new and held."""

    def __init__(self, made, connections=True):
        self.udp = {n: Load(made, "--mode", "udp", "--to", f"{t}:9000", "--rate", RATE,
                            "--duration", "600", "--from", "192.0.2.101-192.0.2.119",
                            "--from", "2001:db8::101-2001:db8::113", "--timeout", "5",
                            name=f"udp-{t.strip('[]')}") for n, t in UDP.items()}
        targets = TARGETS.items() if connections else ()
        self.new = {n: netlab.new_connections(made, t, 50) for n, t in targets}
        self.held = {n: netlab.held_connections(made, t, 25) for n, t in targets}
        self.go_on()

    def go_on(self):
        for load in (*self.udp.values(), *self.new.values(), *self.held.values()):
            load.wait_answers(50)

    def stop(self):
        self.go_on()
        for kind in (self.udp, self.new, self.held):
            for name, load in kind.items():
                summary = check(load.stop(), name)
                if kind is self.held:
                    assert summary["connections"]["broken"] == 0, (name, summary)
                if kind is self.udp:
                    tap.note(f"{name}: {summary['answers']} datagrams, {summary['failed']} lost")


def change_to(made, n):
    pid, before = made.xlb.pid(), programs(made)
    dpkg(made, "-i", f"/xlb_{n}.0.deb")
    assert version(made) == f"{n}.0"
    wait_for(lambda: int(made.sd.show(UNIT, "MainPID")) not in (0, pid)
             and made.sd.show(UNIT, "ActiveState") == "active", "the new one to run", 60, 0.1)
    assert running_version(made) == f"{n}.0"
    made.xlb.wait_converged()
    after = programs(made)
    assert set(after) == set(before) and after["prog_xdp"] != before["prog_xdp"], (before, after)


@tap.test
def upgraded(made):
    """dpkg -i of another build, and back: it takes over, its programs are swapped in, no packet is lost"""
    traffic = Traffic(made)
    change_to(made, 2)
    traffic.go_on()
    change_to(made, 1)
    traffic.stop()


@tap.test
def removed(made):
    """removed it says that the kernel goes on, which it does; purged nothing of it stays"""
    traffic = Traffic(made, connections=False)
    done = dpkg(made, "-r", "xlb")
    assert "xlb-reconcile destroy" in done.stderr, done.stdout + done.stderr
    assert made.sd.run("sh", "-c", "command -v xlb-reconcile").returncode
    assert (made.sd.root / "var/lib/xlb/history.db").exists()
    traffic.stop()
    dpkg(made, "-i", "/xlb_2.0.deb")
    made.xlb.start()  # what it left is taken up
    made.xlb.wait_converged()
    made.xlb.stop()
    done = made.xlb.verb("destroy", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    made.xlb.file.unlink()
    dpkg(made, "-P", "xlb")
    done = made.sd.run("find", "/etc", "/usr", "/lib", "/var", "/sys/fs/bpf", "-xdev", "-path",
                       "*xlb*", "-not", "-path", "/etc/systemd/system/*", check=True)
    left = [line for line in done.stdout.splitlines() if ours(line)]
    assert not left, left


def ours(path):
    """Among names with xlb in them, those that a package of ours would make."""
    return re.search(r"/(xlb|xlb-reconcile\w*|xlb-services[\w.]*|_xlb-reconcile)(/|\.|$)", path)


lab.main(make)
