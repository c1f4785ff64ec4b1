#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""20,000 established connections while everything changes around them.

Backends are added, removed, drained, re-weighted, flap and die, algorithms and
declared maxima change, programs are swapped and the reconciler is killed, in
an order drawn from a printed seed, beside SYN, ACK and mixed floods.  No
connection may change its server or be lost, except those of a server that died
or that outstayed its drain."""
import json
import os
import random
import time

import netlab
import lab
import tap
from lab import wait_for

lab.enter()

SEED = int(os.environ.get("XLB_SEED", "0")) or random.SystemRandom().getrandbits(31)
SECONDS = 600 if netlab.SOAK else 60
CONNECTIONS = int(os.environ.get("XLB_HELD", "20000"))
HOLDERS = 5
WINDOW = 20  # idle_timeout and drain, seconds
BACKENDS = 8
FLOOD_RATE = 10000
HASHING = ("maglev", "source_hash")
PICKING = ("round_robin", "weighted_round_robin", "random", "least_connections", "least_load")
HOLDER, FLOOD = (lab.BUILD / "tests" / "net" / name for name in ("holder", "flood"))

# Name, last number of the VIPs, target port, forwarding, first algorithm.
SERVICES = (("hashed", 10, 8001, "nat", "maglev"),
            ("clients", 11, 8002, "nat", "source_hash"),
            ("turns", 12, 8003, "nat", "round_robin"),
            ("least", 13, 8004, "nat", "least_connections"),
            ("direct", 20, 80, "dsr", "maglev"))
# Each needs something that the programs don't have before it.
EXTRAS = {"tunnel": "{forwarding: ipip}", "udp-tunnel": "{forwarding: gue}",
          "any": "{algorithm: random}", "sticky": "{protocol: udp, udp: sticky}"}


def vips(number):
    return [f"192.0.2.{number}", f"2001:db8::{number}"]


class World:
    """What is declared, and what is true of the servers."""

    def __init__(self, made):
        self.made = made
        self.random = random.Random(SEED)
        self.members = {}  # name: weight
        self.drained = set()
        self.algorithm = {s[0]: s[4] for s in SERVICES}
        self.padding = 0  # backends that are declared only
        self.extras = []
        self.lives = {}  # name: how often its server began
        self.excused = {}  # name of a server's life: since when its loss is no fault
        self.done = []

    def life(self, name):
        return f"{name}.{self.lives[name]}"

    def backend(self, name):
        return next(b for b in self.made.backends if b.name == name)

    def text(self):
        out = [netlab.HEADER]
        for name, number, target, forwarding, _ in SERVICES:
            port = "80" if target == 80 else f"{{listen: 80, target: {target}}}"
            out.append(self.service(name, vips(number), port, forwarding, target))
        for i, name in enumerate(self.extras):
            out.append(f"  - name: {name}\n    vips: [192.0.2.{30 + i}]\n    ports: [9]\n"
                       + "".join(f"    {line.strip()}\n"
                                 for line in EXTRAS[name].strip("{}").split(","))
                       + "    backends: [{address: 10.77.0.250, state: drain}]\n")
        return "".join(out)

    def service(self, name, addresses, port, forwarding, health):
        lines = [f"  - name: {name}",
                 "    vips: [" + ", ".join(f'"{a}"' for a in addresses) + "]",
                 f"    ports: [{port}]",
                 f"    forwarding: {forwarding}",
                 f"    algorithm: {self.algorithm[name]}",
                 f"    idle_timeout: {WINDOW}s",
                 f"    drain: {WINDOW}s",
                 "    drain_quiet: off",
                 f"    health: {{type: http, path: /healthz, port: {health}, interval: 500ms,"
                 " timeout: 400ms, rise: 2, fall: 2}",
                 "    backends:"]
        for member in sorted(self.members):
            b = self.backend(member)
            state = ", state: drain" if member in self.drained else ""
            lines.append(f'      - {{name: {member}, addresses: ["{b.addr4}", "{b.addr6}"],'
                         f' weight: {self.members[member]}{state}}}')
        for i in range(self.padding):
            lines.append(f'      - {{name: padding-{i}, addresses: ["10.77.0.{150 + i}",'
                         f' "fd00:77::f{i:02x}"], state: drain}}')
        return "\n".join(lines) + "\n"

    def save(self):
        self.made.xlb.write(self.text())

    def serve(self, name):
        """A new life of its server, under a new name."""
        b = self.backend(name)
        self.lives[name] = self.lives.get(name, 0) + 1
        if self.lives[name] == 1:
            b.add_vips(*vips(20))
        b.sick = self.made.scratch / f"sick-{name}"
        b.sick.unlink(missing_ok=True)
        ports = [w for s in SERVICES for w in ("-p", str(s[2]))]
        b.server = b.ns.start([lab.BUILD / "xlb-backend", "-n", self.life(name), *ports,
                               "-f", b.sick], log=f"server-{name}")

    def end(self, name, at=None):
        """Its server ends; what it still serves is lost by right."""
        self.excused.setdefault(self.life(name), at or time.monotonic())
        b = self.backend(name)
        b.server.kill()
        b.server.wait()

    # ---- the changes ----

    def add(self):
        """One more, or one that was removed comes back."""
        spare = [b.name for b in self.made.backends if b.name not in self.members]
        if not spare:
            return None
        name = self.random.choice(spare)
        if name in self.lives and self.life(name) in self.excused:
            if self.excused[self.life(name)] > time.monotonic():
                del self.excused[self.life(name)]  # back before its drain was over
            else:
                self.end(name)
                self.serve(name)
        elif name not in self.lives:
            self.serve(name)
        self.members[name] = 1
        self.save()
        return name

    def usable(self):
        return [m for m in self.members if m not in self.drained
                and not self.backend(m).sick.exists()]

    def remove(self):
        """Out of the file: it drains, and what outstays that is cut."""
        if len(self.usable()) <= 3:
            return None
        name = self.random.choice(self.usable())
        del self.members[name]
        self.excused[self.life(name)] = time.monotonic() + WINDOW - 1
        self.save()
        return name

    def drain(self):
        """Takes no new ones, or does again; there is no end to that."""
        if self.drained:
            name = self.drained.pop()
        elif len(self.usable()) > 3:
            name = self.random.choice(self.usable())
            self.drained.add(name)
        else:
            return None
        self.save()
        return name

    def weight(self):
        name = self.random.choice(sorted(self.members))
        self.members[name] = self.random.choice((1, 2, 3, 5))
        self.save()
        return f"{name} {self.members[name]}"

    def flap(self):
        """Its probes fail, or pass again."""
        sick = [m for m in self.members if self.backend(m).sick.exists()]
        if sick:
            self.backend(sick[0]).sick.unlink()
            return f"{sick[0]} well"
        if len(self.usable()) <= 3:
            return None
        name = self.random.choice(self.usable())
        self.backend(name).sick.touch()
        return f"{name} sick"

    def die(self):
        if len(self.usable()) <= 3:
            return None
        name = self.random.choice(self.usable())
        self.end(name)
        self.serve(name)
        return name

    def change_algorithm(self):
        name = self.random.choice(SERVICES)[0]
        others = [a for a in HASHING + PICKING if a != self.algorithm[name]]
        self.algorithm[name] = self.random.choice(others)
        self.save()
        return f"{name} {self.algorithm[name]}"

    def change_maximum(self):
        self.padding = 0 if self.padding else self.random.choice((10, 40))
        self.save()
        return str(self.padding)

    def swap_programs(self):
        left = [e for e in EXTRAS if e not in self.extras]
        if not left:
            self.extras = []
            self.save()
            return "none"
        self.extras.append(self.random.choice(left))
        self.save()
        return self.extras[-1]

    def kill(self):
        self.made.xlb.kill9()
        time.sleep(self.random.random())
        self.made.xlb.start()
        return None

    def change(self):
        what = self.random.choice((self.add, self.add, self.remove, self.remove, self.drain,
                                   self.weight, self.flap, self.flap, self.die,
                                   self.change_algorithm, self.change_maximum,
                                   self.swap_programs, self.kill))
        detail = what()
        self.done.append(what.__name__)
        tap.note(f"{time.monotonic() - self.began:6.1f} s {what.__name__} {detail or ''}")


class Held:
    """The connections, in several processes."""

    def __init__(self, made):
        to = [w for s in SERVICES for a in vips(s[1])
              for w in ("--to", f"[{a}]:80" if ":" in a else f"{a}:80")]
        sources = [w for i in range(1, 20) for w in ("--from", f"192.0.2.{100 + i}")]
        sources += [w for i in range(1, 20) for w in ("--from", f"2001:db8::{0x100 + i:x}")]
        self.processes, self.outputs = [], []
        for i in range(HOLDERS):
            path = made.scratch / "log" / f"holder-{i}.json"
            self.outputs.append(path)
            with open(path, "wb") as output:
                self.processes.append(made.client.start(
                    [HOLDER, *to, *sources, "--connections", CONNECTIONS // HOLDERS,
                     "--rate", 500, "--churn", 10, "--window", WINDOW, "--seed", SEED + i],
                    log=f"holder-{i}.err", stdout=output))

    def lines(self):
        out = []
        for path in self.outputs:
            for line in path.read_text().splitlines():
                try:
                    out.append(json.loads(line))
                except ValueError:
                    pass  # not whole yet
        return out

    def last(self):
        """The last count of each process."""
        found = []
        for path in self.outputs:
            for line in reversed(path.read_text().splitlines()):
                if '"held"' in line and line.endswith("}"):
                    found.append(json.loads(line))
                    break
        return found

    def held(self):
        for process in self.processes:
            assert process.poll() is None, process.log.read_text()
        return sum(line["held"] for line in self.last())

    def finish(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(60)
        return [line for line in self.lines() if "summary" in line]


class Flood:
    def __init__(self, made, kind, seconds):
        mac = json.loads(made.lb.out(["ip", "-j", "link", "show", "uplink"]))[0]["address"]
        to = [f"[{a}]:80" if ":" in a else f"{a}:80" for s in SERVICES for a in vips(s[1])]
        self.process = made.client.start([FLOOD, "eth0", mac, kind, FLOOD_RATE,
                                          FLOOD_RATE * seconds, SEED, *to], log="flood")

    def finish(self):
        assert self.process.wait(120) == 0


def judge(world, held):
    faults = []
    for line in held.lines():
        if "event" not in line:
            continue
        since = world.excused.get(line["server"])
        if line["event"] == "wrong" or since is None or line["at"] < since:
            faults.append(line)
    return faults


def make():
    made = lab.Lab(client_addresses=20)
    for i in range(BACKENDS):
        made.add_backend(f"b{i + 1}")
    made.world = world = World(made)
    for b in made.backends[:5]:
        world.serve(b.name)
        world.members[b.name] = 1
    made.xlb = made.reconciler(world.text()).start()
    made.xlb.wait_converged()
    return made


@tap.test
def consistency(made):
    """no established connection moves or breaks while everything changes"""
    world = made.world
    tap.note(f"seed {SEED}, {SECONDS} s, {CONNECTIONS} connections")
    held = Held(made)
    wait_for(lambda: held.held() >= CONNECTIONS * 0.99, "the connections", 120, 0.5)
    tap.note(f"{held.held()} connections held by {HOLDERS} processes")
    world.began = time.monotonic()
    phases = (None, "SYN", "ACK", "MIXED")
    for kind in phases:
        seconds = SECONDS // len(phases)
        end = time.monotonic() + seconds
        flood = Flood(made, kind, seconds) if kind else None
        tap.note(f"{time.monotonic() - world.began:6.1f} s flood: {kind or 'none'}")
        while time.monotonic() < end:
            world.change()
            made.xlb.alive()
            netlab.settle(world.random.uniform(0.2, 2.5))
        if flood:
            flood.finish()
    least = held.held()
    summaries = held.finish()
    faults = judge(world, held)
    total = {k: sum(s[k] for s in summaries) for k in ("held", "answered", "opened", "answers",
                                                        "failed")}
    tap.note(f"held at the end {least}, {total}, changes {len(world.done)}")
    excused = sum("event" in line for line in held.lines()) - len(faults)
    tap.note(f"{excused} connections of servers that died or outstayed their drain")
    for line in faults[:20]:
        tap.note(json.dumps(line))
    assert not faults, f"{len(faults)} connections broke or moved"
    assert total["answered"] == total["held"], total
    assert least >= CONNECTIONS / 2, "too few connections were held"
    made.xlb.wait_converged()


lab.main(make)
