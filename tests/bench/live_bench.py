#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets a second on a veth, generator and balancer on one core: makes two
namespaces with a veth between them and runs live_bench there.

XLB_BENCH_ROUNDS: how often (15)."""
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
import lab  # noqa: E402
import sandbox  # noqa: E402

ROUNDS = os.environ.get("XLB_BENCH_ROUNDS", "15")


def main():
    lab.enter()
    try:
        with lab.Lab() as made:
            done = made.client.run([lab.BUILD / "bench" / "live_bench", "eth0", made.lb.path,
                                    "uplink", ROUNDS], check=False, timeout=300)
    except sandbox.Stopped as why:
        sys.exit(f"stopped by {why}")
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
