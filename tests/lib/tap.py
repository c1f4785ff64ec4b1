# SPDX-License-Identifier: GPL-2.0-or-later
"""Test functions of a script, run in the order they are written; prints TAP."""
import sys
import traceback

_tests = []


class Skip(Exception):
    """Raised by a test that can't be run here; the text says why."""


def test(function):
    """Decorator; the first line of the docstring is the name."""
    _tests.append(function)
    return function


def note(text):
    for line in str(text).splitlines():
        print(f"# {line}", flush=True)


def _name(function):
    text = (function.__doc__ or function.__name__).strip().splitlines()[0]
    return text.rstrip(".").replace("#", "")


def _run(number, function, args):
    name = _name(function)
    try:
        function(*args)
    except Skip as why:
        print(f"ok {number} - {name} # SKIP {why}", flush=True)
    except Exception:
        note(traceback.format_exc())
        print(f"not ok {number} - {name}", flush=True)
        return False
    else:
        print(f"ok {number} - {name}", flush=True)
    return True


def run(*args, on_failure=None):
    """Runs all; returns the exit status.  on_failure() may print notes."""
    print(f"1..{len(_tests)}", flush=True)
    failed = 0
    for number, function in enumerate(_tests, 1):
        if not _run(number, function, args):
            failed += 1
            if on_failure:
                on_failure()
    return 1 if failed else 0


def skip_all(why):
    print(f"1..0 # SKIP {why}", flush=True)
    sys.exit(0)
