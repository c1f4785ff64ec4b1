#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""From a save to its slots in the kernel among 1,000 services of 10 backends:
one weight changed in one file of them all, and in a folder of 20 files.

XLB_BENCH_ROUNDS: how often (40)."""
import os
import time

import benchlab
import save_bench
from benchlab import BACKENDS, say

ROUNDS = int(os.environ.get("XLB_BENCH_ROUNDS", "40"))
SERVICES = 1000


def measure(made, figures):
    files = int(os.environ.get("FILES","1"))
    farm = benchlab.Farm(made, benchlab.Shape(SERVICES, 16, "10s", files))
    say(f"started in {farm.start_ms:.0f} ms")
    if os.environ.get("HOLD"):
        print("PID", farm.daemon(), flush=True)
    times, own = [], []
    for round_ in range(ROUNDS):
        time.sleep(0.25)
        _, result = save_bench.save(farm, round_)
        times.append(result["last_ms"])
        own.append(farm.xlb.status()["applied_ms"])
    figures.add_times("save to last slot", times, 25)
    figures.add_times("applied_ms", own, 25)
    farm.add_memory(figures, 64)


if __name__ == "__main__":
    benchlab.main(measure, "save_many")
