#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo backend: what the other tests believe of it."""
import os
import socket
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BACKEND = os.path.join(TOP, "build/xlb-backend")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Client:
    def __init__(self, address, port):
        self.s = socket.create_connection((address, port), timeout=30)
        self.f = self.s.makefile("rb")

    def send(self, text):
        self.s.sendall(text.encode())

    def answer(self):
        """Status, headers in lower case, body."""
        status = int(self.f.readline().split()[1])
        headers = {}
        while line := self.f.readline().strip():
            key, value = line.decode().split(":", 1)
            headers[key.lower()] = value.strip()
        return status, headers, self.f.read(int(headers["content-length"]))

    def get(self, path, more=""):
        self.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n")
        return self.answer()


def test_keep_alive(port, _):
    c = Client("127.0.0.1", port)
    for _ in range(3):
        assert c.get("/")[::2] == (200, b"me\n")
    assert c.get("/nothing")[0] == 404
    assert c.get("/", "Connection: close\r\n")[::2] == (200, b"me\n")
    assert c.f.read() == b""


def test_pipelined(port, _):
    c = Client("::1", port)
    c.send("GET /slow/30 HTTP/1.1\r\n\r\nGET /bytes/3 HTTP/1.1\r\n\r\n"
           "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"
           "GET /healthz HTTP/1.1\r\n\r\n")
    assert [c.answer()[::2] for _ in range(4)] == [
        (200, b"me\n"), (200, b"xxx"), (200, b"me\n"), (200, b"ok\n")]


def test_large(port, _):
    c = Client("127.0.0.1", port)
    assert len(c.get("/bytes/10000000")[2]) == 10000000
    c.send("POST / HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + "y" * 1000000)
    assert c.answer()[::2] == (200, b"me\n")


def test_slow_is_not_in_the_way(port, _):
    slow = Client("127.0.0.1", port)
    slow.send("GET /slow/60000 HTTP/1.1\r\n\r\n")
    burn = Client("127.0.0.1", port)
    burn.send("GET /burn/200 HTTP/1.1\r\n\r\n")
    assert Client("127.0.0.1", port).get("/")[0] == 200
    assert burn.answer()[::2] == (200, b"me\n")
    slow.s.close()


def test_burn_uses_cpu(port, process):
    def cpu():
        with open(f"/proc/{process.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    before = cpu()
    assert Client("127.0.0.1", port).get("/burn/300")[0] == 200
    assert cpu() - before > 0.25


def test_echo(port, _):
    c = Client("127.0.0.1", port)
    host, own = c.s.getsockname()
    assert c.get("/echo")[2].decode() == (
        f"me client {host} {own} server 127.0.0.1 {port}\n")


def test_bad_request(port, _):
    c = Client("127.0.0.1", port)
    c.send("nonsense\r\n\r\n")
    assert c.answer()[0] == 400
    assert c.f.read() == b""


def test_health(port, process):
    c = Client("127.0.0.1", port)
    assert c.get("/healthz")[::2] == (200, b"ok\n")
    open(process.fail_file, "w").close()
    assert c.get("/healthz")[0] == 503
    os.unlink(process.fail_file)
    assert c.get("/healthz")[0] == 200


def test_udp(port, _):
    for family, asked in ((socket.AF_INET, "127.0.0.1"),
                          (socket.AF_INET, "127.0.0.77"),
                          (socket.AF_INET6, "::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            s.settimeout(30)
            s.sendto(b"x" * 3000, (asked, port))
            data, source = s.recvfrom(65536)
            assert data == b"me " + b"x" * 3000
            assert source[:2] == (asked, port), source


def test_many(port, _):
    clients = [Client("127.0.0.1", port) for _ in range(1000)]
    for c in clients:
        c.send("GET / HTTP/1.1\r\n\r\n")
    for c in clients:
        assert c.answer()[0] == 200
        c.s.close()


def main():
    if not os.path.exists(BACKEND):
        print("1..0 # SKIP build/xlb-backend isn't built")
        return 0
    tests = [(n, f) for n, f in globals().items() if n.startswith("test_")]
    port = free_port()
    print(f"1..{len(tests)}", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        fail_file = os.path.join(scratch, "fail")
        process = subprocess.Popen([BACKEND, "-n", "me", "-p", str(port),
                                    "-u", str(port), "-f", fail_file])
        process.fail_file = fail_file
        try:
            for _ in range(500):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.01)
            for i, (name, test) in enumerate(tests, 1):
                try:
                    test(port, process)
                    print(f"ok {i} - {name}", flush=True)
                except Exception as e:
                    failed += 1
                    print(f"not ok {i} - {name}\n# {type(e).__name__}: {e}",
                          flush=True)
        finally:
            process.terminate()
            process.wait()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
