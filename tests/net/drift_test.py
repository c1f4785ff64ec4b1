#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Somebody changes what is ours in the kernel and the network: it is seen,
repaired and recorded; and what is somebody else's is told and left alone.

For each kind the daemon is held (SIGSTOP) while the harm is done, and one who
looks by himself must find it: `status --check` says 1.  Then the daemon goes
on, and must come back to 0 by the event, where the kernel tells of it (the
resync is an hour away), else within a resync.
"""
import platform
import subprocess
import time

import netlab
import bpfmap
import lab
import tap
from lab import wait_for
from netlab import TARGETS

lab.enter()
EVENTS, RESYNC = "1h", "1s"
PAGE = 4096


def text(made, resync):
    return netlab.services(made.backends).replace("resync: 2s", f"resync: {resync}")


def now_ms():
    return int(time.time() * 1000)


def check(xlb):
    return xlb.verb("status", "--check")


def serve(made):
    for name, target in TARGETS.items():
        wait_for(lambda t=target: netlab.answers(made, t).startswith("b"),
                 f"an answer through {name}", 30)


def repaired(made, resync, harm, is_whole, objects):
    """harm() is seen, and undone: is_whole(); objects: one of them was repaired."""
    xlb = made.xlb
    xlb.alive()
    if f"resync: {resync}" not in xlb.file.read_text():
        xlb.apply(text(made, resync))
    wait_for(lambda: check(xlb).returncode == 0, "status --check to be 0 before", 30, 0.1)
    began = now_ms()
    with xlb.held():
        before = check(xlb)
        assert before.returncode == 0, before.stdout
        harm()
        assert not is_whole(), "no harm was done"
        seen = check(xlb)
        assert seen.returncode == 1, seen.stdout
    wait_for(lambda: xlb.alive() and is_whole(), "the repair", 30)
    wait_for(lambda: check(xlb).returncode == 0, "status --check to be 0 again", 30, 0.1)
    rows = xlb.query("SELECT object, action, result FROM change_history WHERE time_ms >= ?"
                     " ORDER BY time_ms", began)
    assert any(r["object"] in objects and r["action"] == "repair" and r["result"] == "done"
               for r in rows), rows
    serve(made)


# ---- told by events ----

def addresses(made):
    return made.lb.out(["ip", "-o", "address", "show", "dev", "uplink"])


@tap.test
def vip_removed(made):
    """a VIP's address taken away"""
    repaired(made, EVENTS, lambda: made.lb.ip("address del 192.0.2.10/32 dev uplink"),
             lambda: "192.0.2.10/32" in addresses(made), {"node/address/192.0.2.10"})


@tap.test
def vip6_removed(made):
    """the same of IPv6"""
    repaired(made, EVENTS, lambda: made.lb.ip("address del 2001:db8::10/128 dev uplink"),
             lambda: "2001:db8::10/128" in addresses(made), {"node/address/2001:db8::10"})


@tap.test
def forwarding_off(made):
    """forwarding switched off"""
    def value():
        return made.lb.out(["sysctl", "-n", "net.ipv4.conf.br0.forwarding"]).strip()
    repaired(made, EVENTS, lambda: made.lb.sysctl(net__ipv4__conf__br0__forwarding=0),
             lambda: value() == "1", {"node/sysctl/ipv4/br0"})


@tap.test
def forwarding6_off(made):
    """the same of IPv6"""
    def value():
        return made.lb.out(["sysctl", "-n", "net.ipv6.conf.uplink.forwarding"]).strip()
    repaired(made, EVENTS, lambda: made.lb.sysctl(net__ipv6__conf__uplink__forwarding=0),
             lambda: value() == "1", {"node/sysctl/ipv6/uplink"})


def filters(made):
    return made.lb.out(["tc", "filter", "show", "dev", "br0", "ingress"])


@tap.test
def filter_removed(made):
    """the reply program's tc filter removed"""
    repaired(made, EVENTS, lambda: made.lb.run(["tc", "filter", "del", "dev", "br0", "ingress"]),
             lambda: "xlb_reply" in filters(made), {"node/replies/br0"})


@tap.test
def qdisc_removed(made):
    """the qdisc under it removed"""
    repaired(made, EVENTS, lambda: made.lb.run(["tc", "qdisc", "del", "dev", "br0", "clsact"]),
             lambda: "xlb_reply" in filters(made), {"node/replies/br0"})


# ---- found by looking ----

def link_pin(made):
    return made.xlb.bpffs / "link_uplink"


def xdp_name(made):
    return made.lb.out(["ip", "-d", "link", "show", "dev", "uplink"])


def attached(made):
    return "xlb_xdp" in xdp_name(made)


@tap.test
def link_detached(made):
    """the XDP link detached"""
    repaired(made, RESYNC, lambda: made.lb.run(["bpftool", "link", "detach", "pinned",
                                                link_pin(made)]),
             lambda: attached(made), {"node/link/uplink"})


@tap.test
def link_unpinned(made):
    """the XDP link's pin removed"""
    repaired(made, RESYNC, lambda: link_pin(made).unlink(),
             lambda: link_pin(made).exists() and attached(made), {"node/link/uplink"})


def pins(made):
    return sorted(p.name for p in made.xlb.bpffs.iterdir()) if made.xlb.bpffs.exists() else []


@tap.test
def pins_removed(made):
    """pins of programs and maps removed, one by one and all of them"""
    whole = pins(made)
    for names in (["prog_xdp"], ["slots", "flows"], whole):
        def harm(those=names):
            for name in those:
                (made.xlb.bpffs / name).unlink()
        repaired(made, RESYNC, harm, lambda: pins(made) == whole, {"node/pins"})


@tap.test
def folder_removed(made):
    """the folder of pins removed"""
    whole = pins(made)

    def harm():
        for path in made.xlb.bpffs.iterdir():
            path.unlink()
        made.xlb.bpffs.rmdir()
    repaired(made, RESYNC, harm, lambda: pins(made) == whole, {"node/pins"})


def spoil(made, name, what, objects, key=0):
    """A pinned map's entry replaced or removed, and there again."""
    path = made.xlb.bpffs / name
    before = bpfmap.entries(path)
    assert before, f"{name} is empty"
    if what == "deleted":
        harm = lambda: bpfmap.delete(path, before[key][0])
    elif what == "added":
        extra = ["0x%02x" % (int(w, 16) ^ 0x55) for w in before[key][0]]
        harm = lambda: bpfmap.update(path, extra, before[key][1])
    else:
        harm = lambda: bpfmap.update(path, before[key][0], ["0x00"] * len(before[key][1]))
    repaired(made, RESYNC, harm, lambda: sorted(bpfmap.entries(path)) == sorted(before), objects)


@tap.test
def replies_edited(made):
    """the way back: an entry removed, one added"""
    spoil(made, "replies", "deleted", {"node/replies"})
    spoil(made, "replies", "added", {"node/replies"})


@tap.test
def direct_edited(made):
    """what is none of the balancer's business: a prefix removed"""
    spoil(made, "direct", "deleted", {"node/direct"})


@tap.test
def addresses_edited(made):
    """the addresses whose ICMP and fragments are ours: one removed"""
    spoil(made, "addresses", "deleted", {"node/vips"})


@tap.test
def slots_edited(made):
    """a line of slots zeroed"""
    path = made.xlb.bpffs / "slots"
    before = bpfmap.entries(path)
    used = next(i for i, (_, value) in enumerate(before) if any(int(w, 16) for w in value))

    def whole():
        # Flows that were there may be looked for meanwhile: who has a slot counts.
        value = bpfmap.entries(path)[used][1]
        return any(int(w, 16) for w in value)
    repaired(made, RESYNC, lambda: bpfmap.update(path, before[used][0],
                                                 ["0x00"] * len(before[used][1])),
             whole, {f"service.{s}/slots" for s in ("web", "echo", "web-dsr", "echo-dsr")})


@tap.test
def owner_edited(made):
    """a backend's owner removed"""
    path = made.xlb.bpffs / "owners"
    before = bpfmap.entries(path)

    def names():
        return sorted(bytes(int(w, 16) for w in v).split(b"\0")[0] for _, v in
                      bpfmap.entries(path) if v[68] != "0x02")
    want = names()
    repaired(made, RESYNC, lambda: bpfmap.delete(path, before[0][0]),
             lambda: all(names().count(n) >= want.count(n) for n in want),
             {f"service.{s}/backend/{b.name}" for s in ("web", "echo", "web-dsr", "echo-dsr")
              for b in made.backends})


@tap.test
def service_edited(made):
    """a service's line zeroed"""
    path = made.xlb.bpffs / "services"

    def names():
        return {bytes(int(w, 16) for w in v).split(b"\0")[0].decode()
                for _, v in bpfmap.entries(path)} - {""}
    want, (key, value) = names(), bpfmap.entries(path)[1]
    assert len(want) == 4, want
    repaired(made, RESYNC, lambda: bpfmap.update(path, key, ["0x00"] * len(value)),
             lambda: names() == want, {f"service.{s}" for s in want})


class Tables:
    """The one big map: see struct xlb_tables."""
    LINES, BUCKETS, BACKENDS, VIP, BACKEND = 8192, 4096, 32768, 64, 64
    VIPS = PAGE + 2 * BUCKETS * 4

    def __init__(self, made):
        lines = self.VIPS + 2 * self.LINES * self.VIP
        self.memory = bpfmap.mapped(made.xlb.bpffs / "tables", lines + 1024 * self.BACKEND)
        self.lines = lines

    def copy(self):
        return self.memory[4] & 1

    def vips(self):
        begin = self.VIPS + self.copy() * self.LINES * self.VIP
        return begin, begin + self.LINES * self.VIP

    def first(self, begin, end, size):
        """Where the first entry is that isn't empty."""
        return next(at for at in range(begin, end, size) if any(self.memory[at:at + size]))

    def displacement(self):
        begin = PAGE + self.copy() * self.BUCKETS * 4
        return begin, begin + self.BUCKETS * 4

    def zero(self, at, size):
        self.memory[at:at + size] = bytes(size)

    def used(self, begin, end, size):
        return sum(any(self.memory[at:at + size]) for at in range(begin, end, size))


@tap.test
def vip_lines_edited(made):
    """a line of the VIP table zeroed, and what leads to it"""
    tables = Tables(made)
    for where, size, objects in ((tables.vips, tables.VIP, {f"service.{s}" for s in
                                                            ("web", "echo", "web-dsr",
                                                             "echo-dsr")}),
                                 (tables.displacement, 4, {"node/vips"})):
        before = tables.used(*where(), size)
        assert before >= 4
        repaired(made, RESYNC, lambda: tables.zero(tables.first(*where(), size), size),
                 lambda: tables.used(*where(), size) == before, objects)


@tap.test
def spare_copy_made_live(made):
    """the index of the VIP table's live copy changed"""
    tables = Tables(made)

    def harm():
        tables.memory[4:8] = (1 - tables.copy()).to_bytes(4, "little")
        tables.zero(tables.vips()[0], tables.LINES * tables.VIP)
    want = tables.used(*tables.vips(), tables.VIP)
    repaired(made, RESYNC, harm, lambda: tables.used(*tables.vips(), tables.VIP) == want,
             {f"service.{s}" for s in ("web", "echo", "web-dsr", "echo-dsr")})


@tap.test
def backend_line_edited(made):
    """a backend's next hop zeroed"""
    tables = Tables(made)
    key = next(k for k, v in bpfmap.entries(made.xlb.bpffs / "owners") if v[68] != "0x02")
    at = tables.lines + int.from_bytes(bytes(int(w, 16) for w in key), "little") * tables.BACKEND
    assert any(tables.memory[at:at + 32])
    repaired(made, RESYNC, lambda: tables.zero(at, 32), lambda: any(tables.memory[at:at + 32]),
             {f"service.{s}/backend/{b.name}" for s in ("web", "echo", "web-dsr", "echo-dsr")
              for b in made.backends})


# ---- somebody else's ----

FOREIGN = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int theirs(struct xdp_md *c) { return XDP_PASS; }
SEC("classifier") int their_filter(struct __sk_buff *s) { return 0; }
"""


def foreign_program(made):
    program = made.scratch / "theirs.o"
    subprocess.run(["clang", "-O2", "-g", "-target", "bpf", "-idirafter",
                    f"/usr/include/{platform.machine()}-linux-gnu", "-xc", "-c", "-", "-o",
                    program], input=FOREIGN, text=True, check=True)
    return program


def load_foreign(made, argv):
    # Without this ip and tc make folders in the machine's bpffs.
    made.lb.run(["env", f"TC_BPF_MNT={made.xlb.bpffs.parent}", *argv])


def told(made, harm, undo, is_theirs, is_ours, words):
    """What is theirs stays, and is told of, until they take it away."""
    xlb = made.xlb
    wait_for(lambda: check(xlb).returncode == 0, "status --check to be 0 before", 30, 0.1)
    with xlb.held():
        harm()
        assert is_theirs() and check(xlb).returncode == 1
    seen = wait_for(lambda: (lambda d: d.returncode == 1 and all(w in d.stdout for w in words)
                             and d.stdout)(check(xlb)), f"status to tell of {words}", 30, 0.1)
    made.xlb.verb("refresh", check=True)
    assert check(xlb).returncode == 1 and is_theirs(), seen
    undo()
    wait_for(is_ours, "ours to be back", 60)
    wait_for(lambda: check(xlb).returncode == 0, "status --check to be 0 again", 60, 0.1)
    serve(made)


@tap.test
def foreign_xdp(made):
    """an XDP program of somebody else's on the uplink"""
    def harm():
        made.lb.run(["bpftool", "link", "detach", "pinned", link_pin(made)])
        load_foreign(made, ["ip", "link", "set", "dev", "uplink", "xdp", "obj", program, "sec",
                            "xdp"])
    program = foreign_program(made)
    made.xlb.apply(text(made, RESYNC))
    told(made, harm, lambda: made.lb.ip("link set dev uplink xdp off"),
         lambda: "theirs" in xdp_name(made), lambda: "xlb_xdp" in xdp_name(made), ["theirs"])


@tap.test
def foreign_filter(made):
    """a tc filter of somebody else's in our place"""
    def harm():
        made.lb.run(["tc", "filter", "del", "dev", "br0", "ingress"])
        load_foreign(made, ["tc", "filter", "add", "dev", "br0", "ingress", "pref", "30828",
                            "handle", "0x62", "protocol", "all", "bpf", "da", "obj", program,
                            "sec", "classifier"])
    program = foreign_program(made)
    told(made, harm, lambda: made.lb.run(["tc", "filter", "del", "dev", "br0", "ingress"]),
         lambda: "theirs.o" in filters(made), lambda: "xlb_reply" in filters(made),
         ["their_filter"])


@tap.test
def foreign_address(made):
    """a VIP that somebody else put there is told of, and stays"""
    made.lb.ip("address add 192.0.2.77/32 dev uplink")
    made.xlb.apply(text(made, RESYNC) + netlab.service(
        "more", ["192.0.2.77"], "tcp", 80, "nat",
        [("b1", made.backends[0].addr4, made.backends[0].addr6)]).replace("    ports: [80]",
        "    ports: [{listen: 80, target: 8077}]"))
    wait_for(lambda: "192.0.2.77 on uplink was put there" in check(made.xlb).stdout, "the note")
    made.xlb.apply(text(made, RESYNC))
    assert "192.0.2.77/32" in addresses(made)
    made.lb.ip("address del 192.0.2.77/32 dev uplink")
    serve(made)


lab.main(netlab.make)
