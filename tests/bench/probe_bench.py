#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""2,000 backends probed every 2 s, half of them silent: what it costs, and how
late probes begin.  Then the same, and saves, beside a hypervisor whose calls
hang: a socket that accepts and never answers.

XLB_BENCH_SECONDS: how long each (20)."""
import os
import socket
import threading
import time

import benchlab
from benchlab import BACKENDS, say
from lab import wait_for

SECONDS = float(os.environ.get("XLB_BENCH_SECONDS", "20"))
SAVES = 10
SERVICES = 200
SETTLE = 22  # lateness is of the last 10 to 20 s


class Halves(benchlab.Shape):
    """The second half's machines are in 10.77.128.0/17."""

    hypervisor = None

    def address(self, service, backend):
        half = 128 if service >= self.services // 2 else 0
        return f"10.77.{half + 1 + service % (self.services // 2) // self.shared}.{1 + backend}"

    def text(self, weights, file=0):
        text = super().text(weights, file)
        if self.hypervisor:
            text += f'hypervisors: [{{name: far, uri: "{self.hypervisor}"}}]\n'
        return text


def silence(farm):
    """What the second half answers gets lost."""
    farm.made.backends[-1].ns.ip("rule add from 10.77.128.0/17 blackhole")
    wait_for(lambda: farm.xlb.alive() and farm.healthy() == SERVICES * BACKENDS // 2,
             "half of the backends to be down", 120, 0.2)
    farm.xlb.wait_converged()


class Mute:
    """Accepts, and never says anything."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(str(path))
        self.socket.listen(8)
        self.clients = []
        self.uri = f"qemu+unix:///system?socket={path}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            self.clients.append(self.socket.accept()[0])


def watch(farm, figures, what, late_goal, cpu_goal=None):
    time.sleep(SETTLE)
    cpu, began = farm.cpu_seconds(), time.monotonic()
    ran, waited = farm.scheduled()
    before, late, p99 = farm.xlb.status()["probes"], [], []
    while time.monotonic() - began < SECONDS:
        time.sleep(min(10, SECONDS))
        now = farm.xlb.status()["probes"]
        late.append(now["late_max_ms"])
        p99.append(now["late_p99_ms"])
    took = time.monotonic() - began
    percent = (farm.cpu_seconds() - cpu) / took * 100
    waited = (farm.scheduled()[1] - waited) / took * 100
    rate = (now["sent"] - before["sent"]) / took
    say(f"{rate:.0f} probes a second, {percent:.1f} % of a core")
    if cpu_goal:
        figures.add(f"{what}: CPU", percent, "% of a core", cpu_goal,
                    f"{rate:.0f} probes a second over {took:.0f} s")
    figures.add(f"{what}: the latest probe", max(late), "ms", late_goal,
                f"p99 {max(p99):.2f}, waiting for a CPU {waited:.1f} % of the time")


def measure(made, figures):
    say(f"starting {SERVICES} services of {BACKENDS} backends, half of them silent")
    shape = Halves(services=SERVICES)
    farm = benchlab.Farm(made, shape)
    silence(farm)
    watch(farm, figures, "2,000 probes every 2 s, half silent", 20, 10)
    mute = Mute(made.scratch / "mute")
    shape.hypervisor = mute.uri
    farm.xlb.write(shape.text({}))
    wait_for(lambda: mute.clients, "the hypervisor to be asked", 30)
    watch(farm, figures, "  beside a hypervisor that hangs", 50)
    own = []
    for round_ in range(SAVES):
        was = farm.xlb.status()["revision"]
        farm.xlb.write(shape.text({(7, 3): 11 + round_ % 2}))
        wait_for(lambda r=was: farm.xlb.status()["revision"] > r, "the save", 30)
        time.sleep(0.5)
        own.append(farm.xlb.status()["applied_ms"])
    figures.add_times("  a save then, one weight, by the daemon's clock", own, 50)
    began = time.monotonic()
    assert farm.xlb.stop() == 0
    figures.add("  stopping the daemon then", (time.monotonic() - began) * 1e3, "ms", 5000)


if __name__ == "__main__":
    benchlab.main(measure, "probe")
