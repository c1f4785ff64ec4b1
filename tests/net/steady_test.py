#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What may go wrong around a running reconciler, without harm: files that are
refused, plans for other files, a store that is held or lost, interfaces and
hypervisors that are away; and how `run --once` ends."""
import signal
import sqlite3
import subprocess

import netlab
import lab
import tap
from lab import wait_for
from netlab import TARGETS

lab.enter()

AWAY = """hypervisors: [{name: away, uri: "qemu+unix:///system?socket=/nowhere/sock"}]
templates:
  - {name: t, kernel: /nowhere/k, initrd: /nowhere/i, memory: 96MiB,
     network: {bridge: br0, addresses: ["10.77.0.100-10.77.0.110/24"]}}
"""
POOLED = """  - {name: pooled, vips: [192.0.2.40], protocol: tcp, ports: [80],
     pool: {template: t, min: 1, max: 2, hypervisors: [away]}}
"""


def with_pool(made):
    return netlab.services(made.backends).replace("services:", AWAY + "services:", 1) + POOLED


def state(made, service, backend):
    status = made.xlb.status() or {}
    return next((b["state"] for s in status.get("services", []) if s["name"] == service
                 for b in s["backends"] if b["name"] == backend), None)


def health_rows(made, backend):
    return made.xlb.query("SELECT * FROM health_history WHERE backend = ?", backend)


def file_state(made):
    return (made.xlb.status() or {"file": {}})["file"].get("state")


def break_b2(made):
    b2 = made.backends[1]
    b2.server.send_signal(signal.SIGSTOP)  # a port that refuses is dead, not down
    wait_for(lambda: all(state(made, s, "b2") == "down"
                         for s in ("web", "echo", "web-dsr", "echo-dsr")), "b2 to be down", 30)
    return health_rows(made, "b2")


@tap.test
def refused_file_keeps_health(made):
    """a file that is held back makes no failing backend count as up"""
    before = break_b2(made)
    good = made.xlb.file.read_text()
    made.xlb.write(netlab.HEADER.replace("services:", "services: []"))
    wait_for(lambda: file_state(made) == "held", "the file to be held")
    assert state(made, "web", "b2") == "down", made.xlb.log_tail()
    assert netlab.answers(made, TARGETS["nat v4"]).startswith("b")
    made.xlb.write(good)
    wait_for(lambda: file_state(made) == "applied", "the good file to be back")
    assert state(made, "web", "b2") == "down", made.xlb.log_tail()
    assert health_rows(made, "b2") == before


@tap.test
def plan_for_another_file(made):
    """plan -f FILE shows that file's changes and leaves probes alone"""
    before = health_rows(made, "b2")
    other = made.scratch / "other.yaml"
    other.write_text(netlab.services(made.backends[:1]))
    done = made.lb.run([lab.BUILD / "xlb-reconcile", "-f", other, "--state-dir",
                        made.xlb.state, "--bpffs", made.xlb.bpffs, "plan",
                        "--detailed-exitcode"], check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "b3 drains" in done.stdout, done.stdout
    assert state(made, "web", "b2") == "down", made.xlb.log_tail()
    assert health_rows(made, "b2") == before
    made.backends[1].server.send_signal(signal.SIGCONT)
    wait_for(lambda: state(made, "web", "b2") == "up", "b2 to be up again", 30)


@tap.test
def store_held(made):
    """a save is applied while somebody holds the database"""
    db = sqlite3.connect(made.xlb.state / "history.db", isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    try:
        made.xlb.apply(netlab.services(made.backends[1:]))
        assert netlab.answers(made, TARGETS["nat v4"]).startswith(("b2", "b3"))
    finally:
        db.execute("ROLLBACK")
        db.close()
    known = made.xlb.revisions()
    made.xlb.apply(netlab.services(made.backends))
    wait_for(lambda: made.xlb.revisions() > known, "the next save to be recorded")


@tap.test
def store_broken(made):
    """it runs without a store that can't be read"""
    made.xlb.stop()
    path = made.xlb.state / "history.db"
    for extra in made.xlb.state.glob("history.db-*"):
        extra.unlink()
    kept = path.read_bytes()
    path.write_bytes(b"not a database at all" * 300)
    made.xlb.start()
    netlab.wait_serving(made)
    made.xlb.apply(netlab.services(made.backends[:2]))
    made.xlb.apply(netlab.services(made.backends))
    assert made.xlb.stop() == 0
    path.write_bytes(kept)
    made.xlb.start()
    netlab.wait_serving(made)


@tap.test
def interface_goes(made):
    """an uplink that vanishes and comes back is attached again"""
    made.lb.ip("link set uplink name elsewhere")
    wait_for(lambda: not made.xlb.plan_is_empty() or made.xlb.status()["interfaces"],
             "the loss to be noticed")
    made.xlb.alive()
    made.lb.ip("link set elsewhere name uplink")
    netlab.wait_serving(made)


@tap.test
def odd_files(made):
    """a missing file, a folder in its place, a folder of files"""
    good = made.xlb.file.read_text()
    made.xlb.file.unlink()
    wait_for(lambda: file_state(made) == "stale", "the loss of the file to be told")
    made.xlb.file.mkdir()
    assert netlab.answers(made, TARGETS["nat v4"]).startswith("b")
    made.xlb.file.rmdir()
    made.xlb.write(good)
    wait_for(lambda: file_state(made) == "applied", "the file to be back")
    made.xlb.wait_converged()
    assert made.xlb.stop() == 0
    made.xlb.file.unlink()
    made.xlb.start()
    wait_for(lambda: file_state(made) == "stale", "a start without a file")
    made.xlb.write(good)
    wait_for(lambda: file_state(made) == "applied", "a file that appears")
    netlab.wait_serving(made)


def once(made, text, limit="20s"):
    made.xlb.file.write_text(text)
    done = made.xlb.verb("run", "--once", "--timeout", limit)
    print("# " + "\n# ".join((done.stdout + done.stderr).splitlines()[-3:]))
    return done.returncode


@tap.test
def exit_codes(made):
    """run --once: 0 converged, 1 not in time, 3 invalid, 4 held"""
    assert made.xlb.stop() == 0
    good = netlab.services(made.backends)
    assert once(made, good) == 0
    assert once(made, good + "nonsense: 1\n") == 3
    assert once(made, netlab.HEADER.replace("services:", "services: []")) == 4
    assert once(made, with_pool(made), "2s") == 1
    assert once(made, good) == 0


@tap.test
def hypervisor_away(made):
    """a hypervisor that can't be reached holds up nothing else"""
    made.xlb.write(with_pool(made))
    made.xlb.start()
    wait_for(lambda: all(netlab.answers(made, t).startswith("b") for t in TARGETS.values()),
             "answers", 30)
    status = made.xlb.status()
    assert [h["connected"] for h in status["hypervisors"]] == [False], status["hypervisors"]
    assert not status["vms"] and not status["converged"], status
    assert made.xlb.stop() == 0


FOREIGN = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int theirs(struct xdp_md *c) { return XDP_PASS; }
"""


@tap.test
def failing_again(made):
    """what fails in the same way again is recorded once, and done when it can be"""
    made.xlb.write(netlab.services(made.backends))
    assert made.xlb.verb("destroy", "--yes").returncode == 0
    program = made.scratch / "theirs.o"
    subprocess.run(["clang", "-O2", "-g", "-target", "bpf", "-I/usr/include/x86_64-linux-gnu",
                    "-xc", "-c", "-", "-o", program], input=FOREIGN, text=True, check=True)
    # Without this ip makes folders in the machine's bpffs.
    made.lb.run(["env", f"TC_BPF_MNT={made.xlb.bpffs.parent}", "ip", "link", "set", "dev",
                 "uplink", "xdp", "obj", program, "sec", "xdp"])
    made.xlb.start()
    failed = ("SELECT error FROM change_history WHERE object = 'node/link/uplink'"
              " AND result = 'failed'")
    wait_for(lambda: made.xlb.query(failed), "the failure to be recorded")
    for _ in range(4):
        made.xlb.verb("refresh", check=True)
        netlab.settle(0.05)
    rows = made.xlb.query(failed)
    assert len(rows) == 1 and "theirs" in rows[0]["error"], rows
    made.lb.ip("link set dev uplink xdp off")
    netlab.wait_serving(made)


lab.main(netlab.make)
