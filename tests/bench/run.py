#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs all benchmarks: tests/bench/run.py [--only PART] [--quick].

Prints one table and writes build/bench/results.json and results.md.  Each
part runs in private namespaces and leaves nothing behind.  Ends with 1 when a
goal is missed or a part fails.
"""
import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "bench"
BUILD = Path(os.environ.get("XLB_BUILD", ROOT / "build")).resolve()
OUT = BUILD / "bench"
LIMIT = 900  # seconds a part
COLUMNS = ("what", "figure", "goal", "spread")

# name: command, and what makes it short
PARTS = {
    "packet": ([OUT / "packet_bench"], {}),
    "save": ([HERE / "save_bench.py"], {"XLB_BENCH_ROUNDS": "20"}),
    "idle": ([HERE / "idle_bench.py"], {"XLB_BENCH_SECONDS": "20"}),
    "first_request": ([HERE / "first_request_bench.py"], {"XLB_BENCH_ROUNDS": "2"}),
}


def say(text):
    print(text, flush=True)


def packet_rows(cases):
    """packet_bench's own JSON, in the form of the others."""
    rows = []
    for case in cases:
        goal = case["goal_ns"] or None
        rows.append({"part": "packet", "what": f"packet path: {case['case']}",
                     "value": case["net_ns"], "unit": "ns", "goal": goal,
                     "met": None if goal is None else case["net_ns"] <= goal,
                     "spread": f"{case['median_ns']} less {case['floor_ns']} of an empty program"})
    return rows


def run_part(name, quick):
    """Its rows; None when it failed."""
    argv, short = PARTS[name]
    if not argv[0].exists():
        say(f"== {name}: {argv[0].name} isn't built: make bench builds it")
        return None
    say(f"== {name}")
    result = OUT / f"{name}.json"
    result.unlink(missing_ok=True)
    env = dict(os.environ, XLB_BENCH_JSON=str(result), XLB_BUILD=str(BUILD),
               PYTHONDONTWRITEBYTECODE="1", **(short if quick else {}))
    argv = [str(word) for word in argv]
    if name == "packet":
        argv += ["--json", str(result)]
    began = time.monotonic()
    with subprocess.Popen(argv, cwd=ROOT, env=env, stdin=subprocess.DEVNULL) as process:
        status = wait(process)
    say(f"   {name} took {time.monotonic() - began:.0f} s")
    if status or not result.exists():
        say(f"   {name} FAILED with {status}")
        return None
    rows = json.loads(result.read_text())
    return packet_rows(rows) if name == "packet" else rows


def wait(process):
    """Ends it properly, with all that it started, however we end."""
    try:
        return process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        say(f"   no end after {LIMIT} s")
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
    return process.wait()


def cells(row):
    mark = {None: "", True: "  met", False: "  MISSED"}[row["met"]]
    value = f"{row['value']:.0f}" if float(row["value"]).is_integer() else f"{row['value']:.2f}"
    bound = "" if row["goal"] is None else f"{row['goal']} {row['unit']}{mark}"
    return row["what"], f"{value} {row['unit']}", bound, row["spread"]


def print_table(rows):
    table = [COLUMNS] + [cells(row) for row in rows]
    widths = [max(len(line[i]) for line in table) for i in range(3)]
    say("")
    for what, figure, goal, spread in table:
        say(f"{what:{widths[0]}}  {figure:>{widths[1]}}  {goal:{widths[2]}}  {spread}".rstrip())


def machine():
    model = next((line.split(":", 1)[1].strip() for line in
                  Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
                 platform.machine())
    return {"kernel": platform.release(), "cpu": model, "cpus": os.cpu_count(),
            "load_before": os.getloadavg()[0]}


def write_results(rows, failed, on):
    version = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, text=True,
                             capture_output=True, check=False).stdout.strip()
    whole = {"version": version, "machine": on, "failed": failed, "results": rows}
    (OUT / "results.json").write_text(json.dumps(whole, indent=1) + "\n")
    lines = [f"xlb {version}, {on['cpus']} CPUs ({on['cpu']}), Linux {on['kernel']}, "
             f"load {on['load_before']:.1f} before it began", "",
             "| " + " | ".join(COLUMNS) + " |", "|---|---:|---|---|"]
    lines += ["| " + " | ".join(c.strip() for c in cells(row)) + " |" for row in rows]
    (OUT / "results.md").write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description="Runs the benchmarks.")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part, or these")
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("the benchmarks make network namespaces and load BPF programs: "
                 "run them as root")
    # As an exception, so that wait() ends what runs.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    OUT.mkdir(parents=True, exist_ok=True)
    on, rows, failed = machine(), [], []
    say(f"load {on['load_before']:.1f} on {on['cpus']} CPUs: others' work shows in the figures"
        if on["load_before"] > 0.5 else f"{on['cpus']} CPUs, at rest")
    for name in options.only or PARTS:
        found = run_part(name, options.quick)
        rows += found or []
        failed += [name] if found is None else []
    print_table(rows)
    write_results(rows, failed, on)
    missed = [row["what"].strip() for row in rows if row["met"] is False]
    say(f"\n{len(rows)} figures, in {OUT.relative_to(ROOT)}/results.json and results.md"
        if OUT.is_relative_to(ROOT) else f"\n{len(rows)} figures, in {OUT}")
    for what in missed:
        say(f"goal missed: {what}")
    for name in failed:
        say(f"no figures: {name}")
    sys.exit(1 if missed or failed else 0)


if __name__ == "__main__":
    main()
