#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing is left behind by a test that ends, and by one that is killed: no
process, mount, namespace, interface, pin, control group or file."""
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
import tap  # noqa: E402

HERE = Path(__file__).resolve().parent
SCRIPT = """
import os, sys, time
sys.path.insert(0, {here!r})
import netlab, lab
lab.enter()
with lab.Lab(client_addresses=2) as made:
    netlab.serve(made.add_backend("b1"))
    with made.libvirtd() as lv:
        made.xlb = made.reconciler(netlab.services(made.backends), "--libvirt", lv.qemu).start()
        lab.wait_for(lambda: netlab.answers(made, "192.0.2.10").startswith("b1"), "an answer", 30)
        print("up", lab.group_of(str(made.scratch), "lv"), flush=True)
        time.sleep(0 if {ends} else 1000)
"""


def marked(mark):
    """Processes of the script's, by a word in their environment."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and mark in Path(f"/proc/{entry}/environ").read_bytes():
                found.append((int(entry), Path(f"/proc/{entry}/comm").read_text().strip()))
        except OSError:
            pass
    return found


def groups(name):
    """Of that name, in any hierarchy; others make theirs at the same time."""
    out = set()
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind.startswith("cgroup"):
            out |= {str(p) for p in Path(where).glob(name)}
    return out


def traces(folder):
    return {
        "mounts": {" ".join(line.split()[3:]) for line in
                   Path("/proc/self/mountinfo").read_text().splitlines()},
        "interfaces": set(os.listdir("/proc/self/net/dev_snmp6")),
        "named namespaces": set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set(),
        "files": {str(p) for p in Path(folder).rglob("*")},
    }


def run_and(how, folder):
    mark = f"XLB_MARK={os.getpid()}-{time.monotonic_ns()}"
    env = dict(os.environ, XLB_TEST_DIR=str(folder))
    env.update([mark.split("=")])
    before = traces(folder)
    code = SCRIPT.format(here=str(HERE), ends=how is None)
    script = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
    lines = []
    for line in script.stdout:
        lines.append(line)
        if line.startswith("up"):
            break
    assert lines and lines[-1].startswith("up "), "".join(lines)
    group = lines[-1].split()[1]
    inside = marked(mark.encode())
    names = {name for _, name in inside}
    assert {"xlb-reconcile", "xlb-backend"} <= names, names
    assert how is None or groups(group), f"no control group {group}"
    if how is not None:
        script.send_signal(how)
    rest = script.stdout.read()
    status = script.wait(60)
    assert how is not None or status == 0, (status, rest)
    # The kernel takes a killed namespace apart in its own time, and who
    # sweeps up waits for that.
    end = time.monotonic() + 20
    while time.monotonic() < end:
        left = marked(mark.encode())
        after = traces(folder)
        new = {kind: after[kind] - before[kind] for kind in before}
        new["control groups"] = groups(group)
        if not left and not any(new.values()):
            break
        time.sleep(0.1)
    assert not left, left
    assert not any(new.values()), new


def folder():
    path = Path(os.environ.get("XLB_TEST_DIR", "/tmp")) / "left"
    path.mkdir(exist_ok=True)
    return path


@tap.test
def ended():
    """by one that ends"""
    run_and(None, folder())


@tap.test
def terminated():
    """by one that gets SIGTERM"""
    run_and(signal.SIGTERM, folder())


@tap.test
def interrupted():
    """by one that gets SIGINT"""
    run_and(signal.SIGINT, folder())


@tap.test
def killed():
    """by one that gets SIGKILL"""
    run_and(signal.SIGKILL, folder())


if os.geteuid() != 0:
    tap.skip_all("needs root")
status = tap.run()
folder().rmdir()
sys.exit(status)
