#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The test runner itself, on tiny tests that pass, fail, crash, hang, leak."""
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lib"))
import tap  # noqa: E402

PASS = "printf '1..1\\nok 1 - fine\\n'\n"


def runner(script, *options, names=("tiny_test.py",)):
    """Runs a fake test, or the same under several names; returns (exit
    status, output)."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "net"
        place.mkdir()
        for name in names:
            path = place / name
            path.write_text("#!/bin/sh\n" + script)
            path.chmod(0o755)
        env = dict(os.environ)
        env.pop("XLB_TEST_DIR", None)
        done = subprocess.run([ROOT / "tests" / "run.py", "--tests", folder, *options], env=env,
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=60)
    return done.returncode, done.stdout


def expect(script, last, *words, options=()):
    status, output = runner(script, *options)
    assert output.splitlines()[-1] == last, output
    for word in words:
        assert word in output, (word, output)
    assert (status == 0) == (" 0 failed" in last), output
    return output


@tap.test
def passing():
    """a passing test is counted"""
    expect("printf '1..2\\nok 1 - a\\nok 2 - b\\n'\n", "2 passed, 0 failed, 0 skipped")


@tap.test
def failing():
    """a failing test is counted and its output shown"""
    expect("printf '1..2\\nok 1 - a\\n# the reason\\nnot ok 2 - b\\n'; exit 1\n",
           "1 passed, 1 failed, 0 skipped", "# the reason", "failed   net/tiny_test.py")


@tap.test
def failing_quietly():
    """not ok counts although the exit status is 0"""
    expect("printf '1..1\\nnot ok 1 - b\\n'\n", "0 passed, 1 failed, 0 skipped")


@tap.test
def skipping():
    """a skipped test is named with its reason"""
    expect("printf '1..2\\nok 1 - a\\nok 2 - b # SKIP no such kernel\\n'\n",
           "1 passed, 0 failed, 1 skipped", "tiny_test.py: b: no such kernel")


@tap.test
def skipping_all():
    """a plan of none with a reason is a skip"""
    _, output = runner("echo '1..0 # SKIP needs a thing'\n")
    assert output.splitlines()[-1] == "0 passed, 0 failed, 1 skipped", output
    assert "needs a thing" in output


@tap.test
def crashing():
    """a test killed by a signal fails, whatever it printed"""
    expect(PASS + "kill -SEGV $$\n", "1 passed, 1 failed, 0 skipped", "killed by SIGSEGV")


@tap.test
def too_short():
    """fewer results than planned is a failure"""
    expect("printf '1..3\\nok 1 - a\\n'\n", "1 passed, 1 failed, 0 skipped",
           "3 tests were planned, 1 reported")


@tap.test
def silent():
    """a test that prints nothing fails"""
    expect("exit 0\n", "0 passed, 1 failed, 0 skipped", "printed no TAP")


@tap.test
def exit_status():
    """a bad exit status is a failure although all is ok"""
    expect(PASS + "exit 3\n", "1 passed, 1 failed, 0 skipped", "exit status 3")


@tap.test
def hanging():
    """a test that doesn't end is killed with its children, and fails"""
    began = time.monotonic()
    expect(PASS + "trap '' TERM; sleep 1000 & sleep 1000\n", "1 passed, 2 failed, 0 skipped",
           "no end after 1 s", "killed by SIGKILL", options=("--limit", "1"))
    assert time.monotonic() - began < 50


@tap.test
def leaking_process():
    """an orphan in another session is found, ended, and the test fails"""
    expect(PASS + "setsid sleep 4242 >/dev/null 2>&1 &\nsleep 0.1\n",
           "1 passed, 1 failed, 0 skipped", "left behind: process sleep")
    for entry in os.listdir("/proc"):
        try:
            line = Path(f"/proc/{entry}/cmdline").read_bytes() if entry.isdigit() else b""
        except OSError:
            continue
        assert b"sleep\x004242" not in line, entry


@tap.test
def leaking_file():
    """a file left in the scratch folder is a failure"""
    expect(PASS + "touch $XLB_TEST_DIR/rubbish\n", "1 passed, 1 failed, 0 skipped",
           "left behind: file rubbish")


@tap.test
def leaking_network():
    """an interface, a mount and a pin left behind are failures"""
    expect(PASS + "ip link add left0 type bridge\n", "1 passed, 1 failed, 0 skipped",
           "left behind: interface left0")
    expect(PASS + "mount -t tmpfs left /mnt\n", "1 passed, 1 failed, 0 skipped",
           "left behind: mount")
    expect(PASS + "mkdir /sys/fs/bpf/left\n", "1 passed, 1 failed, 0 skipped",
           "left behind: bpffs /sys/fs/bpf/left")


@tap.test
def leaking_namespace():
    """a named network namespace left behind is a failure"""
    name = f"xlb-left-{os.getpid()}-{time.monotonic_ns()}"
    try:
        expect(PASS + f"ip netns add {name}\n", "1 passed, 3 failed, 0 skipped",
               f"left behind: network namespace {name}")
    finally:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
        Path("/run/netns", name).unlink(missing_ok=True)


# Each waits until the other has begun, so they pass only beside each other.
MEET = """cd "$(dirname "$0")" && : >$(basename "$0").here
for i in $(seq 200); do [ $(ls *.here | wc -l) = 2 ] && break; sleep 0.05; done
[ $(ls *.here | wc -l) = 2 ] || exit 3
"""


@tap.test
def two_at_once():
    """two run beside each other, each with what it starts"""
    script = MEET + "setsid sleep 4243 & env -i setsid sleep 4243 &\nsleep 0.$$; kill %1 %2\n"
    status, output = runner(script + PASS, names=("one_test.py", "two_test.py"))
    assert status == 0 and output.splitlines()[-1] == "2 passed, 0 failed, 0 skipped", output


@tap.test
def leak_beside_another():
    """what one of two leaves behind is found, and both are named"""
    script = MEET + "case $0 in */one*) ip link add left1 type bridge; sleep 0.5 ;; esac\n"
    status, output = runner(script + PASS, names=("one_test.py", "two_test.py"))
    assert status == 1 and output.splitlines()[-1] == "2 passed, 1 failed, 0 skipped", output
    assert "left behind: interface left1 (or by net/two_test.py)" in output, output


@tap.test
def no_tests():
    """nothing run is not a success"""
    status, output = runner(PASS, "--only", "no such test")
    assert status == 1 and output.splitlines()[-1] == "0 passed, 0 failed, 0 skipped", output


@tap.test
def only():
    """--only picks by part of the name or pattern"""
    expect(PASS, "1 passed, 0 failed, 0 skipped", options=("--only", "net/t*_test.py"))


@tap.test
def terminated():
    """a run that is killed takes its tests along"""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "net"
        place.mkdir()
        mark = Path(folder) / "alive"
        path = place / "tiny_test.py"
        path.write_text(f"#!/bin/sh\nsetsid sh -c 'while :; do date +%s%N >{mark}; sleep 0.05; "
                        "done' &\nsleep 1000\n")
        path.chmod(0o755)
        run = subprocess.Popen([ROOT / "tests" / "run.py", "--tests", folder],
                               env=dict(os.environ, TMPDIR=folder), stdout=subprocess.DEVNULL)
        try:
            while not (mark.exists() and mark.read_text()):
                time.sleep(0.05)
        finally:
            run.kill()
            run.wait()
        time.sleep(0.3)
        seen = mark.read_text()
        time.sleep(0.5)
        assert mark.read_text() == seen


sys.exit(tap.run())
