#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets in every shape that the balancer looks through.

VLAN tags, IPv4 options, IPv6 extension headers and fragments in front of a
service, in all mixtures and malformed, through the programs for XDP and for
tc.  What must come out is put together from scapy's own layers and sums.

A test run in tc shows no tag that the kernel keeps beside the packet, as it
does with the outer one that a program pushes: there the outer tag of what
passes again is missing from the bytes, and a next hop's tag isn't seen
(uplink_test.py looks at both on real interfaces).
"""

import os
import random
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
import packets_test as base  # noqa: E402
from packets_test import (  # noqa: E402
    BACKENDS, CLIENT, CLIENT_MAC, DSR_VIP, FAMILIES, GUEST_MAC, OTHER,
    SERVICES, SHORTEST, SMALL, SMALL_MTU, TX, UP_MAC, VIP, Drops, Flow,
    backend_ip, backend_mac, check, check_too_big, fill, forget_all, same,
    same_bytes, set_backend, transport)
from scapy.all import (IP, TCP, Dot1AD, Dot1Q, Ether,  # noqa: E402
                       IPOption_NOP, IPOption_RR, IPOption_Timestamp, IPv6,
                       IPv6ExtHdrDestOpt, IPv6ExtHdrFragment,
                       IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN, Raw, raw)

NAT, DSR = ("tcp", "udp"), ("dsr tcp", "dsr udp")
ALL = NAT + DSR
FRAGMENT, ROUTING = 44, 43
TESTS = []


def both(function):
    """As base.both(), for this file."""
    before = len(base.TESTS)
    base.both(function)
    TESTS.extend(base.TESTS[before:])
    del base.TESTS[before:]
    return function


def xdp_only(function):
    TESTS.append(function)
    return function


def lab():
    return base.lab


def run(frame, *options):
    """Verdict and bytes.  Hardware's sum of the whole packet is looked after
    but where there are tags, which a test run, being at no hook, sums up in
    another way, or where the packet is cut."""
    plain = frame[12:14] in (b"\x08\0", b"\x86\xdd") and not options
    return (lab().xdp if plain else lab().cut)(frame, *options)


# --- building packets ---

def authentication(nh, words=4):
    """An AH, which nobody checks on the way: its length is in words less 2."""
    return struct.pack(">BBHII", nh, words + 1, 0, 1, 1) + b"\xaa" * (
        words * 4)


# What may stand before the transport header.  IPv4: options.  IPv6: a chain
# of (protocol number, function that builds it with the next one's number).
def v6_header(layer, **fields):
    return lambda nh: raw(layer(nh=nh, **fields))


HOP = (0, v6_header(IPv6ExtHdrHopByHop))
DEST = (60, v6_header(IPv6ExtHdrDestOpt))
LONG = (60, v6_header(IPv6ExtHdrDestOpt, options=[PadN(optdata=b"\0" * 200)]))
ROUTE = (ROUTING, v6_header(IPv6ExtHdrRouting, addresses=["2001:db8::77"],
                            segleft=0))
SOURCE_ROUTE = (ROUTING, v6_header(
    IPv6ExtHdrRouting, addresses=["2001:db8::77"], segleft=1))
AUTH = (51, authentication)
ATOMIC = (FRAGMENT, v6_header(IPv6ExtHdrFragment, id=5))

SHAPES = {
    4: {"plain": [], "one word": [IPOption_NOP()] * 4,
        "all forty bytes": [IPOption_NOP()] * 40,
        "record route": [IPOption_RR(length=7, pointer=4,
                                     routers=["0.0.0.0"])],
        "timestamp": [IPOption_Timestamp()],
        "odd mixture": [IPOption_NOP()] * 3 +
        [IPOption_RR(length=35, pointer=4, routers=["0.0.0.0"] * 8)]},
    6: {"plain": [], "hop by hop": [HOP], "destination": [DEST],
        "long": [LONG], "routing": [ROUTE], "authentication": [AUTH],
        "atomic fragment": [ATOMIC], "atomic after others": [HOP, ATOMIC],
        "options within a fragment": [HOP, ATOMIC, DEST],
        "four": [HOP, DEST, ROUTE, DEST], "four long": [HOP, LONG, LONG, LONG]},
}
TAGS = {"no tag": [], "one tag": [(0x8100, 5)], "priority": [(0x8100, 0xe000)],
        "802.1ad": [(0x88a8, 300)], "two": [(0x88a8, 7), (0x8100, 4095)],
        "two alike": [(0x8100, 9), (0x8100, 9)]}


def network(family, src, dst, ttl, extra, payload, proto):
    """IP header, what stands before `payload`, and payload, as bytes."""
    if family == 4:
        return raw(IP(src=src, dst=dst, ttl=ttl, proto=proto,
                      options=list(extra)) / Raw(payload))
    numbers = [number for number, _ in extra] + [proto]
    chain = b"".join(build(nh) for (_, build), nh in zip(extra, numbers[1:]))
    return raw(IPv6(src=src, dst=dst, hlim=ttl, nh=numbers[0]) /
               Raw(chain + payload))


def l4_bytes(name, family, src, dst, sport, dport, payload, **more):
    """TCP or UDP with the checksum that scapy gives it."""
    layer = IP(src=src, dst=dst) if family == 4 else IPv6(src=src, dst=dst)
    proto = SERVICES[name][1]
    packet = layer / transport(proto, sport, dport, **more) / Raw(payload)
    header = 20 if family == 4 else 40
    return raw(packet)[header:], 6 if proto == "tcp" else 17


def ethernet(src, dst, tags, family):
    """An Ethernet header with tags, outer first."""
    data = bytes.fromhex((dst + src).replace(":", ""))
    for kind, control in tags:
        data += struct.pack(">HH", kind, control)
    return data + struct.pack(">H", 0x0800 if family == 4 else 0x86dd)


def sent(name, family, extra=(), tags=(), dst=None, sport=40000, ttl=64,
         payload=b"hello, world", dport=None, **more):
    dst = dst or (DSR_VIP if name in DSR else VIP)[family]
    l4, proto = l4_bytes(name, family, CLIENT[family], dst, sport,
                         dport or SERVICES[name][0], payload, **more)
    return ethernet(CLIENT_MAC, UP_MAC, tags, family) + network(
        family, CLIENT[family], dst, ttl, extra, l4, proto)


def wanted(name, family, extra=(), tags=(), sport=40000, ttl=64, number=1,
           payload=b"hello, world", **more):
    """The same at the backend."""
    head = ethernet(GUEST_MAC, backend_mac(number), tags, family)
    if name in DSR:
        return head + sent(name, family, extra, (), None, sport, ttl,
                           payload, **more)[14:]
    dst = backend_ip(number, family)
    l4, proto = l4_bytes(name, family, CLIENT[family], dst, sport,
                         SERVICES[name][2], payload, **more)
    return head + network(family, CLIENT[family], dst, ttl - 1, extra, l4,
                          proto)


def every(names=ALL, tags=TAGS):
    for family in FAMILIES:
        for name in names:
            for shape, extra in SHAPES[family].items():
                for tagging in tags:
                    yield name, family, extra, TAGS[tagging], (
                        name, family, shape, tagging)


def forwarded(frame, want, said=()):
    with Drops():
        verdict, out = run(frame)
    same(verdict, "redirect", said)
    if out != want:
        raise AssertionError("%s: bytes differ\n# got  %s\n# want %s" %
                             (said, out.hex(), want.hex()))


def dropped(frame, reason, said=()):
    with Drops(**{reason: 1}):
        same(run(frame)[0], "drop", said)


def outer_tag_aside(frame):
    """What a test run in tc shows of a tagged packet that was looked into."""
    return frame[:12] + frame[16:]


def untouched(frame, looked_into=False, said=()):
    with Drops():
        verdict, out = run(frame)
    same(verdict, "pass", said)
    if looked_into and lab().hook != "xdp":
        frame = outer_tag_aside(frame)
    same(out.hex(), frame.hex(), said)


# --- whole ones ---

@both
def every_shape_reaches_the_backend():
    for name, family, extra, tags, said in every():
        for payload in (b"", b"hello, world", b"x" * 301):
            forwarded(sent(name, family, extra, tags, payload=payload),
                      wanted(name, family, extra, payload=payload), said)


@both
def every_shape_counts_and_marks_new_flows():
    for name, family, extra, tags, said in every(("tcp",)):
        before = lab().count(1)
        run(sent(name, family, extra, tags, flags="S"))
        after = lab().count(1)
        same((after[0] - before[0], after[2] - before[2]), (1, 1), said)


@both
def shapes_of_others_pass_untouched():
    for name, family, extra, tags, said in every(NAT):
        untouched(sent(name, family, extra, tags, dst=OTHER[family]),
                  said=said)
        untouched(sent(name, family, extra, tags, dport=81), bool(tags), said)
    for family in FAMILIES:
        untouched(ethernet(CLIENT_MAC, UP_MAC, [(0x8100, 1)] * 3, family) +
                  sent("tcp", family)[14:])
    arp = Ether(src=CLIENT_MAC, dst=UP_MAC) / Dot1Q(vlan=5, type=0x806) / \
        Raw(b"\0" * 46)
    untouched(raw(arp))


@both
def tags_of_scapy_are_the_same_tags():
    """Its own layers, not this file's bytes."""
    for family in FAMILIES:
        l3 = base.network(family, CLIENT[family], VIP[family]) / \
            TCP(sport=40000, dport=80, flags="PA", seq=1000) / \
            b"hello, world"
        for tags in (Dot1Q(vlan=5, prio=3), Dot1AD(vlan=6) / Dot1Q(vlan=7)):
            frame = Ether(src=CLIENT_MAC, dst=UP_MAC) / tags / l3
            forwarded(raw(frame), wanted("tcp", family))


@both
def hop_limits_of_every_shape():
    for name, family, extra, tags, said in every(NAT):
        dropped(sent(name, family, extra, tags, ttl=1), "ttl", said)
        forwarded(sent(name, family, extra, tags, ttl=2),
                  wanted(name, family, extra, ttl=2), said)


@both
def flows_are_known_in_every_shape():
    """A slot that moves: the memory of a flow serves whatever it looks like."""
    for family in FAMILIES:
        forget_all()
        fill("moves", 1)
        flow = Flow(family).open()
        fill("moves", 2, 1, "moving")
        same(flow.data(), 1)
        fill("moves", 2, 2, "settled")
        for shape, extra in SHAPES[family].items():
            for tags in TAGS.values():
                frame = sent("moves", family, extra, tags, sport=flow.sport,
                             flags="PA", seq=flow.isn + 600)
                want = wanted("moves", family, extra, sport=flow.sport,
                              flags="PA", seq=flow.isn + 600)
                forwarded(frame, want, shape)
                other = dict(sport=flow.sport + 20000, flags="PA", seq=9)
                forwarded(sent("moves", family, extra, tags, **other),
                          wanted("moves", family, extra, number=2, **other),
                          shape)
        forget_all()


@both
def too_many_extension_headers():
    for chain in ([HOP, DEST, DEST, ROUTE, DEST], [DEST] * 6):
        for tags in TAGS.values():
            for name in ALL:
                dropped(sent(name, 6, chain, tags), "headers")
            untouched(sent("tcp", 6, chain, tags, dst=OTHER[6]))


@both
def source_routes_that_go_on_from_here():
    for tags in TAGS.values():
        for chain in ([SOURCE_ROUTE], [HOP, SOURCE_ROUTE, DEST]):
            dropped(sent("tcp", 6, chain, tags), "headers")
            untouched(sent("tcp", 6, chain, tags, dst=OTHER[6]))


@both
def other_protocols_behind_options_pass():
    for family in FAMILIES:
        for shape, extra in SHAPES[family].items():
            if shape == "plain":
                continue  # an echo to a VIP is another test's
            for proto in (47, 50, 132):
                untouched(ethernet(CLIENT_MAC, UP_MAC, (), family) + network(
                    family, CLIENT[family], VIP[family], 64, extra,
                    b"whatever it may be", proto), said=(family, shape))


# --- the way out ---

@xdp_only
def next_hops_behind_a_tag():
    try:
        for vlan in (1, 7, 4094):
            set_backend(1, "vlan=%d" % vlan)
            for name, family, extra, tags, said in every():
                forwarded(sent(name, family, extra, tags),
                          wanted(name, family, extra, [(0x8100, vlan)]), said)
    finally:
        set_backend(1)


@xdp_only
def several_uplinks():
    """Only what came in where the backend is goes straight back."""
    options = {lab().up: "redirect", "1": "tx"}
    for family in FAMILIES:
        for ifindex, verdict in options.items():
            for tags in TAGS.values():
                frame = sent("back", family, tags=tags)
                got, out = run(frame, "ifindex=" + ifindex)
                same(got, verdict, "from interface", ifindex)
                same(out, wanted("back", family, number=TX))


@both
def too_big_in_every_shape():
    """The answer goes back with the tags of what it is about."""
    for family in FAMILIES:
        for tagging, tags in TAGS.items():
            big = sent("sized", family, tags=tags, payload=b"b" * 1400)
            at = 14 + 4 * len(tags)
            if family == 4:
                l3 = IP(big[at:])
                l3.flags, l3.chksum = "DF", None
                big = big[:at] + raw(l3)
            with Drops(too_big=1):
                verdict, out = lab().cut(big)
            same(verdict, "redirect")
            head = ethernet(UP_MAC, CLIENT_MAC, tags, family)
            if lab().hook != "xdp" and tags:
                head = outer_tag_aside(head)
            same(out[:len(head)].hex(), head.hex(), tagging)
            plain = Ether(ethernet(CLIENT_MAC, UP_MAC, (), family) + big[at:])
            check_too_big(ethernet(UP_MAC, CLIENT_MAC, (), family) +
                          out[len(head):], plain, family)


@both
def what_fits_is_sent_whatever_its_shape():
    for family in FAMILIES:
        for shape, extra in SHAPES[family].items():
            room = SMALL_MTU - len(sent("sized", family, extra,
                                        payload=b"")) + 14
            for tags in TAGS.values():
                forwarded(sent("sized", family, extra, tags,
                               payload=b"m" * room),
                          wanted("sized", family, extra, number=SMALL,
                                 payload=b"m" * room), shape)
                with Drops(too_big=1):
                    same(lab().cut(sent("sized", family, extra, tags,
                                        payload=b"m" * (room + 1)))[0],
                         "redirect" if family == 6 else "drop")


# --- fragments ---

def cut(frame, family, sizes, ident, extra=(), inner=()):
    """A frame of this file's, without tags and options, in pieces."""
    head, l3 = frame[:14], frame[14:]
    if family == 4:
        ip, data = IP(l3[:20]), l3[20:]
    else:
        ip, data = IPv6(l3[:40]), l3[40:]
    proto = ip.proto if family == 4 else ip.nh
    src, dst = ip.src, ip.dst
    if inner:
        numbers = [number for number, _ in inner] + [proto]
        data = b"".join(build(nh) for (_, build), nh in
                        zip(inner, numbers[1:])) + data
        proto = numbers[0]
    at, frames = 0, []
    for i, size in enumerate(sizes):
        size = len(data) - at if size is None else size
        part, more = data[at:at + size], i + 1 < len(sizes)
        if family == 4:
            net = raw(IP(src=src, dst=dst, ttl=ip.ttl, proto=proto, id=ident,
                         flags="MF" if more else 0, frag=at // 8,
                         options=list(extra)) / Raw(part))
        else:
            piece = (FRAGMENT, v6_header(IPv6ExtHdrFragment, id=ident, m=more,
                                         offset=at // 8))
            net = network(6, src, dst, ip.hlim, list(extra) + [piece], part,
                          proto)
        frames.append(head + net)
        at += size
    return frames


def tagged(frame, tags):
    if not tags:
        return frame
    return frame[:12] + b"".join(struct.pack(">HH", *t) for t in tags) + \
        frame[12:]


PIECE_SHAPES = {4: [[], [IPOption_NOP()] * 4, [IPOption_NOP()] * 40],
                6: [[], [HOP], [DEST, ROUTE], [HOP, DEST, ROUTE]]}
IDENTS = iter(range(3000, 65536))


def piece_cases():
    for family in FAMILIES:
        for extra in PIECE_SHAPES[family]:
            for tags in TAGS.values():
                yield family, extra, tags


@both
def pieces_of_every_shape_follow_the_first():
    for family, extra, tags in piece_cases():
        for name in ALL:
            ident = next(IDENTS)
            payload = bytes(range(256)) * 10
            sizes = [1024, 8, 1024, None]
            frames = cut(sent(name, family, payload=payload), family, sizes,
                         ident, extra)
            want = cut(wanted(name, family, payload=payload), family, sizes,
                       ident, extra)
            said = (name, family, len(extra), tags)
            for frame in frames[1:]:
                dropped(tagged(frame, tags), "fragment", said)
            for frame, expected in zip(frames, want):
                forwarded(tagged(frame, tags), expected, said)
            # In any order, and with other tags or none, once the first went.
            for frame, expected in zip(frames[:0:-1], want[:0:-1]):
                forwarded(frame, expected, said)


@both
def options_within_pieces():
    """IPv6: what is cut into pieces may begin with extension headers."""
    for tags in TAGS.values():
        for name in NAT:
            ident = next(IDENTS)
            payload = b"p" * 1500
            frames = cut(sent(name, 6, payload=payload), 6, [1024, None],
                         ident, [HOP], [DEST])
            want = cut(wanted(name, 6, payload=payload), 6, [1024, None],
                       ident, [HOP], [DEST])
            dropped(tagged(frames[1], tags), "fragment")
            for frame, expected in zip(frames, want):
                forwarded(tagged(frame, tags), expected)


@both
def first_pieces_without_the_transport_header():
    for family, extra, tags in piece_cases():
        for name in ALL:
            header = 20 if "tcp" in name else 8
            for size in range(0, header, 8):
                frames = cut(sent(name, family, payload=b"t" * 100), family,
                             [size, None], next(IDENTS), extra)
                dropped(tagged(frames[0], tags), "malformed",
                        (name, family, size, tags))
                if size:
                    dropped(tagged(frames[1], tags), "fragment")


@both
def pieces_within_pieces():
    outer = (FRAGMENT, v6_header(IPv6ExtHdrFragment, id=1, m=1))
    for chain in ([outer, outer], [ATOMIC, ATOMIC], [ATOMIC, DEST, outer]):
        dropped(sent("tcp", 6, chain), "malformed")
        untouched(sent("tcp", 6, chain, dst=OTHER[6]))


@both
def pieces_of_other_protocols_pass():
    for family, extra, tags in piece_cases():
        l3 = network(family, CLIENT[family], VIP[family], 64, (),
                     b"g" * 2000, 47)
        frames = cut(ethernet(CLIENT_MAC, UP_MAC, (), family) + l3, family,
                     [1024, None], next(IDENTS), extra)
        for frame in frames:
            untouched(tagged(frame, tags), bool(tags))


# --- malformed ones ---

def never_forwarded(frame, said):
    """Passed as it was, or dropped under a name: which it was."""
    if lab().hook != "xdp" and len(frame) < 34:
        return "drop"
    family = 4 if frame[12:14] == b"\x08\0" else 6
    if lab().hook != "xdp" and len(frame) < SHORTEST[family]:
        return "drop"
    before = sum(lab().drops().values())
    verdict, out = run(frame)
    check(verdict in ("pass", "drop"), said, verdict)
    same(sum(lab().drops().values()) - before, int(verdict == "drop"), said)
    if verdict == "pass" and out != frame:
        same(out, outer_tag_aside(frame), said)
        check(lab().hook != "xdp", said)
    return verdict


@both
def every_shape_cut_short_at_every_length():
    for name, family, extra, tags, said in every(("tcp", "dsr udp"),
                                                 ("no tag", "two")):
        frame = sent(name, family, extra, tags, payload=b"x" * 20)
        seen = 14 + 4 * len(tags) + (20 if family == 4 else 40)
        for length in range(14, len(frame)):
            verdict = never_forwarded(frame[:length], said + (length,))
            if length >= seen:  # the VIP is seen, so it is ours
                same(verdict, "drop", said, length)


@both
def lengths_that_lie_in_every_shape():
    for name, family, extra, tags, said in every(NAT, ("no tag", "one tag")):
        frame = bytearray(sent(name, family, extra, tags))
        l3 = 14 + 4 * len(tags)
        at = l3 + (2 if family == 4 else 4)
        real = int.from_bytes(frame[at:at + 2], "big")
        least = 20 if name == "tcp" else 8
        header = real - 12 - least
        for length in {0, 1, header, header + least - 1, real + 1, 65535}:
            frame[at:at + 2] = length.to_bytes(2, "big")
            dropped(bytes(frame), "malformed", said + (length,))


@both
def header_lengths_that_lie_in_every_shape():
    for name in NAT:
        for tags in TAGS.values():
            l3 = 14 + 4 * len(tags)
            for extra in SHAPES[4].values():
                frame = bytearray(sent(name, 4, extra, tags))
                real = frame[l3]
                for first in range(0x40, 0x50):
                    frame[l3] = first
                    if first < 0x45:
                        dropped(bytes(frame), "malformed")
                    elif first != real:
                        # Another place for the ports: whatever is there.
                        never_forwarded(bytes(frame), (first, real))
                for version in (0, 3, 5, 6, 15):
                    frame[l3] = version << 4 | 5
                    dropped(bytes(frame), "malformed")
            for chain in ([HOP], [DEST, ROUTE], [AUTH], [HOP, LONG]):
                frame = bytearray(sent(name, 6, chain, tags))
                at = l3 + 40
                for units in (20, 100, 255):
                    frame[at + 1] = units
                    never_forwarded(bytes(frame), (chain, units))


# --- garbled at random, judged by a second reading of the headers ---

class Unreadable(Exception):
    pass


def read(data):
    """(family, l3, l4, protocol, fragment offset, more) by this file's own
    reading of RFC 791 and 8200; Unreadable where it makes no sense."""
    try:
        at, tags = 12, 0
        while data[at:at + 2] in (b"\x81\0", b"\x88\xa8"):
            at, tags = at + 4, tags + 1
        l3 = at + 2
        if data[at:at + 2] == b"\x08\0":
            first, word = data[l3], int.from_bytes(data[l3 + 6:l3 + 8], "big")
            if first >> 4 != 4 or first & 15 < 5:
                raise Unreadable
            return 4, l3, l3 + (first & 15) * 4, data[l3 + 9], \
                word & 0x1fff, bool(word & 0x2000)
        if data[at:at + 2] != b"\x86\xdd" or data[l3] >> 4 != 6:
            raise Unreadable
        kind, at, offset, more = data[l3 + 6], l3 + 40, 0, False
        while kind in (0, 43, 44, 51, 60) and not offset:
            size = 8 * (data[at + 1] + 1)
            if kind == 44:
                size, word = 8, int.from_bytes(data[at + 2:at + 4], "big")
                offset, more = word >> 3, bool(word & 1)
            elif kind == 51:
                size = 4 * (data[at + 1] + 2)
            kind, at = data[at], at + size
        return 6, l3, at, kind, offset, more
    except IndexError as error:
        raise Unreadable from error


def ones(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(">%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total % 0xffff


def judge_nat(before, after, said, by_stack=False):
    """after: what nat made of before, to whom and with the same errors.  The
    host's stack gets the tags as they are and counts the hop itself."""
    family, l3, l4, proto, offset, _ = read(before)
    wide = {4: 4, 6: 16}[family]
    hop, dst = l3 + {4: 8, 6: 7}[family], l3 + {4: 16, 6: 24}[family]
    shift = 0 if by_stack else l3 - 14
    want = bytearray(before[:12] + before[12 + shift:])
    same(len(after), len(want), said)
    free = set(range(12))
    backend = int(after[dst - shift + wide - 1])
    check(backend - 10 in BACKENDS, said, "to nobody")
    free |= set(range(dst - shift, dst - shift + wide))
    free.add(hop - shift)
    same(after[hop - shift], before[hop] - (not by_stack), said, "hop limit")
    if family == 4:
        free |= {l3 - shift + 10, l3 - shift + 11}
        end = l4 if l4 > l3 else l3 + 20
        same(ones(bytes(after[l3 - shift:end - shift])),
             ones(before[l3:end]), said,
             "header checksum")
    if not offset:
        csum = l4 - shift + (16 if proto == 6 else 6)
        free |= {l4 - shift + 2, l4 - shift + 3, csum, csum + 1}
        field = before[csum + shift:csum + shift + 2]
        if proto == 6 or field != b"\0\0":
            for_sum = slice(l3 + {4: 12, 6: 8}[family], dst + wide)
            old = before[for_sum] + before[l4:]
            new = after[for_sum.start - shift:for_sum.stop - shift] + \
                after[l4 - shift:]
            same(ones(bytes(new)), ones(old), said, "transport checksum")
    for i, byte in enumerate(want):
        if i not in free:
            same(after[i], byte, said, "byte", i)


@both
def garbled_shapes_are_never_forwarded_wrong():
    seed = int(os.environ.get("XLB_SEED", "1"))
    soak = os.environ.get("XLB_SOAK", "0") not in ("", "0")
    print("# XLB_SEED=%d" % seed)
    draw = random.Random(seed)
    cases = [c for c in every(NAT)]
    pieces = []
    for family, extra, tags in piece_cases():
        for frame in cut(sent("udp", family, payload=b"f" * 1100), family,
                         [1024, None], 77, extra):
            pieces.append(tagged(frame, tags))
    count = 0
    for _ in range(60000 if soak else 4000):
        if draw.random() < 0.2:
            frame = bytearray(draw.choice(pieces))
        else:
            name, family, extra, tags, _ = draw.choice(cases)
            frame = bytearray(sent(name, family, extra, tags,
                                   payload=draw.randbytes(20)))
        headers = min(len(frame), 120)
        for _ in range(draw.choice((0, 1, 1, 2, 3))):
            frame[draw.randrange(12, headers)] = draw.randrange(256)
        if draw.random() < 0.2:
            del frame[draw.randrange(54, len(frame)):]
        frame = bytes(frame)
        before = sum(lab().drops().values())
        verdict, out = run(frame)
        said = (seed, frame.hex())
        untouched_bytes = out == frame or (lab().hook != "xdp" and
                                           out == outer_tag_aside(frame))
        # A garbled port may be one whose backend is behind the uplink (tx) or
        # behind the host's stack (passed, but rewritten).
        if verdict in ("redirect", "tx") or (
                verdict == "pass" and not untouched_bytes):
            count += 1
            family, l3, l4, proto, offset, _ = read(frame)
            least = 0 if offset else 20 if proto == 6 else 8
            check(len(frame) >= l4 + least, "forwarded a part", said)
            dst = frame[l3 + {4: 16, 6: 24}[family]:]
            if dst.startswith(packed(DSR_VIP[family])):
                pass
            elif verdict == "pass":
                judge_nat(frame if len(out) == len(frame) else
                          outer_tag_aside(frame), out, said, by_stack=True)
            else:
                judge_nat(frame, out, said)
        elif verdict != "pass":
            same(verdict, "drop", said)
            same(sum(lab().drops().values()), before + 1, said)
    check(count > 1000, "forwarded only", count)


def packed(address):
    return base.ipaddress.ip_address(address).packed


# --- large packets that are cut later (tc only) ---

def through_tc(function):
    def run():
        lab().hook = "uplink"
        try:
            function()
        finally:
            lab().hook = "xdp"
    run.__name__ = function.__name__
    TESTS.append(run)
    return run


@through_tc
def what_counts_is_the_size_of_a_segment():
    for name, family, extra, tags, said in every(("sized", "sized udp")):
        proto = SERVICES[name][1]
        payload = b"g" * 2600
        frame = sent(name, family, extra, tags, payload=payload)
        room = SMALL_MTU - (len(sent(name, family, extra, payload=b"")) - 14)
        with Drops():
            verdict, out = run(frame, "gso=%d" % room)
        same(verdict, "redirect", said)
        same_bytes(out, Raw(wanted(name, family, extra, number=SMALL,
                                   payload=payload)))
        with Drops(too_big=1):
            run(frame, "gso=%d" % (room + 1))
        check(proto in ("tcp", "udp"))


if __name__ == "__main__":
    sys.exit(base.main(TESTS))
