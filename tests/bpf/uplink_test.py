#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""VLAN tags through the balancer on a real interface, by XDP and by tc.

Test runs don't show the tag that the kernel keeps beside a packet; here
frames go in at one end of a veth pair and are looked at where they come out.
"""

import ctypes
import mmap
import os
import socket
import struct
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
import packets_test as base  # noqa: E402
import shapes_test as shapes  # noqa: E402
from packets_test import (  # noqa: E402
    FAMILIES, OTHER, UP_MAC, same, set_backend)
from shapes_test import TAGS, ethernet, sent, wanted  # noqa: E402
from scapy.all import IP, Ether, raw  # noqa: E402

CLIENT_MAC = shapes.CLIENT_MAC
SOL_PACKET, PACKET_AUXDATA = 263, 8
VLAN_VALID = 0x10
TESTS = []


def by_both_hooks(function):
    for verb in ("attach", "attach_tc"):
        def run(verb=verb):
            base.lab(verb, "up0")
            try:
                function()
            finally:
                base.lab("detach", "up0")
        run.__name__ = function.__name__ + (
            "_by_tc" if verb == "attach_tc" else "_by_xdp")
        TESTS.append(run)
    return function


class Port:
    """One end of a pair: frames with the tag where it belongs."""

    def __init__(self, name):
        self.s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW,
                               socket.htons(3))
        self.s.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.s.bind((name, 0))
        self.s.settimeout(20)  # what doesn't come in so long is lost

    def send(self, frame):
        self.s.send(frame)

    def receive(self):
        data, more, _, address = self.s.recvmsg(65536, 256)
        for level, kind, value in more:
            if (level, kind) != (SOL_PACKET, PACKET_AUXDATA):
                continue
            status, *_, tci, tpid = struct.unpack("IIIHHHH", value[:20])
            if status & VLAN_VALID:
                data = data[:12] + struct.pack(">HH", tpid, tci) + data[12:]
        return data, address[2]

    def next_with(self, mark):
        """The next frame that came in with these bytes."""
        while True:
            data, kind = self.receive()
            if kind != socket.PACKET_OUTGOING and mark in data:
                return data


class PiecePort(Port):
    """A port whose frames the kernel has in pieces: of the ring that they are
    sent from only the Ethernet header is copied, the rest is pages."""

    TX_RING, SEND_REQUEST, SIZE = 13, 1, 4096
    HEADER = "LIIHHII0L"  # struct tpacket_hdr

    def __init__(self, name):
        super().__init__(name)
        self.s.setsockopt(SOL_PACKET, self.TX_RING,
                          struct.pack("IIII", self.SIZE, 1, self.SIZE, 1))
        self.ring = mmap.mmap(self.s.fileno(), self.SIZE)

    def send(self, frame):
        header = struct.calcsize(self.HEADER)
        self.ring[header:header + len(frame)] = frame
        self.ring[:header] = struct.pack(self.HEADER, self.SEND_REQUEST,
                                         len(frame), 0, 0, 0, 0, 0)
        self.s.send(b"")  # waits until it went


count = iter(range(1 << 30))


def mark():
    return b"mark %08d" % next(count)


def into_the_labs_network():
    """This process moves to where the lab's interfaces are."""
    here = os.open("/proc/%d/ns/net" % base.lab.process.pid, os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(here, 0x40000000):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(here)


def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def set_up():
    base.set_up()
    into_the_labs_network()
    # XDP redirects into the other end of a pair only where that has a NAPI,
    # and sends back only where it has a program.
    run("ethtool", "-K", "backend0", "gro", "on")
    base.lab("attach", "client0")
    # A filter behind ours, which gets what passes; where it is, so is this.
    run("tc", "qdisc", "add", "dev", "up0", "clsact")
    run("ip", "link", "set", "client0", "address", CLIENT_MAC)


def forwarded(client, backend, frame, want, text, said):
    client.send(frame)
    same(backend.next_with(text).hex(), want.hex(), said)


@by_both_hooks
def tagged_packets_reach_the_backend():
    client, backend = Port("client0"), Port("backend0")
    for name, family, extra, tags, said in shapes.every():
        text = mark()
        forwarded(client, backend,
                  sent(name, family, extra, tags, payload=text),
                  wanted(name, family, extra, payload=text), text, said)


@by_both_hooks
def packets_in_pieces_of_memory():
    """The headers aren't where a program reads without asking."""
    client, backend = PiecePort("client0"), Port("backend0")
    for name, family, extra, tags, said in shapes.every():
        text = mark() + b"p" * 700
        forwarded(client, backend,
                  sent(name, family, extra, tags, payload=text),
                  wanted(name, family, extra, payload=text), text, said)


@by_both_hooks
def next_hops_behind_a_tag():
    client, backend = Port("client0"), Port("backend0")
    set_backend(1, "vlan=77")
    try:
        for name, family, extra, tags, said in shapes.every():
            text = mark()
            forwarded(client, backend,
                      sent(name, family, extra, tags, payload=text),
                      wanted(name, family, extra, [(0x8100, 77)],
                             payload=text), text, said)
    finally:
        set_backend(1)


@by_both_hooks
def answers_of_the_vip_have_their_questions_tags():
    client = Port("client0")
    for family in FAMILIES:
        for tagging, tags in TAGS.items():
            text = mark()
            frame = sent("sized", family, tags=tags,
                         payload=text + b"b" * 1400)
            at = 14 + 4 * len(tags)
            if family == 4:
                l3 = IP(frame[at:])
                l3.flags, l3.chksum = "DF", None
                frame = frame[:at] + raw(l3)
            client.send(frame)
            out = client.next_with(text)
            head = ethernet(UP_MAC, CLIENT_MAC, tags, family)
            same(out[:len(head)].hex(), head.hex(), tagging)
            plain = Ether(ethernet(CLIENT_MAC, UP_MAC, (), family) +
                          frame[at:])
            base.check_too_big(ethernet(UP_MAC, CLIENT_MAC, (), family) +
                               out[len(head):], plain, family)


@by_both_hooks
def what_is_not_ours_keeps_its_tag():
    """Of a VIP, but no service: the next filter gets it as it came."""
    client, backend = Port("client0"), Port("backend0")
    rule = ["dev", "up0", "ingress", "prio", "65000", "protocol", "all"]
    run("tc", "filter", "add", *rule, "u32", "match", "u32", "0", "0",
        "action", "mirred", "egress", "redirect", "dev", "guest0")
    try:
        for name, family, extra, tags, said in shapes.every(("tcp", "udp")):
            for dst in (None, OTHER[family]):
                text = mark()
                frame = sent(name, family, extra, tags, dst=dst, dport=81,
                             payload=text)
                forwarded(client, backend, frame, frame, text, said)
    finally:
        run("tc", "filter", "del", *rule)


if __name__ == "__main__":
    sys.exit(base.main(TESTS, set_up))
