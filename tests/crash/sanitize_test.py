#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The C tests of unit and crash once more, under the address, leak and undefined
behaviour sanitizers.  `make sanitize` runs everything else so."""
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lib"))
import tap  # noqa: E402

BUILD = ROOT / "build" / "sanitize" / "tests"
# They take minutes so: left to the long forms.
SLOW = {"tracking_check_test", "sweep_test", "scale_test"}


def programs():
    found = sorted(p for group in ("unit", "crash") for p in (BUILD / group).glob("*_test"))
    sources = {p.stem for group in ("unit", "crash") for p in
               (ROOT / "tests" / group).glob("*_test.c")}
    assert {p.name for p in found} >= sources, "make SANITIZE=1 sanitized"
    return [p for p in found if p.name in sources and
            (os.environ.get("XLB_SOAK") or p.name not in SLOW)]


def check(program):
    done = subprocess.run([program], cwd=ROOT, text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env=dict(os.environ, CMOCKA_MESSAGE_OUTPUT="TAP",
                                   ASAN_OPTIONS="detect_leaks=1",
                                   UBSAN_OPTIONS="print_stacktrace=1"))
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout[-6000:]}"
    assert "ok 1" in done.stdout, done.stdout[-2000:]


def add(program):
    def function():
        check(program)
    function.__doc__ = f"{program.parent.name}/{program.name}"
    tap.test(function)


if Path(os.environ.get("XLB_BUILD", "")).name == "sanitize":
    tap.skip_all("all of them are sanitized")
for item in programs():
    add(item)
sys.exit(tap.run())
