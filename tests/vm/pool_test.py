#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Pools of real guests behind the real balancer: TCG guests, then containers.

Real clients, real libvirt, the real file: boot, serve, scale up under load,
replace what dies, scale down after draining, remove; and what a reconciler
killed in the middle of a create leaves is taken up by the next one.
"""
import json
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
import lab  # noqa: E402
from lab import wait_for  # noqa: E402
from pool import Pool  # noqa: E402
from tap import test  # noqa: E402
from vmlab import VIP, VIP6  # noqa: E402


def event_of(pool, event, since=0):
    return pool.xlb.query("SELECT * FROM vm_history WHERE event = ? AND time_ms >= ?", event, since)


@test
def boots(pool):
    """the first guest boots and serves v4 and v6 clients"""
    pool.xlb.start()
    pool.wait_ready(["web-1"])
    assert pool.ask(VIP) == "web-1", pool.ask(VIP)
    assert pool.ask(f"[{VIP6}]") == "web-1"
    assert pool.domains() == ["web-1"]
    pool.xlb.wait_converged()


@test
def foreign(pool):
    """a domain of somebody else's is neither listed nor touched"""
    xml = pool.virsh("dumpxml", "web-1").stdout
    xml = re.sub(r"<uuid>.*?</uuid>|<metadata>.*?</metadata>|<mac [^>]*/>", "", xml, flags=re.S)
    xml = re.sub(r"<name>.*?</name>", "<name>web-9</name>", xml)
    file = pool.lab.scratch / "foreign.xml"
    file.write_text(xml)
    pool.virsh("define", str(file))
    pool.xlb.verb("refresh", check=True)
    time.sleep(2.5)  # a resync passes
    assert pool.domains() == ["web-1", "web-9"]
    assert "web-9" not in pool.vms()
    assert not pool.xlb.query("SELECT * FROM vm_history WHERE vm = 'web-9'")
    pool.virsh("undefine", "web-9")


@test
def scales_up(pool):
    """load adds guests up to max, and none of the clients notices"""
    pool.start_load(100, 20 if pool.kind == "lxc" else 45)
    pool.wait_ready(["web-1", "web-2", "web-3"])
    rows = pool.xlb.query("SELECT * FROM scaling_history WHERE direction = 'up' AND reason = "
                          "'above_target' ORDER BY time_ms")
    assert rows and rows[-1]["to_vms"] == 3, rows
    signals = json.loads(rows[0]["signals"])
    assert signals[0]["metric"] == "new_connections_per_second" and signals[0]["value"] > 20
    seen = {pool.ask() for _ in range(60)}
    assert seen == {"web-1", "web-2", "web-3"}, seen
    summary = pool.load_summary()
    assert summary["requests"] > 1000 and summary["failed"] == 0, summary
    assert not [v for v in pool.vms().values() if v["phase"] == "failed"]


@test
def scales_down(pool):
    """calm removes guests after draining, down to min"""
    pool.wait_ready(["web-1"])
    wait_for(lambda: pool.domains() == ["web-1"], "the others to be undefined", 60, 0.2)
    for vm in ("web-2", "web-3"):
        events = [r["event"] for r in pool.xlb.query(
            "SELECT event FROM vm_history WHERE vm = ? ORDER BY time_ms", vm)]
        assert events[-3:] == ["draining", "stopping", "removed"], events
    rows = pool.xlb.query("SELECT * FROM scaling_history WHERE direction = 'down'")
    assert rows and all(r["reason"] == "below_target" for r in rows), rows
    assert pool.ask() == "web-1"


@test
def replaces(pool):
    """a guest that dies is replaced, and its flows go elsewhere at once"""
    pool.xlb.apply(pool.text(minimum=2))
    pool.wait_ready(["web-1", "web-2"])
    pool.virsh("destroy", "web-1")
    wait_for(lambda: all(pool.ask() == "web-2" for _ in range(5)), "only web-2 to answer", 10)
    pool.wait_ready(["web-1", "web-2"])
    events = [r["event"] for r in pool.xlb.query(
        "SELECT event FROM vm_history WHERE vm = 'web-1' ORDER BY time_ms, rowid")]
    assert events[-4:] == ["failed", "removed", "started", "ready"], events
    assert pool.xlb.query("SELECT * FROM scaling_history WHERE reason = 'replace'")


@test
def paused_by_hand(pool):
    """a guest that somebody pauses gets no traffic, stays, and comes back"""
    uuid = pool.virsh("domuuid", "web-1").stdout
    if pool.virsh("suspend", "web-1", check=False).returncode:
        raise tap.Skip("this libvirtd can't suspend a guest")
    wait_for(lambda: pool.ready() == ["web-2"], "web-1 to be out", 20)
    wait_for(lambda: all(pool.ask() == "web-2" for _ in range(5)), "only web-2 to answer", 10)
    pool.virsh("resume", "web-1")
    pool.wait_ready(["web-1", "web-2"])
    assert pool.virsh("domuuid", "web-1").stdout == uuid
    events = [r["event"] for r in pool.xlb.query(
        "SELECT event FROM vm_history WHERE vm = 'web-1' ORDER BY time_ms, rowid")]
    assert events[-3:] == ["paused", "resumed", "ready"], events


@test
def undefined_behind_its_back(pool):
    """a guest undefined by somebody else is made again"""
    pool.virsh("destroy", "web-2")
    pool.virsh("undefine", "web-2", check=False)
    pool.wait_ready(["web-1", "web-2"])
    assert pool.domains() == ["web-1", "web-2"]


@test
def killed_in_a_create(pool):
    """kill -9 in the middle of a create, restart: nothing leaked, same end"""
    for delay in (0.0, 0.02, 0.06, 0.15, 0.3):
        pool.xlb.write(pool.text(minimum=3))
        wait_for(lambda: event_of(pool, "ordered")[-1]["vm"] == "web-3", "the order", 20, 0.005)
        time.sleep(delay)
        pool.xlb.kill9()
        assert pool.ask() in ("web-1", "web-2"), "traffic stopped with the reconciler"
        pool.xlb.start()
        pool.wait_ready(["web-1", "web-2", "web-3"])
        pool.xlb.wait_converged()
        assert pool.domains() == ["web-1", "web-2", "web-3"]
        addresses = [vm["address"] for vm in pool.vms().values()]
        assert len(set(addresses)) == 3, addresses
        pool.xlb.write(pool.text(minimum=2, maximum=2))
        wait_for(lambda: pool.domains() == ["web-1", "web-2"], "web-3 to go", 60, 0.1)


@test
def restart_is_quiet(pool):
    """a restart changes nothing"""
    before = pool.xlb.query("SELECT count(*) AS n FROM change_history")[0]["n"]
    assert pool.xlb.stop() == 0
    assert pool.ask() in ("web-1", "web-2"), "traffic stopped with the reconciler"
    done = pool.xlb.verb("plan", "--detailed-exitcode")
    assert done.returncode == 0, done.stdout
    pool.xlb.start()
    pool.wait_ready(["web-1", "web-2"])
    pool.xlb.wait_converged()
    after = pool.xlb.query("SELECT count(*) AS n FROM change_history")[0]["n"]
    assert after == before, (before, after)


@test
def reboot(pool):
    """guests found off, as after a reboot, are started, and no new ones made"""
    assert pool.xlb.stop() == 0
    for vm in ("web-1", "web-2"):
        pool.virsh("destroy", vm)
    began = int(time.time() * 1000)
    pool.xlb.start()
    pool.wait_ready(["web-1", "web-2"])
    assert pool.domains() == ["web-1", "web-2"]
    assert not event_of(pool, "ordered", began), "a new guest was ordered"
    assert len(event_of(pool, "started", began)) == 2
    assert pool.ask() in ("web-1", "web-2")


@test
def destroys(pool):
    """destroy leaves no guest, disk, address or program"""
    assert pool.xlb.stop() == 0
    guests = pool.domains()
    listed = pool.xlb.verb("destroy", "--dry-run")
    assert listed.returncode == 0 and guests and pool.domains() == guests, listed
    for name in guests:
        assert f"- service.web/vm/{name} " in listed.stdout, listed.stdout
    done = pool.xlb.verb("destroy", "--yes")
    assert done.returncode == 0, done
    assert pool.domains() == []
    assert not pool.xlb.bpffs.exists()
    assert VIP not in pool.lab.lb.out(["ip", "address"])
    assert "xdp" not in pool.lab.lb.out(["ip", "link", "show", "uplink"])
    assert "xlb" not in pool.lab.lb.out(["tc", "filter", "show", "dev", "br0", "ingress"])


if __name__ == "__main__":
    lab.enter()
    lab.main(lambda: Pool("lxc" if "lxc" in Path(sys.argv[0]).name else "qemu"))
