#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The store is full, locked, newer, damaged, lost or restored from a backup,
and the machine is rebooted: no client notices, what is in the kernel stays as
it is (or comes back as it was), and history goes on as soon as it can."""
import shutil
import sqlite3

import netlab
import bpfmap
import lab
import sandbox
import tap
from lab import wait_for
from netlab import TARGETS, check

lab.enter()
PINS = ("slots", "replies", "services", "owners", "direct", "addresses")


def database(made):
    return made.xlb.state / "history.db"


def kernel(made):
    return {pin: bpfmap.entries(made.xlb.bpffs / pin) for pin in PINS}


def fresh(made):
    """New connections to every service, meanwhile."""
    return {n: netlab.new_connections(made, t, 50) for n, t in TARGETS.items()}


def none_failed(loads):
    for name, load in loads.items():
        load.wait_answers(25)
        check(load.stop(), name)


def edit(made, count):
    """A file that differs each time, and moves nothing; applied."""
    made.xlb.apply(netlab.services(made.backends) + f"# edit {count}\n")


def revisions(made):
    return made.xlb.revisions()


def integrity(made):
    db = sqlite3.connect(database(made))
    try:
        return db.execute("PRAGMA integrity_check").fetchone()[0]
    finally:
        db.close()


def state_of(made, service, backend):
    status = made.xlb.status() or {}
    return next((b["state"] for s in status.get("services", []) if s["name"] == service
                 for b in s["backends"] if b["name"] == backend), None)


@tap.test
def disk_full(made):
    """a full disk: saves are applied, and recorded again once there is room"""
    loads = fresh(made)
    filler = made.xlb.state / "filler"
    with open(filler, "wb", buffering=0) as f:
        try:
            while True:
                f.write(bytes(4096))
        except OSError:
            pass
    # What is written over may fit: more than one, until one is lost.
    known = revisions(made)
    for i in range(1, 40):
        edit(made, i)
        if "result=lost" in made.xlb.log.read_text() or revisions(made) - known < i:
            break
    assert revisions(made) - known < i, "the disk wasn't full"
    filler.unlink()
    known = revisions(made)
    edit(made, 0)
    wait_for(lambda: revisions(made) > known, "a save to be recorded", 30)
    assert integrity(made) == "ok"
    none_failed(loads)


@tap.test
def locked_at_start(made):
    """a store that is locked when it starts is opened when it can be"""
    assert made.xlb.stop() == 0
    db = sqlite3.connect(database(made), isolation_level=None)
    db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("BEGIN EXCLUSIVE")
    try:
        made.xlb.start()
        netlab.wait_serving(made)
        assert "result=unavailable" in made.xlb.log_tail(200)
        edit(made, 1)
        done = made.xlb.verb("drain", "web/b1")
        assert done.returncode == 1 and "store" in done.stderr, done
    finally:
        db.execute("ROLLBACK")
        db.close()
    wait_for(lambda: made.xlb.verb("drain", "web/b1").returncode == 0, "the store", 30, 0.2)
    rows = made.xlb.query("SELECT result FROM revisions ORDER BY id DESC LIMIT 1")
    assert rows[0]["result"] == "applied", rows
    wait_for(lambda: state_of(made, "web", "b1") == "drained", "b1 to be drained")
    made.xlb.verb("undrain", "web/b1", check=True)


@tap.test
def newer_then_moved(made):
    """one of a newer xlb isn't touched; moved away, a new one is made"""
    assert made.xlb.stop() == 0
    db = sqlite3.connect(database(made))
    version = db.execute("PRAGMA user_version").fetchone()[0]
    db.execute("PRAGMA user_version = 99")
    db.commit()
    db.close()
    before = database(made).read_bytes()
    made.xlb.start()
    netlab.wait_serving(made)
    edit(made, 2)
    assert database(made).read_bytes() == before
    kept = database(made).with_name("newer.db")
    database(made).rename(kept)
    wait_for(lambda: database(made).exists() and revisions(made) == 1, "a new store", 30)
    assert made.xlb.stop() == 0
    kept.rename(database(made))
    db = sqlite3.connect(database(made))
    db.execute(f"PRAGMA user_version = {version}")
    db.commit()
    db.close()
    for extra in made.xlb.state.glob("history.db-*"):
        extra.unlink()
    made.xlb.start()
    netlab.wait_serving(made)


def remove_store(made):
    for path in made.xlb.state.glob("history.db*"):
        path.unlink()


@tap.test
def lost_while_it_runs(made):
    """removed while it runs: overrides hold, and history begins anew"""
    made.xlb.verb("drain", "web/b2", check=True)
    made.xlb.wait_converged()
    before, loads = kernel(made), fresh(made)
    remove_store(made)
    wait_for(lambda: revisions(made) == 1, "a new store", 30)
    assert made.xlb.query("SELECT result FROM revisions")[0]["result"] == "applied"
    made.xlb.wait_converged()
    assert state_of(made, "web", "b2") == "drained" and kernel(made) == before
    none_failed(loads)
    # And they are in the new one.
    made.xlb.kill9()
    made.xlb.start()
    made.xlb.wait_converged()
    assert state_of(made, "web", "b2") == "drained"
    made.xlb.verb("undrain", "web/b2", check=True)
    made.xlb.wait_converged()


def backup(made):
    path = made.scratch / "backup.db"
    path.unlink(missing_ok=True)
    source, copy = sqlite3.connect(database(made)), sqlite3.connect(path)
    source.backup(copy)
    source.close()
    copy.close()
    return path


@tap.test
def restored_while_it_runs(made):
    """a backup put in its place while it runs: what is known since holds"""
    old = backup(made)
    made.xlb.verb("drain", "web/b3", check=True)
    edit(made, 3)
    before, loads = kernel(made), fresh(made)
    remove_store(made)
    shutil.move(old, database(made))
    wait_for(lambda: "result=replaced" in made.xlb.log_tail(400), "the backup to be seen", 30)
    wait_for(lambda: made.xlb.query("SELECT 1 FROM operator_override WHERE key = 'web/b3'"),
             "the override in the backup", 30)
    assert state_of(made, "web", "b3") == "drained" and kernel(made) == before
    none_failed(loads)
    made.xlb.verb("undrain", "web/b3", check=True)
    made.xlb.wait_converged()


@tap.test
def lost_while_stopped(made):
    """removed, or an old one put there, while it doesn't run: nothing is written"""
    old = backup(made)
    edit(made, 4)
    for replacement in (None, old):
        before, loads = kernel(made), fresh(made)
        assert made.xlb.stop() == 0
        remove_store(made)
        if replacement:
            shutil.copy(replacement, database(made))
        made.xlb.start()
        made.xlb.wait_converged()
        assert kernel(made) == before
        none_failed(loads)


@tap.test
def killed_in_writes(made):
    """kill -9 among saves: the store is whole, and the end is the same"""
    for i in range(5):
        made.xlb.write(netlab.services(made.backends[: 1 + i % 3]))
        netlab.settle(0.003 * i)
        made.xlb.kill9()
        assert integrity(made) == "ok"
        made.xlb.start()
    made.xlb.write(netlab.services(made.backends))
    netlab.wait_serving(made)
    made.xlb.wait_converged()


def reboot(made):
    """Pins, programs, addresses and sysctls are gone."""
    assert made.xlb.stop() == 0
    for path in made.xlb.bpffs.iterdir():
        path.unlink()
    made.xlb.bpffs.rmdir()
    made.lb.run(["tc", "qdisc", "del", "dev", "br0", "clsact"])
    for vip in (*netlab.NAT_VIPS, *netlab.DSR_VIPS):
        made.lb.ip(f"address del {vip}/{128 if ':' in vip else 32} dev uplink")
    for name in ("uplink", "br0"):
        made.lb.sysctl(**{f"net__ipv4__conf__{name}__forwarding": 0,
                          f"net__ipv6__conf__{name}__forwarding": 0})
    assert "xlb" not in made.lb.out(["ip", "-d", "link", "show", "uplink"])


@tap.test
def rebooted(made):
    """after a reboot all is made again"""
    names = {s["name"] for s in made.xlb.status()["services"]}
    reboot(made)
    made.xlb.start()
    netlab.wait_serving(made)
    assert {s["name"] for s in made.xlb.status()["services"]} == names
    wait_for(lambda: made.xlb.verb("status", "--check").returncode == 0, "status --check", 30, 0.1)


def all_up(made):
    status = made.xlb.status()
    states = status and {b["state"] for s in status["services"] for b in s["backends"]}
    return status if states == {"up"} else None


@tap.test
def rebooted_with_a_bad_file(made):
    """started with a file that is wrong, held or gone, it goes on with what was applied last"""
    good = made.xlb.file.read_text()
    for bad, state in ((good.replace("drain:", "drian:", 1), "stale"),
                       ("version: 1\nservices: []\n", "held"), (None, "stale")):
        if bad:
            assert bad != good
            made.xlb.write(bad)
        else:
            made.xlb.file.unlink()
        reboot(made)
        made.xlb.start()
        for target in TARGETS.values():
            wait_for(lambda to=target: netlab.answers(made, to), f"{target} to be served", 30)
        status = wait_for(lambda: all_up(made), "all backends to be up")
        assert status["file"]["state"] == state and status["file"]["errors"], status["file"]
        assert made.xlb.verb("status", "--check").returncode == 1
        made.xlb.apply(good)
        wait_for(lambda: made.xlb.verb("status", "--check").returncode == 0, "status --check", 30,
                 0.1)


def make():
    """The state is on a small disk of its own."""
    made = lab.Lab(client_addresses=20)
    sandbox.mount("tmpfs", made.scratch / "state", "tmpfs", 0, "size=2m")
    made.client.ip("address add 192.0.2.200/24 dev eth0",
                   "address add 2001:db8::200/64 dev eth0 nodad preferred_lft 0")
    for i in range(3):
        netlab.serve(made.add_backend(f"b{i + 1}"))
    made.xlb = made.reconciler(netlab.services(made.backends)).start()
    netlab.wait_serving(made)
    return made


lab.main(make)
