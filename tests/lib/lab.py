# SPDX-License-Identifier: GPL-2.0-or-later
"""Client, balancer and backends in network namespaces, for tests and the demo.

      client ---- uplink [ lb ] br0 ---- port-NAME ---- backend NAME
   192.0.2.100/24   .1         10.77.0.1/24             10.77.0.11...
   2001:db8::100/64 ::1        fd00:77::1/64            fd00:77::11...

The namespaces have no names under /run/netns: they are held by mounts in the
lab's private mount namespace, so they end with the script, also when it is
killed.  The balancer's bpffs is mounted in the scratch folder.
"""
import contextlib
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from pathlib import Path

import sandbox
import tap
from libvirtd import Libvirtd

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("XLB_BUILD", ROOT / "build")).resolve()

VIP4, VIP6 = "192.0.2.10", "2001:db8::10"
CLIENT4, CLIENT6 = "192.0.2.100", "2001:db8::100"
GATEWAY4, GATEWAY6 = "10.77.0.1", "fd00:77::1"
BRIDGE_MAC = "02:00:00:77:00:01"


class Timeout(AssertionError):
    pass


def wait_for(condition, what, timeout=20.0, every=0.02):
    """Polls until condition() is true and returns its value.  A generous
    limit: it ends a hung test, it isn't an assertion about time."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Timeout(f"waited {timeout:.0f} s in vain for {what}")
        time.sleep(every)


class Netns:
    """A network namespace, held by a bind mount at .path."""

    def __init__(self, lab, name):
        self.name = name
        self.path = lab.scratch / "ns" / name
        self._lab = lab
        self.path.touch()
        pid = os.fork()
        if pid == 0:
            try:
                sandbox.unshare(sandbox.CLONE_NEWNET)
                sandbox.mount("/proc/self/ns/net", self.path, None, sandbox.MS_BIND)
                os._exit(0)
            except OSError as error:
                print(error, file=sys.stderr)
                os._exit(1)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            raise RuntimeError(f"no network namespace for {name}")
        self.run(["sysctl", "-qw", "net.ipv6.conf.all.accept_dad=0",
                  "net.ipv6.conf.default.accept_dad=0",
                  "net.ipv4.ping_group_range=0 2147483647"])
        # Some are inherited from the machine's own namespace.
        self.run(["sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0"])
        self.ip("link set lo up")

    def command(self, argv):
        return ["nsenter", f"--net={self.path}", "--", *map(str, argv)]

    def run(self, argv, check=True, **keywords):
        """Runs to its end; the result has .stdout and .stderr as text."""
        keywords.setdefault("timeout", 60)
        done = subprocess.run(self.command(argv), text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, **keywords)
        if check and done.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(map(str, argv))}: status "
                               f"{done.returncode}: {done.stdout}{done.stderr}")
        return done

    def out(self, argv, **keywords):
        return self.run(argv, **keywords).stdout

    def start(self, argv, log=None, **keywords):
        """Starts in the background; output goes to the log in the scratch
        folder; ended with the lab."""
        return self._lab.start(self.command(argv), log or f"{self.name}-{Path(argv[0]).name}",
                               **keywords)

    def ip(self, *lines):
        """Each line is one `ip` command, without the word ip."""
        done = subprocess.run(self.command(["ip", "-batch", "-"]), text=True,
                              input="\n".join(lines) + "\n", capture_output=True)
        if done.returncode:
            raise RuntimeError(f"{self.name}: {done.stderr}\n" + "\n".join(lines))

    def wait_addresses(self, count):
        """IPv6 addresses are there a moment before packets to them are taken:
        their local routes come from a work queue."""
        wait_for(lambda: sum(line.startswith(("local 2001:db8:", "local fd00:77:"))
                             for line in self.out(["ip", "-6", "route", "show", "table", "local"])
                             .splitlines()) >= count, f"{self.name}'s addresses")

    def sysctl(self, **settings):
        self.run(["sysctl", "-qw"] + [f"{k.replace('__', '.')}={v}" for k, v in settings.items()])

    def ethtool(self, interface, **features):
        argv = ["ethtool", "-K", interface]
        for feature, value in features.items():
            argv += [feature, value]
        self.run(argv)

    def curl(self, url, *options, check=True, timeout=20):
        return self.run(["curl", "-sS", "-g", "-m", timeout, *options, url], check=check,
                        timeout=timeout + 20).stdout


class Backend:
    def __init__(self, lab, name, number):
        self.name, self.number = name, number
        self.addr4, self.addr6 = f"10.77.0.{number}", f"fd00:77::{number}"
        self.port = f"port-{name}"
        self.ns = Netns(lab, name)
        lab.lb.ip(f"link add {self.port} numrxqueues 1 numtxqueues 1 type veth peer name eth0 "
                  f"netns {self.ns.path} numrxqueues 1 numtxqueues 1",
                  f"link set {self.port} master br0 up")
        self.ns.ip(f"address add {self.addr4}/24 dev eth0",
                   f"address add {self.addr6}/64 dev eth0 nodad",
                   "link set eth0 up",
                   f"route add default via {GATEWAY4}",
                   f"route add ::/0 via {GATEWAY6}")
        self.ns.wait_addresses(1)
        # A veth takes frames redirected by XDP only while its peer runs NAPI.
        self.ns.ethtool("eth0", gro="on")

    def add_vips(self, *vips):
        """For dsr: it owns the VIPs, but says so to nobody."""
        self.ns.sysctl(net__ipv4__conf__all__arp_ignore=1, net__ipv4__conf__all__arp_announce=2)
        for vip in vips:
            self.ns.ip(f"address add {vip}/128 dev lo nodad" if ":" in vip
                       else f"address add {vip}/32 dev lo")


class Reconciler:
    """One installation of xlb in the balancer's namespace."""

    def __init__(self, lab, file, *options, state=None):
        self.lab, self.file, self.options = lab, Path(file), options
        self.state = state or lab.scratch / "state"
        self.bpffs = lab.scratch / "bpf" / "xlb"
        self.process = None
        self.log = lab.scratch / "log" / "xlb-reconcile"

    def argv(self, *words):
        return [BUILD / "xlb-reconcile", "-f", self.file, "--state-dir", self.state,
                "--bpffs", self.bpffs, *self.options, *words]

    def start(self, *words):
        self.process = self.lab.lb.start(self.argv("-v", *(words or ["run"])), "xlb-reconcile")
        return self

    @contextlib.contextmanager
    def held(self, lock=False):
        """The daemon sleeps meanwhile, and verbs look by themselves; with its lock they wait a
        while for it to answer."""
        names = ("control.sock",) if lock else ("control.sock", "lock")
        self.process.send_signal(signal.SIGSTOP)
        for name in names:
            os.rename(self.state / name, self.state / f"{name}.away")
        try:
            yield
        finally:
            for name in names:
                os.rename(self.state / f"{name}.away", self.state / name)
            self.process.send_signal(signal.SIGCONT)

    def kill9(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        """SIGTERM; returns the exit status."""
        self.process.terminate()
        return self.process.wait(timeout=30)

    def verb(self, *words, check=False):
        """Runs a verb to its end."""
        return self.lab.lb.run(self.argv(*words), check=check, timeout=330)

    def status(self):
        done = self.verb("status", "--json")
        try:
            return json.loads(done.stdout)
        except ValueError:
            return None

    def query(self, sql, *args):
        """Rows from history.db as dicts; none while it isn't there yet."""
        try:
            db = sqlite3.connect(f"file:{self.state}/history.db?mode=ro", uri=True, timeout=5)
        except sqlite3.OperationalError:
            return []
        try:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(sql, args)]
        except sqlite3.OperationalError as error:
            if "no such" in str(error) or "unable to open" in str(error):
                return []
            raise
        finally:
            db.close()

    def plan_is_empty(self):
        done = self.verb("plan", "--detailed-exitcode")
        return done.returncode == 0

    def write(self, text):
        """A complete save, the way a careful editor does it."""
        new = self.file.with_name(self.file.name + ".new")
        new.write_text(text)
        new.rename(self.file)

    def revisions(self):
        return len(self.query("SELECT id FROM revisions"))

    def apply(self, text):
        """Saves and waits until it is what runs."""
        self.write(text)
        self.wait_converged()

    def wait_converged(self, timeout=60):
        return wait_for(lambda: self.alive() and self.plan_is_empty(),
                        "the plan to be empty", timeout, 0.1)

    def alive(self):
        if self.process and self.process.poll() is not None:
            raise AssertionError(f"xlb-reconcile ended with {self.process.returncode}:\n"
                                 + self.log_tail())
        return True

    def log_tail(self, lines=40):
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"


class Lab:
    """Use as a context manager, after enter()."""

    def __init__(self, backends=(), client_addresses=1):
        _labs.append(self)
        self.scratch = Path(_scratch)
        self._processes = []
        self.more_logs = []  # functions that give text
        sandbox.mount("tmpfs", self.scratch, "tmpfs", 0, "mode=755")
        for folder in ("ns", "log", "bpf", "state"):
            (self.scratch / folder).mkdir()
        sandbox.mount("bpf", self.scratch / "bpf", "bpf")
        self.client = Netns(self, "client")
        self.lb = Netns(self, "lb")
        self._wire(client_addresses)
        self.backends = []
        for name in backends:
            self.add_backend(name)

    def _wire(self, client_addresses):
        self.lb.ip(f"link add uplink numrxqueues 1 numtxqueues 1 type veth peer name eth0 "
                   f"netns {self.client.path} numrxqueues 1 numtxqueues 1",
                   # One that it took from its ports would change as these come and go.
                   f"link add br0 address {BRIDGE_MAC} type bridge forward_delay 0 "
                   "mcast_snooping 0",
                   "address add 192.0.2.1/24 dev uplink",
                   "address add 2001:db8::1/64 dev uplink nodad",
                   f"address add {GATEWAY4}/24 dev br0",
                   f"address add {GATEWAY6}/64 dev br0 nodad",
                   "link set uplink up", "link set br0 up")
        addresses = [f"address add 192.0.2.{100 + i}/24 dev eth0" for i in range(client_addresses)]
        # Deprecated: used when asked for, so that the first is the default.
        addresses += [f"address add 2001:db8::{0x100 + i:x}/64 dev eth0 nodad"
                      + (" preferred_lft 0" if i else "") for i in range(client_addresses)]
        self.client.ip(*addresses, "link set eth0 up",
                       "route add default via 192.0.2.1", "route add ::/0 via 2001:db8::1")
        self.lb.wait_addresses(2)
        self.client.wait_addresses(client_addresses)
        # XDP sees packets before anything completes their checksums.
        self.client.ethtool("eth0", gro="on", tx="off")

    def forward(self):
        """Plain routing between the two sides: not needed by xlb."""
        self.lb.sysctl(net__ipv4__ip_forward=1, net__ipv6__conf__all__forwarding=1)

    def add_backend(self, name):
        backend = Backend(self, name, 11 + len(self.backends))
        self.backends.append(backend)
        return backend

    def start(self, argv, log, **keywords):
        path = self.scratch / "log" / log
        with open(path, "ab") as output:
            keywords.setdefault("stdout", output)
            keywords.setdefault("stdin", subprocess.DEVNULL)
            process = subprocess.Popen(list(map(str, argv)), stderr=output, **keywords)
        process.log = path
        self._processes.append(process)
        return process

    def libvirtd(self):
        """A private one in the balancer's namespace; a context manager."""
        return Libvirtd(self.scratch / "lv", netns=str(self.lb.path))

    def reconciler(self, text, *options):
        """An installation whose services.yaml holds `text`; not started."""
        folder = self.scratch / "etc"
        folder.mkdir(exist_ok=True)
        (folder / "services.yaml").write_text(text)
        return Reconciler(self, folder / "services.yaml", *options)

    def close(self):
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + 5
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def print_logs(self, lines=30):
        for path in sorted((self.scratch / "log").iterdir()):
            text = [line for line in path.read_text(errors="replace").splitlines()
                    if "event=libbpf" not in line]
            text = text[-3 if path.suffix == ".json" else -lines:]
            if text:
                tap.note(f"--- {path.name}")
                tap.note("\n".join(text))
        for more in self.more_logs:
            tap.note(more())


_scratch = None
_labs = []
outer_pid = None


def group_of(folder, name):
    """The control group of what runs in the scratch folder's folder NAME."""
    place = os.path.join(folder, name) + "\n"
    return "xlb-" + hashlib.sha256(place.encode()).hexdigest()[:16]


def _clean(folder):
    # What a killed libvirtd of the lab's leaves; its own cleaner is inside.
    for name in ("lv", "systemd"):
        sandbox.remove_control_groups(group_of(folder, name))
    shutil.rmtree(folder, ignore_errors=True)


def enter():
    """Call first: goes on in a sandbox, with a scratch folder of its own."""
    global _scratch, outer_pid
    if os.geteuid() != 0:
        tap.skip_all("needs root")
    folder = sandbox.scratch_folder("xlb-lab.", os.environ.get("XLB_TEST_DIR"))
    os.environ["XLB_TEST_DIR"] = folder
    _scratch = folder
    outer_pid = sandbox.enter(cleanup=lambda: _clean(folder))
    sandbox.unwind_on_signals()


def main(make_lab):
    """Runs the script's tests on the lab that make_lab() gives."""
    try:
        with make_lab() as lab:
            status = tap.run(lab, on_failure=lab.print_logs)
    except tap.Skip as why:
        tap.skip_all(why)
    except Exception as why:
        for lab in _labs:
            lab.print_logs()
        tap.note(traceback.format_exc())
        print(f"Bail out! no lab: {why}", flush=True)
        status = 1
    except sandbox.Stopped as why:
        print(f"Bail out! stopped by {why}", flush=True)
        status = 128 + signal.SIGTERM
    sys.exit(status)
