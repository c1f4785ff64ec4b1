#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`explain`: what was decided, why, and what the next step takes, out of a
history as the reconciler writes it."""
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("XLB_BUILD", ROOT / "build")).resolve()
sys.path.insert(0, str(ROOT / "tests" / "lib"))
import tap  # noqa: E402

T0 = 1700000000000  # 2023-11-14T22:13:20Z
ROWS = (  # seconds, direction, from, wanted, to, reason, limited by, value
    (0, "up", 1, 2, 2, "above_target", "", 81.0),
    (60, "up", 2, 4, 3, "above_target", "step", 90.0),
    (120, "hold", 3, 4, 3, "above_target", "max", 75.0),
)


def build(folder):
    db = sqlite3.connect(folder / "history.db")
    db.executescript((ROOT / "schemas" / "history.sql").read_text())
    for at, direction, *counts, reason, limit, value in ROWS:
        signals = [{"metric": "cpu", "value": value, "target": 60.0, "proposal": counts[1]},
                   {"metric": "latency", "value": None, "target": 0.0, "proposal": None}]
        db.execute("INSERT INTO scaling (time_ms, until_ms, service, direction, from_vms,"
                   " wanted_vms, to_vms, reason, limited_by, message, signals, mode)"
                   " VALUES (?, ?, 'web', ?, ?, ?, ?, ?, ?, ?, ?, 'live')",
                   (T0 + at * 1000, T0 + at * 1000, direction, *counts, reason, limit,
                    f"cpu {value} is above target 60", json.dumps(signals)))
    db.commit()
    db.close()


def explain(folder, *words):
    return subprocess.run([BUILD / "xlb-reconcile", "--state-dir", folder, "explain", *words],
                          capture_output=True, text=True)


@tap.test
def last(folder):
    """the last decision: count, since when, what held it, and what each signal would need"""
    done = explain(folder, "web", "--json")
    assert done.returncode == 0, done
    found = json.loads(done.stdout)
    assert found["vms"] == 3 and found["since"] == "2023-11-14T22:14:20.000Z", found
    assert [d["limited_by"] for d in found["decisions"]] == ["max", "step", ""]
    assert found["decisions"][0]["signals"][0]["value"] == 75.0
    assert "raise pool.max" in found["next"][0], found["next"]
    assert found["next"][1] == ("cpu is 75 a VM, its target 60: one more VM when it is over that, "
                                "one fewer below 40"), found["next"]
    assert found["next"][2] == "latency is missing", found["next"]
    text = explain(folder, "web").stdout
    assert text.startswith("web: 3 VMs since 2023-11-14T22:14:20.000Z\n"), text
    assert "raise pool.max" in text and "2 -> 3" in text, text


@tap.test
def earlier(folder):
    """--at: as it was then"""
    for at, vms, decisions in (("2023-11-14T22:14:19Z", 2, 1), ("2023-11-14T22:14:20.000Z", 3, 2),
                               ("1s", 3, 3)):
        found = json.loads(explain(folder, "web", "--at", at, "--json").stdout)
        assert found["vms"] == vms and len(found["decisions"]) == decisions, (at, found)
    found = json.loads(explain(folder, "web", "--at", "2023-11-14T22:14:20Z", "--json").stdout)
    assert "step each" in found["next"][0], found


@tap.test
def nothing(folder):
    """what isn't there, and what isn't a time, is said"""
    for words, code, complaint in (
            (("db",), 1, "no decision about db"),
            (("web", "--at", "2023-01-01T00:00:00Z"), 1, "until then"),
            (("web", "--at", "yesterday"), 64, "neither a time"), ((), 64, "one SERVICE"),
            (("web", "db"), 64, "one SERVICE")):
        done = explain(folder, *words)
        assert done.returncode == code and complaint in done.stderr and not done.stdout, done
    with tempfile.TemporaryDirectory() as empty:
        done = explain(empty, "web")
        assert done.returncode == 1 and "No such file" in done.stderr, done


with tempfile.TemporaryDirectory() as made:
    build(Path(made))
    status = tap.run(Path(made))
sys.exit(status)
