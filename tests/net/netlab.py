# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tests of this folder share: services, servers, traffic."""
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
import lab  # noqa: E402
from lab import wait_for  # noqa: E402

SOAK = bool(os.environ.get("XLB_SOAK"))
LOAD = lab.BUILD / "xlb-load"
BACKEND = lab.BUILD / "xlb-backend"
MEGABYTE = 1000 * 1000

# Forwarding: (VIPs, name of the tcp service, name of the udp one).
NAT_VIPS = ("192.0.2.10", "2001:db8::10")
DSR_VIPS = ("192.0.2.20", "2001:db8::20")
TARGETS = {"nat v4": "192.0.2.10", "nat v6": "[2001:db8::10]",
           "dsr v4": "192.0.2.20", "dsr v6": "[2001:db8::20]"}

HEADER = """version: 1
node:
  interfaces: [uplink]
  direct_clients: [192.0.2.200/32, "2001:db8::200/128"]
  resync: 2s
safety: {max_service_removals: 100%}
services:
"""


def service(name, vips, protocol, port, forwarding, backends, extra=()):
    """One entry of `services`.  backends: (name, v4, v6[, more keys])."""
    lines = [f"  - name: {name}",
             "    vips: [" + ", ".join(f'"{v}"' for v in vips) + "]",
             f"    protocol: {protocol}",
             f"    ports: [{port}]",
             f"    forwarding: {forwarding}",
             "    drain: 60s",
             "    health: {type: http, path: /healthz, port: 80, interval: 300ms, timeout: 200ms,"
             " rise: 2, fall: 3}",
             *(f"    {line}" for line in extra),
             "    backends:"]
    for b in backends:
        more = "".join(f", {m}" for m in b[3:])
        lines.append(f'      - {{name: {b[0]}, addresses: ["{b[1]}", "{b[2]}"]{more}}}')
    return "\n".join(lines) + "\n"


def services(backends, extra=()):
    """nat and dsr, tcp and udp, over the same backends.  dsr has other ports,
    so that answers of one aren't taken for the other's."""
    entries = [(b.name, b.addr4, b.addr6) if not isinstance(b, tuple) else b for b in backends]
    return (HEADER + service("web", NAT_VIPS, "tcp", 80, "nat", entries, extra)
            + service("echo", NAT_VIPS, "udp", 9000, "nat", entries, extra)
            + service("web-dsr", DSR_VIPS, "tcp", 80, "dsr", entries, extra)
            + service("echo-dsr", DSR_VIPS, "udp", 9000, "dsr", entries, extra))


def serve(backend):
    """Its server, on all addresses; owns the dsr VIPs."""
    if not getattr(backend, "has_vips", False):
        backend.add_vips(*DSR_VIPS)
        backend.has_vips = True
    backend.server = backend.ns.start([BACKEND, "-n", backend.name, "-p", "80", "-u", "9000"],
                                      log=f"server-{backend.name}")


def make(backends=3, client_addresses=20):
    """A lab with xlb running and all backends admitted."""
    made = lab.Lab(client_addresses=client_addresses)
    made.client.ip("address add 192.0.2.200/24 dev eth0",
                   "address add 2001:db8::200/64 dev eth0 nodad preferred_lft 0")
    for i in range(backends):
        serve(made.add_backend(f"b{i + 1}"))
    made.xlb = made.reconciler(services(made.backends)).start()
    wait_serving(made)
    return made


def answers(made, target, path="/", *options):
    return made.client.curl(f"http://{target}{path}", *options, check=False, timeout=3)


def wait_serving(made):
    for name, target in TARGETS.items():
        wait_for(lambda t=target: made.xlb.alive() and answers(made, t).startswith("b"),
                 f"an answer through {name}", 30)
    made.xlb.wait_converged()


class Load:
    """xlb-load in the background."""

    def __init__(self, made, *options, name="load"):
        path = made.scratch / "log" / f"{name}.json"
        path.unlink(missing_ok=True)
        self.path = path
        self.output = open(path, "wb")
        self.process = made.client.start([LOAD, *options], log=f"{name}.err", stdout=self.output)

    def lines(self):
        out = []
        for line in self.path.read_text().splitlines():
            try:
                out.append(json.loads(line))
            except ValueError:
                pass  # not whole yet
        return out

    def answered(self):
        return sum(line["answers"] for line in self.lines() if "summary" not in line)

    def wait_answers(self, more=1):
        start = self.answered()
        wait_for(lambda: self.alive() and self.answered() >= start + more, "answers under load", 30)

    def alive(self):
        assert self.process.poll() is None, "the load ended early: " + self.path.read_text()
        return True

    def stop(self):
        """Ends it and returns the summary."""
        self.process.terminate()
        self.process.wait(30)
        self.output.close()
        return self.lines()[-1]


def new_connections(made, target, rate=100, **more):
    options = [w for k, v in more.items() for w in (f"--{k}", v)]
    return Load(made, "--to", f"{target}:80", "--rate", rate, "--duration", "600",
                "--from", "192.0.2.101-192.0.2.119", "--from", "2001:db8::101-2001:db8::113",
                *options, name=f"new-{target.strip('[]')}")


def held_connections(made, target, count):
    load = Load(made, "--mode", "keep", "--to", f"{target}:80", "--connections", count,
                "--interval", "0.5", "--rate", "400", "--duration", "600",
                "--from", "192.0.2.101-192.0.2.119", "--from", "2001:db8::101-2001:db8::113",
                name=f"held-{target.strip('[]')}")
    wait_for(lambda: load.alive() and any(line["open"] == count for line in load.lines()),
             f"{count} connections to be open", 60)
    return load


class Download:
    """curl, slow enough that things change under way."""

    def __init__(self, made, target, size=100 * MEGABYTE, rate="12M"):
        stem = made.scratch / f"download-{target.strip('[]').replace(':', '-').replace('.', '-')}"
        self.size, self.body, self.head = size, stem.with_suffix(".body"), stem.with_suffix(".head")
        for path in (self.body, self.head):
            path.unlink(missing_ok=True)
        self.process = made.client.start(
            ["curl", "-sS", "-g", "--limit-rate", rate, "-m", "120", "-D", self.head,
             "-o", self.body, f"http://{target}/bytes/{size}"], log="curl")

    def received(self):
        return self.body.stat().st_size if self.body.exists() else 0

    def backend(self):
        """Name of who serves it."""
        wait_for(lambda: self.received() > 0, "a download to begin")
        for line in self.head.read_text().splitlines():
            if line.lower().startswith("server:"):
                return line.split()[1]
        raise AssertionError("no Server header: " + self.head.read_text())

    def under_way(self):
        return self.process.poll() is None and 0 < self.received() < self.size

    def finish(self):
        status = self.process.wait(150)
        size = self.received()
        self.body.unlink()
        assert status == 0 and size == self.size, \
            f"curl ended with {status} after {size} of {self.size} bytes"


def check(summary, what, broken_allowed=0):
    assert summary["failed"] <= broken_allowed, f"{what}: {summary}"
    assert summary["answers"] > 0, f"{what}: {summary}"
    return summary


def settle(seconds):
    """Lets traffic run for a while: a span, not an assertion."""
    time.sleep(seconds)
