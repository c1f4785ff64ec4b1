#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What is as declared is left alone: passes that find nothing to do write
nothing, neither to the kernel nor to the network nor to the store, as seen at
the system calls of all threads."""
import re
import shutil
import signal
import subprocess

import netlab
import lab
import tap
from lab import wait_for

lab.enter()

# Requests that change something; the rest asks, or moves probes' packets.
BPF_WRITES = re.compile(r"bpf\((BPF_MAP_UPDATE_ELEM|BPF_MAP_DELETE_ELEM|BPF_MAP_UPDATE_BATCH|BPF_MAP_CREATE"
                        r"|BPF_PROG_LOAD|BPF_OBJ_PIN|BPF_LINK_CREATE|BPF_LINK_UPDATE|BPF_LINK_DETACH)")
NET_WRITES = re.compile(r"RTM_(NEW|DEL|SET)\w+")
FILE_WRITES = re.compile(r"\b(pwrite64|ftruncate|fdatasync|fsync|unlink\w*|rename\w*)\(")
CALLS = "bpf,sendto,sendmsg,pwrite64,ftruncate,fdatasync,fsync,unlink,unlinkat,rename,renameat,renameat2"


def traced(made, do):
    """Lines of strace over all threads of the daemon while do() runs."""
    out = made.scratch / "strace"
    tracer = subprocess.Popen(["strace", "-f", "-y", "-s", "96", "-e", f"trace={CALLS}", "-o", out,
                               "-p", str(made.xlb.process.pid)], stderr=subprocess.PIPE, text=True)
    try:
        line = tracer.stderr.readline()
        if "attached" not in line:
            raise tap.Skip(f"strace can't attach: {line.strip()}")
        do()
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(30)
        tracer.stderr.close()
    return out.read_text().splitlines()


def writes(lines):
    return [line for line in lines
            if BPF_WRITES.search(line) or FILE_WRITES.search(line)
            or ("NETLINK" in line and NET_WRITES.search(line))]


def passes(made, count):
    """A refresh verifies everything and makes a pass."""
    for _ in range(count):
        made.xlb.verb("refresh", check=True)
        assert made.xlb.plan_is_empty()


def recorded(made):
    """Changes that went through the seam are all recorded."""
    return made.xlb.query("SELECT count(*) AS n FROM change_history")[0]["n"]


@tap.test
def unchanged(made):
    """passes without anything to do write nothing"""
    made.xlb.wait_converged()
    # What was applied is kept a little later, once.
    wait_for((made.xlb.state / "applied.yaml").exists, "what was applied to be kept", 30)
    before = recorded(made)
    lines = traced(made, lambda: passes(made, 5))
    asked = [line for line in lines if "bpf(BPF_MAP_LOOKUP" in line]
    assert asked, "no pass was seen to read the kernel's maps"
    assert not writes(lines), "\n".join(writes(lines)[:10])
    assert recorded(made) == before


@tap.test
def saved_unchanged(made):
    """so does a save of the same bytes"""
    text = made.xlb.file.read_text()

    def save():
        for _ in range(5):
            made.xlb.file.write_text(text)
            netlab.settle(0.05)
        assert made.xlb.plan_is_empty()

    found = writes(traced(made, save))
    assert not found, "\n".join(found[:10])


@tap.test
def changed(made):
    """and one weight is seen to be written, so that the test would see more"""
    text = made.xlb.file.read_text()
    changed = text.replace("]}", "], weight: 3}", 1)
    assert changed != text

    def save():
        known = made.xlb.revisions()
        made.xlb.apply(changed)
        wait_for(lambda: made.xlb.revisions() > known, "the revision to be recorded")

    found = writes(traced(made, save))
    assert any("BPF_MAP_UPDATE_ELEM" in line for line in found), found
    assert any("history.db" in line for line in found), found


def make():
    if not shutil.which("strace"):
        raise tap.Skip("no strace here")
    return netlab.make(2)


lab.main(make)
