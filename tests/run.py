#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the tests: tests/run.py [--only PATTERN] [--soak] [--fuzz] [-v].

Discovers tests/<group>/*_test.{c,py} (C ones built under build/tests), the
lint script and the fuzz targets, runs them group by group and checks after
each that nothing is left behind.  Tests print TAP.  It all happens in a
private pid, mount and network namespace: no test can touch this machine's
interfaces, and what a killed run leaves dies with it.  Last line:
`N passed, M failed, K skipped`.
"""
import argparse
import fnmatch
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "lib"))
import sandbox  # noqa: E402

PROGRESS_EVERY = 10.0
GRACE = 5.0
SOAK_FACTOR = 20

# Groups in order: how many at a time, seconds a file, budget of the group.
GROUPS = {
    "lint": (1, 600, 60),
    "unit": (2, 180, 60),
    "golden": (2, 120, 60),
    "bpf": (2, 300, 120),
    "net": (4, 300, 240),
    "vm": (2, 400, 300),
    "crash": (2, 300, 180),
    "fuzz": (2, 60, 120),
}

# These take both processors by themselves (emulated guests do), or drive
# traffic for as long as they last: with another beside them they would only
# wait for each other.
ALONE = {
    "bpf/loader_test", "bpf/table_flip_test", "net/bench_test.py",
    "net/consistency_test.py", "net/traffic_test.py", "vm/demo_test.py",
    "vm/domains_test", "vm/kernel_test.py", "vm/network_pool_test.py",
    "vm/pool_test.py", "vm/signals_test.py",
}

# What lasts longest is begun first.
LONG = {
    "net/change_test.py", "net/ecmp_test.py", "net/health_test.py", "net/restart_test.py",
    "net/upgrade_test.py", "vm/guards_test.py", "vm/pool_lxc_test.py",
}


@dataclass
class Test:
    group: str
    name: str
    argv: list
    limit: float  # seconds
    needs_tap: bool = True

    @property
    def path(self):
        return f"{self.group}/{self.name}"


@dataclass
class Result:
    passed: int = 0
    failed: int = 0
    skipped: list = field(default_factory=list)  # (name, why)
    problems: list = field(default_factory=list)

    def problem(self, text):
        self.problems.append(text)
        self.failed += 1


# ---- what there is to run ------------------------------------------------

def discover(tests_dir, build, options):
    found = []
    for group, (_, limit, _) in GROUPS.items():
        limit *= SOAK_FACTOR if options.soak else 1
        if group == "fuzz":
            found += fuzz_targets(tests_dir, build, options)
        for path in sorted((tests_dir / group).glob("*_test.c")):
            found.append(Test(group, path.stem, [build / "tests" / group / path.stem], limit))
        for path in sorted((tests_dir / group).glob("*_test.py")):
            found.append(Test(group, path.name, [path], limit))
    lint = tests_dir / "lint.sh"
    if lint.exists():
        found.insert(0, Test("lint", "lint.sh", [lint], GROUPS["lint"][1], False))
    if options.fuzz:
        found = [t for t in found if t.group == "fuzz"]
    if options.only:
        found = [t for t in found if matches(t, options.only)]
    return found


def fuzz_targets(tests_dir, build, options):
    seconds = 1800 if options.fuzz else 10
    targets = [p for p in sorted((build / "fuzz").glob("*")) if os.access(p, os.X_OK)
               and (tests_dir / "fuzz" / f"{p.name}_fuzz.c").exists()]
    out = []
    for path in targets:
        argv = [path, f"-max_total_time={seconds}", "-timeout=10", "-error_exitcode=1",
                f"-artifact_prefix={build}/fuzz-{path.name}-"]
        words = ROOT / "tests" / "fuzz" / f"{path.name}.dict"
        argv += [f"-dict={words}"] if words.exists() else []
        corpus = ROOT / "tests" / "fuzz" / "corpus" / path.name
        # New inputs go to the first folder, the test's scratch one.
        argv += ["@scratch"] + ([corpus] if corpus.is_dir() else [])
        out.append(Test("fuzz", path.name, argv, seconds + 50, False))
    return out


def matches(test, pattern):
    return pattern in test.path or fnmatch.fnmatch(test.path, pattern)


# ---- reading TAP ---------------------------------------------------------

TAP_LINE = re.compile(r"^(not )?ok\b\s*(\d*)\s*-?\s*(.*)$")
TAP_PLAN = re.compile(r"^1\.\.(\d+)\s*(?:#\s*SKIP\b\s*(.*))?$", re.I)
TAP_SKIP = re.compile(r"(.*?)#\s*SKIP\b\s*(.*)$", re.I)


def read_tap(text, result):
    """Counts what the output says; returns how many lines reported a test."""
    planned, seen = None, 0
    for line in text.splitlines():
        plan, report = TAP_PLAN.match(line), TAP_LINE.match(line)
        if plan:
            planned = (planned or 0) + int(plan.group(1))
            if plan.group(2):
                result.skipped.append(("all", plan.group(2)))
                seen += 1
                planned += 1
        elif report:
            seen += 1
            skip = TAP_SKIP.match(report.group(3))
            if skip:
                # cmocka writes the name where the reason stands elsewhere.
                result.skipped.append((skip.group(1).strip(" -"), skip.group(2).strip()))
            elif report.group(1):
                result.failed += 1
            else:
                result.passed += 1
        elif line.startswith("Bail out!"):
            result.problem(line)
    if planned is not None and planned != seen:
        result.problem(f"{planned} tests were planned, {seen} reported")
    return seen


def judge(test, status, text):
    result = Result()
    seen = read_tap(text, result)
    if status == 77 and not seen:
        result.skipped.append((test.name, (text.strip().splitlines() or ["?"])[-1]))
    elif status < 0:
        result.problem(f"killed by {signal.Signals(-status).name}")
    elif status and not result.failed:
        result.problem(f"exit status {status}")
    elif not seen and test.needs_tap:
        result.problem("printed no TAP")
    elif not seen:
        result.passed += 1
    return result


# ---- what a test may leave behind ----------------------------------------

def processes():
    """pid: (parent, session, command), of all but zombies."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as f:
                head, tail = f.read().rsplit(")", 1)
        except OSError:
            continue
        words = tail.split()
        if words[0] not in "ZX":
            found[int(entry)] = (int(words[1]), int(words[3]), head.split("(", 1)[1])
    return found


def bpffs_files():
    found = set()
    for mount in mounts():
        if " - bpf " in mount:
            top = mount.split()[4]
            for folder, folders, files in os.walk(top):
                found.update(os.path.join(folder, f) for f in files + folders)
    return found


def mounts():
    with open("/proc/self/mountinfo") as f:
        # The first two words are ids that say nothing.
        return {"- - " + line.split(" ", 2)[2].strip() for line in f}


def interfaces():
    with open("/proc/self/net/dev") as f:
        return {line.split(":")[0].strip() for line in f if ":" in line}


def named_namespaces():
    try:
        return set(os.listdir("/run/netns"))
    except OSError:
        return set()


TRACES = {
    "network namespace": named_namespaces,
    "mount": mounts,
    "bpffs": bpffs_files,
    "interface": interfaces,
}


def snapshot():
    return {kind: look() for kind, look in TRACES.items()}


def environment_of(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as f:
            return f.read()
    except OSError:
        return b""


def strangers(runner):
    """Processes that belong to no running test: that are not of its session,
    nor below one that is, nor started in its folder."""
    there = processes()
    sessions = {r.process.pid for r in runner.running}
    marks = [b"XLB_TEST_DIR=" + os.fsencode(r.scratch) for r in runner.running]

    def of_a_test(pid):
        while pid in there and pid != 1:
            parent, session, _ = there[pid]
            if session in sessions:
                return True
            pid = parent
        return False

    for pid, (_, _, command) in there.items():
        if pid in (1, os.getpid()) or of_a_test(pid):
            continue
        if any(mark in environment_of(pid) for mark in marks):
            continue
        yield pid, command


def end(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


# ---- running -------------------------------------------------------------

class Running:
    """A test file under way."""

    def __init__(self, test, scratch, seed):
        self.test, self.scratch = test, scratch
        self.log = scratch / ".output"
        folder = scratch / "test"
        folder.mkdir()
        env = dict(os.environ, XLB_TEST_DIR=str(folder), CMOCKA_MESSAGE_OUTPUT="TAP",
                   XLB_SEED=str(seed), PYTHONDONTWRITEBYTECODE="1")
        argv = [str(folder) if a == "@scratch" else str(a) for a in test.argv]
        self.started = self.told = time.monotonic()
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(argv, cwd=ROOT, env=env, start_new_session=True,
                                            stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.terminated = None
        self.timed_out = False

    def seconds(self):
        return time.monotonic() - self.started

    def output(self):
        return self.log.read_text(errors="replace")

    def poll(self):
        """True when it has ended.  Past its limit: SIGTERM, then SIGKILL."""
        if self.process.poll() is not None:
            return True
        if self.seconds() > self.test.limit:
            self.timed_out = True
            first = self.terminated is None
            if first:
                self.terminated = time.monotonic()
            late = time.monotonic() - self.terminated > GRACE
            if first or late:
                self.signal(signal.SIGKILL if late else signal.SIGTERM)
        elif time.monotonic() - self.told > PROGRESS_EVERY:
            self.told = time.monotonic()
            last = (self.output().strip().splitlines() or [""])[-1]
            say(f"   ... {self.test.path} {self.seconds():.0f} s: {last[:90]}")
        return False

    def signal(self, number):
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass


def say(text):
    print(text, flush=True)


class Runner:
    def __init__(self, options, scratch):
        self.options, self.scratch = options, scratch
        self.running = []
        self.total = Result()
        self.failed_files = []
        self.skips = []
        self.count = 0
        self.before = {}  # what there was when nothing ran
        self.beside = []  # what has ended since then

    def start(self, test):
        self.count += 1
        if not self.running:
            self.before, self.beside = snapshot(), []
        folder = self.scratch / str(self.count)
        folder.mkdir()
        try:
            self.running.append(Running(test, folder, self.options.seed))
        except OSError as error:
            result = Result()
            result.problem(f"can't be run: {error}")
            self.report(test, result, 0.0, "")

    def finish(self, run):
        status = run.process.wait()
        self.running.remove(run)
        self.beside.append(run.test.path)
        result = judge(run.test, status, run.output())
        if run.timed_out:
            result.problem(f"no end after {run.test.limit:.0f} s")
        self.check_leaks(run, result)
        self.report(run.test, result, run.seconds(), run.output())
        shutil.rmtree(run.scratch, ignore_errors=True)

    def check_leaks(self, run, result):
        time_left = time.monotonic() + 0.5
        left = list(strangers(self))
        while left and time.monotonic() < time_left:  # what was just killed
            time.sleep(0.02)
            left = list(strangers(self))
        for pid, command in left:
            result.problem(f"left behind: process {command}")
            end(pid)
        if not self.running:
            self.check_traces(result)
        # A killed test can't tidy its folder, and a fuzzer's is its corpus;
        # everyone else must.
        if not run.timed_out and run.test.group != "fuzz":
            for path in sorted((run.scratch / "test").iterdir()):
                result.problem(f"left behind: file {path.name}")

    def check_traces(self, result):
        """What is new since nothing ran: of the last one that ended, or of
        those that ran beside it."""
        others = ", ".join(self.beside[:-1])
        for kind, after in snapshot().items():
            for what in sorted(after - self.before[kind]):
                result.problem(f"left behind: {kind} {what}" +
                               (f" (or by {others})" if others else ""))

    def report(self, test, result, seconds, output):
        self.total.passed += result.passed
        self.total.failed += result.failed
        self.total.skipped += result.skipped
        counts = f"{result.passed} passed"
        counts += f", {result.failed} failed" if result.failed else ""
        counts += f", {len(result.skipped)} skipped" if result.skipped else ""
        mark = "FAIL" if result.failed else "ok  " if result.passed else "skip"
        say(f"{mark} {test.path}  {seconds:.1f} s  {counts}")
        for name, why in result.skipped:
            self.skips.append(f"{test.path}: {name}: {why}")
            say(f"     skipped: {name}: {why}")
        if result.failed:
            self.failed_files.append(test.path)
            say("-" * 72 + "\n" + output.rstrip())
            for text in result.problems:
                say(f"!! {text}")
            say("-" * 72)
        elif self.options.verbose:
            say(output.rstrip())

    def may_join(self, test):
        return not self.running or not ALONE & {test.path, self.running[0].test.path}

    def group(self, name, tests):
        at_once, _, budget = GROUPS[name]
        queue = sorted(tests, key=lambda t: (t.path in ALONE, t.path not in LONG))
        began = time.monotonic()
        say(f"== {name}: {len(queue)} files")
        while queue or self.running:
            while queue and len(self.running) < at_once and self.may_join(queue[0]):
                self.start(queue.pop(0))
            for run in [r for r in self.running if r.poll()]:
                self.finish(run)
            if self.running:
                time.sleep(0.01)
        took = time.monotonic() - began
        if took > budget and not (self.options.soak or self.options.fuzz):
            say(f"   {name} took {took:.0f} s, its budget is {budget} s")

    def stop(self):
        for run in self.running:
            run.signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline and any(r.process.poll() is None for r in self.running):
            time.sleep(0.05)


def prepare_sandbox(cleanup):
    sandbox.enter(net=True, cleanup=cleanup)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    if os.path.isdir("/sys/fs/bpf"):
        sandbox.mount("bpf", "/sys/fs/bpf", "bpf")


def default_seed():
    """A commit's own, so that it is tested alike wherever it is checked out;
    another each time for a tree that has been edited."""
    told = [subprocess.run(["git", "-C", ROOT, *asked], capture_output=True, text=True, check=False)
            for asked in (["rev-parse", "HEAD"], ["status", "--porcelain"])]
    if any(t.returncode for t in told) or told[1].stdout:
        return random.SystemRandom().getrandbits(31)
    return int(told[0].stdout[:8], 16) & 0x7fffffff


def parse_options():
    parser = argparse.ArgumentParser(description="Runs the tests.")
    parser.add_argument("--only", metavar="PATTERN", help="group/name contains it, or matches")
    parser.add_argument("--soak", action="store_true", help="the long forms")
    parser.add_argument("--fuzz", action="store_true", help="the fuzz targets, half an hour each")
    parser.add_argument("-v", "--verbose", action="store_true", help="show all output")
    parser.add_argument("--seed", type=int, help="else the commit's, or any in an edited tree")
    parser.add_argument("--tests", type=Path, default=ROOT / "tests", help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.seed is None:
        options.seed = default_seed()
    if options.soak:
        os.environ["XLB_SOAK"] = "1"
    return options


def run_all(runner, tests):
    began = time.monotonic()
    for group in GROUPS:
        mine = [t for t in tests if t.group == group]
        if mine:
            runner.group(group, mine)
    say(f"\n{len(tests)} files in {time.monotonic() - began:.0f} s, seed {runner.options.seed}")
    for text in runner.skips:
        say(f"skipped  {text}")
    for name in runner.failed_files:
        say(f"failed   {name}")


def main():
    options = parse_options()
    if os.geteuid() != 0:
        sys.exit("the tests make network namespaces and load BPF programs: run them as root")
    build = Path(os.environ.get("XLB_BUILD", ROOT / "build")).resolve()
    os.environ["XLB_BUILD"] = str(build)
    tests = discover(options.tests.resolve(), build, options)
    if options.limit:
        for test in tests:
            test.limit = options.limit
    scratch = Path(sandbox.scratch_folder("xlb-run."))
    prepare_sandbox(lambda: shutil.rmtree(scratch, ignore_errors=True))
    sandbox.unwind_on_signals()
    runner = Runner(options, scratch)
    try:
        run_all(runner, tests)
    except sandbox.Stopped as why:
        runner.stop()
        say(f"stopped by {why}")
        runner.total.failed += 1
    total = runner.total
    say(f"{total.passed} passed, {total.failed} failed, {len(total.skipped)} skipped")
    sys.exit(1 if total.failed or not total.passed else 0)


if __name__ == "__main__":
    main()
