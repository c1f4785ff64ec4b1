#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs all benchmarks: tests/bench/run.py [--only PART] [--quick].

Prints one table and writes it to build/bench: results.md, results.json,
results.csv and plots (PNG, where gnuplot is).  Each part runs in private
namespaces and leaves nothing behind.  Ends with 1 when a goal is missed or a
figure is missing, 2 when it can't run.  --quick: few rounds, to see that
everything works; its figures mean little.
"""
import argparse
import csv
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import plots

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "bench"
BUILD = Path(os.environ.get("XLB_BUILD", ROOT / "build")).resolve()
OUT = BUILD / "bench"
LIMIT = 900  # seconds a part
COLUMNS = ("what", "figure", "goal", "spread")

# name: command, what makes it short, and words for the command then
PARTS = {
    "packet": ([OUT / "packet_bench"], {}, ["--placements", "1", "--rounds", "1"]),
    "live": ([HERE / "live_bench.py"], {"XLB_BENCH_ROUNDS": "2"}, []),
    "tables": ([OUT / "tables_bench"], {}, []),
    "http": ([HERE / "http_bench.py"], {"XLB_BENCH_ROUNDS": "1", "XLB_BENCH_MS": "100"}, []),
    "save": ([HERE / "save_bench.py"], {"XLB_BENCH_ROUNDS": "20"}, []),
    "save_many": ([HERE / "save_many_bench.py"], {"XLB_BENCH_ROUNDS": "8"}, []),
    "parse": ([OUT / "parse_bench"], {}, []),
    "idle": ([HERE / "idle_bench.py"], {"XLB_BENCH_SECONDS": "10"}, []),
    "probe": ([HERE / "probe_bench.py"], {"XLB_BENCH_SECONDS": "10"}, []),
    "first_request": ([HERE / "first_request_bench.py"], {"XLB_BENCH_ROUNDS": "1"}, []),
}


def say(text):
    print(text, flush=True)


def run_part(name, quick):
    """Its rows, which may be fewer than there should be, and whether all is well."""
    argv, short, words = PARTS[name]
    if not argv[0].exists():
        say(f"== {name}: {argv[0].name} isn't built: make bench builds it")
        return [], False
    say(f"== {name}")
    result = OUT / f"{name}.json"
    result.unlink(missing_ok=True)
    env = dict(os.environ, XLB_BENCH_JSON=str(result), XLB_BUILD=str(BUILD),
               PYTHONDONTWRITEBYTECODE="1", **(short if quick else {}))
    argv = [str(word) for word in argv] + (words if quick else [])
    began = time.monotonic()
    with subprocess.Popen(argv, cwd=ROOT, env=env, stdin=subprocess.DEVNULL) as process:
        status = wait(process)
    say(f"   {name} took {time.monotonic() - began:.0f} s"
        + (f" and ended with {status}" if status else ""))
    rows = json.loads(result.read_text()) if result.exists() else []
    return rows, not status and bool(rows)


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


def number(value):
    if float(value).is_integer() and abs(value) >= 10:
        return f"{value:.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3}f}"


def cells(row):
    if row["value"] is None:
        return row["what"], "-", "", row["spread"]
    goal, low, high = row["goal"], row.get("low"), row.get("high")
    bound = ""
    if goal is not None:
        bound = (">= " if row.get("at_least") else "<= ") + f"{goal:g} {row['unit']}"
        bound += "  met" if row["met"] else "  MISSED"
        # The goal lies within what the figure may be off by.
        bound += " (unsure)" if low is not None and low < goal < high else ""
    return row["what"], f"{number(row['value'])} {row['unit']}", bound, row["spread"]


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
            "load_before": os.getloadavg()[0],
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


COLUMNS_CSV = ("part", "what", "value", "unit", "goal", "met", "low", "high", "spread")


def write_csv(rows):
    with open(OUT / "results.csv", "w", newline="") as out:
        table = csv.DictWriter(out, COLUMNS_CSV, extrasaction="ignore", restval="")
        table.writeheader()
        table.writerows(rows)


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
    write_csv(rows)
    title = f"xlb {version}, {on['cpus']} CPUs, Linux {on['kernel']}"
    for path in plots.draw(rows, OUT, title):
        say(f"plot: {path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}")


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
        found, well = run_part(name, options.quick)
        rows += found
        failed += [] if well else [name]
    print_table(rows)
    write_results(rows, failed, on)
    missed = [row["what"].strip() for row in rows if row["met"] is False]
    say(f"\n{len(rows)} figures, in {OUT.relative_to(ROOT)}/results.json and results.md"
        if OUT.is_relative_to(ROOT) else f"\n{len(rows)} figures, in {OUT}")
    unmeasured = [row["what"] for row in rows if row["value"] is None]
    for what in unmeasured:
        say(f"not measured: {what}")
    for what in missed:
        say(f"goal missed: {what}")
    for name in failed:
        say(f"not all figures: {name}")
    sys.exit(1 if missed or failed else 0)


if __name__ == "__main__":
    main()
