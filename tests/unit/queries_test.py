#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Every query of examples/queries finds what it should in a small history."""
import json
import os
import sqlite3
import subprocess
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
QUERIES = os.path.join(TOP, "examples", "queries")
T0 = 1700000000000  # 2023-11-14T22:13:20Z

# For each query: what its first row must hold, and how many rows there are.
EXPECTED = {
    "why_did_it_scale": (2, {"direction": "up", "vms": "2 -> 3", "reason": "above_target",
                             "measured": "cpu 81.0 (target 60.0)", "took_ms": 2300}),
    "why_not": (1, {"vms": 3, "wanted": 5, "limited_by": "cooldown"}),
    "vm_lifetimes": (2, {"vm": "web-2", "last_event": "removed", "seconds": 100.0}),
    "changes_of_revision": (2, {"revision": 2, "git": "0123456789ab", "action": "add",
                                "object": "service.web/backend/a", "at": "services.yaml:7"}),
    "unhealthy_backends": (1, {"backend": "web-1", "changes": 2, "last": "up -> down",
                               "reason": "timeout", "mean_probe_ms": 3.0}),
    "load_per_minute": (1, {"minute": "2023-11-14T22:13Z", "metric": "cpu", "unit": "%",
                            "mean": 55.0, "min": 40.0, "max": 70.0, "ready_vms": 3}),
    "save_to_applied": (2, {"revision": 2, "changes": 2, "failed": 1, "ms": 9}),
    "scale_up_latency": (1, {"actions": 2, "vms": 2, "best_ms": 1700, "mean_ms": 2000.0,
                             "worst_ms": 2300}),
    "around_a_scaling": (11, {"kind": "scaling"}),
}


def insert(db, table, **row):
    """One row; the columns of the schema are the check on their names."""
    names = ", ".join(row)
    marks = ", ".join("?" * len(row))
    db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))


def scaling(db, at, direction, counts, reason, limit="", took=None):
    signals = [{"metric": "cpu", "value": 81.0, "target": 60.0, "proposal": counts[1]}]
    insert(db, "scaling", time_ms=T0 + at, until_ms=T0 + at, service="web",
           direction=direction, from_vms=counts[0], wanted_vms=counts[1], to_vms=counts[2],
           reason=reason, limited_by=limit, message="cpu 81.0 is above target 60.0",
           signals=json.dumps(signals), mode="live", revision_id=1, took_ms=took)


def build(path):
    """A history as the reconciler would have written it."""
    db = sqlite3.connect(path)
    with open(os.path.join(TOP, "schemas", "history.sql"), encoding="utf-8") as f:
        db.executescript(f.read())
    db.execute("PRAGMA foreign_keys = ON")
    for i, git in ((1, None), (2, "0123456789abcdef")):
        insert(db, "revision", id=i, time_ms=T0 + i, path="services.yaml", sha256="ab",
               git_revision=git, result="applied")
    insert(db, "change", time_ms=T0 + 5, revision_id=1, object="service.web", action="add",
           result="ok", took_ms=1)
    insert(db, "change", time_ms=T0 + 7, revision_id=2, object="service.web/backend/a",
           action="add", cause="services.yaml:7", file="services.yaml", line=7, result="ok")
    insert(db, "change", time_ms=T0 + 11, revision_id=2, object="service.web/vm/web-9",
           action="add", result="failed", error="no room")
    scaling(db, 0, "up", (1, 2, 2), "above_target", took=1700)
    scaling(db, 1000, "up", (2, 3, 3), "above_target", took=2300)
    scaling(db, 2000, "hold", (3, 5, 3), "above_target", "cooldown")
    scaling(db, -1000000, "hold", (1, 1, 1), "steady")
    for at, vm, event in ((-200000, "web-1", "created"), (0, "web-2", "created"),
                          (100000, "web-2", "removed")):
        insert(db, "vm_event", time_ms=T0 + at, service="web", vm=vm, event=event,
               address="10.0.0.1")
    for at, was, now, why in ((-100000, "joining", "up", "pass"), (5000, "up", "down", "timeout")):
        insert(db, "health", time_ms=T0 + at, service="web", backend="web-1", from_state=was,
               to_state=now, reason=why, probe_ms=3)
    for at, mean, samples in ((0, 50.0, 3), (5000, 60.0, 3)):
        insert(db, "load", level=0, time_ms=T0 + at, service="web", metric="cpu", mean=mean,
               min=mean - 10, max=mean + 10, samples=samples, ready_vms=3, resolution_s=5)
    db.commit()
    db.close()


def run(path, query):
    with open(os.path.join(QUERIES, query + ".sql"), encoding="utf-8") as f:
        done = subprocess.run(["sqlite3", "-readonly", "-bail", "-json", path], stdin=f,
                              capture_output=True, text=True, check=False)
    if done.returncode or done.stderr:
        return None, done.stderr.strip()
    return json.loads(done.stdout or "[]"), ""


def check(path, query):
    """None, or what is wrong."""
    if query not in EXPECTED:
        return "no expectation: add one to this test"
    rows, error = run(path, query)
    if rows is None:
        return error
    count, first = EXPECTED[query]
    if len(rows) != count:
        return f"{len(rows)} rows instead of {count}: {rows}"
    wrong = {k: rows[0].get(k) for k, v in first.items() if rows[0].get(k) != v}
    return f"first row has {wrong}" if wrong else None


def main():
    queries = sorted({f[:-4] for f in os.listdir(QUERIES) if f.endswith(".sql")} | set(EXPECTED))
    failed = 0
    print(f"1..{len(queries)}")
    with tempfile.TemporaryDirectory(prefix="xlb-queries-") as folder:
        path = os.path.join(folder, "history.db")
        build(path)
        for i, query in enumerate(queries, 1):
            wrong = check(path, query)
            print(f"{'not ok' if wrong else 'ok'} {i} - {query}")
            if wrong:
                failed += 1
                print(f"# {wrong}")
    raise SystemExit(failed != 0)


main()
