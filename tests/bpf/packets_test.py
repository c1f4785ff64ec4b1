#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets in, packets out, through the real programs (see packet_lab.c).

What must come out is built anew by scapy, with scapy's own checksums, and
compared byte for byte.
"""

import ipaddress
import os
import random
import subprocess
import sys
import traceback

from scapy.all import (ARP, IP, TCP, UDP, Dot1Q, Ether, ICMP, IPOption_NOP,
                       IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment,
                       IPv6ExtHdrHopByHop, ICMPv6DestUnreach,
                       ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6ND_NS, ICMPv6PacketTooBig,
                       ICMPv6TimeExceeded, Raw, raw)

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
LAB = os.path.join(os.environ.get("XLB_BUILD", os.path.join(ROOT, "build")),
                   "tests", "bpf", "packet_lab")

CLIENT = {4: "203.0.113.7", 6: "2001:db8:c::7"}
VIP = {4: "192.0.2.10", 6: "2001:db8::10"}
DSR_VIP = {4: "192.0.2.20", 6: "2001:db8::20"}
OTHER = {4: "192.0.2.99", 6: "2001:db8::99"}
ROUTER = {4: "198.18.0.1", 6: "2001:db8:9::1"}
HOST = {4: "10.0.0.1", 6: "fd00::1"}

CLIENT_MAC = "02:00:00:00:00:fe"
UP_MAC = "02:00:00:00:00:01"
GUEST_MAC = "02:00:00:00:00:02"

# name: (port, protocol, target port, service, slot base, forwarding flags)
SERVICES = {
    "tcp": (80, "tcp", 8080, 1, 0, ""),
    "udp": (53, "udp", 5353, 2, 256, ""),
    "dsr tcp": (80, "tcp", 80, 3, 512, "dsr"),
    "dsr udp": (53, "udp", 53, 4, 768, "dsr"),
    "turns": (90, "tcp", 90, 5, 1024, "rr"),
    "turns udp": (90, "udp", 90, 6, 1280, "rr"),
    "empty": (91, "tcp", 91, 7, 1536, ""),
    "moves": (92, "tcp", 92, 8, 1792, ""),
    "sized": (93, "tcp", 93, 9, 2048, ""),
    "sized udp": (93, "udp", 93, 10, 2304, ""),
    "unreachable": (94, "tcp", 94, 11, 2560, ""),
    "stack": (95, "tcp", 95, 12, 2816, ""),
    "back": (96, "tcp", 96, 13, 3072, ""),
    "fixed port": (97, "tcp", 97, 14, 3328, ""),
    "mixed": (98, "tcp", 98, 15, 3584, ""),
    "dsr stack": (99, "tcp", 99, 16, 3840, "dsr"),
    "client": (100, "tcp", 100, 17, 4096, "client=10"),
    "random": (101, "tcp", 101, 18, 4352, "random"),
    "two": (102, "tcp", 102, 19, 4608, "two"),
    "counted": (103, "tcp", 103, 20, 4864, "counted"),
    "sticky": (104, "udp", 104, 21, 5120, "sticky"),
    "sticky turns": (105, "udp", 105, 22, 5376, "sticky rr"),
    "sticky client": (106, "udp", 106, 23, 5632, "sticky client=10"),
    "two udp": (107, "udp", 107, 24, 5888, "two"),
    "to client": (108, "tcp", 108, 25, 6144, "to_client=10"),
    "from client": (109, "tcp", 109, 26, 6400, "from_client"),
}
BACKENDS = range(1, 10)
SMALL, NO_HOP, STACK, TX, PORT = 5, 6, 7, 8, 9
SMALL_MTU = 1400
# A test run in tc takes nothing shorter than the IP header.
SHORTEST = {4: 14 + 20, 6: 14 + 40}
LO = "1"  # where a test run's packets come in
FAMILIES = (4, 6)


def backend_ip(number, family):
    return {4: "10.0.0.%d" % (10 + number),
            6: "fd00::%x" % (10 + number)}[family]


def backend_mac(number):
    return "52:54:00:00:00:%02x" % number


class Lab:
    """The lab program, one command a call."""

    def __init__(self):
        self.process = subprocess.Popen(
            [LAB], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.hook = "xdp"  # which program xdp() runs; uplink: the one for tc
        line = self.process.stdout.readline()
        if line != "ok ready\n":
            raise RuntimeError("the lab didn't start: " + line)
        self.summed = ()  # in tc: hardware's sum of the packet must be kept up
        try:
            self.tc(ether() / ARP(), "complete")
            self.summed = ("complete",)  # else the kernel is too old for it
        except RuntimeError:
            print("# without sums of the whole packet")

    def __call__(self, *words):
        self.process.stdin.write(" ".join(str(w) for w in words) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if not answer or answer[0] != "ok":
            raise RuntimeError("%s: %s" % (words, " ".join(answer)))
        return answer[1:]

    def xdp(self, packet, *options):
        if self.hook != "xdp":
            options += self.summed
        verdict, *out = self(self.hook, raw(packet).hex(), *options)
        return verdict, bytes.fromhex(out[0]) if out else b""

    def tc(self, packet, *options):
        verdict, *out = self("tc", raw(packet).hex(), *options, *self.summed)
        return verdict, bytes.fromhex(out[0]) if out else b""

    def cut(self, packet, *options):
        """As xdp(), for a packet that is cut: the kernel gives up its sum of
        the whole packet then, and the test run thinks that it kept it."""
        summed, self.summed = self.summed, ()
        try:
            return self.xdp(packet, *options)
        finally:
            self.summed = summed

    def drops(self):
        return {k: int(v) for k, v in
                (word.split("=") for word in self("drops"))}

    def count(self, backend):
        return tuple(int(n) for n in self("count", backend))

    def close(self):
        self.process.stdin.close()
        return self.process.wait()


lab = None
TESTS = []


def test(function):
    TESTS.append(function)
    return function


def both(function):
    """A test of the balancer, for its program in XDP and for that in tc."""
    def through_tc():
        lab.hook = "uplink"
        try:
            function()
        finally:
            lab.hook = "xdp"
    through_tc.__name__ = function.__name__ + "_through_tc"
    TESTS.extend((function, through_tc))
    return function


def check(condition, *said):
    if not condition:
        raise AssertionError(" ".join(str(s) for s in said))


def same(got, want, *said):
    check(got == want, *said, "got", got, "want", want)


def same_bytes(got, want):
    want = raw(want)
    if got != want:
        raise AssertionError("bytes differ\n# got  %s\n# want %s" %
                             (got.hex(), want.hex()))


# --- packets ---

def ether(src=CLIENT_MAC, dst=UP_MAC):
    return Ether(src=src, dst=dst)


def network(family, src, dst, ttl=64, **more):
    if family == 4:
        return IP(src=src, dst=dst, ttl=ttl, **more)
    return IPv6(src=src, dst=dst, hlim=ttl, **more)


def transport(proto, sport, dport, flags="PA", seq=1000, **more):
    if proto == "udp":
        return UDP(sport=sport, dport=dport, **more)
    return TCP(sport=sport, dport=dport, flags=flags, seq=seq, **more)


def to_service(name, family, sport=40000, ttl=64, payload=b"hello, world",
               flags="PA", seq=1000, l2=None, **more):
    port, proto, _, _, _, options = SERVICES[name]
    vip = DSR_VIP if "dsr" in options else VIP
    return (l2 or ether()) / network(family, CLIENT[family], vip[family], ttl,
                                     **more) / \
        transport(proto, sport, port, flags, seq) / Raw(payload)


def at_backend(number, name, family, sport=40000, ttl=63,
               payload=b"hello, world", flags="PA", seq=1000, dport=None,
               **more):
    _, proto, target, *_ = SERVICES[name]
    return Ether(src=GUEST_MAC, dst=backend_mac(number)) / \
        network(family, CLIENT[family], backend_ip(number, family), ttl,
                **more) / \
        transport(proto, sport, dport or target, flags, seq) / Raw(payload)


def new_macs(packet, number):
    """The same packet with a backend's Ethernet addresses and nothing else."""
    data = bytearray(raw(packet))
    data[0:6] = bytes.fromhex(backend_mac(number).replace(":", ""))
    data[6:12] = bytes.fromhex(GUEST_MAC.replace(":", ""))
    return bytes(data)


def owner(packet, family):
    """The backend that a packet was rewritten for, by its address."""
    out = lab.xdp(packet)
    same(out[0], "redirect")
    header = (IP if family == 4 else IPv6)(out[1][14:])
    for number in BACKENDS:
        if ipaddress.ip_address(header.dst) == \
                ipaddress.ip_address(backend_ip(number, family)):
            return number
    raise AssertionError("sent to nobody: " + header.dst)


def sent_back(verdict):
    """Out by the interface where it came in; tc says only that it is sent."""
    same(verdict, "tx" if lab.hook == "xdp" else "redirect")


class Drops:
    """with Drops(reason=n): exactly these are counted in the block."""

    def __init__(self, **want):
        self.want = want

    def __enter__(self):
        self.before = lab.drops()

    def __exit__(self, kind, *_):
        if kind:
            return
        after = lab.drops()
        got = {k: after[k] - self.before.get(k, 0) for k in after
               if after[k] != self.before.get(k, 0)}
        same(got, self.want, "drops:")


def summary(packet):
    return Ether(raw(packet)).summary() + ":"


def dropped(packet, reason, run="xdp"):
    with Drops(**{reason: 1}):
        verdict, _ = getattr(lab, run)(packet)
        same(verdict, "drop", summary(packet))


def untouched(packet, run="xdp"):
    with Drops():
        verdict, out = getattr(lab, run)(packet)
    same(verdict, "pass", summary(packet))
    same_bytes(out, packet)


# --- the tables ---

def set_backend(number, *more, generation=1):
    options = {SMALL: ["mtu=%d" % SMALL_MTU], NO_HOP: ["no_hop"],
               STACK: ["stack"], TX: ["tx"],
               PORT: ["port=9999"]}.get(number, [])
    lab("backend", number, "v4=" + backend_ip(number, 4),
        "v6=" + backend_ip(number, 6), "dst=" + backend_mac(number),
        "src=" + GUEST_MAC, "ifindex=" + (LO if number == TX else lab.guest),
        "generation=%d" % generation, *options, *more)


def fill(name, cur, prev=None, state="rest"):
    lab("fill", SERVICES[name][4], 256, cur, cur if prev is None else prev,
        state)


def set_vips(names=SERVICES):
    for name in names:
        port, proto, target, service, base, options = SERVICES[name]
        vip = DSR_VIP if "dsr" in options else VIP
        for family in FAMILIES:
            lab("vip", vip[family], port, proto, "service=%d" % service,
                "target=%d" % target, "base=%d" % base, "log2=8", options)
    lab("vips")


def set_replies():
    for name, backends in REPLIES.items():
        port, proto, target, service, _, _ = SERVICES[name]
        for number in backends:
            for family in FAMILIES:
                lab("reply", backend_ip(number, family),
                    9999 if number == PORT else target, proto, VIP[family],
                    port, "service=%d" % service, "backend=%d" % number)
    lab("replies")


REPLIES = {"tcp": (1, 2), "udp": (1, 2), "sized": (SMALL,),
           "fixed port": (PORT,)}


def set_up():
    lab.guest = lab("ifindex", "guest0")[0]
    lab.up = lab("ifindex", "up0")[0]
    for number in BACKENDS:
        set_backend(number)
    set_vips()
    fill("tcp", 1)
    fill("udp", 1)
    fill("dsr tcp", 1)
    fill("dsr udp", 1)
    lab("rr", SERVICES["turns"][4], 8, 1, 2, 3)
    lab("rr", SERVICES["turns udp"][4], 8, 1, 2, 3)
    fill("sized", SMALL)
    fill("sized udp", SMALL)
    fill("unreachable", NO_HOP)
    fill("stack", STACK)
    fill("dsr stack", STACK)
    fill("back", TX)
    fill("fixed port", PORT)
    lab("maglev", SERVICES["mixed"][4], 8, 1, 2, 3, 4)
    set_replies()
    for family in FAMILIES:
        lab("direct", HOST[family], 32 if family == 4 else 128)
    lab("direct", "10.0.0.0", 24)
    lab("direct", "fd00::", 64)
    lab("direct", "198.51.100.1", 32)
    lab("directs")


# --- towards the backends ---

@both
def nat_rewrites_and_redirects():
    for family in FAMILIES:
        for name in ("tcp", "udp"):
            before = lab.count(1)
            packet = to_service(name, family)
            verdict, out = lab.xdp(packet)
            same(verdict, "redirect")
            same_bytes(out, at_backend(1, name, family))
            same(lab.count(1), (before[0] + 1,
                                before[1] + len(raw(packet)), before[2]))


@both
def nat_of_many_flows_has_right_checksums():
    for family in FAMILIES:
        for name in ("tcp", "udp"):
            for i in range(300):
                sport, payload = 1024 + i * 211, bytes([i & 255]) * (i % 37)
                _, out = lab.xdp(to_service(name, family, sport,
                                            payload=payload))
                same_bytes(out, at_backend(1, name, family, sport,
                                           payload=payload))


@both
def nat_keeps_the_tcp_header_and_options():
    for family in FAMILIES:
        options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (7, 0)),
                   ("NOP", None), ("WScale", 7)]
        packet = to_service("tcp", family, flags="S", payload=b"")
        packet[TCP].options = options
        _, out = lab.xdp(packet)
        want = at_backend(1, "tcp", family, flags="S", payload=b"")
        want[TCP].options = options
        same_bytes(out, want)


@both
def syns_count_as_new_flows():
    for family in FAMILIES:
        for flags, new in (("S", 1), ("SEC", 1), ("SA", 0), ("A", 0),
                           ("R", 0), ("FA", 0)):
            before = lab.count(1)
            lab.xdp(to_service("tcp", family, flags=flags))
            same(lab.count(1)[2] - before[2], new, flags)


@both
def dsr_changes_ethernet_addresses_only():
    for family in FAMILIES:
        for name in ("dsr tcp", "dsr udp"):
            before = lab.count(1)
            packet = to_service(name, family)
            verdict, out = lab.xdp(packet)
            same(verdict, "redirect")
            same_bytes(out, new_macs(packet, 1))
            same(lab.count(1)[0], before[0] + 1)


@both
def udp_without_checksum_stays_so():
    packet = to_service("udp", 4)
    packet[UDP].chksum = 0
    want = at_backend(1, "udp", 4)
    want[UDP].chksum = 0
    same_bytes(lab.xdp(packet)[1], want)


@both
def udp_checksum_that_becomes_zero_is_sent_as_ones():
    for family in FAMILIES:
        # The payload that makes the sum come out as zero, by construction.
        found = 0
        for word in range(65536):
            payload = word.to_bytes(2, "big")
            if found == 0:
                want = raw(at_backend(1, "udp", family, payload=b"\0\0"))
                at = 14 + (20 if family == 4 else 40) + 6
                found = int.from_bytes(want[at:at + 2], "big")
                payload = found.to_bytes(2, "big")
            packet = to_service("udp", family, payload=payload)
            out = lab.xdp(packet)[1]
            same(out[at:at + 2], b"\xff\xff")
            break
        same_bytes(out, at_backend(1, "udp", family, payload=payload))


@both
def backend_with_its_own_port():
    for family in FAMILIES:
        _, out = lab.xdp(to_service("fixed port", family))
        same_bytes(out, at_backend(PORT, "fixed port", family, dport=9999))


@both
def backend_out_of_the_same_interface_is_sent_back():
    for family in FAMILIES:
        verdict, out = lab.xdp(to_service("back", family))
        sent_back(verdict)
        same_bytes(out, at_backend(TX, "back", family))


@both
def backend_behind_the_stack_is_rewritten_and_passed():
    for family in FAMILIES:
        packet = to_service("stack", family)
        verdict, out = lab.xdp(packet)
        same(verdict, "pass")
        # The stack is the router that takes one off the hop limit.
        want = at_backend(STACK, "stack", family, ttl=64)
        want[Ether].src, want[Ether].dst = CLIENT_MAC, UP_MAC
        same_bytes(out, want)


@both
def dsr_can_not_go_by_the_stack():
    for family in FAMILIES:
        dropped(to_service("dsr stack", family), "no_next_hop")


@both
def empty_slots_drop():
    for family in FAMILIES:
        dropped(to_service("empty", family), "no_backend")
        dropped(to_service("empty", family, flags="S"), "no_backend")


@both
def backend_without_next_hop_drops():
    for family in FAMILIES:
        before = lab.count(NO_HOP)
        dropped(to_service("unreachable", family), "no_next_hop")
        same(lab.count(NO_HOP), before)


@both
def hop_limit():
    for family in FAMILIES:
        for ttl in (0, 1):
            dropped(to_service("tcp", family, ttl=ttl), "ttl")
            dropped(to_service("udp", family, ttl=ttl), "ttl")
        for ttl in (2, 255):
            same_bytes(lab.xdp(to_service("tcp", family, ttl=ttl))[1],
                       at_backend(1, "tcp", family, ttl=ttl - 1))


@both
def what_is_not_ours_passes_untouched():
    for family in FAMILIES:
        src, vip = CLIENT[family], VIP[family]
        for l4 in (TCP(sport=5, dport=80, flags="S"), UDP(sport=5, dport=53)):
            untouched(ether() / network(family, src, OTHER[family]) / l4)
        for l4 in (TCP(sport=5, dport=81, flags="S"),  # another port
                   UDP(sport=5, dport=80),  # another protocol
                   TCP(sport=5, dport=53, flags="A"),
                   TCP(sport=80, dport=40000, flags="A")):  # from, not to
            untouched(ether() / network(family, src, vip) / l4)
        untouched(ether() / network(family, vip, src) / TCP(sport=80))
    untouched(ether() / ARP(pdst=VIP[4]))
    untouched(ether() / IP(src=CLIENT[4], dst=OTHER[4]) / ICMP() / b"ping")
    untouched(ether() / IPv6(src=CLIENT[6], dst=OTHER[6]) /
              ICMPv6EchoRequest(data=b"ping"))
    untouched(ether() / IPv6(src=CLIENT[6], dst="ff02::1:ff00:10") /
              ICMPv6ND_NS(tgt=VIP[6]))
    untouched(ether() / IP(src=CLIENT[4], dst=VIP[4], proto=47) / b"gre")
    untouched(ether() / IPv6(src=CLIENT[6], dst=VIP[6], nh=50) / Raw(b"e" * 40))
    untouched(Ether(src=CLIENT_MAC, dst=UP_MAC, type=0x88cc) / Raw(b"l" * 50))
    untouched(Ether(src=CLIENT_MAC, dst=UP_MAC, type=0x8847) / Raw(b"m" * 50))


@both
def an_address_of_one_family_is_not_the_others():
    words = ipaddress.ip_address(VIP[4]).packed
    six = str(ipaddress.IPv6Address(words + bytes(12)))
    untouched(ether() / IPv6(src=CLIENT[6], dst=six) / TCP(dport=80))


@both
def neighbours_of_a_vip_pass():
    """Keys that differ in one bit from a declared one."""
    for bit in range(32):
        value = int(ipaddress.ip_address(VIP[4])) ^ 1 << bit
        if str(ipaddress.ip_address(value)) != DSR_VIP[4]:
            untouched(ether() / IP(src=CLIENT[4],
                                   dst=str(ipaddress.ip_address(value))) /
                      TCP(dport=80, flags="S"))
    for bit in range(128):
        value = int(ipaddress.ip_address(VIP[6])) ^ 1 << bit
        untouched(ether() / IPv6(src=CLIENT[6],
                                 dst=str(ipaddress.IPv6Address(value))) /
                  TCP(dport=80, flags="S"))
    for bit in range(16):
        untouched(ether() / IP(src=CLIENT[4], dst=VIP[4]) /
                  TCP(dport=80 ^ 1 << bit, flags="S"))


def never_wrong(data, whole, family):
    """A cut packet may pass untouched or be dropped, but not be forwarded."""
    if lab.hook != "xdp" and len(data) < SHORTEST[family]:
        return "drop"  # a test run takes no such packet
    verdict, *out = lab(lab.hook, data.hex())
    check(verdict in ("pass", "drop"), "cut to", len(data), "of", whole, ":",
          verdict)
    if verdict == "pass":
        same(out[0] if out else "", data.hex(), "passed but changed")
    return verdict


@both
def packets_cut_short_are_never_forwarded():
    for family in FAMILIES:
        for name in ("tcp", "udp", "dsr tcp", "dsr udp"):
            data = raw(to_service(name, family, payload=b"x" * 30))
            start = 14 + (20 if family == 4 else 40)
            for length in range(15, len(data)):
                verdict = never_wrong(data[:length], len(data), family)
                if length >= start:  # the VIP is seen, so it is ours
                    same(verdict, "drop", name, family, "at", length)


@both
def padding_after_the_packet_is_no_harm():
    for family in FAMILIES:
        for name in ("tcp", "udp"):
            packet = to_service(name, family, payload=b"")
            pad = b"\0" * 14
            verdict, out = lab.xdp(raw(packet) + pad)
            same(verdict, "redirect")
            same(out, raw(at_backend(1, name, family, payload=b"")) + pad)


@both
def lengths_that_contradict_are_dropped():
    for name in ("tcp", "udp", "dsr tcp"):
        real = len(raw(to_service(name, 4))) - 14
        for length in (0, 1, 19, 20, 27, real + 1, 1500, 65535):
            dropped(to_service(name, 4, len=length), "malformed")
        real -= 20
        for length in (0, 1, 7, real + 1, 65535):
            dropped(to_service(name, 6, plen=length), "malformed")


@both
def header_lengths_that_lie():
    packet = bytearray(raw(to_service("tcp", 4)))
    for first in list(range(0x40, 0x45)) + [0x65, 0x05, 0xf5]:
        packet[14] = first
        never_wrong(bytes(packet), len(packet), 4)


def residue(data, family):
    """By how much a packet's checksums are wrong: nat must not change it."""
    start = 34 if family == 4 else 54
    proto = data[23] if family == 4 else data[20]
    addresses = data[26:34] if family == 4 else data[22:54]

    def total(*parts):
        joined = b"".join(p + b"\0" * (len(p) % 2) for p in parts)
        return sum(int.from_bytes(joined[i:i + 2], "big")
                   for i in range(0, len(joined), 2)) % 0xffff
    header = total(data[14:start]) if family == 4 else 0
    return header, total(addresses, bytes([0, proto]), data[start:])


def is_later_fragment(data, family):
    if family == 4:
        return int.from_bytes(data[20:22], "big") & 0x1fff
    return data[20] == 44 and int.from_bytes(data[56:58], "big") & 0xfff8


def check_nat_kept(before, after, family):
    """after is before, but for what nat may change."""
    if is_later_fragment(before, family):
        at = 30 if family == 4 else 38
        same(after[at + (4 if family == 4 else 16):],
             before[at + (4 if family == 4 else 16):])
        return
    proto = before[23] if family == 4 else before[20]
    start = 34 if family == 4 else 54
    csum = start + (16 if proto == 6 else 6)
    free = list(range(12)) + [start + 2, start + 3, csum, csum + 1]
    if family == 4:
        free += [22, 24, 25] + list(range(30, 34))
        same(after[22], before[22] - 1, "ttl")
    else:
        free += [21] + list(range(38, 54))
        same(after[21], before[21] - 1, "hop limit")
    for i, (old, new) in enumerate(zip(before, after)):
        if i not in free:
            same(new, old, "byte", i)
    same(len(after), len(before))
    if proto == 6 or before[csum:csum + 2] != b"\0\0":
        same(residue(after, family), residue(before, family), "checksums of",
             before.hex())


@both
def garbled_packets_are_never_forwarded_wrong():
    seed = int(os.environ.get("XLB_SEED", "1"))
    rounds = 20 if os.environ.get("XLB_SOAK", "0") not in ("", "0") else 1
    print("# XLB_SEED=%d" % seed)
    draw = random.Random(seed)
    forwarded = 0
    for _ in range(4000 * rounds):
        family, name = draw.choice(FAMILIES), draw.choice(("tcp", "udp"))
        data = bytearray(raw(to_service(name, family, draw.randrange(65536),
                                        payload=draw.randbytes(20))))
        port = slice(36, 38) if family == 4 else slice(56, 58)
        keep = data[port]
        for _ in range(draw.choice((0, 1, 1, 2, 3))):
            data[draw.randrange(12, len(data))] = draw.randrange(256)
        data[port] = keep  # the service stays the one that it is
        if draw.randrange(4) == 0:
            least = 20 if lab.hook == "xdp" else SHORTEST[family]
            del data[draw.randrange(least, len(data)):]
        verdict, *out = lab(lab.hook, data.hex())
        out = bytes.fromhex(out[0])
        if verdict == "pass":
            same(out, bytes(data), "passed but changed")
        elif verdict == "redirect":
            forwarded += 1
            least = (34 if family == 4 else 54) + (8 if name == "udp" else 20)
            check(len(data) >= least or is_later_fragment(data, family),
                  "forwarded a piece", data.hex())
            at = 30 if family == 4 else 38
            if data[at:].startswith(ipaddress.ip_address(
                    DSR_VIP[family]).packed):
                same(out[12:], bytes(data[12:]), "dsr")
            else:
                check_nat_kept(bytes(data), out, family)
        else:
            same(verdict, "drop")
    check(forwarded > 500 * rounds, "forwarded only", forwarded)


# --- fragments ---

def pieces(packet, family, sizes, ident=77):
    """The packet's frames when cut so that each carries so many bytes."""
    header = packet[IP if family == 4 else IPv6]
    data, at, frames = raw(header.payload), 0, []
    proto = header.proto if family == 4 else header.nh
    for i, size in enumerate(sizes):
        part, more = data[at:at + size], i + 1 < len(sizes)
        if family == 4:
            net = IP(src=header.src, dst=header.dst, ttl=header.ttl,
                     proto=proto, id=ident, flags="MF" if more else 0,
                     frag=at // 8)
        else:
            net = IPv6(src=header.src, dst=header.dst, hlim=header.hlim) / \
                IPv6ExtHdrFragment(nh=proto, id=ident, m=more,
                                   offset=at // 8)
        frames.append(Ether(src=packet.src, dst=packet.dst) / net / Raw(part))
        at += size
    same(at, len(data))
    return frames


def cut(packet, family, ident=77):
    size = len(raw(packet[IP if family == 4 else IPv6].payload))
    return pieces(packet, family, [1024, 1024, size - 2048], ident)


@both
def fragments_follow_the_first():
    for family in FAMILIES:
        for ident, name in enumerate(("udp", "tcp", "dsr udp")):
            packet = to_service(name, family, payload=b"f" * 2500)
            frames = cut(packet, family, ident)
            if name.startswith("dsr"):
                want = [new_macs(f, 1) for f in frames]
            else:
                want = cut(at_backend(1, name, family, payload=b"f" * 2500),
                           family, ident)
            for frame, expected in zip(frames, want):
                verdict, out = lab.xdp(frame)
                same(verdict, "redirect", name, family)
                same_bytes(out, expected)


@both
def fragments_stay_with_their_first_across_a_change():
    for family in FAMILIES:
        packet = to_service("udp", family, payload=b"f" * 2500)
        first, *rest = cut(packet, family, 500)
        want = cut(at_backend(1, "udp", family, payload=b"f" * 2500), family,
                   500)
        lab.xdp(first)
        fill("udp", 2)
        try:
            for frame, expected in zip(rest, want[1:]):
                same_bytes(lab.xdp(frame)[1], expected)
        finally:
            fill("udp", 1)


@both
def later_fragments_without_a_first_are_dropped():
    for family in FAMILIES:
        packet = to_service("udp", family, payload=b"f" * 2500)
        for frame in cut(packet, family, 900)[1:]:
            dropped(frame, "fragment")
        packet[IP if family == 4 else IPv6].dst = OTHER[family]
        for frame in cut(packet, family, 901):
            untouched(frame)


@both
def fragments_are_told_apart():
    for family in FAMILIES:
        packet = to_service("udp", family, payload=b"f" * 2500)
        lab.xdp(cut(packet, family, 1000)[0])
        dropped(cut(packet, family, 1001)[1], "fragment")
        packet[IP if family == 4 else IPv6].src = ROUTER[family]
        dropped(cut(packet, family, 1000)[1], "fragment")


@both
def first_fragments_too_small_for_the_ports_are_dropped():
    for family in FAMILIES:
        for name in ("tcp", "udp"):
            packet = to_service(name, family, payload=b"f" * 100)
            size = len(raw(packet[IP if family == 4 else IPv6].payload))
            if name == "tcp":
                first = pieces(packet, family, [8, size - 8], 1100)[0]
                dropped(first, "malformed")
            frame = pieces(packet, family, [0, size], 1101)[0]
            dropped(frame, "malformed")


@both
def later_fragments_whose_length_lies_are_dropped():
    for family in FAMILIES:
        first, second, _ = cut(to_service("udp", family, payload=b"f" * 2500),
                               family, 1300)
        same(lab.xdp(first)[0], "redirect")
        data = bytearray(raw(second))
        at = 16 if family == 4 else 18
        real = int.from_bytes(data[at:at + 2], "big")
        for length in (0, 7, real + 1, 65535):
            data[at:at + 2] = length.to_bytes(2, "big")
            dropped(bytes(data), "malformed")
        dropped(raw(second)[:-1], "malformed")
        same(lab.xdp(second)[0], "redirect")


@both
def later_fragments_spend_a_hop_too():
    for family in FAMILIES:
        first, second, _ = cut(to_service("udp", family, payload=b"f" * 2500),
                               family, 1200)
        lab.xdp(first)
        if family == 4:
            second[IP].ttl = 1
        else:
            second[IPv6].hlim = 1
        dropped(second, "ttl")


# --- ICMP ---

def quote(family, inner, size=None):
    """What an ICMP error about a packet quotes of it."""
    data = raw(inner)
    if size is None:
        size = 28 if family == 4 else 1232
    return Raw(data[:size])


def answer_of(name, family, src, sport, payload=b"answer"):
    """An answer that a client gets (or, from a backend, one on its way)."""
    _, proto, *_ = SERVICES[name]
    return network(family, src, CLIENT[family], 60) / \
        transport(proto, sport, 40000, "A", 7) / Raw(payload)


def errors(family, src, dst, quoted, ttl=64):
    if family == 4:
        yield from (IP(src=src, dst=dst, ttl=ttl) / i / quoted for i in (
            ICMP(type=3, code=1), ICMP(type=3, code=4, nexthopmtu=1300),
            ICMP(type=11, code=0), ICMP(type=12, code=0)))
    else:
        yield from (IPv6(src=src, dst=dst, hlim=ttl) / i / quoted for i in (
            ICMPv6DestUnreach(code=1), ICMPv6PacketTooBig(mtu=1300),
            ICMPv6TimeExceeded()))


@both
def icmp_errors_to_a_vip_reach_the_backend():
    for family in FAMILIES:
        for name in ("tcp", "udp"):
            port, _, target, *_ = SERVICES[name]
            at_vip = answer_of(name, family, VIP[family], port)
            at_be = answer_of(name, family, backend_ip(1, family), target)
            for size in (None, len(raw(at_vip))):
                sent = errors(family, ROUTER[family], VIP[family],
                              quote(family, at_vip, size))
                want = errors(family, ROUTER[family], backend_ip(1, family),
                              quote(family, at_be, size), 63)
                for packet, expected in zip(sent, want):
                    before = lab.count(1)
                    verdict, out = lab.xdp(ether() / packet)
                    same(verdict, "redirect", packet.summary())
                    same_bytes(out, Ether(src=GUEST_MAC,
                                          dst=backend_mac(1)) / expected)
                    same(lab.count(1)[0], before[0] + 1)


def quoting(family, name, src, sport, shape):
    """A packet to the client, as an error quotes it, with options."""
    l4 = transport(SERVICES[name][1], sport, 40000, "A", 7) / b"answer"
    if family == 4:
        return IP(src=src, dst=CLIENT[4], **shape) / l4
    return IPv6(src=src, dst=CLIENT[6]) / shape() / l4


@both
def icmp_errors_about_packets_with_options():
    shapes = {4: ({"options": [IPOption_NOP()] * 4},
                  {"options": [IPOption_NOP()] * 40}),
              6: (IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt)}
    for family in FAMILIES:
        for shape in shapes[family]:
            for name in ("tcp", "udp"):
                port, _, target, *_ = SERVICES[name]
                inner = raw(quoting(family, name, VIP[family], port, shape))
                back = raw(quoting(family, name, backend_ip(1, family),
                                   target, shape))
                start = len(inner) - len(b"answer") - (
                    20 if name == "tcp" else 8)
                for cut in (len(inner), start + 8):
                    quoted = [Raw(data[:cut]) for data in (inner, back)]
                    for sent, want in zip(
                            errors(family, ROUTER[family], VIP[family],
                                   quoted[0]),
                            errors(family, ROUTER[family],
                                   backend_ip(1, family), quoted[1], 63)):
                        verdict, out = lab.xdp(ether() / sent)
                        same(verdict, "redirect")
                        same_bytes(out, Ether(src=GUEST_MAC,
                                              dst=backend_mac(1)) / want)


@both
def icmp_errors_with_options_of_their_own():
    for family in FAMILIES:
        at_vip = answer_of("tcp", family, VIP[family], 80)
        at_be = answer_of("tcp", family, backend_ip(1, family), 8080)
        for sent, want in zip(
                errors(family, ROUTER[family], VIP[family],
                       quote(family, at_vip)),
                errors(family, ROUTER[family], backend_ip(1, family),
                       quote(family, at_be), 63)):
            for packet in (sent, want):
                if family == 4:
                    packet.options = [IPOption_NOP()] * 8
                else:
                    rest = packet.payload
                    packet.remove_payload()
                    packet.add_payload(IPv6ExtHdrDestOpt() / rest)
            same_bytes(lab.xdp(ether() / sent)[1],
                       Ether(src=GUEST_MAC, dst=backend_mac(1)) / want)


def echo(family, src, dst, ttl=64, data=b"ping", **more):
    if family == 4:
        return IP(src=src, dst=dst, ttl=ttl, **more) / \
            ICMP(type=8, id=7, seq=9) / Raw(data)
    return IPv6(src=src, dst=dst, hlim=ttl, **more) / \
        ICMPv6EchoRequest(id=7, seq=9, data=data)


def echoed(family, src, dst, data=b"ping", **more):
    if family == 4:
        return IP(src=src, dst=dst, ttl=64, **more) / \
            ICMP(type=0, id=7, seq=9) / Raw(data)
    return IPv6(src=src, dst=dst, hlim=64, **more) / \
        ICMPv6EchoReply(id=7, seq=9, data=data)


@both
def a_vip_answers_echo():
    for family in FAMILIES:
        for vip in (VIP, DSR_VIP):
            for data in (b"", b"p", b"ping", b"\xff" * 56, b"l" * 1400):
                for ttl in (1, 64, 255):
                    with Drops():
                        verdict, out = lab.xdp(ether() / echo(
                            family, CLIENT[family], vip[family], ttl, data))
                    same(verdict, "redirect")
                    same_bytes(out, Ether(src=UP_MAC, dst=CLIENT_MAC) / echoed(
                        family, vip[family], CLIENT[family], data))


@both
def echo_of_zeros():
    """A sum of nothing: its checksum is all ones, as a receiver sees no other for right."""
    ask, reply = (IP(src=CLIENT[4], dst=VIP[4]) / ICMP(type=8),
                  IP(src=VIP[4], dst=CLIENT[4]) / ICMP(type=0))
    for size in (0, 1, 8, 56):
        verdict, out = lab.xdp(ether() / ask / Raw(bytes(size)))
        same(verdict, "redirect")
        same_bytes(out, Ether(src=UP_MAC, dst=CLIENT_MAC) / reply / Raw(bytes(size)))


@both
def echo_that_is_not_answered():
    frag = {4: {"flags": "MF"}}
    for family in FAMILIES:
        client, vip = CLIENT[family], VIP[family]
        untouched(ether() / echo(family, client, OTHER[family]))
        untouched(ether() / echoed(family, client, vip))
        data = raw(ether() / echo(family, client, vip))
        start = SHORTEST[family] if lab.hook != "xdp" else 15
        for length in range(start, len(data)):
            untouched(data[:length])
        group = ether(dst="01:00:5e:00:00:01") / echo(family, client, vip)
        untouched(group)
    for src in ("0.0.0.0", "224.0.0.1", "255.255.255.255", "127.0.0.1",
                VIP[4]):
        untouched(ether() / echo(4, src, VIP[4]))
    for src in ("::", "::1", "ff02::1"):
        untouched(ether() / echo(6, src, VIP[6]))
    untouched(ether() / echo(4, CLIENT[4], VIP[4], **frag[4]))
    untouched(ether() / IPv6(src=CLIENT[6], dst=VIP[6]) / IPv6ExtHdrFragment(
        nh=58, m=1) / ICMPv6EchoRequest(data=b"12345678"))


@both
def icmp_errors_to_a_dsr_vip_are_sent_on_unchanged():
    for family in FAMILIES:
        quoted = answer_of("dsr tcp", family, DSR_VIP[family], 80)
        for packet in errors(family, ROUTER[family], DSR_VIP[family],
                             quote(family, quoted)):
            verdict, out = lab.xdp(ether() / packet)
            same(verdict, "redirect")
            same_bytes(out, new_macs(ether() / packet, 1))


@both
def icmp_errors_find_the_flows_own_backend():
    for family in FAMILIES:
        for sport in range(2000, 2040):
            mine = owner(to_service("mixed", family, sport), family)
            quoted = answer_of("mixed", family, VIP[family], 98)
            quoted[TCP].dport = sport
            packet = next(errors(family, ROUTER[family], VIP[family],
                                 quote(family, quoted)))
            same(owner(ether() / packet, family), mine)


@both
def icmp_errors_about_others_pass():
    for family in FAMILIES:
        quoted = answer_of("tcp", family, VIP[family], 81)
        for packet in errors(family, ROUTER[family], VIP[family],
                             quote(family, quoted)):
            untouched(ether() / packet)
        quoted = answer_of("tcp", family, OTHER[family], 80)
        for packet in errors(family, ROUTER[family], OTHER[family],
                             quote(family, quoted)):
            untouched(ether() / packet)


@both
def icmp_errors_that_contradict_themselves_pass():
    """The quoted packet isn't from whom the error was sent to."""
    for family in FAMILIES:
        quoted = answer_of("tcp", family, VIP[family], 80)
        for dst in (OTHER[family], DSR_VIP[family], HOST[family]):
            for packet in errors(family, ROUTER[family], dst,
                                 quote(family, quoted)):
                untouched(ether() / packet)


@both
def icmp_errors_about_udp_without_checksum():
    at_vip = answer_of("udp", 4, VIP[4], 53)
    at_be = answer_of("udp", 4, backend_ip(1, 4), 5353)
    at_vip[UDP].chksum = at_be[UDP].chksum = 0
    sent = errors(4, ROUTER[4], VIP[4], quote(4, at_vip))
    want = errors(4, ROUTER[4], backend_ip(1, 4), quote(4, at_be), 63)
    for packet, expected in zip(sent, want):
        same_bytes(lab.xdp(ether() / packet)[1],
                   Ether(src=GUEST_MAC, dst=backend_mac(1)) / expected)


@both
def icmp_errors_without_hops_left_are_dropped():
    for family in FAMILIES:
        quoted = answer_of("tcp", family, VIP[family], 80)
        for packet in errors(family, ROUTER[family], VIP[family],
                             quote(family, quoted), 1):
            dropped(ether() / packet, "ttl")


@both
def icmp_errors_cut_short_are_never_forwarded_wrong():
    for family in FAMILIES:
        quoted = answer_of("tcp", family, VIP[family], 80)
        packet = next(errors(family, ROUTER[family], VIP[family],
                             quote(family, quoted, 28 if family == 4 else 48)))
        data = raw(ether() / packet)
        for length in range(15, len(data)):
            never_wrong(data[:length], len(data), family)


# --- MTU ---

@both
def too_big_is_answered_by_the_vip():
    for family in FAMILIES:
        header = 40 if family == 4 else 60
        fits = to_service("sized", family,
                          payload=b"b" * (SMALL_MTU - header),
                          **({"flags": "PA"}))
        if family == 4:
            fits[IP].flags = "DF"
        same(lab.xdp(fits)[0], "redirect")
        big = to_service("sized", family,
                         payload=b"b" * (SMALL_MTU - header + 1))
        if family == 4:
            big[IP].flags = "DF"
        before = lab.count(SMALL)
        with Drops(too_big=1):
            verdict, out = lab.cut(big)
        same(verdict, "redirect")
        same(lab.count(SMALL), before)
        check_too_big(out, big, family)


def check_too_big(out, big, family, client=CLIENT_MAC, us=UP_MAC, mtu=SMALL_MTU,
                  vip=None):
    answer = Ether(out)
    same((answer.src, answer.dst), (us, client))
    header = answer[IP if family == 4 else IPv6]
    same(header.src, vip or big[1].dst)
    same(header.dst, big[1].src)
    if family == 4:
        same((answer[ICMP].type, answer[ICMP].code), (3, 4))
        same(answer[ICMP].nexthopmtu, mtu)
        start = 14 + 20 + 8
    else:
        same((answer[ICMPv6PacketTooBig].type), 2)
        same(answer[ICMPv6PacketTooBig].mtu, mtu)
        start = 14 + 40 + 8
    quoted = out[start:]
    check(len(quoted) >= 28, "quotes too little")
    same(quoted, raw(big[1])[:len(quoted)], "the quoted packet")
    # scapy fills in its own checksums and lengths: they must be those sent.
    again = Ether(out)
    for layer in (again.getlayer(1), again.getlayer(2)):
        for field in ("chksum", "cksum", "len", "plen"):
            if field in layer.fields:
                del layer.fields[field]
    fixed = raw(again.getlayer(0).copy())
    same(bytes(fixed)[14:start], out[14:start], "checksums of the answer")


@both
def too_big_without_dont_fragment_is_dropped():
    dropped(to_service("sized", 4, payload=b"b" * 1400), "too_big")


@both
def too_big_udp_is_answered_too():
    for family in FAMILIES:
        big = to_service("sized udp", family, payload=b"b" * 1400)
        if family == 4:
            big[IP].flags = "DF"
        with Drops(too_big=1):
            verdict, out = lab.cut(big)
        same(verdict, "redirect")
        check_too_big(out, big, family)


# --- which backend ---

@both
def a_flow_stays_and_flows_spread():
    for family in FAMILIES:
        seen = {}
        for sport in range(3000, 3400):
            first = owner(to_service("mixed", family, sport, flags="S"),
                          family)
            for flags in ("A", "PA", "FA"):
                same(owner(to_service("mixed", family, sport, flags=flags),
                           family), first)
            seen[first] = seen.get(first, 0) + 1
        same(sorted(seen), [1, 2, 3, 4])
        check(min(seen.values()) > 50, "spread", seen)


@both
def round_robin_takes_turns_and_tcp_stays():
    for family in FAMILIES:
        turns = []
        for i in range(30):
            sport = 5000 + i
            turns.append(owner(to_service("turns", family, sport, flags="S",
                                          seq=100), family))
            for seq, flags in ((101, "A"), (101, "PA"), (900, "PA")):
                same(owner(to_service("turns", family, sport, flags=flags,
                                      seq=seq), family), turns[-1], "flow", i)
        for i in range(3, 30):
            same(turns[i], turns[i - 3], "turns", turns)
        same(sorted(turns[:3]), [1, 2, 3])
        # Later still, and with others in between.
        for i in range(30):
            same(owner(to_service("turns", family, 5000 + i, flags="A",
                                  seq=5000), family), turns[i])


@both
def round_robin_of_datagrams():
    for family in FAMILIES:
        turns = [owner(to_service("turns udp", family, 6000), family)
                 for _ in range(12)]
        for i in range(3, 12):
            same(turns[i], turns[i - 3], "turns", turns)
        same(sorted(turns[:3]), [1, 2, 3])


@both
def a_repeated_syn_takes_no_second_turn():
    for family in FAMILIES:
        first = owner(to_service("turns", family, 7000, flags="S", seq=50),
                      family)
        for _ in range(3):
            same(owner(to_service("turns", family, 7000, flags="S", seq=50),
                       family), first)


class Flow:
    """One client connection to a service whose slots move."""

    ports = iter(range(10000, 60000))

    def __init__(self, family, name="moves"):
        self.family, self.name = family, name
        self.sport, self.isn = next(Flow.ports), 4000

    def send(self, flags, seq, payload=b"data"):
        return owner(to_service(self.name, self.family, self.sport,
                                flags=flags, seq=seq, payload=payload),
                     self.family)

    def syn(self, isn=None, payload=b""):
        return self.send("S", self.isn if isn is None else isn, payload)

    def first_ack(self):
        return self.send("A", self.isn + 1, b"")

    def data(self, seq=None):
        return self.send("PA", self.isn + 500 if seq is None else seq)

    def open(self):
        self.backend = self.syn()
        same(self.first_ack(), self.backend)
        same(self.data(), self.backend)
        return self


ESTABLISHED, HALF_OPEN, SIGHTED, CLOSING = range(4)


def memories(kind=None, backend=None):
    """All there are: (line, class, backend, time), of one class or backend."""
    all_there_are = [tuple(int(n) for n in word.split(":"))
                     for word in lab("memories")]
    return [m for m in all_there_are if kind in (None, m[1]) and
            backend in (None, m[2])]


def forget_all():
    for number in BACKENDS:
        lab("forget", number)


@both
def at_rest_nothing_is_remembered():
    forget_all()
    for family in FAMILIES:
        fill("moves", 1)
        Flow(family).open()
        for number in BACKENDS:
            same(lab("remembered", number), ["0"])


@both
def moving_keeps_the_established_and_moves_the_new():
    for family in FAMILIES:
        forget_all()
        fill("moves", 1)
        old = [Flow(family).open() for _ in range(20)]
        fill("moves", 2, 1, "moving")
        new = [Flow(family).open() for _ in range(20)]
        for _ in range(3):
            for flow in old:
                same(flow.data(), 1)
            for flow in new:
                same(flow.backend, 2)
                same(flow.data(), 2)
        # What was found out lasts when the slot settles.
        fill("moves", 2, 2, "settled")
        for flow in old:
            same(flow.data(), 1)
        for flow in new:
            same(flow.data(), 2)
        same(Flow(family).open().backend, 2)


@both
def icmp_errors_follow_the_memory():
    for family in FAMILIES:
        forget_all()
        fill("moves", 1)
        flow = Flow(family).open()
        fill("moves", 2, 1, "moving")
        flow.data()
        fill("moves", 2, 2, "settled")
        quoted = answer_of("moves", family, VIP[family], 92)
        quoted[TCP].dport = flow.sport
        packet = next(errors(family, ROUTER[family], VIP[family],
                             quote(family, quoted)))
        same(owner(ether() / packet, family), 1)


@both
def moving_twice_keeps_the_oldest_and_those_between():
    for family in FAMILIES:
        forget_all()
        fill("moves", 1)
        old = Flow(family).open()
        fill("moves", 2, 1, "moving")
        between = Flow(family).open()
        fill("moves", 3, 1, "moving")
        new = Flow(family).open()
        same((old.data(), between.data(), new.data()), (1, 2, 3))
        # Back where it came from: settled, not at rest.
        fill("moves", 1, 1, "settled")
        same((old.data(), between.data(), new.data()), (1, 2, 3))


@both
def moving_to_nobody_keeps_the_established():
    for family in FAMILIES:
        forget_all()
        fill("moves", 1)
        old = Flow(family).open()
        fill("moves", 0, 1, "moving")
        same(old.data(), 1)
        dropped(to_service("moves", family, next(Flow.ports), flags="S"),
                "no_backend")
        same(old.data(), 1)


@both
def half_open_is_promoted_by_its_sequence_number_only():
    for family in FAMILIES:
        forget_all()
        fill("moves", 2, 1, "moving")
        flow = Flow(family)
        same(flow.syn(), 2)
        # Not the number that the SYN promised: an older connection's packet.
        same(flow.send("A", flow.isn + 77), 1)
        same(flow.send("A", flow.isn + 1), 2)
        same(flow.data(), 2)


@both
def data_in_a_syn_promises_two_numbers():
    for family in FAMILIES:
        for taken in (0, 10):  # did the server take the data?
            forget_all()
            fill("moves", 2, 1, "moving")
            flow = Flow(family)
            same(flow.syn(payload=b"0123456789"), 2)
            same(flow.send("A", flow.isn + 1 + taken, b""), 2)
            same(flow.data(), 2)


@both
def sequence_numbers_wrap():
    for family in FAMILIES:
        forget_all()
        fill("moves", 2, 1, "moving")
        flow = Flow(family)
        flow.isn = 0xffffffff
        same(flow.syn(), 2)
        same(flow.send("A", 0), 2)


@both
def a_spoofed_syn_does_not_touch_an_established_flow():
    for family in FAMILIES:
        for state in ("moving", "settled"):
            forget_all()
            fill("moves", 1)
            flow = Flow(family).open()
            fill("moves", 2, 1, "moving")
            same(flow.data(), 1)
            if state == "settled":
                fill("moves", 2, 2, "settled")
            for isn in range(50):
                same(flow.syn(isn * 7919), 2)
                same(flow.data(), 1)
            same(flow.data(), 1)


@both
def a_new_connection_replaces_the_memory_of_an_old_one():
    for family in FAMILIES:
        forget_all()
        fill("moves", 1)
        flow = Flow(family).open()
        fill("moves", 2, 1, "moving")
        same(flow.data(), 1)
        fill("moves", 2, 2, "settled")
        flow.isn = 900000  # the same ports again, after it was closed
        same(flow.syn(), 2)
        same(flow.first_ack(), 2)
        same(flow.data(), 2)


@both
def a_repeated_syn_follows_its_first():
    for family in FAMILIES:
        forget_all()
        fill("moves", 2, 1, "moving")
        flow = Flow(family)
        same(flow.syn(), 2)
        fill("moves", 3, 1, "moving")
        same(flow.syn(), 2, "SYN sent again after a change")
        same(flow.first_ack(), 2)


@both
def another_generation_is_no_memory():
    for family in FAMILIES:
        forget_all()
        fill("moves", 1)
        flow = Flow(family).open()
        fill("moves", 2, 1, "moving")
        same(flow.data(), 1)
        fill("moves", 2, 2, "settled")
        same(flow.data(), 1)
        set_backend(1, generation=2)
        try:
            same(flow.data(), 2, "memory of a generation that is gone")
        finally:
            set_backend(1)
        same(flow.data(), 1)


@both
def forgotten_flows_follow_the_slot():
    for family in FAMILIES:
        forget_all()
        fill("moves", 1)
        flows = [Flow(family).open() for _ in range(10)]
        fill("moves", 2, 1, "moving")
        for flow in flows:
            flow.data()
        fill("moves", 2, 2, "settled")
        same(lab("remembered", 1), ["10"])
        same(lab("forget", 1), ["10"])
        same(lab("remembered", 1), ["0"])
        for flow in flows:
            same(flow.data(), 2)


def many_flows(flags, count, first, name="moves", seq=1000):
    """A packet each of so many flows to a service."""
    lines = []
    template = bytearray(raw(to_service(name, 4, flags=flags, seq=seq,
                                        payload=b"")))
    for i in range(count):
        template[26:30] = (first + i * 7).to_bytes(4, "big")
        template[34:36] = (1024 + i % 60000).to_bytes(2, "big")
        lines.append("xdp " + template.hex() + "\n")
    for at in range(0, count, 100):
        lab.process.stdin.write("".join(lines[at:at + 100]))
        lab.process.stdin.flush()
        for _ in lines[at:at + 100]:
            same(lab.process.stdout.readline().split()[1], "redirect")


@test
def only_memories_that_are_old_make_room():
    """The lines are full of living flows: nobody's place is taken."""
    forget_all()
    lab("now", 10)
    fill("moves", 1)
    flows = [Flow(4).open() for _ in range(200)]
    fill("moves", 2, 1, "moving")
    for flow in flows:
        same(flow.data(), 1)
        same(flow.data(), 1)
    for i in range(8):  # what is seen twice is established
        for _ in range(2):
            many_flows("A", 2000, 0x0c000000 + (i << 16))
    full = len(memories(ESTABLISHED))
    check(full > 7500, "remembered only", full)
    fill("moves", 3, 2, "moving")
    for _ in range(2):
        many_flows("A", 4000, 0x0d000000)
    same(len(memories(ESTABLISHED, 1)), full)
    # What speaks stays young; the rest grows old and makes room.
    for now in (100, 190, 250):
        lab("now", now)
        for flow in flows:
            same(flow.data(), 1)
    for _ in range(2):
        many_flows("A", 4000, 0x0d000000)
    check(int(lab("remembered", 2)[0]) > 2500)
    fill("moves", 3, 3, "settled")
    for flow in flows:
        same(flow.data(), 1)
    forget_all()
    lab("now", 0)


@test
def no_flood_evicts_an_established_flow():
    """1024 lines of eight: the floods fill them many times over."""
    for kinds in ("S", "A", "SA"):
        forget_all()
        lab("tokens", 131072)
        fill("moves", 1)
        flows = [Flow(4).open() for _ in range(200)]
        fill("moves", 2, 1, "moving")
        for _ in range(2):
            for flow in flows:
                same(flow.data(), 1)
        same(len(memories(ESTABLISHED)), 200)
        for flags in kinds:
            many_flows(flags, 30000 // len(kinds), 0x0b000000 + ord(flags))
        lines = {}
        for line, kind, _, _ in memories():
            lines.setdefault((line, kind), []).append(1)
        for kind, flags in ((HALF_OPEN, "S"), (SIGHTED, "A")):
            ways = [len(n) for (_, k), n in lines.items() if k == kind]
            if flags in kinds:
                check(sum(ways) > 2500, kinds, flags, sum(ways))
                same(max(ways), 3, "ways of a class in a line")
            else:
                same(ways, [])
        fill("moves", 2, 2, "settled")
        for flow in flows:
            same(flow.data(), 1)
    forget_all()


@test
def what_was_seen_once_outlives_a_flood_in_a_later_change():
    forget_all()
    fill("moves", 1)
    flows = [Flow(4).open() for _ in range(100)]
    fill("moves", 2, 1, "moving")
    for flow in flows:
        same(flow.data(), 1)
    fill("moves", 2, 2, "settled")
    same(len(memories(SIGHTED, 1)), 100)
    # Nobody falls back to 1 any more: only flows of 2 make room for others.
    fill("moves", 3, 2, "moving")
    many_flows("A", 30000, 0x0b000000)
    check(len(memories(SIGHTED, 2)) > 2500)
    for flow in flows:
        same(flow.data(), 1)
    forget_all()


@test
def a_flow_of_prev_is_established_at_its_second_sighting():
    for family in FAMILIES:
        forget_all()
        fill("moves", 1)
        flow = Flow(family).open()
        fill("moves", 2, 1, "moving")
        for kind in (SIGHTED, ESTABLISHED, ESTABLISHED):
            same(flow.data(), 1)
            same([m[1:3] for m in memories()], [(kind, 1)])


@test
def what_was_seen_once_is_established_where_the_slot_settled():
    for family in FAMILIES:
        forget_all()
        fill("moves", 1)
        flow = Flow(family).open()
        fill("moves", 2, 1, "moving")
        same(flow.data(), 1)
        fill("moves", 2, 2, "settled")
        # A forged SYN doesn't speak for it, and a new connection gets its own.
        same(flow.syn(77), 2)
        same(flow.data(), 1)
        same(sorted(m[1:3] for m in memories()),
             [(ESTABLISHED, 1), (HALF_OPEN, 2)])
        same(flow.send("A", 78, b""), 2)
        same([m[1:3] for m in memories()], [(ESTABLISHED, 2)])


@test
def a_promoted_memory_stays_in_its_place():
    for family in FAMILIES:
        forget_all()
        fill("moves", 2, 1, "moving")
        flow = Flow(family)
        same(flow.syn(), 2)
        line = memories()
        same([m[1:3] for m in line], [(HALF_OPEN, 2)])
        same(flow.first_ack(), 2)
        same([(m[0], m[1], m[2]) for m in memories()],
             [(line[0][0], ESTABLISHED, 2)])


@test
def settled_slots_write_nothing_about_strangers():
    for family in FAMILIES:
        forget_all()
        fill("moves", 2, 2, "settled")
        for _ in range(3):
            same(Flow(family).open().backend, 2)
        same(memories(), [])


@test
def without_a_token_a_syn_goes_where_the_next_packet_will_go():
    for family in FAMILIES:
        forget_all()
        fill("moves", 2, 1, "moving")
        before = [int(n) for n in lab("events")]
        lab("tokens", 2)
        kept = [Flow(family).open() for _ in range(2)]
        same([flow.backend for flow in kept], [2, 2])
        flows = [Flow(family) for _ in range(63)]
        for flow in flows:
            same(flow.syn(), 1)
        same(len(memories(HALF_OPEN)), 0)
        for flow in flows[:5] + kept:
            same(flow.first_ack(), flow.backend if flow in kept else 1)
        # Counted in one go.
        same([int(n) for n in lab("events")], [before[0], before[1] + 64])
        # Nobody to fall back on: the owner.
        lab("tokens", 0)
        fill("moves", 2, 0, "moving")
        same(Flow(family).syn(), 2)
        # A memory of the same ports, whose packets would go there.
        fill("moves", 3, 1, "moving")
        same(kept[0].data(), 2)
        same(kept[0].syn(99), 2)
        # What picks has the slot to go by.
        lab("tokens", 0)
        lab("fill", SERVICES["random"][4], 256, 2, 1, "moving")
        same([Flow(family, "random").syn() for _ in range(9)], [1] * 9)
        lab("tokens", 131072)
        same(Flow(family).open().backend, 3)
    forget_all()


@test
def a_lost_place_is_counted():
    """Eight established flows in each line, and one more."""
    forget_all()
    fill("moves", 2, 1, "moving")
    before = int(lab("events")[0])
    for i in range(10):
        for _ in range(2):
            many_flows("A", 1500, 0x0c000000 + (i << 16))
    same(len(memories(SIGHTED)) + len(memories(ESTABLISHED)),
         len(memories()))
    check(int(lab("events")[0]) > before + 1000)
    between = int(lab("events")[0])
    lab("tokens", 131072)
    many_flows("S", 1000, 0x0e000000)
    check(int(lab("events")[0]) > between + 500)
    forget_all()


@test
def dead_memories_make_room():
    forget_all()
    fill("moves", 2, 1, "moving")
    for i in range(8):
        for _ in range(2):
            many_flows("A", 2000, 0x0c000000 + (i << 16))
    check(len(memories(None, 1)) > 7500)
    fill("moves", 3, 2, "moving")
    set_backend(1, generation=2)
    lab("now", 1)  # whose memories are of this tick is taken to live
    try:
        for _ in range(2):
            many_flows("A", 2500, 0x0d000000)
        room = len(memories(ESTABLISHED, 2))
        check(room > 1500, room)
        flow = Flow(4)
        same(flow.syn(), 3)
        same(flow.first_ack(), 3)
    finally:
        set_backend(1)
        lab("now", 0)
    forget_all()


@test
def more_flows_than_there_is_room_for_are_remembered_as_far_as_it_goes():
    """Not one for another: all of them together would forget each other."""
    forget_all()
    fill("moves", 2, 1, "moving")
    try:
        for tick in range(8):
            lab("now", tick)
            many_flows("A", 12000, 0x0c000000)
    finally:
        lab("now", 0)
    known = len(memories(ESTABLISHED, 1))
    check(known > 7000, f"{known} of {8 * 1024}")
    forget_all()


@test
def held_slots_keep_their_clients():
    for family in FAMILIES:
        forget_all()
        fill("client", 2, 1, "held")
        flow = Flow(family, "client")
        same(flow.syn(), 1)
        same(memories(), [], "a held slot's SYN needs no memory")
        same(flow.first_ack(), 1)
        same(flow.data(), 1)
        same(sorted(m[1:3] for m in memories()), [(ESTABLISHED, 1)] * 2)
        # Where no client sticks a held slot's flows are prev's all the same.
        fill("moves", 2, 1, "held")
        same(Flow(family).open().backend, 1)


def of_client(packet, family, number):
    """The same packet from another client."""
    packet[IP if family == 4 else IPv6].src = {
        4: "203.0.113.%d", 6: "2001:db8:c::%x"}[family] % number
    return packet


def client_flow(family, number, name="client"):
    """SYN, ACK and data of a new connection: their backends."""
    sport = next(Flow.ports)
    return [owner(of_client(to_service(name, family, sport, flags=flags,
                                       seq=seq, payload=payload), family,
                            number), family)
            for flags, seq, payload in (("S", 50, b""), ("A", 51, b""),
                                        ("PA", 51, b"data"))]


@test
def clients_stick_to_their_backend():
    for family in FAMILIES:
        forget_all()
        fill("client", 1)
        same(client_flow(family, 10), [1] * 3)
        same(memories(), [], "at rest nothing is remembered")
        fill("client", 2, 1, "held")
        same(client_flow(family, 10), [1] * 3)
        same(client_flow(family, 11), [1] * 3)
        # Whoever came while it was held stays, who comes now is the owner's.
        fill("client", 2, 1, "moving")
        same(client_flow(family, 10), [1] * 3)
        same(client_flow(family, 12), [2] * 3)
        fill("client", 3, 1, "moving")
        same(client_flow(family, 12), [2] * 3)
        same(client_flow(family, 13), [3] * 3)
        # Settled, a new connection may have to be remembered too.
        fill("client", 3, 3, "settled")
        same(client_flow(family, 10), [1] * 3)
        same(client_flow(family, 12), [2] * 3)
        same(client_flow(family, 14), [3] * 3)
        # Held again, for other flows.
        fill("client", 4, 3, "held")
        same(client_flow(family, 10), [1] * 3)
        same(client_flow(family, 15), [3] * 3)


@test
def who_was_silent_for_long_sticks_no_more():
    for family in FAMILIES:
        forget_all()
        lab("now", 0)
        fill("client", 2, 1, "held")
        same(client_flow(family, 10), [1] * 3)
        same(client_flow(family, 11), [1] * 3)
        fill("client", 2, 2, "settled")
        lab("now", 10)
        same(client_flow(family, 10), [1] * 3)
        lab("now", 11)
        same(client_flow(family, 10), [1] * 3)
        same(client_flow(family, 11), [2] * 3)
        # And then sticks to the new one.
        fill("client", 3, 2, "held")
        same(client_flow(family, 11), [2] * 3)
        fill("client", 3, 2, "moving")
        same(client_flow(family, 11), [2] * 3)
        same(client_flow(family, 10), [1] * 3)
        lab("now", 0)


@test
def forged_syns_make_no_client_stick():
    for family in FAMILIES:
        forget_all()
        fill("client", 2, 1, "held")
        for _ in range(5):
            same(Flow(family, "client").syn(), 1)
        same(memories(), [])
        fill("client", 2, 1, "moving")
        lab("tokens", 0)
        same(Flow(family, "client").syn(), 1)
        same(memories(), [])
        lab("tokens", 131072)


@test
def a_client_sticks_until_its_backend_dies():
    for family in FAMILIES:
        forget_all()
        fill("client", 2, 1, "held")
        same(client_flow(family, 10), [1] * 3)
        fill("client", 2, 2, "settled")
        same(client_flow(family, 10), [1] * 3)
        set_backend(1, generation=2)
        try:
            same(client_flow(family, 10), [2] * 3)
        finally:
            set_backend(1)


@test
def flows_of_a_client_share_a_slot_but_not_a_line():
    for family in FAMILIES:
        forget_all()
        lab("maglev", SERVICES["client"][4], 8, 1, 2, 3, 4)
        owners = set()
        for number in range(20, 40):
            got = {o for _ in range(5) for o in client_flow(family, number)}
            same(len(got), 1, "backends of client", number)
            owners |= got
        same(owners, {1, 2, 3, 4})
        fill("client", 2, 1, "moving")
        for _ in range(30):
            client_flow(family, 20)
        lines = {m[0] for m in memories()}
        check(len(lines) > 3, "lines", lines)
        # 256 slots in 1024 lines: they aren't those of the client's slot.
        check(len({line >> 2 for line in lines}) > 3, "slots", lines)


@test
def a_client_leaves_who_leaves():
    for family in FAMILIES:
        forget_all()
        fill("client", 2, 1, "held")
        same(client_flow(family, 10), [1] * 3)
        old = Flow(family, "client").open()
        try:
            set_backend(1, "leaving")
            # As the planner has it: who leaves holds no slot.
            fill("client", 2, 1, "moving")
            same(client_flow(family, 10), [2] * 3)
            same(old.data(), 1)
            # And sticks to the next one from now on.
            fill("client", 3, 1, "moving")
            same(client_flow(family, 10), [2] * 3)
            fill("client", 3, 3, "settled")
            same(client_flow(family, 10), [2] * 3)
            # No tie is made to who leaves.
            fill("client", 1)
            fill("client", 4, 1, "moving")
            same(owners_of(family, "client", 60, [30000] * 3), [1] * 3)
            same(old.data(), 1)
            set_backend(1)
            same(client_flow(family, 60), [4] * 3)
        finally:
            set_backend(1)


@test
def who_is_at_home_needs_no_tie():
    for family in FAMILIES:
        forget_all()
        lab("now", 0)
        fill("client", 2, 2, "settled")
        same(client_flow(family, 10), [2] * 3)
        same(memories(), [], "the owner of a settled slot needs no memory")
        fill("client", 2, 1, "moving")
        same(client_flow(family, 10), [2] * 3)
        tie = memories(SIGHTED, 2) or memories(ESTABLISHED, 2)
        check(tie, "while it moves a client is tied")
        fill("client", 2, 2, "settled")
        lab("now", 5)
        same(client_flow(family, 10), [2] * 3)
        same([m for m in memories() if m[3] == 5], [],
             "nor is it touched there")
        # Elsewhere it is.
        fill("client", 3, 3, "settled")
        same(client_flow(family, 10), [2] * 3)
        check([m for m in memories() if m[3] == 5])
        lab("now", 0)


def by_clients(name):
    """A table where each slot's owner tells of the slot."""
    base = SERVICES[name][4]
    for slot in range(256):
        lab("fill", base + slot, 1, 1 + slot % 4, 1 + slot % 4, "settled")


def owners_of(family, name, number, sports):
    return [owner(of_client(to_service(name, family, sport, flags="A", seq=9),
                            family, number), family) for sport in sports]


def turn_into(name, options):
    SERVICES[name] = (*SERVICES[name][:5], options)
    set_vips()


@test
def a_change_of_what_is_hashed_breaks_no_flow():
    """Between flows' slots and clients' slots, both ways and to picks."""
    sports = range(20000, 20012)
    first = SERVICES["moves"][5]
    for family in FAMILIES:
        for before, between, after in (
                ("", "to_client=10", "client=10"),
                ("client=10", "from_client", ""),
                ("client=10", "rr from_client", "rr")):
            forget_all()
            turn_into("moves", before)
            by_clients("moves")
            was = owners_of(family, "moves", 50, sports)
            same(len(set(was)) == 1, before == "client=10")
            same(memories(ESTABLISHED), [])
            try:
                turn_into("moves", between)
                # Found by the old slots, and remembered.
                same(owners_of(family, "moves", 50, sports), was, between)
                same(owners_of(family, "moves", 50, sports), was, between)
                check(len(memories(ESTABLISHED)) >= len(sports))
                new = client_flow(family, 50, "moves")
                same(len(set(new)), 1, between)
                turn_into("moves", after)
                fill("moves", 5, 5, "settled")
                same(owners_of(family, "moves", 50, sports), was, after)
            finally:
                turn_into("moves", first)
    forget_all()


@test
def while_what_is_hashed_changes_every_new_flow_is_remembered():
    for family in FAMILIES:
        for name in ("to client", "from client"):
            forget_all()
            by_clients(name)
            new = [Flow(family, name).open() for _ in range(20)]
            check(len(memories(ESTABLISHED)) >= 20, name)
            stuck = name == "to client"
            same(len({flow.backend for flow in new}) == 1, stuck, name)
            # Wherever the slots lead then.
            fill(name, 5, 5, "settled")
            same([flow.data() for flow in new],
                 [flow.backend for flow in new])
            # Nobody half-open is left behind in a wrong place: without a
            # token a SYN goes where its next packet will go.
            by_clients(name)
            lab("tokens", 0)
            refused = [Flow(family, name) for _ in range(20)]
            got = [flow.syn() for flow in refused]
            lab("tokens", 131072)
            same([flow.first_ack() for flow in refused], got)
    forget_all()


@test
def icmp_errors_find_the_old_slot():
    for family in FAMILIES:
        forget_all()
        for name in ("to client", "from client"):
            by_clients(name)
            for _ in range(8):
                flow = Flow(family, name)
                quoted = answer_of(name, family, VIP[family],
                                   SERVICES[name][0])
                quoted[TCP].dport = flow.sport
                packet = next(errors(family, ROUTER[family], VIP[family],
                                     quote(family, quoted)))
                got = owner(ether() / packet, family)
                same(flow.data(), got, name)


@test
def random_picks_spread_and_stay():
    for family in FAMILIES:
        forget_all()
        lab("maglev", SERVICES["random"][4], 8, 1, 2, 3, 4)
        lab("fill", SERVICES["random"][4], 64, 5, 5, "settled")
        seen = {}
        for at in range(64, 256, 64):
            lab("fill", SERVICES["random"][4] + at, 64, 1 + at // 64,
                1 + at // 64, "settled")
        for _ in range(400):
            flow = Flow(family, "random").open()
            same(flow.data(), flow.backend)
            seen[flow.backend] = seen.get(flow.backend, 0) + 1
        same(sorted(seen), [2, 3, 4, 5])
        check(min(seen.values()) > 50, seen)
        forget_all()


def settled_table(name, *backends):
    """Equal parts of the slots; shares of the table are weights."""
    part = 256 // len(backends)
    for i, number in enumerate(backends):
        lab("fill", SERVICES[name][4] + i * part,
            256 - i * part if i == len(backends) - 1 else part, number,
            number, "settled")


@test
def shares_of_the_table_are_weights():
    for family in FAMILIES:
        forget_all()
        settled_table("random", 1, 1, 1, 2)
        got = [Flow(family, "random").syn() for _ in range(600)]
        check(380 < got.count(1) < 520, got.count(1))
        lab("rr", SERVICES["turns"][4], 8, 1, 2)
        fill_schedule = [1, 1, 1, 2] * 64
        for i, number in enumerate(fill_schedule):
            lab("fill", SERVICES["turns"][4] + i, 1, number, number,
                "settled")
        got = [Flow(family, "turns").syn() for _ in range(256)]
        same(got.count(1), 192)
        lab("rr", SERVICES["turns"][4], 8, 1, 2, 3)
        forget_all()


@test
def the_less_loaded_of_two_gets_the_flow():
    for family in FAMILIES:
        forget_all()
        settled_table("two", 1, 2, 3, 4)
        for number in range(1, 5):
            lab("load", number, 0 if number == 3 else 1000, 0)
        got = [Flow(family, "two").syn() for _ in range(400)]
        # Whoever draws it at least once in two draws: 7 of 16.
        check(130 < got.count(3) < 220, got.count(3))
        for number in range(1, 5):
            lab("load", number, 0, 65536)
        flows = [Flow(family, "two").open() for _ in range(400)]
        loads = [int(lab("loads", number)[0]) for number in range(1, 5)]
        same(sum(loads), 400 * 65536)
        check(max(loads) - min(loads) <= 8 * 65536, loads)
        for number in range(1, 5):
            same([f.backend for f in flows].count(number) * 65536,
                 loads[number - 1])
        # Twice the step is half the flows; a SYN sent again is no new flow.
        for number in range(1, 5):
            lab("load", number, 0, 131072 if number == 1 else 65536)
        got = []
        for _ in range(350):
            flow = Flow(family, "two")
            got.append(flow.syn())
            same(flow.syn(), got[-1])
        same(sum(int(lab("loads", number)[0]) for number in range(1, 5)),
             (350 + got.count(1)) * 65536)
        check(30 <= got.count(1) <= 70, got.count(1))
        forget_all()


@test
def datagrams_are_picked_one_by_one_by_load():
    for family in FAMILIES:
        forget_all()
        settled_table("two udp", 1, 2, 3, 4)
        for number in range(1, 5):
            lab("load", number, 0, 1)
        got = [owner(to_service("two udp", family, 6100), family)
               for _ in range(200)]
        for number in range(1, 5):
            check(40 <= got.count(number) <= 60, got.count(number))
        same(memories(), [])


@test
def changing_the_algorithm_breaks_no_flow():
    """From a hash to picks: what was at rest is settled."""
    for family in FAMILIES:
        forget_all()
        fill("moves", 1)
        flow = Flow(family).open()
        settled_table("random", 1, 1, 1, 1)
        flow.name = "random"
        same(flow.data(), 1)
        # The table changes while it picks: prev, and remembered.
        lab("fill", SERVICES["random"][4], 256, 2, 1, "moving")
        same([flow.data() for _ in range(3)], [1] * 3)
        same([m[1:3] for m in memories()], [(ESTABLISHED, 1)])
        same(Flow(family, "random").open().backend, 2)
        lab("fill", SERVICES["random"][4], 256, 2, 2, "settled")
        same(flow.data(), 1)


@test
def fin_and_rst_mark_what_counts():
    for family in FAMILIES:
        forget_all()
        fill("counted", 2, 1, "moving")
        flow = Flow(family, "counted").open()
        steps = (("FA", b"", CLOSING), ("A", b"", CLOSING),
                 ("PA", b"x", ESTABLISHED), ("R", b"", CLOSING),
                 ("A", b"", CLOSING), ("A", b"x", ESTABLISHED),
                 ("FPA", b"x", CLOSING))
        for flags, payload, kind in steps:
            same(flow.send(flags, 9000, payload), 2)
            same([m[1:3] for m in memories()], [(kind, 2)], flags, payload)
        # Where nobody counts nothing is marked.
        forget_all()
        fill("moves", 2, 1, "moving")
        flow = Flow(family).open()
        same(flow.send("FA", 9000, b""), 2)
        same([m[1:3] for m in memories()], [(ESTABLISHED, 2)])


@test
def closed_flows_make_room_after_a_while():
    forget_all()
    lab("now", 0)
    fill("counted", 2, 1, "moving")
    for i in range(8):
        for flags in ("A", "FA"):
            many_flows(flags, 2000, 0x0c000000 + (i << 16), "counted")
    full = len(memories(CLOSING))
    check(full > 7500, full)
    fill("counted", 3, 2, "moving")
    lab("now", 8)
    for _ in range(2):
        many_flows("A", 3000, 0x0d000000, "counted")
    same(len(memories(CLOSING)), full)
    lab("now", 9)
    for _ in range(2):
        many_flows("A", 3000, 0x0d000000, "counted")
    room = len(memories(ESTABLISHED, 2))
    check(room > 1000, room)
    check(len(memories(CLOSING)) < full - 1000)
    forget_all()
    lab("now", 0)


def datagram(name, family, sport):
    return owner(to_service(name, family, sport), family)


@test
def sticky_datagrams_stay():
    for family in FAMILIES:
        forget_all()
        fill("sticky", 1, 1, "settled")
        flows = lab.count(1)[2]
        same([datagram("sticky", family, 6200) for _ in range(3)], [1] * 3)
        same(lab.count(1)[2], flows + 1, "new flows")
        same([m[1:3] for m in memories()], [(ESTABLISHED, 1)])
        fill("sticky", 2, 1, "moving")
        same([datagram("sticky", family, 6200) for _ in range(3)], [1] * 3)
        same([datagram("sticky", family, 6201) for _ in range(3)], [2] * 3)
        fill("sticky", 2, 2, "settled")
        same([datagram("sticky", family, 6200) for _ in range(3)], [1] * 3)
        # Not to a dead one.
        set_backend(1, generation=2)
        try:
            same(datagram("sticky", family, 6200), 2)
        finally:
            set_backend(1)


@test
def sticky_datagrams_are_picked_once():
    for family in FAMILIES:
        forget_all()
        lab("rr", SERVICES["sticky turns"][4], 8, 1, 2, 3)
        first = [datagram("sticky turns", family, 6300 + i)
                 for i in range(30)]
        same(sorted(set(first[:3])), [1, 2, 3])
        for i in range(3, 30):
            same(first[i], first[i - 3])
        for _ in range(2):
            same([datagram("sticky turns", family, 6300 + i)
                  for i in range(30)], first)


@test
def clients_of_sticky_datagrams_stick_too():
    for family in FAMILIES:
        forget_all()
        fill("sticky client", 2, 1, "held")
        same(datagram("sticky client", family, 6400), 1)
        same(datagram("sticky client", family, 6400), 1)
        fill("sticky client", 2, 2, "settled")
        same([datagram("sticky client", family, sport)
              for sport in (6400, 6401, 6402)], [1] * 3)


@test
def icmp_errors_about_datagrams_follow_their_memory():
    for family in FAMILIES:
        forget_all()
        fill("sticky", 1, 1, "settled")
        same(datagram("sticky", family, 6500), 1)
        fill("sticky", 2, 2, "settled")

        def error(name, sport):
            quoted = answer_of(name, family, VIP[family], SERVICES[name][0])
            quoted[UDP].dport = sport
            return ether() / next(errors(family, ROUTER[family], VIP[family],
                                         quote(family, quoted)))

        same(owner(error("sticky", 6500), family), 1)
        same([m[1:3] for m in memories()], [(SIGHTED, 1)], "only looks")
        same(owner(error("sticky", 6501), family), 2)
        # Nobody knows where a datagram went that was picked.
        dropped(error("two udp", 6100), "icmp")


@both
def udp_follows_the_slot_at_once():
    for family in FAMILIES:
        fill("udp", 2, 1, "moving")
        try:
            same(owner(to_service("udp", family), family), 2)
        finally:
            fill("udp", 1)


# --- answers of the backends ---

GUESTS_CLIENT = {4: "10.0.0.50", 6: "fd00::50"}
ON_LINK = {4: "198.51.100.7", 6: "2001:db8:ffff::7"}
NO_ROUTE = {4: "198.18.99.1", 6: "2001:db8:dead::1"}
BLACKHOLE = {4: "198.18.66.1", 6: "2001:db8:b::1"}


def from_guest(family, number=1, src=None, dst=None, ttl=64, **more):
    return Ether(src=backend_mac(number), dst=GUEST_MAC) / network(
        family, src or backend_ip(number, family), dst or CLIENT[family],
        ttl, **more)


def answer(name, family, number=1, flags="PA", payload=b"an answer",
           dst=None, sport=None, ttl=64, dport=40000, **more):
    """What the guest sends."""
    _, proto, target, *_ = SERVICES[name]
    return from_guest(family, number, dst=dst, ttl=ttl, **more) / \
        transport(proto, sport or target, dport, flags) / Raw(payload)


def restored(name, family, number=1, flags="PA", payload=b"an answer",
             dst=None, ttl=63, dport=40000, **more):
    """What the client must get; the stack puts the Ethernet header on."""
    port, proto, *_ = SERVICES[name]
    return from_guest(family, number, VIP[family], dst, ttl, **more) / \
        transport(proto, port, dport, flags) / Raw(payload)


def assert_restored(packet, want, *options):
    with Drops():
        verdict, out = lab.tc(packet, *options)
    same(verdict, "redirect", Ether(raw(packet)).summary())
    same_bytes(out, want)


@test
def answers_get_the_vip_back():
    for family in FAMILIES:
        for name in ("tcp", "udp"):
            for number in (1, 2):
                before = lab.count(number)
                assert_restored(answer(name, family, number),
                                restored(name, family, number))
                same(lab.count(number), before)
        assert_restored(answer("fixed port", family, PORT, sport=9999),
                        restored("fixed port", family, PORT))


@test
def answers_of_many_flows_have_right_checksums():
    for family in FAMILIES:
        for name in ("tcp", "udp"):
            for i in range(300):
                more = {"dport": 1024 + 211 * i,
                        "payload": bytes([i & 255]) * (i % 37)}
                assert_restored(answer(name, family, **more),
                                restored(name, family, **more))


@test
def a_handshake_goes_through_but_not_a_guests_own():
    for family in FAMILIES:
        for flags in ("SA", "A", "FA", "R", "RA"):
            assert_restored(answer("tcp", family, flags=flags),
                            restored("tcp", family, flags=flags))
        for flags in ("S", "SEC"):
            untouched(answer("tcp", family, flags=flags), "tc")


@test
def udp_answer_without_checksum_stays_so():
    packet, want = answer("udp", 4), restored("udp", 4)
    packet[UDP].chksum = want[UDP].chksum = 0
    assert_restored(packet, want)


@test
def udp_answer_whose_checksum_becomes_zero():
    for family in FAMILIES:
        at = 14 + (20 if family == 4 else 40) + 6
        probe = raw(restored("udp", family, payload=b"\0\0"))
        payload = probe[at:at + 2]
        verdict, out = lab.tc(answer("udp", family, payload=payload))
        same(verdict, "redirect")
        same(out[at:at + 2], b"\xff\xff")
        same_bytes(out, restored("udp", family, payload=payload))


@test
def what_goes_to_this_host_or_directly_is_left_alone():
    for family in FAMILIES:
        for dst in (HOST[family], GUESTS_CLIENT[family]):
            for name in ("tcp", "udp"):
                untouched(answer(name, family, dst=dst), "tc")
    untouched(answer("tcp", 4, dst="198.51.100.1", flags="SA"), "tc")


@test
def what_is_no_answer_is_left_alone():
    for family in FAMILIES:
        for packet in (
                answer("tcp", family, sport=8081),
                answer("tcp", family, sport=22),
                answer("tcp", family, number=3),  # of no service here
                answer("udp", family, sport=5354),
                from_guest(family) / UDP(sport=8080, dport=40000) / b"u",
                from_guest(family) / TCP(sport=5353, dport=40000) / b"t",
                from_guest(family) / TCP(sport=40000, dport=8080) / b"t"):
            untouched(packet, "tc")
    untouched(from_guest(4) / ICMP(type=0) / b"pong", "tc")
    untouched(from_guest(6) / ICMPv6EchoRequest(data=b"ping"), "tc")
    untouched(Ether(src=backend_mac(1), dst="ff:ff:ff:ff:ff:ff") /
              ARP(psrc=backend_ip(1, 4), pdst=HOST[4]), "tc")
    untouched(from_guest(6, dst="ff02::1:ff00:1") /
              ICMPv6ND_NS(tgt=HOST[6]), "tc")

SHAPES = {4: ({"options": [IPOption_NOP()] * 4},
              {"options": [IPOption_NOP()] * 40}),
          6: (IPv6ExtHdrHopByHop, IPv6ExtHdrDestOpt)}


def shaped(family, shape, src, ttl, payload):
    """From a guest, with options or an extension header."""
    if family == 4:
        return from_guest(4, src=src, ttl=ttl, **shape) / payload
    return from_guest(6, src=src, ttl=ttl) / shape() / payload


@test
def answers_with_options_get_the_vip_back():
    for family in FAMILIES:
        for shape in SHAPES[family]:
            for name in ("tcp", "udp"):
                port, proto, target, *_ = SERVICES[name]
                assert_restored(
                    shaped(family, shape, backend_ip(1, family), 64,
                           transport(proto, target, 40000) / b"answer"),
                    shaped(family, shape, VIP[family], 63,
                           transport(proto, port, 40000) / b"answer"))
                untouched(shaped(family, shape, backend_ip(1, family), 64,
                                 transport(proto, target + 1, 40000)), "tc")


def tag(packet, *tags):
    data = raw(packet)
    return data[:12] + b"".join(bytes.fromhex(t) for t in tags) + data[12:]


@test
def answers_with_tags_get_the_vip_back():
    """The tags are of the way here.  (Sums: see shapes_test.py.)"""
    summed, lab.summed = lab.summed, ()
    try:
        for family in FAMILIES:
            for tags in (("81000005",), ("88a80007", "81000005")):
                for name in ("tcp", "udp"):
                    assert_restored(tag(answer(name, family), *tags),
                                    restored(name, family))
                packet = from_guest(family, src=DSR_VIP[family]) / \
                    TCP(sport=80, dport=40000, flags="SA")
                assert_restored(tag(packet, *tags), packet)
                got = at_backend(1, "tcp", family)[1]
                seen = to_service("tcp", family, ttl=63)[1]
                eth = Ether(src=backend_mac(1), dst=GUEST_MAC)
                for sent, want in zip(
                        errors(family, backend_ip(1, family), CLIENT[family],
                               quote(family, got)),
                        errors(family, VIP[family], CLIENT[family],
                               quote(family, seen), 63)):
                    assert_restored(tag(eth / sent, *tags), eth / want)
            untouched(tag(answer("tcp", family, sport=22), "81000005"), "tc")
            three = ("81000001", "81000002", "81000003")
            untouched(tag(answer("tcp", family), *three), "tc")
    finally:
        lab.summed = summed


@test
def dsr_answers_are_let_through():
    for family in FAMILIES:
        for name in ("dsr tcp", "dsr udp"):
            port, proto, *_ = SERVICES[name]
            packet = from_guest(family, src=DSR_VIP[family]) / \
                transport(proto, port, 40000, "SA") / Raw(b"direct")
            with Drops():
                verdict, out = lab.tc(packet)
            same(verdict, "redirect")
            same_bytes(out, packet)
        for packet in (
                from_guest(family, src=DSR_VIP[family]) / TCP(sport=81),
                from_guest(family, src=OTHER[family]) / TCP(sport=80),
                from_guest(family, src=VIP[family]) / TCP(sport=80),
                from_guest(family, src=DSR_VIP[family]) /
                TCP(sport=80, dport=9, flags="S")):
            untouched(packet, "tc")


@test
def hairpin_is_dropped_under_its_own_name():
    for family in FAMILIES:
        for flags in ("S", "A"):
            dropped(from_guest(family, dst=VIP[family]) /
                    TCP(sport=50000, dport=80, flags=flags), "hairpin", "tc")
        dropped(from_guest(family, dst=VIP[family]) /
                UDP(sport=50000, dport=53) / b"q", "hairpin", "tc")
        dropped(from_guest(family, dst=DSR_VIP[family]) /
                TCP(sport=50000, dport=80), "hairpin", "tc")
        untouched(from_guest(family, dst=VIP[family]) /
                  TCP(sport=50000, dport=81), "tc")


@both
def hairpin_by_the_uplink():
    """A backend whose own turn it is would get what it sent itself."""
    for family in FAMILIES:
        for name in ("tcp", "udp", "dsr tcp", "dsr udp"):
            own = to_service(name, family)
            own[1].src = backend_ip(1, family)
            dropped(own, "hairpin")
            other = to_service(name, family)
            other[1].src = backend_ip(2, family)
            same(lab.xdp(other)[0], "redirect")


@test
def answers_in_pieces():
    for family in FAMILIES:
        for ident, name in enumerate(("udp", "tcp")):
            frames = cut(answer(name, family, payload=b"f" * 2500), family,
                         2000 + ident)
            want = cut(restored(name, family, payload=b"f" * 2500), family,
                       2000 + ident)
            for frame, expected in zip(frames, want):
                assert_restored(frame, expected)
        # Pieces of something else stay what they are.
        for frame in cut(answer("udp", family, sport=99, payload=b"f" * 2500),
                         family, 2100):
            untouched(frame, "tc")


@test
def pieces_to_a_vip_and_of_answers_are_told_apart():
    """The same addresses, number and protocol, seen in the other direction."""
    for family in FAMILIES:
        first, second, _ = cut(answer("udp", family, payload=b"f" * 2500),
                               family, 2200)
        same(lab.tc(first)[0], "redirect")
        untouched(second)


@test
def icmp_errors_of_guests_speak_of_the_vip():
    for family in FAMILIES:
        for name in ("tcp", "udp"):
            got = at_backend(1, name, family)[1]
            seen = to_service(name, family, ttl=63)[1]
            for size in (None, len(raw(got))):
                sent = errors(family, backend_ip(1, family), CLIENT[family],
                              quote(family, got, size))
                want = errors(family, VIP[family], CLIENT[family],
                              quote(family, seen, size), 63)
                ether_ = Ether(src=backend_mac(1), dst=GUEST_MAC)
                for packet, expected in zip(sent, want):
                    assert_restored(ether_ / packet, ether_ / expected)


@test
def icmp_errors_of_guests_about_others_are_left_alone():
    for family in FAMILIES:
        other = network(family, CLIENT[family], backend_ip(1, family)) / \
            TCP(sport=40000, dport=22) / b"ssh"
        for packet in errors(family, backend_ip(1, family), CLIENT[family],
                             quote(family, other)):
            untouched(Ether(src=backend_mac(1), dst=GUEST_MAC) / packet, "tc")
        mine = at_backend(1, "tcp", family)[1]
        for packet in errors(family, backend_ip(1, family), HOST[family],
                             quote(family, mine)):
            untouched(Ether(src=backend_mac(1), dst=GUEST_MAC) / packet, "tc")


@test
def answers_over_the_mtu():
    for family in FAMILIES:
        header = 40 if family == 4 else 60
        flags = {"flags": "DF"} if family == 4 else {}
        for name in ("tcp", "udp"):
            room = 1500 - header + (12 if name == "udp" else 0)
            port, proto, target, *_ = SERVICES[name]

            def build(src, sport, ttl, size, **more):
                return from_guest(family, src=src, ttl=ttl, **more) / \
                    transport(proto, sport, 40000) / Raw(b"m" * size)
            backend = backend_ip(1, family)
            assert_restored(build(backend, target, 64, room, **flags),
                            build(VIP[family], port, 63, room, **flags))
            # The host's stack tells the guest, about its own packet.
            untouched(build(backend, target, 64, room + 1, **flags), "tc")
            if family == 4:
                dropped(build(backend, target, 64, room + 1),
                        "reply_too_big", "tc")


@test
def large_answers_that_are_cut_later():
    """GSO: what counts is the size of a segment."""
    for family in FAMILIES:
        more = {"payload": b"g" * 2800}
        if family == 4:
            packet = answer("tcp", family, **more)
            packet[IP].flags = "DF"
            want = restored("tcp", family, **more)
            want[IP].flags = "DF"
        else:
            packet = answer("tcp", family, **more)
            want = restored("tcp", family, **more)
        assert_restored(packet, want, "gso=1400")
        verdict, out = lab.tc(packet, "gso=1480")
        same(verdict, "pass")
        same_bytes(out, packet)


@test
def answers_by_every_kind_of_route():
    for family in FAMILIES:
        dst = ON_LINK[family]  # nobody resolved it yet: the stack does
        assert_restored(answer("tcp", family, dst=dst),
                        restored("tcp", family, dst=dst))
        untouched(answer("tcp", family, dst=NO_ROUTE[family]), "tc")
        dropped(answer("tcp", family, dst=BLACKHOLE[family]),
                "reply_no_route", "tc")


@test
def answers_without_hops_left_go_to_the_stack():
    for family in FAMILIES:
        for ttl in (0, 1):
            untouched(answer("tcp", family, ttl=ttl), "tc")
        assert_restored(answer("tcp", family, ttl=2),
                        restored("tcp", family, ttl=1))


@test
def answers_cut_short_are_never_garbled():
    for family in FAMILIES:
        for name in ("tcp", "udp"):
            data = raw(answer(name, family, payload=b"x" * 30))
            want = raw(restored(name, family, payload=b"x" * 30))
            # The kernel runs nothing shorter than the IP header.
            for length in range(34 if family == 4 else 54, len(data)):
                verdict, *out = lab("tc", data[:length].hex())
                out = bytes.fromhex(out[0])
                if verdict == "redirect":
                    same(out, want[:length], "cut at", length)
                else:
                    same(out, data[:length], "cut at", length)


@test
def a_round_trip():
    """The client's packet and the answer to it, by the same tables."""
    for family in FAMILIES:
        for name in ("tcp", "udp"):
            _, out = lab.xdp(to_service(name, family))
            inner = Ether(out)
            header = inner[1]
            packet = Ether(src=inner.dst, dst=inner.src) / network(
                family, header.dst, header.src) / transport(
                    SERVICES[name][1], inner[2].dport, inner[2].sport) / b"r"
            verdict, back = lab.tc(packet)
            same(verdict, "redirect")
            same_bytes(back, Ether(src=inner.dst, dst=inner.src) / network(
                family, VIP[family], CLIENT[family], 63) / transport(
                    SERVICES[name][1], SERVICES[name][0], 40000) / b"r")



def main(all_tests=None, tables=None):
    global lab
    if os.geteuid() != 0:
        print("1..0 # SKIP needs root to load programs")
        return 0
    lab = Lab()
    (tables or set_up)()
    wanted = sys.argv[1:]
    tests = [t for t in all_tests or TESTS
             if not wanted or t.__name__ in wanted]
    print("1..%d" % len(tests))
    failed = 0
    for number, function in enumerate(tests, 1):
        name = function.__name__.replace("_", " ")
        try:
            function()
            print("ok %d - %s" % (number, name), flush=True)
        except Exception as error:
            failed += 1
            print("not ok %d - %s" % (number, name))
            where = traceback.extract_tb(error.__traceback__)
            for frame in where[-3:]:
                print("# line %d in %s" % (frame.lineno, frame.name))
            print("# %s: %s" % (type(error).__name__, error), flush=True)
    status = lab.close()
    if status:
        print("# the lab ended with %d" % status)
    return 1 if failed or status else 0


if __name__ == "__main__":
    sys.exit(main())
