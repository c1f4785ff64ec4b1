# SPDX-License-Identifier: GPL-2.0-or-later
"""What the benchmarks of the daemon share: 100 services of 10 backends in a
namespace lab, figures, and what /proc knows of the daemon."""
import json
import math
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
import lab  # noqa: E402
import sandbox  # noqa: E402
from lab import wait_for  # noqa: E402

SERVICES, BACKENDS = 100, 10
STATE = lab.BUILD / "bench" / "state"  # on a disk: history is waited for there
TICKS = os.sysconf("SC_CLK_TCK")


class Figures:
    """One benchmark's results, for the table."""

    def __init__(self, part):
        self.part, self.rows = part, []

    def add(self, what, value, unit, goal=None, spread="", **more):
        """goal: the most that it may be; None: only reported."""
        row = {"part": self.part, "what": what, "value": round(value, 3), "unit": unit,
               "goal": goal, "met": None if goal is None else value < goal, "spread": spread,
               **more}
        self.rows.append(row)

    def add_median(self, what, samples, unit, goal=None, at_least=False):
        """Median and its 95 % interval."""
        ordered = sorted(samples)
        value, (low, high) = statistics.median(ordered), median_interval(ordered)
        self.rows.append({
            "part": self.part, "what": what, "value": round(value, 4), "unit": unit,
            "low": round(low, 4), "high": round(high, 4), "goal": goal, "at_least": at_least,
            "met": None if goal is None else value >= goal if at_least else value <= goal,
            "spread": f"{low:.3g} to {high:.3g} over {len(ordered)} rounds",
            "samples": [round(s, 4) for s in samples]})

    def add_missing(self, what, why):
        self.rows.append({"part": self.part, "what": what, "value": None, "unit": "",
                          "goal": None, "met": None, "spread": f"not measured: {why}"})

    def add_times(self, what, samples, goal=None):
        """Median of times in ms, with their spread."""
        ordered = sorted(samples)
        spread = (f"min {ordered[0]:.2f}, p95 {percentile(ordered, 95):.2f}, "
                  f"max {ordered[-1]:.2f}, n {len(ordered)}")
        self.add(what, statistics.median(ordered), "ms", goal, spread,
                 samples=[round(s, 3) for s in samples])

    def write(self):
        """To the file that the runner named, else to the terminal."""
        path = os.environ.get("XLB_BENCH_JSON")
        text = json.dumps(self.rows, indent=1)
        if path:
            Path(path).write_text(text + "\n")
        else:
            for row in self.rows:
                print(f"{row['what']}: {row['value']} {row['unit']} {row['spread']}")


def median_interval(ordered):
    """At least 95 %, by order statistics: the median lies between the k-th
    smallest and the k-th largest of n with probability 1 - 2 P(Bin(n, 1/2) < k)."""
    n, k, below = len(ordered), 0, 0.5 ** len(ordered)
    while below <= 0.025 and k + 1 < n / 2:
        k += 1
        below += math.comb(n, k) * 0.5 ** n
    k = max(k, 1)
    return ordered[k - 1], ordered[n - k]


def percentile(ordered, percent):
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def say(text):
    print(text, flush=True)


class Shape:
    """What a farm serves: `services` of BACKENDS, on `shared` services a
    machine, probed every `interval`, declared in one file or in `files`."""

    def __init__(self, services=SERVICES, shared=4, interval="2s", files=1):
        self.services, self.shared, self.interval, self.files = services, shared, interval, files

    def address(self, service, backend):
        """The kernel's neighbour table, of 1,024 entries, is shared by all that
        happens on this machine: so services share machines."""
        return f"10.77.{1 + service // self.shared}.{1 + backend}"

    def port(self, service):
        return 8000 + service % self.shared

    def vip(self, service):
        return f"198.18.{service // 250}.{1 + service % 250}"

    def service(self, i, weights):
        """weights: (service, backend) to weight, where it isn't 10."""
        lines = [f"  - name: s{i}", f"    vips: [{self.vip(i)}]", "    protocol: tcp",
                 f"    ports: [{{listen: 80, target: {self.port(i)}}}]",
                 f"    health: {{type: tcp, interval: {self.interval}, timeout: 1s}}",
                 "    backends:"]
        return lines + [f"      - {{name: s{i}-b{k}, addresses: [{self.address(i, k)}], "
                        f"weight: {weights.get((i, k), 10)}}}" for k in range(BACKENDS)]

    def file_of(self, service):
        """Which of the files it stands in."""
        return service * self.files // self.services

    def text(self, weights, file=0):
        lines = ["version: 1"] + ([] if file else ["node:", "  interfaces: [uplink]"])
        lines.append("services:")
        for i in range(self.services):
            if self.file_of(i) == file:
                lines += self.service(i, weights)
        return "\n".join(lines) + "\n"


class Farm:
    """The lab, its server and the daemon, all backends admitted."""

    def __init__(self, made, shape=None):
        self.made = made
        self.shape = shape = shape or Shape()
        self.weights = {}
        host = next((b for b in made.backends if b.name == "farm"), None)
        if not host:
            host = made.add_backend("farm")
            made.lb.ip("address add 10.77.0.1/16 dev br0")
            host.ns.ip("address add 10.77.0.11/16 dev eth0",
                       *(f"address add {shape.address(i, k)}/16 dev eth0" for k in range(BACKENDS)
                         for i in range(0, shape.services, shape.shared)))
        self.server = host.ns.start(
            [lab.BUILD / "xlb-backend", "-n", "farm",
             *(word for i in range(shape.shared) for word in ("-p", shape.port(i)))], log="server")
        self.xlb = made.reconciler(shape.text(self.weights))
        if shape.files > 1:
            self.xlb.file = self.xlb.file.with_name("parts")
            self.xlb.file.mkdir()
            for i in range(shape.files):
                self.file(i).write_text(shape.text(self.weights, i))
        self.xlb.state = STATE
        began = time.monotonic()
        self.xlb.start()
        wait_for(self.all_up, f"{shape.services * BACKENDS} backends to be healthy", 240,
                 0.0005 * shape.services)
        self.xlb.wait_converged()
        self.start_ms = (time.monotonic() - began) * 1e3

    def close(self):
        """Takes it down, for another one in the same lab."""
        assert self.xlb.stop() == 0
        self.xlb.verb("destroy", "--yes", check=True)
        self.server.terminate()
        self.server.wait(10)
        shutil.rmtree(STATE)
        STATE.mkdir()

    def file(self, i):
        """The i-th one."""
        return self.xlb.file / f"{i:02}.yaml" if self.shape.files > 1 else self.xlb.file

    def all_up(self):
        self.xlb.alive()
        return self.healthy() == self.shape.services * BACKENDS

    def healthy(self):
        status = self.xlb.status()
        return sum(b["state"] == "up" for s in (status or {}).get("services", [])
                   for b in s["backends"])

    def daemon(self):
        """Its process id: what was started is nsenter, which became it."""
        return self.xlb.process.pid

    def memory(self):
        """KiB, by the names of /proc/PID/status."""
        found = {}
        for line in Path(f"/proc/{self.daemon()}/status").read_text().splitlines():
            key, value = line.split(":", 1)
            if key.startswith(("VmRSS", "VmHWM", "Rss")):
                found[key] = int(value.split()[0])
        return found

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.daemon()}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def scheduled(self):
        """Seconds its main thread ran, and those it waited for a CPU."""
        pid = self.daemon()
        ran, waited, _ = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()
        return int(ran) / 1e9, int(waited) / 1e9

    def add_memory(self, figures, goal=None):
        memory = self.memory()
        mib = {key: value / 1024 for key, value in memory.items()}
        spread = "anonymous {RssAnon:.1f}, file {RssFile:.1f}, shared {RssShmem:.1f}, " \
            "peak {VmHWM:.1f}".format(**mib)
        figures.add("memory of the daemon (VmRSS)", mib["VmRSS"], "MiB", goal, spread)


def main(measure, part):
    """measure(lab, figures) in a lab of its own."""
    lab.enter()
    figures = Figures(part)
    shutil.rmtree(STATE, ignore_errors=True)
    STATE.mkdir(parents=True)
    try:
        with lab.Lab() as made:
            try:
                measure(made, figures)
            except Exception:
                made.print_logs()
                raise
    except sandbox.Stopped as why:
        sys.exit(f"stopped by {why}")
    finally:
        shutil.rmtree(STATE, ignore_errors=True)
    figures.write()
