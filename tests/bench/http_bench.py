#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""HTTP through what a user could pick: real connections of one client to two
servers, by way of a balancer namespace for each contender, all of them there
at once and measured in turn.

        .100  198.18.N.0/24  .1             10.77.N.1/24   .11, .12
  client eN ---------------- [ balancer N ] br0 ---------- two servers

XLB_BENCH_ROUNDS: how often (15).  XLB_BENCH_MS: how long a turn takes (350)."""
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import benchlab
import lab
import sandbox
from benchlab import say
from lab import wait_for

ROUNDS = int(os.environ.get("XLB_BENCH_ROUNDS", "15"))
TURN_MS = int(os.environ.get("XLB_BENCH_MS", "350"))
SERVERS = 2
RETRIES = 3
PORT = 8080
GOAL = 0.95  # of plain routing, where it stands in GOALS
GOALS = {("xlb, tc", "keep"), ("xlb, tc", "bulk"), ("xlb, tc", "upload")}

# Enough that a hash spreads them over the servers about as evenly as turns do.
STREAMS = 16

# mode: connections, unit, from (seconds, answers, bytes) to a figure
MODES = {
    "keep": (32, "k requests/s", lambda s, answers, _: answers / s / 1e3),
    "new": (32, "k connections/s", lambda s, answers, _: answers / s / 1e3),
    "bulk": (STREAMS, "Gbit/s", lambda s, _, moved: moved * 8 / s / 1e9),
    "upload": (STREAMS, "Gbit/s", lambda s, _, moved: moved * 8 / s / 1e9),
}
LABELS = {"keep": "HTTP keep-alive", "new": "HTTP new connections", "bulk": "HTTP bulk",
          "upload": "HTTP upload"}

SERVICES = """version: 1
node: {{interfaces: [{interface}]}}
services:
  - name: web
    vips: [{vip}]
    protocol: tcp
    ports: [{{listen: 80, target: {port}}}]
    health: {{type: tcp, interval: 5s, timeout: 1s}}
    backends:
{backends}
"""

HAPROXY = """global
    maxconn 4096
defaults
    mode tcp
    option splice-auto
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen web
    bind {vip}:80
    balance roundrobin
{servers}
"""


def need(program):
    if not shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin"):
        raise RuntimeError(f"{program} isn't installed")


class Contender:
    """A balancer namespace between the client and the servers."""

    def __init__(self, made, servers, number, name):
        self.made, self.number, self.name = made, number, name
        self.scratch = made.scratch
        self.vip = f"198.18.{number}.10"
        self.addresses = [f"10.77.{number}.{11 + k}" for k in range(SERVERS)]
        self.lb = lab.Netns(made, f"lb{number}")
        self.client, self.servers = made.client, servers
        self.lb.ip(f"link add uplink numrxqueues 1 numtxqueues 1 type veth peer name e{number} "
                   f"netns {made.client.path} numrxqueues 1 numtxqueues 1",
                   "link add br0 type bridge forward_delay 0 mcast_snooping 0",
                   f"address add 198.18.{number}.1/24 dev uplink",
                   f"address add 10.77.{number}.1/24 dev br0",
                   "link set uplink up", "link set br0 up")
        self.client.ip(f"address add 198.18.{number}.100/24 dev e{number}",
                       f"link set e{number} up")
        for k, server in enumerate(servers):
            self.lb.ip(f"link add port{k} numrxqueues 1 numtxqueues 1 type veth "
                       f"peer name e{number} netns {server.path} numrxqueues 1 numtxqueues 1",
                       f"link set port{k} master br0 up")
            server.ip(f"address add {self.addresses[k]}/24 dev e{number}",
                      f"link set e{number} up",
                      f"route add 198.18.{number}.0/24 via 10.77.{number}.1")

    def targets(self):
        return [f"{self.vip}:80"]

    def start(self):
        """Makes it work; raises when that can't be."""

    def file(self, name, text):
        path = self.scratch / f"{name}-{self.number}"
        path.write_text(text)
        return path

    def hold_vip(self):
        self.lb.ip(f"address add {self.vip}/32 dev uplink")


class Routing(Contender):
    """No balancer: the client asks the servers themselves, in turn."""

    def targets(self):
        return [f"{address}:{PORT}" for address in self.addresses]

    def start(self):
        self.lb.sysctl(net__ipv4__ip_forward=1)
        self.client.ip(f"route add 10.77.{self.number}.0/24 via 198.18.{self.number}.1")


class Xlb(Contender):
    hook = None

    def start(self):
        backends = "\n".join(f"      - {{name: s{k}, addresses: [{address}]}}"
                             for k, address in enumerate(self.addresses))
        interface = f"{{name: uplink, hook: {self.hook}}}"
        path = self.file("services.yaml", SERVICES.format(
            interface=interface, vip=self.vip, port=PORT, backends=backends))
        path = path.rename(path.with_name(f"web-{self.number}.yaml"))
        self.xlb = lab.Reconciler(self, path, state=self.scratch / f"state-{self.number}")
        self.xlb.bpffs = self.scratch / "bpf" / f"xlb-{self.number}"
        checked = self.xlb.verb("check")
        if checked.returncode:
            raise RuntimeError(checked.stderr.strip().splitlines()[0].split(" error: ")[-1])
        self.xlb.start()
        self.xlb.wait_converged()
        native = " xdp " in self.lb.out(["ip", "link", "show", "uplink"])
        if native != (self.hook == "xdp"):
            raise RuntimeError(f"hook: {self.hook} was asked for and isn't what is there")


class XlbXdp(Xlb):
    hook = "xdp"

    def start(self):
        # What XDP asks of a veth: the client completes its checksums itself,
        # and the servers' ends take redirected frames.
        self.client.ethtool(f"e{self.number}", tx="off", gro="on")
        for server in self.servers:
            server.ethtool(f"e{self.number}", gro="on")
        super().start()


class XlbTc(Xlb):
    hook = "tc"


class Nftables(Contender):
    choose = None

    def start(self):
        need("nft")
        self.hold_vip()
        self.lb.sysctl(net__ipv4__ip_forward=1)
        where = ", ".join(f"{k} : {address}" for k, address in enumerate(self.addresses))
        rules = self.file("nft", f"""table ip balance {{
    chain in {{
        type nat hook prerouting priority dstnat;
        ip daddr {self.vip} tcp dport 80 dnat to {self.choose} map {{ {where} }} : {PORT}
    }}
}}
""")
        self.lb.run(["nft", "-f", rules])


class NftNumgen(Nftables):
    choose = f"numgen inc mod {SERVERS}"


class NftJhash(Nftables):
    choose = f"jhash ip saddr . tcp sport mod {SERVERS}"


class Haproxy(Contender):
    def start(self):
        need("haproxy")
        self.hold_vip()
        servers = "\n".join(f"    server s{k} {address}:{PORT}"
                            for k, address in enumerate(self.addresses))
        path = self.file("haproxy.cfg", HAPROXY.format(vip=self.vip, servers=servers))
        self.lb.start(["haproxy", "-db", "-f", path], log="haproxy")


CONTENDERS = {
    "plain routing": Routing,
    "xlb, native XDP": XlbXdp,
    "xlb, tc": XlbTc,
    "nftables numgen": NftNumgen,
    "nftables jhash": NftJhash,
    "HAProxy, TCP mode": Haproxy,
}


class Client:
    def __init__(self, made):
        made.client.sysctl(net__ipv4__ip_local_port_range="1024 65535")
        self.process = made.client.start([lab.BUILD / "bench" / "http_bench"], log="http_bench",
                                         stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)

    def turn(self, mode, contender, duration=TURN_MS):
        """A figure; None when a connection or an answer was missing or wrong."""
        connections, _, figure = MODES[mode]
        print(mode, duration, connections, *contender.targets(), file=self.process.stdin,
              flush=True)
        seconds, answers, moved, failures, connected = map(
            float, self.process.stdout.readline().split())
        if failures or not moved or connected < connections:
            return None
        return figure(seconds, answers, moved)

    def figure(self, mode, contender):
        """Again when it went wrong, as it does when this machine's neighbour
        table is full for a moment; more than that is a failure."""
        for _ in range(RETRIES):
            found = self.turn(mode, contender)
            if found is not None:
                return found
            say(f"{contender.name}, {mode}: a turn went wrong and is repeated")
            time.sleep(1)
        raise RuntimeError(f"{contender.name}, {mode}: {RETRIES} turns in a row went wrong")


def start_all(made, servers, client):
    """Those that work, and why the others don't."""
    ready, why = [], {}
    for number, (name, kind) in enumerate(CONTENDERS.items(), 1):
        say(f"starting {name}")
        try:
            contender = kind(made, servers, number, name)
            contender.start()
            wait_for(lambda c=contender: client.turn("new", c, 20), "an answer", 20, 0.1)
            ready.append(contender)
        except (RuntimeError, AssertionError) as error:
            say(f"  NOT measured: {str(error).splitlines()[0]}")
            why[name] = str(error).splitlines()[0]
    return ready, why


def measure_all(client, contenders):
    """{(contender, mode): figures, round by round}"""
    found = {(c.name, mode): [] for c in contenders for mode in MODES}
    for round_ in range(-1, ROUNDS):
        for mode in MODES:
            for i in range(len(contenders)):  # each is first, second, ... in its turn
                contender = contenders[(i + round_) % len(contenders)]
                figure = client.figure(mode, contender)
                if round_ >= 0:
                    found[contender.name, mode].append(figure)
        if round_ % 5 == 4:
            say(f"{round_ + 1} of {ROUNDS} rounds")
    return found


def report(found, why, figures):
    for mode, (_, unit, _) in MODES.items():
        plain = found["plain routing", mode]
        for name in CONTENDERS:
            if name not in why:
                figures.add_median(f"{LABELS[mode]}, {name}", found[name, mode], unit)
        for name in list(CONTENDERS)[1:]:
            if name in why:
                figures.add_missing(f"{LABELS[mode]}, {name} over plain routing", why[name])
                continue
            ratios = [mine / its for mine, its in zip(found[name, mode], plain)]
            figures.add_median(f"{LABELS[mode]}, {name} over plain routing", ratios, "x",
                               GOAL if (name, mode) in GOALS else None, at_least=True)
    figures.add_missing("HTTP, IPVS", "this kernel has no IPVS (CONFIG_IP_VS)"
                        if not Path("/proc/net/ip_vs").exists() else "not set up by this bench")


def measure(made, figures):
    servers = [lab.Netns(made, f"server{k}") for k in range(SERVERS)]
    for k, server in enumerate(servers):
        server.start([lab.BUILD / "xlb-backend", "-n", f"s{k}", "-p", PORT], log=f"server{k}")
    client = Client(made)
    contenders, why = start_all(made, servers, client)
    time.sleep(1)  # first probes and neighbours
    report(measure_all(client, contenders), why, figures)


if __name__ == "__main__":
    benchlab.main(measure, "http")
