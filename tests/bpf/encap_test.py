#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Encapsulated packets, in and out, through the real programs.

As in packets_test.py, whose lab this uses: what must come out is built anew
by scapy and compared byte for byte.  Only what comes of the flow's hash (the
end of ipip's source, gue's source port, IPv6's flow label) is taken from the
packet, after a look at what it is.
"""

import ipaddress
import os
import random
import sys

from scapy.all import IP, TCP, UDP, Ether, IPv6, Raw, raw

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
import packets_test as pt  # noqa: E402
from packets_test import (CLIENT, CLIENT_MAC, FAMILIES, GUEST_MAC,  # noqa: E402
                          SMALL_MTU, UP_MAC, Drops, backend_ip, backend_mac,
                          check, check_too_big, cut, ether, network, raw,
                          same, same_bytes, transport)
from shapes_test import read  # noqa: E402

VIP = {4: "192.0.2.30", 6: "2001:db8::30"}
SOURCE = {4: "198.51.100.1", 6: "2001:db8:ffff::1"}  # of gue
MODES = ("ipip", "gue")
GUE_PORT = 6080
SLOTS_LOG2 = 4

# Backends by what they have; the services' ports tell them apart.
BOTH, FOUR, SIX, SMALL, NO_HOP, STACK, TX, NOBODY, OTHER = range(1, 10)
KINDS = {BOTH: ("v4", "v6"), FOUR: ("v4",), SIX: ("v6",),
         SMALL: ("v4", "v6", "mtu=%d" % SMALL_MTU),
         NO_HOP: ("v4", "v6", "no_hop"), STACK: ("v4", "v6", "stack"),
         TX: ("v4", "v6", "tx"), OTHER: ("v4", "v6")}
PORT = {mode: {kind: 1000 + 100 * i + kind for kind in range(1, 10)}
        for i, mode in enumerate(MODES)}

TESTS = []


def both(function):
    """As pt.both(), for this file."""
    before = len(pt.TESTS)
    pt.both(function)
    TESTS.extend(pt.TESTS[before:])
    del pt.TESTS[before:]
    return function


def run(packet, *options):
    """Verdict and bytes, by the hook that is tested."""
    return pt.lab.xdp(packet, *options)


# --- the tables ---

def base(mode, kind, proto):
    number = MODES.index(mode) * 32 + kind * 2 + (proto == "udp")
    return number << SLOTS_LOG2


def set_backend(number, generation=1, more=()):
    words = ["%s=%s" % (w, backend_ip(number, int(w[1])))
             if w in ("v4", "v6") else w for w in KINDS[number]]
    pt.lab("backend", number, "dst=" + backend_mac(number),
           "src=" + GUEST_MAC,
           "ifindex=" + (pt.LO if number == TX else pt.lab.guest),
           "generation=%d" % generation, *words, *more)


def fill(mode, kind, proto, cur, prev=None, state="rest"):
    pt.lab("fill", base(mode, kind, proto), 1 << SLOTS_LOG2, cur,
           cur if prev is None else prev, state)


def set_up():
    pt.lab.guest = pt.lab("ifindex", "guest0")[0]
    pt.lab.up = pt.lab("ifindex", "up0")[0]
    for number in KINDS:
        set_backend(number)
    for mode in MODES:
        for kind in range(1, 10):
            for proto in ("tcp", "udp"):
                service = 1 + (base(mode, kind, proto) >> SLOTS_LOG2)
                for family in FAMILIES:
                    pt.lab("vip", VIP[family], PORT[mode][kind], proto,
                           "service=%d" % service,
                           "base=%d" % base(mode, kind, proto),
                           "log2=%d" % SLOTS_LOG2, mode)
                fill(mode, kind, proto, 0 if kind == NOBODY else kind)
    pt.lab("vips")
    set_sources()


def set_sources(families=FAMILIES):
    pt.lab("sources", *("v%d=%s" % (f, SOURCE[f]) for f in families))


# --- packets ---

def to_service(mode, kind, family, proto="tcp", sport=40000, flags="PA",
               payload=b"hello, world", seq=1000, ttl=64, l2=None, **more):
    return (l2 or ether()) / network(family, CLIENT[family], VIP[family], ttl,
                                     **more) / \
        transport(proto, sport, PORT[mode][kind], flags, seq) / Raw(payload)


def outer_family(family, kind):
    """The packet's own where the backend has an address of it."""
    has = [int(w[1]) for w in KINDS[kind] if w in ("v4", "v6")]
    return family if family in has else has[0]


def overhead(mode, outer):
    return (20 if outer == 4 else 40) + (8 if mode == "gue" else 0)


def spread_of(out, mode, outer):
    """What outer headers say of the flow, after a look at what it is."""
    header = (IP if outer == 4 else IPv6)(out[14:])
    source = ipaddress.ip_address(header.src)
    label = header.fl if outer == 6 else 0
    if mode == "gue":
        same(header.src, SOURCE[outer])
        port = header[UDP].sport
        check(port >= 49152, "source port", port)
        return port, label
    prefix = ipaddress.ip_network("172.16.0.0/16" if outer == 4
                                  else "100::/64")
    check(source in prefix, "outer source", source)
    return str(source), label


def wrapped(inner, mode, number, outer, spread, family, tos=0):
    """Behind the backend's Ethernet header: the outer one, then inner."""
    source, label = spread
    if mode == "gue":
        proto, l4 = 17, UDP(sport=source, dport=GUE_PORT, chksum=0)
        source = SOURCE[outer]
    else:
        proto, l4 = 4 if family == 4 else 41, None
    if outer == 4:
        packet = IP(src=source, dst=backend_ip(number, 4), ttl=64, id=0,
                    flags="DF", tos=tos, proto=proto)
    else:
        packet = IPv6(src=source, dst=backend_ip(number, 6), hlim=64, tc=tos,
                      fl=label, nh=proto)
    if l4:
        packet = packet / l4
    return Ether(src=GUEST_MAC, dst=backend_mac(number)) / packet / Raw(inner)


def check_wrapped(packet, out, mode, kind, family, tos=0, tail=b"",
                  number=None):
    """out is packet behind the right outer headers; what those share."""
    outer = outer_family(family, number or kind)
    spread = spread_of(out, mode, outer)
    inner = raw(packet)[14:]
    want = raw(wrapped(inner, mode, number or kind, outer, spread, family,
                       tos))
    same_bytes(out, want + tail)
    return spread


def sent(packet, mode, kind, family, verdict="redirect", **more):
    with Drops():
        got, out = run(packet)
    same(got, verdict, mode, kind, "v%d" % family)
    return check_wrapped(packet, out, mode, kind, family, **more)


def dropped(packet, reason):
    with Drops(**{reason: 1}):
        verdict, _ = run(packet)
    same(verdict, "drop", pt.summary(packet))


def every():
    for mode in MODES:
        for family in FAMILIES:
            for proto in ("tcp", "udp"):
                yield mode, family, proto


# --- what comes out ---

@both
def all_family_pairs_in_both_modes():
    for mode, family, proto in every():
        for kind in (BOTH, FOUR, SIX):
            for size in (0, 1, 777):
                packet = to_service(mode, kind, family, proto,
                                    payload=b"p" * size)
                sent(packet, mode, kind, family)


@both
def backend_out_of_the_same_interface():
    for mode, family, proto in every():
        sent(to_service(mode, TX, family, proto), mode, TX, family,
             verdict="tx" if pt.lab.hook == "xdp" else "redirect")


@both
def traffic_class_is_copied():
    for mode, family, proto in every():
        for kind in (BOTH, FOUR, SIX):
            for tos in (0x02, 0xb8, 0xff):
                more = {"tos" if family == 4 else "tc": tos}
                sent(to_service(mode, kind, family, proto, **more), mode,
                     kind, family, tos=tos)


@both
def the_inner_packet_keeps_its_hops_and_checksums():
    for mode, family, proto in every():
        for ttl in (0, 1, 255):
            sent(to_service(mode, BOTH, family, proto, ttl=ttl), mode, BOTH,
                 family)
        packet = to_service(mode, BOTH, family, proto)
        packet[UDP if proto == "udp" else TCP].chksum = 0x1234
        sent(packet, mode, BOTH, family)


@both
def padding_after_the_packet_stays_behind_it():
    for mode, family, proto in every():
        packet = to_service(mode, BOTH, family, proto, payload=b"")
        verdict, out = run(raw(packet) + b"\0" * 14)
        same(verdict, "redirect")
        check_wrapped(packet, out, mode, BOTH, family, tail=b"\0" * 14)


@both
def what_is_counted():
    for mode, family, proto in every():
        for kind in (BOTH, FOUR, SIX):
            for flags, new in (("S", 1), ("PA", 0)):
                before = pt.lab.count(kind)
                packet = to_service(mode, kind, family, proto, flags=flags)
                sent(packet, mode, kind, family)
                new = new if proto == "tcp" else 0
                same(pt.lab.count(kind), (before[0] + 1,
                                          before[1] + len(raw(packet)),
                                          before[2] + new))


def spreads(packets, mode, family, kind):
    """What the outer headers of these frames say of their flows."""
    outer = outer_family(family, kind)
    at = 14 + overhead(mode, outer)
    for data in packets:
        verdict, out = run(data)
        same(verdict, "redirect")
        same(out[at:], data[14:])
        yield spread_of(out, mode, outer)


def patched(packet, places, count):
    """count frames, alike but for a number at this place; nobody on the way
    looks at checksums of what is only wrapped."""
    data = bytearray(raw(packet))
    at, start = places
    for i in range(count):
        data[at:at + 2] = (start + i).to_bytes(2, "big")
        yield bytes(data)


@both
def sources_spread_over_flows_and_stay_with_them():
    for mode in MODES:
        for family in FAMILIES:
            at = 34 if family == 4 else 54
            for kind in (BOTH, FOUR, SIX):
                seen = [list(spreads(patched(to_service(
                    mode, kind, family, flags=flags), (at, 20000), 200), mode,
                    family, kind)) for flags in ("S", "PA")]
                same(seen[0], seen[1], "one flow, several sources")
                check(len(set(seen[0])) > 185, "sources", len(set(seen[0])))
                low = [0] * 4
                for source, _ in seen[0]:
                    low[(source if mode == "gue" else
                         int(ipaddress.ip_address(source))) & 3] += 1
                check(min(low) > 25, "four queues would get", low)


@both
def sources_spread_over_clients_with_the_same_port():
    for mode in MODES:
        for family in FAMILIES:
            at = 28 if family == 4 else 36  # the client's last two bytes
            seen = set(spreads(patched(to_service(mode, BOTH, family),
                                       (at, 0x7100), 200), mode, family,
                               BOTH))
            check(len(seen) > 185, "only", len(seen), "sources")


# --- what doesn't fit ---

def sized(mode, kind, family, proto, size, **more):
    """A packet of so many bytes from its IP header on."""
    header = (20 if family == 4 else 40) + (20 if proto == "tcp" else 8)
    packet = to_service(mode, kind, family, proto,
                        payload=b"s" * (size - header))
    if family == 4:
        packet[IP].flags = more.get("flags", "DF")
    return packet


@both
def too_big_is_answered_with_what_fits():
    for mode, family, proto in every():
        for kind, mtu in ((SMALL, SMALL_MTU), (BOTH, 1500), (FOUR, 1500),
                          (SIX, 1500)):
            room = mtu - overhead(mode, outer_family(family, kind))
            sent(sized(mode, kind, family, proto, room), mode, kind, family)
            big = sized(mode, kind, family, proto, room + 1)
            before = pt.lab.count(kind)
            with Drops(too_big=1):
                verdict, out = pt.lab.cut(big)
            same(verdict, "redirect")
            same(pt.lab.count(kind), before)
            check_too_big(out, big, family, mtu=room)


@both
def too_big_without_dont_fragment_is_dropped():
    for mode in MODES:
        dropped(sized(mode, SMALL, 4, "tcp", 1400, flags=0), "too_big")


@both
def no_limit_but_the_length_field():
    """mtu 0 stands for no limit."""
    for mode, family, proto in every():
        set_backend(BOTH, more=("mtu=0",))
        try:
            packet = to_service(mode, BOTH, family, proto,
                                payload=b"p" * 1900)
            sent(packet, mode, BOTH, family)
        finally:
            set_backend(BOTH)


# --- what isn't sent ---

@both
def who_can_not_be_reached():
    for mode, family, proto in every():
        for kind, reason in ((NO_HOP, "no_next_hop"), (STACK, "no_next_hop"),
                             (NOBODY, "no_backend")):
            before = pt.lab.count(kind)
            for flags in ("S", "A"):
                dropped(to_service(mode, kind, family, proto, flags=flags),
                        reason)
            same(pt.lab.count(kind), before)


@both
def gue_without_a_source_is_dropped():
    try:
        for has in ((), (4,), (6,)):
            set_sources(has)
            for family in FAMILIES:
                packet = to_service("gue", BOTH, family)
                before = pt.lab.count(BOTH)
                if family in has:
                    sent(packet, "gue", BOTH, family)
                else:
                    dropped(packet, "encap")
                    same(pt.lab.count(BOTH), before)
                sent(to_service("ipip", BOTH, family), "ipip", BOTH, family)
    finally:
        set_sources()


@both
def packets_cut_short_are_never_forwarded():
    for mode, family, proto in every():
        data = raw(to_service(mode, BOTH, family, proto, payload=b"x" * 30))
        start = 14 + (20 if family == 4 else 40)
        least = 15 if pt.lab.hook == "xdp" else pt.SHORTEST[family]
        for length in range(least, len(data)):
            verdict, out = run(data[:length])
            check(verdict in ("pass", "drop"), "cut to", length, verdict)
            if verdict == "pass":
                same(out, data[:length], "passed but changed")
                check(length < start + 8, "passed though ours:", length)


@both
def lengths_that_contradict_are_dropped():
    for mode in MODES:
        for proto, least in (("tcp", 20), ("udp", 8)):
            real = len(raw(to_service(mode, BOTH, 4, proto))) - 14
            for length in (0, 1, 19, 20, 19 + least, real + 1, 65535):
                dropped(to_service(mode, BOTH, 4, proto, len=length),
                        "malformed")
            real -= 20
            for length in (0, 1, least - 1, real + 1, 65535):
                dropped(to_service(mode, BOTH, 6, proto, plen=length),
                        "malformed")


@both
def garbled_packets_are_never_forwarded_wrong():
    seed = int(os.environ.get("XLB_SEED", "1"))
    rounds = 20 if os.environ.get("XLB_SOAK", "0") not in ("", "0") else 1
    print("# XLB_SEED=%d" % seed)
    draw = random.Random(seed)
    forwarded = 0
    for _ in range(3000 * rounds):
        mode, family = draw.choice(MODES), draw.choice(FAMILIES)
        kind = draw.choice((BOTH, FOUR, SIX))
        proto = draw.choice(("tcp", "udp"))
        data = bytearray(raw(to_service(mode, kind, family, proto,
                                        draw.randrange(65536),
                                        payload=draw.randbytes(20))))
        port = slice(36, 38) if family == 4 else slice(56, 58)
        keep = data[port]
        for _ in range(draw.choice((0, 1, 1, 2, 3))):
            data[draw.randrange(14, len(data))] = draw.randrange(256)
        data[port] = keep
        if draw.randrange(4) == 0:
            least = 20 if pt.lab.hook == "xdp" else pt.SHORTEST[family]
            del data[draw.randrange(least, len(data)):]
        verdict, out = run(bytes(data))
        if verdict == "pass":
            same(out, bytes(data), "passed but changed")
        elif verdict in ("redirect", "tx"):
            forwarded += 1
            check_garbled(bytes(data), out)
        else:
            same(verdict, "drop")
    check(forwarded > 500 * rounds, "forwarded only", forwarded)


SERVICE_AT = {port: (mode, kind) for mode, kinds in PORT.items()
              for kind, port in kinds.items()}


FIRSTS = {}  # fragments that the programs have seen, by either hook


def service_of(data):
    """(family, mode, kind): what is garbled may be another service's by now,
    or a later fragment that follows one with the same id."""
    family, l3, l4, proto, offset, more = read(data)
    ident = data[l3 + 4:l3 + 6] if family == 4 else data[l4 - 4:l4]
    source = data[l3 + 12:l3 + 16] if family == 4 else data[l3 + 8:l3 + 24]
    key = family, source, proto, ident
    if not offset:
        port = int.from_bytes(data[l4 + 2:l4 + 4], "big")
        check(port in SERVICE_AT, "forwarded to nobody", port)
        if more:
            FIRSTS[key] = SERVICE_AT[port]
        return (family,) + SERVICE_AT[port]
    check(key in FIRSTS, "a later fragment follows nobody", data.hex())
    return (family,) + FIRSTS[key]


def check_garbled(data, out):
    """The outer header tells the length that the inner one has."""
    family, mode, kind = service_of(data)
    if family == 4:
        length, tos = int.from_bytes(data[16:18], "big"), data[15]
    else:
        length = int.from_bytes(data[18:20], "big") + 40
        tos = (data[14] << 4 | data[15] >> 4) & 255
    check(length <= len(data) - 14, "forwarded a piece")
    outer = outer_family(family, kind)
    want = wrapped(data[14:14 + length], mode, kind, outer,
                   spread_of(out, mode, outer), family, tos)
    same_bytes(out, raw(want) + data[14 + length:])


# --- fragments ---

@both
def fragments_follow_the_first_in_the_same_wrapping():
    for ident, (mode, family, proto) in enumerate(every()):
        for kind in (BOTH, FOUR, SIX):
            packet = to_service(mode, kind, family, proto,
                                payload=b"f" * 2500)
            frames = cut(packet, family, 3000 + 10 * ident + kind)
            fill(mode, kind, proto, kind)
            sent(frames[0], mode, kind, family)
            fill(mode, kind, proto, OTHER)
            try:
                later = {sent(f, mode, kind, family) for f in frames[1:]}
            finally:
                fill(mode, kind, proto, kind)
            same(len(later), 1, "later fragments by several sources")


@both
def fragments_that_do_not_fit():
    for mode, family, proto in every():
        packet = to_service(mode, SMALL, family, proto, payload=b"f" * 3000)
        size = len(raw(packet[IP if family == 4 else IPv6].payload))
        frames = pt.pieces(packet, family, [1024, 1432, size - 2456], 4000)
        sent(frames[0], mode, SMALL, family)
        with Drops(too_big=1):
            verdict, out = pt.lab.cut(frames[1])
        if family == 4:
            same(verdict, "drop")
        else:
            same(verdict, "redirect")
            check_too_big(out, frames[1], 6, mtu=SMALL_MTU -
                          overhead(mode, 6))


# --- ICMP, and the way back ---

def answer_of(mode, kind, family, proto="tcp"):
    return network(family, VIP[family], CLIENT[family]) / transport(
        proto, PORT[mode][kind], 40000, "A", 7) / b"answer"


@both
def icmp_errors_go_the_flows_way():
    for mode, family, proto in every():
        for kind in (BOTH, FOUR, SIX, TX):
            flow = sent(to_service(mode, kind, family, proto), mode, kind,
                        family, verdict="tx" if kind == TX and
                        pt.lab.hook == "xdp" else "redirect")
            quoted = pt.quote(family, answer_of(mode, kind, family, proto))
            for packet in pt.errors(family, pt.ROUTER[family], VIP[family],
                                    quoted):
                got = sent(ether() / packet, mode, kind, family,
                           verdict="tx" if kind == TX and
                           pt.lab.hook == "xdp" else "redirect")
                same(got, flow, "not with its flow")


@both
def icmp_errors_follow_the_memory():
    for mode in MODES:
        for family in FAMILIES:
            fill(mode, BOTH, "tcp", BOTH)
            sent(to_service(mode, BOTH, family), mode, BOTH, family)
            fill(mode, BOTH, "tcp", OTHER, BOTH, "moving")
            try:
                sent(to_service(mode, BOTH, family), mode, BOTH, family)
                sent(to_service(mode, BOTH, family), mode, BOTH, family)
                fill(mode, BOTH, "tcp", OTHER, OTHER, "settled")
                packet = next(pt.errors(
                    family, pt.ROUTER[family], VIP[family],
                    pt.quote(family, answer_of(mode, BOTH, family))))
                sent(ether() / packet, mode, BOTH, family)
            finally:
                fill(mode, BOTH, "tcp", BOTH)
                pt.lab("forget", BOTH)
                pt.lab("forget", OTHER)


@both
def icmp_errors_that_can_not_be_sent():
    for mode in MODES:
        for family in FAMILIES:
            for kind, reason in ((NO_HOP, "no_next_hop"),
                                 (STACK, "no_next_hop"), (NOBODY, "icmp")):
                dropped(ether() / next(pt.errors(
                    family, pt.ROUTER[family], VIP[family],
                    pt.quote(family, answer_of(mode, kind, family)))),
                    reason)


@both
def a_long_error_is_not_answered_by_another():
    for mode in MODES:
        for family in FAMILIES:
            quoted = Raw(raw(answer_of(mode, SMALL, family)) + b"q" * 1320)
            dropped(ether() / next(pt.errors(
                family, pt.ROUTER[family], VIP[family], quoted)), "too_big")


@both
def hairpin_by_the_uplink():
    for mode, family, proto in every():
        packet = to_service(mode, BOTH, family, proto)
        packet[1].src = backend_ip(BOTH, family)
        dropped(packet, "hairpin")
        packet = to_service(mode, BOTH, family, proto)
        packet[1].src = backend_ip(OTHER, family)
        sent(packet, mode, BOTH, family)


def answers_of_backends_are_let_through():
    """They have the VIP, as with dsr."""
    for mode, family, proto in every():
        eth = Ether(src=backend_mac(BOTH), dst=GUEST_MAC)
        packet = eth / network(family, VIP[family], CLIENT[family]) / \
            transport(proto, PORT[mode][BOTH], 40000, "SA") / b"direct"
        with Drops():
            verdict, out = pt.lab.tc(packet)
        same(verdict, "redirect")
        same_bytes(out, packet)
        pt.dropped(eth / network(family, backend_ip(BOTH, family),
                                 VIP[family]) /
                   transport(proto, 40000, PORT[mode][BOTH]), "hairpin", "tc")


TESTS.append(answers_of_backends_are_let_through)


# --- large packets that are cut later (tc only) ---

def what_counts_is_the_size_of_a_segment():
    """Behind its outer headers.  (What fits is sent in tests/net: a test run
    says how large segments are, but not that they are TCP's.)"""
    pt.lab.hook = "uplink"
    try:
        for mode in MODES:
            for family in FAMILIES:
                for kind in (BOTH, FOUR, SIX):
                    header = 40 if family == 4 else 60
                    packet = to_service(mode, kind, family,
                                        payload=b"g" * 2800)
                    if family == 4:
                        packet[IP].flags = "DF"
                    room = 1500 - overhead(mode, outer_family(family, kind))
                    with Drops(too_big=1):
                        verdict, out = pt.lab.cut(
                            packet, "gso=%d" % (room - header + 1))
                    same(verdict, "redirect")
                    check_too_big(out, packet, family, mtu=room)
                    with Drops(encap=1):
                        pt.lab.cut(packet, "gso=%d" % (room - header))
    finally:
        pt.lab.hook = "xdp"


TESTS.append(what_counts_is_the_size_of_a_segment)


if __name__ == "__main__":
    sys.exit(pt.main(TESTS, set_up))
