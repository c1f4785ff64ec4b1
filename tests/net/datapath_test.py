#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Real sockets through the packet path, without the reconciler.

A client, this host and two backends on a bridge, all in namespaces that end
with this script; the tables are filled by tests/bpf/packet_lab.c.
"""

import os
import signal
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
LAB = os.path.join(os.environ.get("XLB_BUILD", os.path.join(ROOT, "build")),
                   "tests", "bpf", "packet_lab")
BPFFS = "/sys/fs/bpf/xlb"

VIP = {4: "192.0.2.10", 6: "2001:db8::10"}
DSR_VIP = {4: "192.0.2.20", 6: "2001:db8::20"}
CLIENT = {4: "198.51.100.2", 6: "2001:db8:c::2"}
HOST = {4: "10.0.0.1", 6: "fd00::1"}
FAMILIES = (4, 6)


def backend(number, family):
    return {4: "10.0.0.%d" % (10 + number), 6: "fd00::%d" % (10 + number)}[
        family]


SERVER = r'''
import socket, socketserver, sys, threading
name, blob = sys.argv[1].encode(), bytes(range(256)) * 32768

class Tcp(socketserver.BaseRequestHandler):
    def handle(self):
        while True:
            line = self.request.recv(100)
            if not line:
                return
            if line.startswith(b"who"):
                peer = self.client_address[0].replace("::ffff:", "")
                self.request.sendall(name + b" " + peer.encode() + b"\n")
            elif line.startswith(b"down"):
                self.request.sendall(blob)
            elif line.startswith(b"up"):
                got = len(line) - 2
                while got < len(blob):
                    got += len(self.request.recv(65536))
                self.request.sendall(b"got\n")

class Udp(socketserver.BaseRequestHandler):
    def handle(self):
        self.request[1].sendto(self.request[0], self.client_address)

class TcpServer(socketserver.ThreadingTCPServer):
    address_family, allow_reuse_address = socket.AF_INET6, True
    request_queue_size = 100

class UdpServer(socketserver.UDPServer):
    address_family, max_packet_size = socket.AF_INET6, 65000

servers = [TcpServer(("::", p), Tcp) for p in (8080, 80)]
servers.append(UdpServer(("::", 5353), Udp))
for s in servers:
    threading.Thread(target=s.serve_forever).start()
print("ready", flush=True)
'''


def sh(command, pid=None):
    """One shell line, in the network namespace of a process."""
    enter = ["nsenter", "--net", "-t", str(pid)] if pid else []
    subprocess.run(enter + ["sh", "-ec", command], check=True)


class Host:
    """A network namespace, held by a process that does nothing."""

    def __init__(self):
        self.process = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; exec sleep 600"],
            stdout=subprocess.PIPE)
        self.process.stdout.readline()
        self.pid = self.process.pid
        self.sh("ip link set lo up")

    def sh(self, command):
        sh(command, self.pid)

    def python(self, code, *args):
        return subprocess.Popen(
            ["nsenter", "--net", "-t", str(self.pid), sys.executable, "-c",
             code, *args], stdout=subprocess.PIPE, text=True)


class Lab:
    def __init__(self):
        self.process = subprocess.Popen([LAB, BPFFS], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ok ready\n"

    def ask(self, *words):
        self.process.stdin.write(" ".join(str(w) for w in words) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().split()

    def __call__(self, *words):
        answer = self.ask(*words)
        assert answer[0] == "ok", (words, answer)
        return answer[1:]

    def stop(self):
        self.process.stdin.close()
        self.process.wait()

    def drops(self):
        return dict((k, int(v)) for k, v in
                    (w.split("=") for w in self("drops")))


def connect_host(host, here, addresses, mac):
    """A veth pair, one end given to the host, addresses on that end."""
    sh("ip link add %s type veth peer name eth0 netns %d" % (here, host.pid))
    sh("ip link set %s up" % here)
    host.sh("ip link set eth0 address %s up" % mac)
    # A frame that native XDP redirects into a veth needs GRO at its peer.
    host.sh("ethtool -K eth0 gro on tx off >/dev/null")
    for a in addresses:
        host.sh("ip address add %s dev eth0%s" % (a, " nodad" if ":" in a
                                                  else ""))


def make_world():
    sh("mount -t bpf bpf /sys/fs/bpf")
    sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 "
       "net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0")
    sh("ip link set lo up; ip link add br0 address 02:00:00:00:01:01 "
       "type bridge; ip link set br0 up; "
       "ip address add 10.0.0.1/24 dev br0; "
       "ip address add fd00::1/64 dev br0 nodad")
    client = Host()
    connect_host(client, "up0",
                 ["198.51.100.2/24", "2001:db8:c::2/64"], "02:00:00:00:02:02")
    sh("ip address add 198.51.100.1/24 dev up0; "
       "ip address add 2001:db8:c::1/64 dev up0 nodad")
    for vip in (VIP, DSR_VIP):
        sh("ip address add %s/32 dev up0; ip address add %s/128 dev up0 "
           "nodad preferred_lft 0" % (vip[4], vip[6]))
    client.sh("ip route add default via 198.51.100.1; "
              "ip -6 route add default via 2001:db8:c::1")
    backends = []
    for n in (1, 2):
        b = Host()
        connect_host(b, "port%d" % n,
                     ["%s/24" % backend(n, 4), "%s/64" % backend(n, 6)],
                     "52:54:00:00:00:%02x" % n)
        sh("ip link set port%d master br0" % n)
        b.sh("ip route add default via 10.0.0.1; "
             "ip -6 route add default via fd00::1; "
             "sysctl -qw net.ipv4.conf.all.arp_ignore=1 "
             "net.ipv4.conf.all.arp_announce=2; "
             "ip address add %s/32 dev lo; ip address add %s/128 dev lo nodad"
             % (DSR_VIP[4], DSR_VIP[6]))
        b.server = b.python(SERVER, "b%d" % n)
        assert b.server.stdout.readline() == "ready\n"
        backends.append(b)
    return client, backends


def fill_backend(n, *flags, mtu=1500):
    index = lab("ifindex", "port%d" % n)[0]
    lab("backend", n, "v4=" + backend(n, 4), "v6=" + backend(n, 6),
        "dst=52:54:00:00:00:%02x" % n, "src=02:00:00:00:01:01",
        "ifindex=" + index, "mtu=%d" % mtu, *flags)


def fill_tables():
    for n in (1, 2):
        fill_backend(n)
    for f in FAMILIES:
        lab("vip", VIP[f], 80, "tcp", "service=1", "target=8080", "base=0")
        lab("vip", VIP[f], 53, "udp", "service=2", "target=5353", "base=0")
        lab("vip", VIP[f], 99, "udp", "service=4", "target=9999", "base=0")
        lab("vip", DSR_VIP[f], 80, "tcp", "service=3", "base=0", "dsr")
        lab("vip", VIP[f], 90, "tcp", "service=5", "target=80", "base=256",
            "rr")
        for n in (1, 2):
            for port, target, proto, service in (
                    (80, 8080, "tcp", 1), (53, 5353, "udp", 2),
                    (99, 9999, "udp", 4), (90, 80, "tcp", 5)):
                lab("reply", backend(n, f), target, proto, VIP[f], port,
                    "service=%d" % service, "backend=%d" % n)
        for a in (HOST[f], backend(1, f), backend(2, f)):
            lab("direct", a, 32 if f == 4 else 128)
    lab("maglev", 0, 8, 1, 2)
    lab("rr", 256, 8, 1, 2)
    lab("vips")
    lab("replies")
    lab("directs")
    lab("attach", "up0")
    lab("attach_reply", "br0")


CLIENT_LIB = r'''
import hashlib, socket, sys
socket.setdefaulttimeout(8)
blob = bytes(range(256)) * 32768

def kind(a):
    return socket.AF_INET6 if ":" in a else socket.AF_INET

def tcp(a, port):
    s = socket.socket(kind(a), socket.SOCK_STREAM)
    s.connect((a, port))
    return s

def who(s):
    s.sendall(b"who")
    return s.recv(100).decode().split()

def udp(a, port):
    s = socket.socket(kind(a), socket.SOCK_DGRAM)
    s.connect((a, port))
    return s
'''


def client_does(code, *args):
    done = client.python(CLIENT_LIB + code, *args)
    out, _ = done.communicate(timeout=60)
    assert done.returncode == 0, (out, lab.drops())
    return out.split()


TESTS = []


def test(fn):
    TESTS.append(fn)
    return fn


ASK = r'''
a, port = sys.argv[1], int(sys.argv[2])
for i in range(40):
    s = tcp(a, port)
    print(*who(s))
    s.close()
'''


def spread(address, port, family):
    words = client_does(ASK, address, str(port))
    assert set(words[1::2]) == {CLIENT[family]}, words
    names = words[0::2]
    assert len(names) == 40 and set(names) == {"b1", "b2"}, names
    return names


@test
def nat_reaches_both_backends_and_they_see_the_client():
    for f in FAMILIES:
        spread(VIP[f], 80, f)


FROM = r'''
a, source = sys.argv[1:3]
for i in range(10):
    s = socket.socket(kind(a), socket.SOCK_STREAM)
    s.bind((source, 0))
    s.connect((a, 80))
    print(*who(s))
    s.close()
'''


@test
def answers_go_by_a_router_to_clients_behind_it():
    """Their addresses don't answer on the link itself, only the router's do."""
    behind = {"203.0.113.7": (VIP[4], DSR_VIP[4]), "203.0.113.8": (VIP[4], DSR_VIP[4]),
              "2001:db8:d::7": (VIP[6], DSR_VIP[6])}
    client.sh("sysctl -qw net.ipv4.conf.all.arp_ignore=1")
    for a in behind:
        client.sh("ip address add %s dev lo" % a)
    sh("ip route add 203.0.113.7 via 198.51.100.2; "
       "ip route add 203.0.113.8 via inet6 2001:db8:c::2; "
       "ip route add 2001:db8:d::7 via 2001:db8:c::2")
    for a, vips in behind.items():
        for vip in vips:
            words = client_does(FROM, vip, a)
            assert len(words) == 20 and set(words[1::2]) == {a}, words


@test
def dsr_reaches_both_backends():
    for f in FAMILIES:
        spread(DSR_VIP[f], 80, f)


@test
def round_robin_takes_turns():
    for f in FAMILIES:
        # Each CPU takes its own turns: equal, within one a CPU.
        names = spread(VIP[f], 90, f)
        assert abs(names.count("b1") - 20) <= 2 * os.cpu_count(), names


DOWN = r'''
s = tcp(sys.argv[1], 80)
for i in range(3):
    s.sendall(b"down")
    got, sha = 0, hashlib.sha256()
    while got < len(blob):
        part = s.recv(65536)
        assert part
        sha.update(part)
        got += len(part)
    assert sha.digest() == hashlib.sha256(blob).digest()
'''

UP = r'''
s = tcp(sys.argv[1], 80)
s.sendall(b"up" + blob)
assert s.recv(10) == b"got\n"
'''


@test
def large_transfers_arrive_whole():
    for f in FAMILIES:
        for address in (VIP[f], DSR_VIP[f]):
            client_does(DOWN, address)
            client_does(UP, address)


UDP = r'''
for size in (1, 100, 1400, 3000, 20000):
    for i in range(5):
        s = udp(sys.argv[1], 53)
        s.send(b"q" * size)
        assert s.recv(65000) == b"q" * size, size
'''


@test
def datagrams_of_all_sizes():
    for f in FAMILIES:
        client_does(UDP, VIP[f])


REFUSED = r'''
s = udp(sys.argv[1], 99)
s.send(b"nobody")
try:
    s.recv(10)
    sys.exit(1)
except ConnectionRefusedError:
    pass
'''


@test
def a_backends_icmp_error_reaches_the_client():
    for f in FAMILIES:
        client_does(REFUSED, VIP[f])


@test
def the_hosts_own_connections_are_left_alone():
    for f in FAMILIES:
        for n in (1, 2):
            with socket.create_connection((backend(n, f), 8080), 5) as s:
                s.sendall(b"who")
                assert s.recv(100).split()[1] == HOST[f].encode()


@test
def a_smaller_mtu_towards_the_backend_is_learnt():
    # XDP_TX on a veth reaches a peer with an XDP program only; ours lets
    # everything to a client pass.
    client.sh("bpftool net attach xdp pinned %s/prog_xdp dev eth0" % BPFFS)
    for n in (1, 2):
        fill_backend(n, mtu=1300)
    try:
        for f in FAMILIES:
            before = lab.drops().get("too_big", 0)
            client_does(UP, VIP[f])
            assert lab.drops()["too_big"] > before
    finally:
        client.sh("bpftool net detach xdp dev eth0")
        for n in (1, 2):
            fill_backend(n)


@test
def a_smaller_mtu_towards_the_client_is_learnt():
    sh("ip route change 198.51.100.0/24 dev up0 mtu 1300 || "
       "ip route add 198.51.100.2/32 dev up0 mtu 1300")
    sh("ip -6 route add 2001:db8:c::2/128 dev up0 mtu 1300")
    for f in FAMILIES:
        client_does(DOWN, VIP[f])


@test
def backends_by_way_of_the_stack():
    for n in (1, 2):
        fill_backend(n, "stack")
    try:
        for f in FAMILIES:
            spread(VIP[f], 80, f)
            client_does(UDP, VIP[f])
    finally:
        for n in (1, 2):
            fill_backend(n)


HOLD = r'''
s = [tcp(a, 80) for a in sys.argv[1:] for i in range(20)]
first = [who(x) for x in s]
print("held", flush=True)
sys.stdin.readline()
assert [who(x) for x in s] == first
print("same", len({tuple(f) for f in first}))
'''


def pin_inodes(*names):
    return [os.stat(BPFFS + "/" + n).st_ino for n in names]


def survive(between):
    """Forty connections that are used before and after."""
    global lab
    held = subprocess.Popen(
        ["nsenter", "--net", "-t", str(client.pid), sys.executable, "-c",
         CLIENT_LIB + HOLD, VIP[4], VIP[6]], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, text=True)
    assert held.stdout.readline() == "held\n"
    between()
    out, _ = held.communicate("go\n", timeout=30)
    assert held.returncode == 0 and out == "same 4\n", out


@test
def connections_survive_a_restart_which_changes_nothing():
    def restart():
        global lab
        pins = ("prog_xdp", "prog_reply", "link_up0", "tables")
        lab.stop()
        assert len(client_does(ASK, VIP[4], "80")) == 80
        before = pin_inodes(*pins)
        lab = Lab()
        assert pin_inodes(*pins) == before
        assert lab("attach", "up0") == lab("attach_reply", "br0") == []
    survive(restart)


@test
def new_programs_take_over_in_place():
    def attached():
        return (subprocess.run(["ip", "link", "show", "up0"], check=True,
                               capture_output=True, text=True).stdout.
                split("prog/xdp id ")[1].split()[0],
                subprocess.run(["tc", "filter", "show", "dev", "br0",
                                "ingress"], check=True, capture_output=True,
                               text=True).stdout.
                split(" id ")[1].split()[0])

    def swap():
        global lab
        before, link = attached(), pin_inodes("link_up0", "tables")
        lab("outdate")
        lab.stop()
        lab = Lab()
        after = attached()
        assert before[0] != after[0] and before[1] != after[1], after
        assert pin_inodes("link_up0", "tables") == link
    survive(swap)


@test
def hairpin_is_dropped_under_its_name():
    before = lab.drops().get("hairpin", 0)
    backends[0].sh("python3 -c \"import socket; s = socket.socket("
                   "socket.AF_INET, socket.SOCK_DGRAM); "
                   "s.sendto(b'x', ('%s', 53))\"" % VIP[4])
    time.sleep(0.1)
    assert lab.drops()["hairpin"] == before + 1


@test
def another_program_in_the_way_is_named():
    sh("ip link add busy0 type veth peer name busy1; ip link set busy0 up")
    sh("bpftool net attach xdp pinned %s/prog_xdp dev busy0" % BPFFS)
    said = " ".join(lab.ask("attach", "busy0"))
    assert "busy0" in said and '"xlb_xdp"' in said and " id " in said, said
    sh("ip link del busy0")


@test
def detached_leaves_nothing_attached():
    for name in ("up0", "br0"):
        lab("detach", name)
    assert not os.path.exists(BPFFS + "/link_up0")
    assert "xdp" not in subprocess.run(["ip", "link", "show", "up0"],
                                       capture_output=True, text=True,
                                       check=True).stdout
    assert "xlb_reply" not in subprocess.run(
        ["tc", "filter", "show", "dev", "br0", "ingress"],
        capture_output=True, text=True, check=True).stdout


def inside():
    global client, backends, lab
    client, backends = make_world()
    lab = Lab()
    fill_tables()
    only = sys.argv[2:]
    failed = 0
    print("1..%d" % len(TESTS))
    for number, fn in enumerate(TESTS, 1):
        name = fn.__name__.replace("_", " ")
        if only and not any(o in name for o in only):
            print("ok %d - %s # SKIP not asked for" % (number, name))
            continue
        try:
            fn()
            print("ok %d - %s" % (number, name), flush=True)
        except Exception as e:  # pylint: disable=broad-except
            failed += 1
            print("not ok %d - %s" % (number, name))
            print("# %s: %s" % (type(e).__name__, e), flush=True)
    return 1 if failed else 0


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "inside":
        return inside()
    # Everything ends with the first process of its own pid namespace.
    os.execvp("unshare", ["unshare", "--net", "--mount", "--pid", "--fork",
                          "--kill-child", "--mount-proc", sys.executable,
                          os.path.abspath(__file__), "inside"] +
              sys.argv[1:])
    return 1


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
