#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Domains that somebody made with virsh join a pool when they are asked to,
take traffic, and are let go as they are.  Containers, as they start at once;
and emulated machines that are off, which can be renamed."""
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
import lab  # noqa: E402
from lab import wait_for  # noqa: E402
from pool import Pool  # noqa: E402
from tap import test  # noqa: E402

THEIRS = ('<metadata><xlb:vm xmlns:xlb="urn:xlb:1" owner="ffffffffffffffff" service="web" '
          'index="1" template="0"/></metadata>')


def text(pool, minimum=2, maximum=4):
    """Nothing but the bounds, and what was adopted, moves the count."""
    return re.sub(r"    scaling:\n.*", "", pool.text(minimum, maximum), flags=re.S)


def container(pool, name, number, memory=96, metadata="", like="web-1"):
    """One as the pool's template makes them, but by hand."""
    out = pool.virsh("dumpxml", "--inactive", like).stdout
    out = re.sub(r"<uuid>.*?</uuid>|<metadata>.*?</metadata>|<mac [^>]*/>", "", out, flags=re.S)
    out = out.replace(f"<name>{like}</name>", f"<name>{name}</name>{metadata}")
    out = re.sub(r"(XLB_NAME'>)[^<]*", rf"\g<1>{name}", out)
    out = re.sub(r"address='10\.77\.0\.\d+'", f"address='10.77.0.{number}'", out)
    out = re.sub(r"address='fd00:77::\w+'", f"address='fd00:77::{number}'", out)
    out = re.sub(r"<(memory|currentMemory) [^>]*>[^<]*", rf"<\1 unit='MiB'>{memory}", out)
    define(pool, pool.uri, name, out)


def define(pool, uri, name, xml):
    path = pool.lab.scratch / f"{name}.xml"
    path.write_text(xml)
    pool.lab.lb.run(["virsh", "-q", "-c", uri, "define", path])


def metadata(pool, name):
    return "urn:xlb:1" in pool.virsh("dumpxml", name).stdout


def listed(pool, *words):
    done = pool.xlb.verb("adopt", "--json", *words)
    assert done.returncode == 0, done
    return {d["domain"]: d for d in json.loads(done.stdout)}


def refused(pool, complaint, *words):
    done = pool.xlb.verb("adopt", *words)
    assert done.returncode == 1 and complaint in done.stderr, (words, done)


def uuid(pool, name):
    return pool.virsh("domuuid", name).stdout.strip()


def answers(pool):
    return {pool.ask() for _ in range(40)} | {pool.ask("[2001:db8::10]") for _ in range(40)}


@test
def lists(pool):
    """what fits, as what, and why others don't; nothing is changed"""
    pool.xlb.file.write_text(text(pool))
    pool.xlb.start()
    pool.wait_ready(["web-1", "web-2"])
    container(pool, "legacy", 30)
    container(pool, "small", 31, memory=64)
    container(pool, "theirs", 32, metadata=THEIRS)
    container(pool, "double", 30)
    pool.virsh("start", "legacy")
    before = {n: pool.virsh("dumpxml", n).stdout for n in pool.domains()}
    found = listed(pool)
    assert set(found) == {"legacy", "small", "theirs", "double"}, found
    pool.virsh("undefine", "double")
    assert not found["legacy"]["fits"] and "another's" in found["legacy"]["why"], found
    found = listed(pool)
    legacy = found["legacy"]
    assert legacy["fits"] and legacy["service"] == "web" and legacy["index"] == 3, legacy
    assert legacy["addresses"] == ["10.77.0.30", "fd00:77::30"] and legacy["state"] == "running"
    assert not found["small"]["fits"] and "64 MiB, not 96 MiB" in found["small"]["why"], found
    assert found["theirs"]["fits"] and found["theirs"]["owner"] == "f" * 16, found
    done = pool.xlb.verb("adopt")
    assert "legacy on local, running: fits web, as 3" in done.stdout, done
    assert "only if named" in done.stdout, done
    done = pool.xlb.verb("adopt", "legacy", "--dry-run")
    assert done.returncode == 0 and "would take legacy over" in done.stdout, done
    refused(pool, "64 MiB, not 96 MiB", "small")
    refused(pool, "of another xlb", "theirs")
    refused(pool, "no such domain", "nobody")
    refused(pool, "no such domain", "web-1")
    # All or none.
    refused(pool, "64 MiB", "legacy", "small")
    del before["double"]
    assert {n: pool.virsh("dumpxml", n).stdout for n in pool.domains()} == before
    assert pool.ready() == ["web-1", "web-2"]


@test
def joins(pool):
    """one that runs joins under its own name and takes traffic; one of ours goes for it"""
    before = uuid(pool, "legacy")
    done = pool.xlb.verb("adopt", "legacy")
    assert done.returncode == 0 and "legacy is one of web now, as 3" in done.stdout, done
    pool.wait_ready(["legacy", "web-1"])
    wait_for(lambda: answers(pool) == {"legacy", "web-1"}, "answers of both", 20)
    assert uuid(pool, "legacy") == before
    wait_for(lambda: pool.domains() == ["legacy", "small", "theirs", "web-1"],
             "one of ours to go", 30)
    pool.xlb.wait_converged()
    events = [r["event"] for r in pool.xlb.query(
        "SELECT event FROM vm_history WHERE vm = 'legacy' ORDER BY time_ms, rowid")]
    assert events[0] == "adopted" and "ready" in events, events
    assert "legacy" not in listed(pool)
    # It is found again by its metadata.
    assert pool.xlb.stop() == 0
    pool.xlb.start()
    pool.wait_ready(["legacy", "web-1"])
    pool.xlb.wait_converged()
    assert uuid(pool, "legacy") == before


@test
def joins_off(pool):
    """another installation's, when that is said twice; it was off, and is started"""
    done = pool.xlb.verb("adopt", "theirs", "--yes")
    assert done.returncode == 0, done
    pool.wait_ready(["legacy", "theirs"])
    wait_for(lambda: answers(pool) == {"legacy", "theirs"}, "answers of both", 20)
    wait_for(lambda: "web-1" not in pool.domains(), "the last one of ours to go", 30)
    for name, number in (("a", 33), ("b", 34), ("c", 35)):
        container(pool, name, number, like="legacy")
    done = pool.xlb.verb("adopt", "--yes")
    assert done.returncode == 0, done
    # They are beyond min, and stay: no more than max are taken.
    pool.wait_ready(["a", "b", "legacy", "theirs"])
    assert "max of 4" in listed(pool)["c"]["why"], listed(pool)
    pool.virsh("undefine", "c")


@test
def released(pool):
    """one that is let go runs on; below min, a guest of ours takes its place"""
    for name in ("a", "b"):
        assert pool.xlb.verb("adopt", "--release", name).returncode == 0
    pool.wait_ready(["legacy", "theirs"])
    before = uuid(pool, "legacy")
    done = pool.xlb.verb("adopt", "--release", "legacy")
    assert done.returncode == 0 and "goes on as it is" in done.stdout, done
    assert not metadata(pool, "legacy")
    pool.wait_ready(["theirs", "web-1"])
    wait_for(lambda: "legacy" not in answers(pool), "no answers of it", 20)
    assert uuid(pool, "legacy") == before and "running" in pool.virsh("domstate", "legacy").stdout
    refused(pool, "it was not adopted", "--release", "web-1")
    refused(pool, "no such domain", "--release", "legacy")


@test
def let_go_by_the_pool(pool):
    """a pool whose max falls drains it and lets it go; it isn't stopped or undefined"""
    for name in ("a", "b"):
        pool.xlb.verb("adopt", name, check=True)
    pool.wait_ready(["a", "b", "theirs"])
    pool.xlb.apply(text(pool, 1, 1))
    wait_for(lambda: len(pool.vms()) == 1, "one guest", 60, 0.2)
    kept = set(pool.ready())
    gone = {"a", "b", "theirs"} - kept
    assert len(gone) == 2, kept
    for name in gone:
        wait_for(lambda n=name: not metadata(pool, n), f"{name} to be let go", 30)
        assert "running" in pool.virsh("domstate", name).stdout
        events = [r["event"] for r in pool.xlb.query(
            "SELECT event FROM vm_history WHERE vm = ? ORDER BY time_ms, rowid", name)]
        assert events[-2:] == ["draining", "removed"], events


@test
def destroyed(pool):
    """destroy removes what xlb made, and lets go what it didn't"""
    pool.xlb.apply(text(pool, 3, 4))
    pool.xlb.verb("adopt", "legacy", check=True)
    wait_for(lambda: "legacy" in pool.ready() and "web-1" in pool.ready(), "both kinds", 60, 0.2)
    before = uuid(pool, "legacy")
    assert pool.xlb.stop() == 0
    plan = pool.xlb.verb("destroy", "--dry-run")
    assert "service.web/vm/legacy let go: it was adopted" in re.sub(r" +", " ", plan.stdout), plan
    assert pool.xlb.verb("destroy", "--yes").returncode == 0
    left = pool.domains()
    assert "legacy" in left and not any(n.startswith("web-") for n in left), left
    assert uuid(pool, "legacy") == before and "running" in pool.virsh("domstate", "legacy").stdout
    assert not metadata(pool, "legacy")
    for name in left:
        pool.virsh("destroy", name, check=False)
        pool.virsh("undefine", name)


@test
def machines(pool):
    """an emulated machine that is off gets the pool's name; its address is told"""
    uri = pool.libvirtd.qemu
    guest = lab.BUILD / "guest"
    file = pool.xlb.file
    file.write_text(text(pool).replace(pool.uri, uri).replace(
        f"cmdline: {lab.BUILD}/xlb-backend -p 80",
        f"kernel: {guest}/vmlinuz\n    initrd: {guest}/initrd"))
    define(pool, uri, "oldie", f"""<domain type='qemu'><name>oldie</name>
<memory unit='MiB'>96</memory><vcpu>1</vcpu><os><type>hvm</type><kernel>{guest}/vmlinuz</kernel>
<initrd>{guest}/initrd</initrd></os><devices><interface type='bridge'><source bridge='br0'/>
</interface></devices></domain>""")
    found = listed(pool)["oldie"]
    assert not found["fits"] and "IPv4 address isn't known" in found["why"], found
    refused(pool, "IPv4 address isn't known", "oldie")
    refused(pool, "IPv6 address isn't known", "oldie", "--address", "10.77.0.20")
    done = pool.xlb.verb("adopt", "oldie", "--address", "10.77.0.20", "--address", "fd00:77::20")
    assert done.returncode == 0 and "called web-1" in done.stdout, done
    out = pool.lab.lb.out(["virsh", "-q", "-c", uri, "dumpxml", "web-1"])
    assert "adopted='web-1'" in out.replace('"', "'") and "10.77.0.20" in out, out
    done = pool.xlb.verb("adopt", "--release", "web-1")
    assert done.returncode == 0, done
    assert "urn:xlb:1" not in pool.lab.lb.out(["virsh", "-q", "-c", uri, "dumpxml", "web-1"])
    pool.lab.lb.run(["virsh", "-q", "-c", uri, "undefine", "web-1"])


if __name__ == "__main__":
    lab.enter()
    lab.main(lambda: Pool("lxc"))
