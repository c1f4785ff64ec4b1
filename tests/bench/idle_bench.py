#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon with nothing to do but probe 1,000 backends every 2 s: its CPU
and memory, and whether it leaves the kernel's tables alone.

XLB_BENCH_SECONDS: how long (30)."""
import os
import time

import benchlab
from benchlab import say

SECONDS = float(os.environ.get("XLB_BENCH_SECONDS", "30"))
SETTLE = 12  # past the first resync, and each backend probed some times


def changes(farm):
    return farm.xlb.query("SELECT count(*) AS n FROM change_history")[0]["n"]


def measure(made, figures):
    say("starting 100 services of 10 backends")
    farm = benchlab.Farm(made)
    time.sleep(SETTLE)
    written, cpu, began = changes(farm), farm.cpu_seconds(), time.monotonic()
    ran, waited = farm.scheduled()
    while time.monotonic() - began < SECONDS:
        time.sleep(min(10, SECONDS))
        say(f"idle for {time.monotonic() - began:.0f} s, "
            f"{farm.cpu_seconds() - cpu:.2f} s of CPU")
    took = time.monotonic() - began
    ran, waited = (after - before for after, before in zip(farm.scheduled(), (ran, waited)))
    percent = (farm.cpu_seconds() - cpu) / took * 100
    assert farm.all_up(), "backends were lost"
    figures.add("idle, 1,000 backends probed every 2 s: CPU", percent, "% of a core", 5,
                f"over {took:.0f} s, to the nanosecond {ran / took * 100:.2f}, "
                f"waiting for a CPU {waited / took * 100:.2f}")
    figures.add("  changes applied meanwhile", changes(farm) - written, "changes", 1)
    farm.add_memory(figures, 32)


if __name__ == "__main__":
    benchlab.main(measure, "idle")
