#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The private libvirtd leaves nothing behind, however its owner ends."""
import glob
import os
import signal
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tests/lib"))
from libvirtd import Libvirtd  # noqa: E402

GUEST = """<domain type='qemu'><name>idle</name><memory unit='MiB'>16</memory>
<os><type>hvm</type></os></domain>"""
CONTAINER = """<domain type='lxc'><name>idle</name><memory unit='MiB'>16</memory>
<os><type>exe</type><init>/bin/sleep</init><initarg>1000</initarg></os>
<devices><console type='pty'/></devices></domain>"""
PATIENCE = 60


def own(directory):
    """Starts one with a guest and a container; never returns."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Libvirtd(directory) as lv:
        run_guests(lv, directory)
        print("ready", flush=True)
        while True:
            signal.pause()


def run_guests(lv, directory):
    for uri, xml in ((lv.qemu, GUEST), (lv.lxc, CONTAINER)):
        path = os.path.join(directory, "domain.xml")
        with open(path, "w") as f:
            f.write(xml)
        lv.virsh("create", path, uri=uri)


def namespace_of(pid, kind="pid"):
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return None


def inside(namespaces):
    """Processes in one of these process namespaces."""
    return [p for p in os.listdir("/proc")
            if p.isdigit() and namespace_of(p) in namespaces]


def descendants(pid):
    found, todo = [], [pid]
    while todo:
        try:
            with open(f"/proc/{todo[0]}/task/{todo.pop(0)}/children") as f:
                children = [int(x) for x in f.read().split()]
        except OSError:
            continue
        found += children
        todo += children
    return found


def left(directory, namespaces):
    """What is still there of it, in words."""
    out = [f"process {p}" for p in inside(namespaces)]
    out += [directory] if os.path.exists(directory) else []
    out += glob.glob("/sys/fs/cgroup/**/xlb-" + GROUP[directory],
                     recursive=True)
    with open("/proc/self/mounts") as f:
        out += [line.strip() for line in f if directory in line]
    return out


GROUP = {}


def check(sig):
    directory = tempfile.mkdtemp(prefix="xlb-h.")
    GROUP[directory] = subprocess.run(
        f"echo {directory} | sha256sum | cut -c 1-16", shell=True,
        stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    owner = subprocess.Popen([sys.executable, __file__, directory],
                             stdout=subprocess.PIPE, text=True)
    if owner.stdout.readline() != "ready\n":
        raise AssertionError("it doesn't start")
    own_namespace = namespace_of("self")
    namespaces = {namespace_of(p) for p in descendants(owner.pid)}
    namespaces -= {own_namespace, None}
    count = len(inside(namespaces))
    if count < 5:  # tini, its shell, libvirtd, a guest, a container's keeper
        raise AssertionError(f"only {count} processes inside")
    if not glob.glob("/sys/fs/cgroup/**/xlb-" + GROUP[directory],
                     recursive=True):
        raise AssertionError("no control group of its own")
    owner.send_signal(sig)
    owner.wait()
    end = time.monotonic() + PATIENCE
    while rest := left(directory, namespaces):
        if time.monotonic() > end:
            raise AssertionError("left behind: " + ", ".join(rest))
        time.sleep(0.1)


def main():
    if len(sys.argv) == 2:
        own(sys.argv[1])
    if os.geteuid():
        print("1..0 # SKIP needs root")
        return 0
    tests = (("stopped", signal.SIGTERM), ("killed", signal.SIGKILL))
    print(f"1..{len(tests)}", flush=True)
    failed = 0
    for i, (name, sig) in enumerate(tests, 1):
        try:
            check(sig)
            print(f"ok {i} - nothing is left when its owner is {name}",
                  flush=True)
        except Exception as e:
            failed += 1
            print(f"not ok {i} - nothing is left when its owner is {name}\n"
                  f"# {type(e).__name__}: {e}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
