#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The benchmarks work: short runs of each, whose figures nobody judges."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "lib"), str(ROOT / "tests" / "bench")]
sys.dont_write_bytecode = True
import benchlab  # noqa: E402
import plots  # noqa: E402
import tap  # noqa: E402
from tap import test  # noqa: E402

BUILD = Path(os.environ.get("XLB_BUILD", ROOT / "build")).resolve()
BENCH = BUILD / "bench"


def rows_of(*argv, **env):
    """What a bench that ends well hands to the runner."""
    with tempfile.TemporaryDirectory(prefix="xlb-bench.") as folder:
        result = Path(folder) / "rows.json"
        done = subprocess.run([str(word) for word in argv], stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=180,
                              env=dict(os.environ, XLB_BENCH_JSON=str(result), **env))
        assert done.returncode == 0, done.stdout
        rows = json.loads(result.read_text())
    assert all(row["value"] is None or row["value"] >= 0 or row["unit"] == "ns" for row in rows)
    return {row["what"]: row for row in rows}


@test
def packets():
    """The packet bench checks its bytes and gives a figure for each case."""
    rows = rows_of(BENCH / "packet_bench", "--only", "tcp", "--placements", 1, "--rounds", 2)
    assert set(rows) == {f"v{family} tcp {how}, {flows}" for family in (4, 6)
                         for how in ("dsr", "nat") for flows in ("1 flow", "1M flows")}, rows
    # Rows from the kernel's own clock would be whole numbers.
    assert any(row["value"] % 1 for row in rows.values()), rows


@test
def live():
    """What the live bench sends comes back, through every program."""
    lost = []
    for _ in range(3):  # a ring that nobody empties for a while is full
        rows = rows_of(ROOT / "tests" / "bench" / "live_bench.py", XLB_BENCH_ROUNDS="1")
        rates = {what: row["spread"] for what, row in rows.items() if row["unit"] == "Mpps"}
        assert len(rates) == 8, rows
        lost.append({what: spread for what, spread in rates.items()
                     if not spread.split("; ")[1].startswith(("0.00 %", "-0.00 %"))})
        if not lost[-1]:
            return
    raise AssertionError(lost)


@test
def tables():
    """The tables are compiled and written."""
    rows = rows_of(BENCH / "tables_bench")
    assert len(rows) == 3, rows
    assert "; 0 slots differ" not in rows["500 backends, 64k slots, one weight changed"]["spread"]


@test
def http():
    """Every contender that is installed answers in each mode."""
    rows = rows_of(ROOT / "tests" / "bench" / "http_bench.py", XLB_BENCH_ROUNDS="1",
                   XLB_BENCH_MS="40")
    for mode in ("keep-alive", "new connections", "bulk", "upload"):
        for name in ("plain routing", "xlb, native XDP"):
            assert rows[f"HTTP {mode}, {name}"]["value"] > 0, rows
    tap.note("; ".join(f"{what}: {row['spread']}" for what, row in rows.items()
                       if row["value"] is None))


@test
def intervals():
    """The median's interval by order statistics has the textbook's ranks."""
    for n, low, high in ((1, 1, 1), (5, 1, 5), (6, 1, 6), (9, 2, 8), (15, 4, 12), (21, 6, 16)):
        assert benchlab.median_interval(list(range(1, n + 1))) == (low, high), n


@test
def drawing():
    """Plots are drawn from rows with and without goals and intervals."""
    if not shutil.which("gnuplot"):
        raise tap.Skip("gnuplot isn't installed")
    rows = [{"part": "packet", "what": "a case_1", "value": 12.5, "unit": "ns", "goal": 15,
             "met": True, "low": 12, "high": 13, "spread": ""},
            {"part": "packet", "what": 'b "quoted"', "value": 22, "unit": "ns", "goal": None,
             "met": None, "spread": ""},
            {"part": "http", "what": "HTTP, IPVS", "value": None, "unit": "", "goal": None,
             "met": None, "spread": "not measured"}]
    with tempfile.TemporaryDirectory(prefix="xlb-bench.") as folder:
        drawn = plots.draw(rows, Path(folder), "test")
        assert [path.name for path in drawn] == ["packet.png"], drawn
        assert drawn[0].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


if __name__ == "__main__":
    if os.geteuid() != 0:
        tap.skip_all("needs root")
    sys.exit(tap.run())
