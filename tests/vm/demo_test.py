#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo in its fast form, to its end, kept running, and interrupted."""
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lib"))
import tap  # noqa: E402

DEMO = ROOT / "examples" / "demo" / "demo.py"
PLACE = Path(os.environ.get("XLB_BUILD", ROOT / "build")) / "demo"


def start(stdout, **settings):
    env = dict(os.environ, DEMO_FAST="1", **settings)
    return subprocess.Popen([DEMO], env=env, stdin=subprocess.DEVNULL, stdout=stdout,
                            stderr=subprocess.STDOUT)


def read_until(lines, pattern):
    """Reads lines until one matches; returns all of them as a text."""
    text = ""
    for line in lines:
        text += line
        if re.search(pattern, line):
            return text
    raise AssertionError(f"{pattern!r} didn't come:\n{text}")


def helper(name, *words):
    return subprocess.run([PLACE / name, *words], text=True, capture_output=True, timeout=60)


@tap.test
def whole():
    """scales up and down, replaces, follows an edit, and can be played with"""
    demo = start(subprocess.PIPE, DEMO_KEEP="1")
    try:
        lines = (line.decode() for line in demo.stdout)
        text = read_until(lines, r"goes on until Ctrl-C")
        assert re.search(r"1 -> [234] VMs", text), text
        assert re.search(r"-> 1 VM\b", text.split("5. The load stops")[1]), text
        assert "port 8080 answers: web-" in text, text
        lost = int(re.search(r"requests lost with it +(\d+)", text).group(1))
        failed = int(re.search(r"requests +\d+, failed (\d+)", text).group(1))
        assert failed == lost, text  # only the killed one's
        done = helper("xlb", "status")
        assert done.returncode == 0 and "running, converged" in done.stdout, done
        assert "web-1 " in done.stdout, done
        done = helper("enter", "client", "curl", "-s", "http://192.0.2.10/")
        assert done.stdout.startswith("web-"), done
    finally:
        demo.send_signal(signal.SIGINT)
        demo.stdout.read()
        status = demo.wait(60)
    assert status == 0, status
    assert not PLACE.exists()


@tap.test
def interrupted():
    """Ctrl-C in the middle, on a terminal, takes everything down"""
    ours, theirs = pty.openpty()
    demo = start(theirs)
    os.close(theirs)
    terminal = os.fdopen(ours, errors="replace")
    try:
        read_until(terminal, r"2\. From")
    finally:
        demo.send_signal(signal.SIGINT)
        rest = ""
        try:
            while chunk := terminal.read(1):
                rest += chunk
        except OSError:
            pass  # the terminal has no other end any more
        status = demo.wait(60)
    assert status == 130 and "everything is taken down" in rest, (status, rest)
    assert not PLACE.exists()


if os.geteuid() != 0:
    tap.skip_all("needs root")
sys.exit(tap.run())
