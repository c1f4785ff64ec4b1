#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Somebody uses virsh on VMs of ours: what is ours is seen and repaired, what
isn't, or does no harm, is told in status and left alone.

Containers, as they start at once.  While harm is done the daemon is held, and
`status --check` of one who looks by himself must be 1.
"""
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
import lab  # noqa: E402
import tap  # noqa: E402
from lab import wait_for  # noqa: E402
from pool import Pool  # noqa: E402
from tap import test  # noqa: E402



def check(pool):
    return pool.xlb.verb("status", "--check")


def wait_ok(pool, names):
    pool.wait_ready(names)
    wait_for(lambda: check(pool).returncode == 0, "status --check to be 0", 30, 0.1)


def harmed(pool, harm):
    """Held, harmed, seen; then it goes on.  When that was, in ms."""
    began = int(time.time() * 1000)
    with pool.xlb.held():
        assert check(pool).returncode == 0
        harm()
        seen = check(pool)
        assert seen.returncode == 1, seen.stdout
    return began


def events(pool, vm, since):
    return [r["event"] for r in pool.xlb.query(
        "SELECT event FROM vm_history WHERE vm = ? AND time_ms >= ? ORDER BY time_ms, rowid",
        vm, since)]


def changes(pool, vm, since):
    return [r["action"] for r in pool.xlb.query(
        "SELECT action FROM change_history WHERE object = ? AND time_ms >= ? AND result = 'done'"
        " ORDER BY time_ms", f"service.web/vm/{vm}", since)]


def uuid(pool, name):
    return pool.virsh("domuuid", name).stdout.strip()


def define(pool, xml):
    path = pool.lab.scratch / "edited.xml"
    path.write_text(xml)
    pool.virsh("define", str(path))


def undefine_all_but(pool, names):
    for name in pool.domains():
        if name not in names:
            pool.virsh("destroy", name, check=False)
            pool.virsh("undefine", name, check=False)


@test
def starts(pool):
    """two containers serve"""
    pool.xlb.file.write_text(pool.text(minimum=2, maximum=2))
    pool.xlb.start()
    wait_ok(pool, ["web-1", "web-2"])


@test
def destroyed(pool):
    """one that is destroyed is replaced"""
    before = uuid(pool, "web-1")
    began = harmed(pool, lambda: pool.virsh("destroy", "web-1"))
    wait_ok(pool, ["web-1", "web-2"])
    assert uuid(pool, "web-1") != before
    assert "replace" in changes(pool, "web-1", began), changes(pool, "web-1", began)


@test
def undefined(pool):
    """one that is undefined is made again"""
    def harm():
        pool.virsh("destroy", "web-2")
        pool.virsh("undefine", "web-2", check=False)
    began = harmed(pool, harm)
    wait_ok(pool, ["web-1", "web-2"])
    assert "repair" in changes(pool, "web-2", began) or "replace" in changes(pool, "web-2", began)
    assert events(pool, "web-2", began)[-1] == "ready"


@test
def undefined_while_it_runs(pool):
    """one that is undefined and runs on is ours until it stops, and then replaced"""
    before, began = uuid(pool, "web-2"), int(time.time() * 1000)
    pool.virsh("undefine", "web-2")
    pool.xlb.verb("refresh", check=True)
    wait_ok(pool, ["web-1", "web-2"])
    assert uuid(pool, "web-2") == before
    pool.virsh("destroy", "web-2")
    wait_for(lambda: "ready" in events(pool, "web-2", began), "another one", 30)
    wait_ok(pool, ["web-1", "web-2"])
    assert uuid(pool, "web-2") != before


@test
def edited(pool):
    """a harmless edit is told of, and changes nothing"""
    before = uuid(pool, "web-1")
    pool.virsh("setmaxmem", "web-1", "131072", "--config")
    note = wait_for(lambda: re.search(r"the domain of web-1 was edited: memory 131072 KiB.*",
                                      pool.xlb.verb("status").stdout), "the note", 30, 0.1)
    assert "instead of 98304" in note[0], note[0]
    assert check(pool).returncode == 0 and uuid(pool, "web-1") == before
    pool.virsh("destroy", "web-1")
    wait_for(lambda: uuid(pool, "web-1") != before, "a new one", 30)
    wait_ok(pool, ["web-1", "web-2"])
    assert "was edited" not in pool.xlb.verb("status").stdout


def rename(pool, old, new):
    """What domrename does, which the lxc driver hasn't got."""
    xml = pool.virsh("dumpxml", "--inactive", old).stdout
    pool.virsh("destroy", old)
    pool.virsh("undefine", old, check=False)
    define(pool, xml.replace(f"<name>{old}</name>", f"<name>{new}</name>"))
    pool.virsh("start", new)


@test
def renamed(pool):
    """one that was renamed is told of and left alone; nothing of it is used again"""
    address = pool.vms()["web-1"]["address"]
    harmed(pool, lambda: rename(pool, "web-1", "mine"))
    wait_ok(pool, ["web-2", "web-3"])
    mine = uuid(pool, "mine")
    assert pool.vms()["web-3"]["address"] != address, pool.vms()
    assert "the domain mine on local is the VM web-1 under another name" in \
        pool.xlb.verb("status").stdout
    assert uuid(pool, "mine") == mine and pool.domains() == ["mine", "web-2", "web-3"]
    undefine_all_but(pool, ["web-2", "web-3"])
    wait_for(lambda: "under another name" not in pool.xlb.verb("status").stdout, "no note", 30, 0.1)


@test
def metadata_removed(pool):
    """one whose metadata was removed is nobody's of ours: its name and address stay its own"""
    address = pool.vms()["web-2"]["address"]
    before = uuid(pool, "web-2")
    for where in ("--config", "--live"):
        pool.virsh("metadata", "web-2", "--uri", "urn:xlb:1", "--remove", where, check=False)
    if "urn:xlb:1" in pool.virsh("dumpxml", "web-2").stdout:
        raise tap.Skip("this libvirtd can't take metadata from a running container")
    wait_ok(pool, ["web-1", "web-3"])
    assert pool.vms()["web-1"]["address"] != address, pool.vms()
    assert "the domain web-2 on local isn't xlb's" in pool.xlb.verb("status").stdout
    assert uuid(pool, "web-2") == before, "it was touched"
    undefine_all_but(pool, ["web-1", "web-3"])
    wait_for(lambda: "isn't xlb's" not in pool.xlb.verb("status").stdout, "no note", 30, 0.1)


@test
def foreign(pool):
    """a domain of somebody else's under the next name is told of, and another name is taken"""
    xml = pool.virsh("dumpxml", "web-1").stdout
    xml = re.sub(r"<uuid>.*?</uuid>|<metadata>.*?</metadata>|<mac [^>]*/>", "", xml, flags=re.S)
    define(pool, re.sub(r"<name>.*?</name>", "<name>web-2</name>", xml))
    theirs = uuid(pool, "web-2")
    pool.xlb.write(pool.text(minimum=3, maximum=3))
    wait_ok(pool, ["web-1", "web-3", "web-4"])
    assert "the domain web-2 on local isn't xlb's" in pool.xlb.verb("status").stdout
    assert uuid(pool, "web-2") == theirs
    pool.virsh("undefine", "web-2")


@test
def ends(pool):
    """destroy leaves no domain of ours"""
    assert pool.xlb.stop() == 0
    assert pool.xlb.verb("destroy", "--yes").returncode == 0
    assert pool.domains() == [], pool.domains()


if __name__ == "__main__":
    lab.enter()
    lab.main(lambda: Pool("lxc"))
