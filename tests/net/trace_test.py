#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`trace`: what it says of flows, against where their packets really go; and
`trace --live`: packets sampled while everything goes on."""
import collections
import json
import subprocess
import sys
import time
from pathlib import Path

import netlab
import lab
import tap
from lab import wait_for

lab.enter()
VIP4, VIP6 = netlab.NAT_VIPS
CLIENTS = {VIP4: lab.CLIENT4, VIP6: lab.CLIENT6, "192.0.2.20": lab.CLIENT4,
           "2001:db8::20": lab.CLIENT6}
FLOWS = Path(__file__).with_name("trace_flows.py")
IDLE = ("idle_timeout: 4s", "drain_quiet: off")
PICKING = ("round_robin", "random", "least_connections", "least_load")


def written(address, port):
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class Flows:
    """The client's side."""

    def __init__(self, made):
        self.process = made.client.start([sys.executable, FLOWS], log="flows",
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.used = 20000

    def ports(self, count):
        """Fresh ones: nothing of them is known to anybody."""
        first = self.used
        self.used += count
        return range(first, first + count)

    def do(self, what, vip, ports, port=80):
        order = {"do": what, "to": [vip, port], "from": CLIENTS[vip], "ports": list(ports)}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the client ended: " + self.process.log.read_text()
        answers = {int(k): v for k, v in json.loads(line).items()}
        errors = {k: v for k, v in answers.items() if v.startswith("error")}
        assert not errors, (what, vip, errors)
        return answers


def asked(made, vip, ports, port=80, *more):
    """{port: what `trace` says}"""
    done = made.xlb.verb("trace", "--json", "--vip", written(vip, port), "--from",
                         f"{written(CLIENTS[vip], ports[0])}-{ports[-1]}", *more)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    found = found if isinstance(found, list) else [found]
    assert len(found) == len(ports)
    return dict(zip(ports, found))


def one(made, vip, source, *more, json_too=True):
    done = made.xlb.verb("trace", "--vip", vip, "--from", source, *more,
                         *(["--json"] if json_too else []))
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout) if json_too else done.stdout


def target(said, packet):
    p = said["packets"][packet]
    assert p["verdict"] == "sent", said
    assert p["drop"] is None and p["why"], said
    return p["backend"]["name"]


def agree(said, packet, real, tally):
    """What was said of each flow is what happened; tally by slot state."""
    for port, where in real.items():
        assert target(said[port], packet) == where, (packet, port, where, said[port])
        slot = said[port]["slot"]
        moved = slot["cur"] != slot["prev"] and slot["state"] != "rest"
        tally[packet, slot["state"], moved] += 1


def all_up(made):
    """Who isn't drained takes new flows: in each service."""
    return all(s["up"] == s["active"] for s in made.xlb.status()["services"])


def apply(made, text):
    """Saves it, and waits until nobody is joining any more."""
    made.xlb.apply(text)
    wait_for(lambda: all_up(made) and made.xlb.plan_is_empty(), "all backends", 60, 0.1)


def declare(made, *extra, backends=None):
    apply(made, netlab.services(backends or made.backends, extra))


def declare_web(made, *extra, backends=None):
    """That service alone."""
    entries = [(b.name, b.addr4, b.addr6) for b in backends or made.backends]
    apply(made, netlab.HEADER
          + netlab.service("web", netlab.NAT_VIPS, "tcp", 80, "nat", entries, extra))


def slots(made, name="web"):
    return next(s for s in made.xlb.status()["services"] if s["name"] == name)["slots"]


def make():
    made = netlab.make(2)
    made.flows = Flows(made)
    return made


# ---- where packets go -----------------------------------------------------

@tap.test
def agreement(made):
    """of hundreds of connections in each state of slots trace says where their packets go"""
    declare(made, *IDLE)
    tally = collections.Counter()
    vips = {VIP4: 150, VIP6: 60, "192.0.2.20": 60, "2001:db8::20": 40}
    held = {vip: made.flows.ports(count) for vip, count in vips.items()}

    def compare(packet, what, groups):
        for vip, ports in groups.items():
            said = asked(made, vip, ports)
            agree(said, packet, made.flows.do(what, vip, ports), tally)

    def fresh(count=60):
        groups = {vip: made.flows.ports(count) for vip in vips}
        compare("new", "open", groups)
        compare("existing", "ask", groups)
        for vip, ports in groups.items():
            made.flows.do("close", vip, ports)

    wait_for(lambda: slots(made)["rest"] == slots(made)["count"], "slots at rest", 40, 0.3)
    compare("new", "open", held)
    compare("existing", "ask", held)
    netlab.serve(made.add_backend("b3"))
    declare(made, *IDLE)
    assert slots(made)["moving"] > 0
    compare("existing", "ask", held)  # first sightings
    compare("existing", "ask", held)  # remembered
    fresh()

    def quiet():
        for vip, ports in held.items():
            made.flows.do("ask", vip, ports)
        now = [slots(made), slots(made, "web-dsr")]
        return all(s["settled"] and not s["moving"] for s in now)
    wait_for(quiet, "slots to settle", 60, 0.5)
    compare("existing", "ask", held)
    fresh()
    # One leaves: whom it had stays there, and new ones go elsewhere.
    drained = [(b.name, b.addr4, b.addr6, "state: drain" if b.name == "b1" else "weight: 1")
               for b in made.backends]
    apply(made, netlab.services(drained, IDLE))
    compare("existing", "ask", held)
    fresh()
    said = [f for vip, ports in held.items() for f in asked(made, vip, ports).values()
            if f["slot"]["prev"] == "b1" and f["slot"]["state"] == "moving"]
    assert said and all("since b1 drains" in f["packets"]["new"]["why"] for f in said)
    assert any("remembered at b1" in f["packets"]["existing"]["why"] for f in said)
    for vip, ports in held.items():
        made.flows.do("close", vip, ports)
    for key, count in sorted(tally.items()):
        tap.note(f"{count} times: {key[0]} in a slot {key[1]}{', of another' if key[2] else ''}")
    for key in (("new", "rest", False), ("existing", "rest", False), ("new", "moving", True),
                ("existing", "moving", True), ("existing", "settled", False)):
        assert tally[key] >= 100, (key, tally)


@tap.test
def datagrams(made):
    """the same of datagrams, and of flows that are remembered"""
    declare(made, *IDLE)
    for vip in (VIP4, VIP6):
        ports = made.flows.ports(100)
        said = asked(made, vip, ports, 9000)
        assert all(f["protocol"] == "udp" for f in said.values())
        agree(said, "datagram", made.flows.do("send", vip, ports, 9000), collections.Counter())
    extra = netlab.service("turns", ("192.0.2.30",), "udp", 9000, "nat",
                           [(b.name, b.addr4, b.addr6) for b in made.backends],
                           ("udp: sticky",))
    apply(made, netlab.HEADER + extra)
    CLIENTS["192.0.2.30"] = lab.CLIENT4
    ports = made.flows.ports(60)
    said = asked(made, "192.0.2.30", ports, 9000)
    real = made.flows.do("send", "192.0.2.30", ports, 9000)
    agree(said, "datagram", real, collections.Counter())
    said = asked(made, "192.0.2.30", ports, 9000)
    assert all(f["remembered"]["backend"] == real[p] for p, f in said.items())


@tap.test
def algorithms(made):
    """an algorithm that picks: who it may be, and where a flow is once it is known"""
    names = {b.name for b in made.backends}
    for algorithm in PICKING:
        declare_web(made, f"algorithm: {algorithm}", *IDLE)
        ports = made.flows.ports(25)
        said = asked(made, VIP4, ports)
        real = made.flows.do("open", VIP4, ports)
        for port, f in said.items():
            new = f["packets"]["new"]
            assert set(new["candidates"]) == names and real[port] in names, (algorithm, f)
            assert "backend" not in new and new["why"]
        # An answer is known after the client's next packet at the latest.
        made.flows.do("ask", VIP4, ports)
        said = asked(made, VIP4, ports)
        agree(said, "existing", made.flows.do("ask", VIP4, ports), collections.Counter())
        assert all(f["remembered"]["backend"] == real[p] for p, f in said.items()), algorithm
        made.flows.do("close", VIP4, ports)


@tap.test
def clients(made):
    """source_hash: the client's slot, and whom it sticks to"""
    two = made.backends[:2]
    sticky = ("algorithm: source_hash", "affinity: {timeout: 60s}", *IDLE)
    declare_web(made, *sticky, backends=two)
    ports = made.flows.ports(30)
    said = asked(made, VIP4, ports)
    assert len({f["slot"]["index"] for f in said.values()}) == 1
    agree(said, "new", made.flows.do("open", VIP4, ports), collections.Counter())
    declare_web(made, *sticky)
    more = made.flows.ports(30)
    for packet, what, group in (("existing", "ask", ports), ("new", "open", more),
                                ("existing", "ask", more)):
        said = asked(made, VIP4, group)
        agree(said, packet, made.flows.do(what, VIP4, group), collections.Counter())
    for group in (ports, more):
        made.flows.do("close", VIP4, group)


# ---- where they don't -----------------------------------------------------

def drops(made):
    return made.xlb.status()["drops"]


def grows(made, reason, act):
    before = drops(made)[reason]
    act()
    wait_for(lambda: drops(made)[reason] > before, f"a packet dropped as {reason}", 20)


def datagram(made, where, vip, size=8, ttl=64, mtu_discover=False):
    """One from there, whatever becomes of it."""
    options = f"s.setsockopt(0, {2}, {ttl})\n"  # IP_TTL
    if mtu_discover:
        options += "s.setsockopt(0, 10, 2)\n"  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
    where.run([sys.executable, "-c", f"import socket\ns = socket.socket(2, 2)\n{options}"
               f"s.sendto(bytes({size}), ('{vip}', 9000))"])


@tap.test
def reasons(made):
    """each reason to drop is foretold, and real packets are counted under it"""
    b = made.backends[0]
    udp = [(b.name, b.addr4, b.addr6)]
    empty = netlab.service("empty", ("192.0.2.31",), "udp", 9000, "dsr",
                           [(b.name, b.addr4, b.addr6, "state: drain")])
    tunnel = netlab.service("tunnel", ("192.0.2.32", "2001:db8::32"), "udp", 9000, "ipip", udp)
    apply(made, netlab.services(made.backends) + empty + tunnel)
    client = f"{lab.CLIENT4}:5000"

    said = one(made, "192.0.2.31:9000", client)["packets"]["datagram"]
    assert said["verdict"] == "drop" and said["drop"] == "no_backend", said
    assert said["backend"] is None and "is up" in said["why"] or "nobody" in said["why"], said
    grows(made, "no_backend", lambda: datagram(made, made.client, "192.0.2.31"))

    said = one(made, f"{VIP4}:9000", client, "--ttl", "1")["packets"]["datagram"]
    assert said["verdict"] == "drop" and said["drop"] == "ttl", said
    grows(made, "ttl", lambda: datagram(made, made.client, VIP4, ttl=1))

    said = one(made, "192.0.2.32:9000", client, "--length", "1490")["packets"]["datagram"]
    assert said["verdict"] == "answered" and said["drop"] == "too_big", said
    assert "1500" in said["why"], said
    grows(made, "too_big", lambda: datagram(made, made.client, "192.0.2.32", size=1462,
                                            mtu_discover=True))
    said = one(made, "192.0.2.32:9000", client, "--length", "1400")["packets"]["datagram"]
    assert said["verdict"] == "sent" and said["drop"] is None, said

    said = one(made, f"{VIP4}:9000", f"{b.addr4}:5000")
    assert (said["interface"], said["hook"]) == ("br0", "reply"), said
    said = said["packets"]["datagram"]
    assert said["verdict"] == "drop" and said["drop"] == "hairpin", said
    grows(made, "hairpin", lambda: datagram(made, b.ns, VIP4))


@tap.test
def others(made):
    """what isn't declared passes, and a bad question gets an answer that helps"""
    declare(made)
    said = one(made, f"{VIP4}:81", f"{lab.CLIENT4}:5000")
    for packet in said["packets"].values():
        assert packet["verdict"] == "pass" and "tcp/80" in packet["why"], said
    assert "service" not in said
    text = one(made, f"[{VIP6}]:80", f"[{lab.CLIENT6}]:5000", json_too=False)
    assert "service: web (maglev, nat)" in text and "a new connection: sent, b" in text, text
    said = one(made, f"{VIP4}:80", "192.0.2.200:5000")
    assert "direct_clients" in said["notes"][0], said
    said = one(made, f"{VIP4}:80", "192.0.2.1:5000")
    assert "this host" in said["notes"][0], said
    for words, complaint in (
            (("--vip", "192.0.2.10"), "--vip names no address and port"),
            (("--vip", f"{VIP6}:80"), "--vip names no address and port"),
            (("--vip", f"{VIP4}:80"), "--from names no client"),
            (("--vip", f"{VIP4}:80", "--from", "[::1]:5"), "different families"),
            (("--vip", f"{VIP4}:80", "--from", "192.0.2.1:1-9000"), "too many ports"),
            (("--vip", f"{VIP4}:80", "--from", "192.0.2.1:9-8"), "--from names no client"),
            (("--vip", f"{VIP4}:80", "--protocol", "sctp"), "tcp, udp"),
            (("--ttl", "0"), "--ttl 0 is not a number from 1 to 255")):
        done = made.xlb.verb("trace", *words)
        assert done.returncode == 64 and complaint in done.stderr, (words, done)


@tap.test
def alone(made):
    """without a daemon the same is asked of the kernel"""
    netlab.wait_serving(made)
    ports = made.flows.ports(20)
    before = asked(made, VIP4, ports)
    made.xlb.stop()
    after = asked(made, VIP4, ports)
    for port in ports:
        assert target(before[port], "new") == target(after[port], "new")
    agree(after, "new", made.flows.do("open", VIP4, ports), collections.Counter())
    made.flows.do("close", VIP4, ports)
    done = made.xlb.verb("trace", "--live")
    assert done.returncode == 1 and "no xlb-reconcile runs" in done.stderr, done
    made.xlb.start()
    made.xlb.wait_converged()


# ---- as they come ---------------------------------------------------------

class Live:
    """A client of `trace --live`."""
    count = 0

    def __init__(self, made, *options):
        self.made = made
        Live.count += 1
        self.process = made.lb.start(made.xlb.argv("trace", "--live", "--json", *options),
                                     log=f"live-{Live.count}", stdout=subprocess.PIPE, text=True)
        wait_for(self.samples_now, "sampling to begin", 30)

    def samples_now(self):
        said = self.process.log.read_text()
        assert self.process.poll() is None, said
        return "packets are sampled" in said

    @staticmethod
    def on(made):
        return (made.xlb.bpffs / "samples").exists()

    def finish(self, timeout=60):
        """Ends it, if it hasn't; all that it printed."""
        if self.process.poll() is None:
            # What is under way gets to the buffer first.
            time.sleep(0.3)
            self.process.terminate()
        out = self.process.communicate(timeout=timeout)[0]
        wait_for(lambda: not self.on(self.made), "sampling to end", 30)
        return [json.loads(line) for line in out.splitlines()]


def program_tags(made):
    """Of what is attached: its instructions' digest."""
    link = json.loads(made.lb.out(["ip", "-j", "-d", "link", "show", "uplink"]))[0]
    shown = made.lb.out(["tc", "filter", "show", "dev", "br0", "ingress"])
    tags = [word.split()[0] for word in shown.split(" tag ")[1:]]
    return [link.get("xdp", {}).get("prog", {}).get("tag"), *tags]


@tap.test
def live(made):
    """packets of both directions are sampled with service, slot, backend and verdict"""
    declare(made)
    tags = program_tags(made)
    sampled = Live(made, "--service", "web")
    assert program_tags(made) != tags
    ports = made.flows.ports(3)
    said = asked(made, VIP4, ports)
    real = made.flows.do("open", VIP4, ports)
    made.flows.do("close", VIP4, ports)
    found = sampled.finish()
    assert sampled.process.returncode == 0
    assert program_tags(made) == tags, "not the same programs as before"
    for port in ports:
        mine = [s for s in found if port in (s["source_port"], s["destination_port"])]
        there = [s for s in mine if s["hook"] == "xdp"]
        back = [s for s in mine if s["hook"] == "reply"]
        assert there[0]["flags"] == "S" and back[0]["flags"] == "SA", mine
        for s in mine:
            assert s["service"] == "web" and s["backend"] == real[port], s
            assert s["verdict"] == "sent" and s["drop"] is None, s
        for s in there:
            assert s["interface"] == "uplink" and s["destination"] == VIP4, s
            slot = said[port]["slot"]
            assert {k: s["slot"][k] for k in ("index", "cur", "state")} == \
                {k: slot[k] for k in ("index", "cur", "state")}, (s, slot)
        assert back[0]["interface"] == "br0" and back[0]["destination"] == lab.CLIENT4


@tap.test
def live_filters(made):
    """an address asks for all its packets, also those that pass or are dropped"""
    b = made.backends[0]
    for options, act, wanted in (
            (("--vip", f"{VIP4}:81"),
             lambda: made.client.curl(f"http://{VIP4}:81/", check=False),
             {"destination_port": 81, "verdict": "pass", "service": None}),
            (("--vip", VIP4, "--protocol", "udp"),
             lambda: datagram(made, made.client, VIP4, ttl=1),
             {"verdict": "drop", "drop": "ttl", "service": "echo", "protocol": "udp"}),
            (("--from", b.addr4), lambda: datagram(made, b.ns, VIP4),
             {"hook": "reply", "verdict": "drop", "drop": "hairpin"}),
            (("--vip", f"[{VIP6}]:80", "--from", lab.CLIENT6, "--count", "1"),
             lambda: made.client.curl(f"http://[{VIP6}]/"),
             {"hook": "xdp", "source": lab.CLIENT6, "flags": "S", "verdict": "sent"})):
        sampled = Live(made, *options)
        act()
        if "--count" in options:
            sampled.process.wait(30)
        found = sampled.finish()
        assert found, options
        assert all({k: s[k] for k in wanted} == wanted for s in found[:1]), (options, found)
        if "--count" in options:
            assert len(found) == 1, found
    done = made.xlb.verb("trace", "--live", "--service", "nix")
    assert done.returncode == 1 and "no such service" in done.stderr, done


@tap.test
def live_tc(made):
    """the same at tc"""
    apply(made, netlab.services(made.backends).replace(
        "interfaces: [uplink]", "interfaces: [{name: uplink, hook: tc}]"))
    sampled = Live(made, "--service", "web-dsr")
    for target_url in ("192.0.2.20", "[2001:db8::20]"):
        made.client.curl(f"http://{target_url}/")
    found = sampled.finish()
    for address in ("192.0.2.20", "2001:db8::20"):
        there = [s for s in found if s["destination"] == address]
        assert there and all(s["hook"] == "tc" and s["verdict"] == "sent" and s["backend"]
                             for s in there), found
        assert any(s["hook"] == "reply" and s["source"] == address for s in found), found
    declare(made)


@tap.test
def live_rate(made):
    """no more than the rate, however many come; and none is lost while it is switched"""
    load = netlab.Load(made, "--mode", "udp", "--to", f"{VIP4}:9000", "--rate", "2000",
                       "--duration", "600", name="udp")
    load.wait_answers()
    rate = 50
    for _ in range(3):
        began = time.monotonic()
        sampled = Live(made, "--service", "echo", "--rate", f"{rate}/s")
        load.wait_answers(1000)
        found = sampled.finish()
        took = time.monotonic() - began
        # Half a second's worth may come at once.
        assert 1 < len(found) <= rate * (took + 0.5) + 1, (len(found), took)
    summary = load.stop()
    assert summary["failed"] == 0 and summary["answers"] > 3000, summary


@tap.test
def live_ends(made):
    """it ends with its time, with its client, and with the daemon; two don't do it at once"""
    first = Live(made)
    done = made.xlb.verb("trace", "--live")
    assert done.returncode == 1 and "already" in done.stderr, done
    assert "trace" in made.xlb.status()["features"]
    first.finish()
    timed = Live(made, "--for", "2s")
    timed.process.wait(30)
    timed.finish()
    second = Live(made)
    second.process.kill()
    wait_for(lambda: not Live.on(made), "sampling to end with its client", 30)
    tags = program_tags(made)
    third = Live(made)
    made.xlb.kill9()
    third.process.wait(30)
    assert Live.on(made)
    made.xlb.start()
    made.xlb.wait_converged()
    wait_for(lambda: not Live.on(made), "the next daemon to end it", 30)
    assert program_tags(made) == tags, (program_tags(made), tags)
    fourth = Live(made)
    assert made.xlb.stop() == 0
    fourth.process.wait(30)
    assert not Live.on(made) and program_tags(made) == tags


lab.main(make)
