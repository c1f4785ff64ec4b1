#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Plans as JSON against schemas/plan.schema.json, by a validator that isn't
ours: all plans of tests/golden/plan are fine, and none is any more once a part
of it is missing, of another type, or unknown."""
import copy
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lib"))
import tap  # noqa: E402

SCHEMA = json.loads((ROOT / "schemas" / "plan.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def make_plans():
    """By name: each golden input's plan."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("XLB_TEST_DIR")) as folder:
        subprocess.run([ROOT / "build" / "tests" / "unit" / "plan_golden_test"], cwd=ROOT,
                       env=dict(os.environ, XLB_PLAN_JSON=folder), check=True,
                       capture_output=True, timeout=60)
        return {p.name: json.loads(p.read_text()) for p in sorted(Path(folder).iterdir())}


def parts(value, path=()):
    """Every place in a JSON value, the whole first."""
    yield path
    if isinstance(value, (dict, list)):
        for key in (value if isinstance(value, dict) else range(len(value))):
            yield from parts(value[key], (*path, key))


def with_part(value, path, change):
    """A copy in which change(container, key) was done at that place."""
    made = copy.deepcopy(value)
    at = made
    for key in path[:-1]:
        at = at[key]
    change(at, path[-1])
    return made


def is_free(path):
    """In what before and after hold any key may be."""
    return any(key in ("before", "after") for key in path[:-1])


PLANS = make_plans()


@tap.test
def the_schema():
    """is a schema of 2020-12"""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"].endswith("2020-12/schema")


@tap.test
def good_plans():
    """every golden plan is valid"""
    assert len(PLANS) > 25, sorted(PLANS)
    for name, plan in PLANS.items():
        wrong = [f"{list(e.absolute_path)}: {e.message}" for e in VALIDATOR.iter_errors(plan)]
        assert not wrong, f"{name}: {wrong}"
        assert plan["plan_id"] and len(plan["observed"]["fingerprint"]) == 64


def count_refused(change, wanted=lambda plan, path: True):
    """Does it to every kind of place that plans have; each must be refused."""
    tried = set()
    for name, plan in PLANS.items():
        for path in parts(plan):
            place = tuple("*" if isinstance(key, int) else key for key in path)
            if not path or is_free(path) or place in tried or not wanted(plan, path):
                continue
            tried.add(place)
            assert not VALIDATOR.is_valid(with_part(plan, path, change)), \
                f"{name}: still valid with another {path}"
    return len(tried)


@tap.test
def missing():
    """without any one key"""
    assert count_refused(lambda at, key: at.pop(key),
                         lambda plan, path: isinstance(path[-1], str)) > 40


@tap.test
def other_types():
    """with a number where none belongs, at any place"""
    assert count_refused(lambda at, key: at.__setitem__(key, -1.5)) > 50


@tap.test
def unknown_keys():
    """with a key more in any object"""
    def grow(at, key):
        at[key]["surprise"] = 1

    def is_object(plan, path):
        at = plan
        for key in path:
            at = at[key]
        return isinstance(at, dict) and path[-1] not in ("before", "after")
    assert count_refused(grow, is_object) > 8
    assert not VALIDATOR.is_valid(dict(next(iter(PLANS.values())), surprise=1))


@tap.test
def values():
    """an object that is added was nothing, one that goes will be nothing"""
    seen = set()
    for plan in PLANS.values():
        for path in parts(plan):
            if len(path) != 3 or path[-1] not in ("before", "after"):
                continue
            item = plan[path[0]][path[1]]
            seen.add(tuple(item["actions"]))
            other = {} if item[path[-1]] is None else None
            assert not VALIDATOR.is_valid(
                with_part(plan, path, lambda at, key, o=other: at.__setitem__(key, o))), item
    assert {("add",), ("change",), ("destroy",), ("destroy", "add")} <= seen, seen


sys.exit(tap.run())
