#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What probes ask, all on one machine: probe_server.py FOLDER

  443    https, with FOLDER/web.pem: 200 for /, 404 for the rest
  8444   the same with FOLDER/self.pem, which nobody has signed
  8445   accepts and says nothing
  8446   speaks first, and not TLS
  53     dns: A of www.example is 192.0.2.77
  9001   udp: "ping" is answered with "pong"

FOLDER/mode holds words that change what it does: dns=servfail, dns=other,
dns=garbage, dns=silent, udp=other, udp=silent, https=503.
"""
import socket
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FOLDER = Path(sys.argv[1])


def mode(what):
    for word in (FOLDER / "mode").read_text().split():
        name, value = word.split("=")
        if name == what:
            return value
    return ""


class Page(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        status = int(mode("https") or 0) or (200 if self.path == "/" else 404)
        self.send_response(status)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, form, *args):
        # The name that TLS was asked for, and Host: what the test reads.
        print("served", getattr(self.connection, "asked_for", None),
              self.headers.get("Host"), *args, flush=True)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    address_family = socket.AF_INET6

    def __init__(self, port, certificate):
        super().__init__(("::", port), Page)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(FOLDER / certificate)
        self.context.sni_callback = self.note_name

    @staticmethod
    def note_name(connection, name, _context):
        connection.asked_for = name

    def finish_request(self, request, client_address):
        """On the request's own thread: a handshake may hang."""
        request.settimeout(5)
        try:
            with self.context.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)
        except OSError as why:
            print("tls", why, flush=True)

    def handle_error(self, request, client_address):
        print("error", client_address, sys.exc_info()[1], flush=True)


def answer_dns(query):
    how = mode("dns")
    if how == "silent":
        return None
    if how == "garbage":
        return b"\x00" * 11
    code = 2 if how == "servfail" else 0
    address = bytes([192, 0, 2, 78 if how == "other" else 77])
    head = query[:2] + bytes([0x84, code]) + query[4:6] + b"\x00\x01" + b"\x00" * 4
    record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + address
    return head + query[12:] + record


def answer_udp(query):
    how = mode("udp")
    if how == "silent":
        return None
    return b"what?" if how == "other" else query.replace(b"ping", b"pong")


def serve_udp(port, answer):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
        s.bind(("::", port))
        while True:
            query, client = s.recvfrom(2048)
            reply = answer(query)
            if reply is not None:
                s.sendto(reply, client)


def greet(port):
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as s:
        while True:
            client, _ = s.accept()
            with client:
                client.settimeout(5)
                try:
                    client.sendall(b"220 mail.example\r\n")
                    client.recv(1000)
                except OSError:
                    pass


def main():
    silent = socket.create_server(("::", 8445), family=socket.AF_INET6, dualstack_ipv6=True,
                                  backlog=4096)
    for target, args in ((Server(443, "web.pem").serve_forever, ()),
                         (Server(8444, "self.pem").serve_forever, ()),
                         (greet, (8446,)), (serve_udp, (53, answer_dns)),
                         (serve_udp, (9001, answer_udp))):
        threading.Thread(target=target, args=args, daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()
    silent.close()


main()
