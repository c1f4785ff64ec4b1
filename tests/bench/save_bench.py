#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""From a save to its slots in the kernel: one weight changed among 100
services of 10 backends, the file renamed over and written in place in turn.

XLB_BENCH_ROUNDS: how often (60)."""
import json
import os
import subprocess
import time

import benchlab
import lab
from benchlab import BACKENDS, SERVICES, say

ROUNDS = int(os.environ.get("XLB_BENCH_ROUNDS", "60"))
PAUSE = 0.25  # a person saves when the daemon is at rest


def save(farm, round_):
    shape = farm.shape
    service, backend = round_ * 7 % shape.services, round_ * 3 % BACKENDS
    file = farm.file(shape.file_of(service))
    how = "rename" if round_ % 2 else "write"
    farm.weights[service, backend] = 5 + round_ % 4
    new = farm.made.scratch / "new"
    new.write_text(shape.text(farm.weights, shape.file_of(service)))
    ran, waited = farm.scheduled()
    done = subprocess.run([lab.BUILD / "bench" / "save_bench", farm.xlb.bpffs, f"s{service}",
                           file, new, how], capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise AssertionError(f"round {round_} ({how}): {done.stderr}")
    result = json.loads(done.stdout)
    result["ran_ms"], result["waited_ms"] = ((after - before) * 1e3 for after, before in
                                             zip(farm.scheduled(), (ran, waited)))
    return how, result


def measure(made, figures):
    say("starting 100 services of 10 backends")
    farm = benchlab.Farm(made)
    times, own, ran, waited = {"rename": [], "write": []}, [], [], []
    for round_ in range(ROUNDS):
        time.sleep(PAUSE)
        how, result = save(farm, round_)
        times[how].append(result["last_ms"])
        ran.append(result["ran_ms"])
        waited.append(result["waited_ms"])
        own.append(farm.xlb.status()["applied_ms"])
        if round_ % 10 == 9:
            say(f"{round_ + 1} of {ROUNDS} saves, the last one took {result['last_ms']:.2f} ms")
    assert farm.healthy() == SERVICES * BACKENDS, "backends were lost under way"
    figures.add_times("save to last slot in the kernel, 100 services of 10",
                      times["rename"] + times["write"], 10)
    figures.add_times("  the file renamed over", times["rename"])
    figures.add_times("  the file written in place", times["write"])
    figures.add_times("  by the daemon's own clock (applied_ms)", own)
    figures.add_times("  CPU it takes, with what follows within 30 ms", ran)
    figures.add_times("  waiting for a CPU meanwhile (others are busy)", waited)
    figures.add("start to 1,000 backends serving and an empty plan", farm.start_ms, "ms")
    farm.add_memory(figures, 32)


if __name__ == "__main__":
    benchlab.main(measure, "save")
