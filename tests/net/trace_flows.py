#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A client whose flows are known by their ports, for trace_test.py.

Reads lines of JSON, {"do": ..., "to": [ADDRESS, PORT], "from": ADDRESS,
"ports": [...]}, and answers each with one: which server answered each port.
do: open (a connection and a request), ask (one more on it), close, send (a
datagram)."""
import json
import socket
import sys

TIMEOUT = 10
connections = {}


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def bound(kind, source, port):
    s = socket.socket(family(source), kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.settimeout(TIMEOUT)
    s.bind((source, port))
    return s


def request(s):
    s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    data = b""
    while b"\r\n\r\n" not in data or not data.split(b"\r\n\r\n", 1)[1].endswith(b"\n"):
        more = s.recv(4096)
        if not more:
            raise OSError("closed")
        data += more
    return data.split(b"\r\n\r\n", 1)[1].decode().strip()


def open_one(to, source, port):
    s = bound(socket.SOCK_STREAM, source, port)
    s.connect(tuple(to))
    connections[source, port] = s
    return request(s)


def send_one(to, source, port):
    s = bound(socket.SOCK_DGRAM, source, port)
    s.connect(tuple(to))
    s.send(b"x")
    return s.recv(2048).decode().split()[0]


def ask_one(_to, source, port):
    return request(connections[source, port])


def close_one(_to, source, port):
    connections.pop((source, port)).close()
    return "closed"


DO = {"open": open_one, "ask": ask_one, "close": close_one, "send": send_one}

for line in sys.stdin:
    order = json.loads(line)
    answers = {}
    for number in order["ports"]:
        try:
            answers[number] = DO[order["do"]](order.get("to"), order["from"], number)
        except (OSError, KeyError) as why:
            answers[number] = f"error: {why}"
    print(json.dumps(answers), flush=True)
