#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets of flows that nobody opened, for ecmp_test.py.

  send INTERFACE MAC VIP tcp|udp PORT syn|ack BATCH MARK COUNT
      a packet of each of COUNT flows, to the station MAC; the flows of a
      batch are the same whatever the mark
  catch INTERFACE
      prints "BATCH NUMBER VIA" for each that arrives: NUMBER is flow << 4 | MARK
"""
import ipaddress
import socket
import struct
import sys

MAGIC = b"xlb-flow"
ETH_P_ALL, PACKET_OUTGOING, SO_RCVBUFFORCE = 3, 4, 33


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def transport(source, vip, protocol, ports, syn, payload):
    number = socket.IPPROTO_TCP if protocol == "tcp" else socket.IPPROTO_UDP
    if protocol == "tcp":
        head = struct.pack("!HHIIBBHHH", *ports, 1, 0 if syn else 1, 0x50, 2 if syn else 0x10,
                           64000, 0, 0)
        at = 16
    else:
        head = struct.pack("!HHHH", *ports, 8 + len(payload), 0)
        at = 6
    size = len(head) + len(payload)
    pseudo = source.packed + vip.packed + (struct.pack("!BBH", 0, number, size)
                                           if vip.version == 4
                                           else struct.pack("!IHBB", size, 0, 0, number))
    value = checksum(pseudo + head + payload) or 0xffff
    return number, head[:at] + struct.pack("!H", value) + head[at + 2:] + payload


def packet(source, vip, *more):
    number, data = transport(source, vip, *more)
    if vip.version == 6:
        return (struct.pack("!IHBB", 6 << 28, len(data), number, 64) + source.packed + vip.packed
                + data)
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 1, 0x4000, 64, number, 0,
                       source.packed, vip.packed)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + data


def send(interface, mac, vip, protocol, port, flag, batch, mark, count):
    vip, batch, mark = ipaddress.ip_address(vip), int(batch), int(mark)
    network = ipaddress.ip_address("203.0.113.0" if vip.version == 4 else "2001:db8:beef::")
    out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    out.bind((interface, 0))
    ether = bytes.fromhex(mac.replace(":", "")) + out.getsockname()[4] + \
        (b"\x08\x00" if vip.version == 4 else b"\x86\xdd")
    for flow in range(int(count)):
        payload = MAGIC + struct.pack("!II", batch, flow << 4 | mark)
        # A batch has ports of its own: nothing of an earlier one is remembered.
        ports = (1024 + (batch * 977 + flow // 200) % 64000, int(port))
        out.send(ether + packet(network + 1 + flow % 200, vip, protocol, ports, flag == "syn",
                                payload))


def catch(interface):
    heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    heard.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    heard.bind((interface, ETH_P_ALL))
    print("ready", flush=True)
    while True:
        data, address = heard.recvfrom(2048)
        at = data.find(MAGIC)
        if address[2] == PACKET_OUTGOING or at < 0:
            continue
        print(*struct.unpack_from("!II", data, at + len(MAGIC)), interface, flush=True)


if __name__ == "__main__":
    {"send": send, "catch": catch}[sys.argv[1]](*sys.argv[2:])
