#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole thing on one machine: clients, the balancer, and real VMs that
come and go with the load.  DEMO_FAST=1: containers instead of VMs, under a
minute.  DEMO_KEEP=1: leaves it running and says how to play with it."""
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "lib"))
import lab  # noqa: E402
import sandbox  # noqa: E402
from lab import BUILD, wait_for  # noqa: E402
from screen import Screen, seconds  # noqa: E402

FAST = os.environ.get("DEMO_FAST", "0") not in ("", "0")
KEEP = os.environ.get("DEMO_KEEP", "0") not in ("", "0")
PLACE = BUILD / "demo"
VIP, VIP6, EDITED_PORT = "192.0.2.10", "2001:db8::10", 8080
CALM, BUSY = 8, 75  # connections a second

WHAT = """
xlb demo: services.yaml says what should be; packets and {guests} follow.

  clients ---- uplink [ balancer: XDP ] br0 ---- web-1 ... web-4 ({guests})

It starts, all in private namespaces of this machine (nothing installed is
changed, no interface of yours is touched, all of it goes at the end and on
Ctrl-C):
  - a network of three parts, a libvirtd of its own, xlb-reconcile, a load
  - {guests}: {how}, at least 1 and at most 4
Then it
  1. boots the first {guest} and sends it {calm} connections a second
  2. raises that to {busy}, and more {guests} come
  3. kills a {guest}, which is replaced
  4. edits services.yaml: the service gets another port, at once
  5. stops the load, and the {guests} go
  6. shows why, from the history in sqlite
About {time}.
"""


def text_of_services():
    """services.yaml with paths that hold from elsewhere."""
    text = (HERE / "services.yaml").read_text().replace("../../build", str(BUILD))
    if not FAST:
        return text
    lines = []
    for line in text.splitlines():
        if line.strip().startswith("kernel:"):
            line = f"    cmdline: {BUILD}/xlb-backend -p 80 -p 8080"
        elif line.strip().startswith("initrd:"):
            continue
        line = line.replace("qemu:///system", "lxc:///system").replace("window: 15s", "window: 8s")
        lines.append(line)
    return "\n".join(lines) + "\n"


class Demo:
    def __init__(self, world, libvirtd):
        self.world, self.libvirtd = world, libvirtd
        PLACE.mkdir(parents=True, exist_ok=True)
        self.file = PLACE / "services.yaml"
        self.file.write_text(text_of_services())
        self.uri = libvirtd.lxc if FAST else libvirtd.qemu
        self.xlb = lab.Reconciler(world, self.file, "--libvirt", self.uri, state=PLACE / "state")
        self.screen = Screen()
        self.load = None
        self.told = set()
        self.measured = {}
        self.guest = "container" if FAST else "VM"

    # -- what is going on ---------------------------------------------------

    def load_lines(self):
        lines = []
        for line in self.load_log.read_text().splitlines() if self.load else []:
            try:
                lines.append(json.loads(line))
            except ValueError:
                pass  # not whole yet
        return lines

    def ready(self):
        rows = self.xlb.query("SELECT ready_vms FROM load_history WHERE service = 'web' "
                              "ORDER BY time_ms DESC LIMIT 1")
        return rows[0]["ready_vms"] if rows else 0

    def wanted(self):
        rows = self.xlb.query("SELECT to_vms FROM scaling_history WHERE service = 'web' "
                              "ORDER BY time_ms DESC LIMIT 1")
        return rows[0]["to_vms"] if rows else 1

    def running(self):
        return self.libvirtd.virsh("list", "--name", uri=self.uri, check=False).split()

    def tell_events(self):
        """Prints what the history holds that was not printed yet."""
        rows = self.xlb.query(
            "SELECT time_ms, 'scaling' AS kind, message AS text FROM scaling_history "
            "WHERE direction <> 'hold' UNION ALL "
            "SELECT time_ms, 'vm', vm || ' ' || event"
            " || CASE WHEN event IN ('ordered', 'started', 'draining') THEN ''"
            " ELSE coalesce(': ' || nullif(reason, ''), '') END"
            " || coalesce(' (' || nullif(took_ms, 0) || ' ms)', '')"
            " FROM vm_history ORDER BY time_ms")
        for row in rows:
            event = tuple(row.values())
            if event not in self.told:
                self.told.add(event)
                self.screen.line(f"{row['kind']:>8}  {row['text']}")

    def refresh(self):
        """One second's table: service, VMs, load, requests, failures."""
        self.xlb.alive()
        self.tell_events()
        lines = self.load_lines()
        last = lines[-1] if lines else {}
        total = sum(line["requests"] for line in lines)
        failed = sum(line["failed"] for line in lines)
        latency = last.get("latency_ms", {}).get("p95", 0)
        share = "  ".join(f"{name} {count}" for name, count in sorted(
            last.get("backends", {}).items()))
        self.screen.table(
            f"{'service':8} {'ready':>5} {'wanted':>6} {'load/s':>7} {'p95 ms':>7} "
            f"{'requests':>9} {'failures':>8}  answers in the last second",
            f"{'web':8} {self.ready():>5} {self.wanted():>6} {last.get('requests', 0):>7} "
            f"{latency:>7.1f} {total:>9} {failed:>8}  {share}")

    def watch(self, condition, what, timeout):
        """Redraws every second until the condition holds; seconds it took."""
        began, drawn = time.monotonic(), 0.0
        while not condition():
            now = time.monotonic()
            if now - began > timeout:
                raise lab.Timeout(f"waited {timeout} s in vain for {what}")
            if now - drawn >= 1:
                drawn = now
                self.refresh()
            time.sleep(0.1)
        self.refresh()
        return time.monotonic() - began

    def watch_for(self, duration):
        end = time.monotonic() + duration
        self.watch(lambda: time.monotonic() >= end, "time to pass", duration + 30)

    # -- acts ---------------------------------------------------------------

    def start_load(self, rate):
        self.control = PLACE / "rate"
        self.control.write_text(f"{rate}\n")
        self.load_log = PLACE / "load.json"
        with open(self.load_log, "wb") as out:
            self.load = self.world.client.start(
                [BUILD / "xlb-load", "--to", f"{VIP}:80", "--to", f"[{VIP6}]:80",
                 "--control", self.control, "--duration", "86400", "--timeout", "3",
                 "--from", "192.0.2.101-192.0.2.119", "--from", "2001:db8::101-2001:db8::113"],
                log="load.err", stdout=out)

    def set_rate(self, rate):
        self.control.write_text(f"{rate}\n")
        self.load.send_signal(1)

    def asks(self, port=80):
        done = self.world.client.run(["curl", "-s", "-m", "1", f"http://{VIP}:{port}/"],
                                     check=False)
        return done.stdout.strip()

    def boot(self):
        self.screen.title(f"1. The first {self.guest}")
        began = time.monotonic()
        self.xlb.start()
        self.watch(self.asks, f"the first {self.guest} to answer", 90)
        self.measured["start to the first answer"] = seconds(time.monotonic() - began)
        self.start_load(CALM)
        self.watch_for(3 if FAST else 6)

    def rise(self):
        self.screen.title(f"2. From {CALM} to {BUSY} connections a second")
        self.set_rate(BUSY)
        took = self.watch(lambda: self.ready() >= 4, f"4 {self.guest}s", 90)
        self.measured[f"1 to 4 {self.guest}s under load"] = seconds(took)
        self.watch_for(2 if FAST else 5)

    def kill(self):
        victim = self.running()[0]
        self.screen.title(f"3. {victim} is killed")
        before = self.failures()
        self.libvirtd.virsh("destroy", victim, uri=self.uri)
        self.watch(lambda: self.ready() < 4 or len(self.running()) < 4 or
                   self.replacements(), "its death to be noticed", 30)
        took = self.watch(lambda: len(self.running()) >= 4 and self.ready() >= 4,
                          "its replacement", 60)
        self.measured[f"a killed {self.guest} replaced"] = seconds(took)
        self.watch_for(2)
        self.measured["requests lost with it"] = str(self.failures() - before)

    def replacements(self):
        return self.xlb.query("SELECT 1 FROM vm_history WHERE event = 'replaced'")

    def failures(self):
        return sum(line["failed"] for line in self.load_lines() if "summary" not in line)

    def edit(self):
        self.screen.title(f"4. An edit: ports: [80] becomes ports: [80, {EDITED_PORT}]")
        text = self.file.read_text().replace("ports: [80]", f"ports: [80, {EDITED_PORT}]")
        assert not self.asks(EDITED_PORT)
        new = self.file.with_suffix(".new")
        new.write_text(text)
        client = self.start_connecting()
        client.stdout.readline()
        began = time.monotonic()
        new.rename(self.file)
        answered = float(client.stdout.readline() or "nan")
        self.measured["save to the first connection on the new port"] = seconds(
            answered - began)
        self.screen.line(f"    port {EDITED_PORT} answers: {self.asks(EDITED_PORT)}")
        self.watch_for(2)

    def start_connecting(self):
        """A client that tries until it is let in: says that it begins, and
        when it was."""
        code = ("import socket, time\n"
                "print('begins', flush=True)\n"
                "end = time.monotonic() + 20\n"
                "while time.monotonic() < end:\n"
                "    try:\n"
                f"        socket.create_connection(('{VIP}', {EDITED_PORT}), 1).close()\n"
                "        print(time.monotonic(), flush=True)\n"
                "        break\n"
                "    except OSError:\n"
                "        time.sleep(0.001)\n")
        return self.world.client.start(["python3", "-c", code], log="connecting",
                                       stdout=subprocess.PIPE)

    def fall(self):
        self.screen.title("5. The load stops")
        self.set_rate(0)
        took = self.watch(lambda: len(self.running()) <= 1, f"all but one {self.guest} to go", 90)
        self.measured[f"4 to 1 {self.guest} after the load"] = seconds(took)

    def history(self):
        self.screen.title("6. Why, from history.db")
        database = self.xlb.state / "history.db"
        for sql in ("SELECT substr(time, 12, 8) AS at, direction, from_vms AS 'from', "
                    "to_vms AS 'to', message FROM scaling_history "
                    "WHERE direction <> 'hold'",
                    "SELECT substr(time, 12, 8) AS at, vm, event, address, "
                    "substr(reason, 1, 40) AS reason, took_ms "
                    "FROM vm_history"):
            print(f"$ sqlite3 -box history.db \"{sql}\"")
            done = subprocess.run(["sqlite3", "-box", f"file:{database}?mode=ro", sql], text=True,
                                  capture_output=True, check=False)
            print(done.stdout + done.stderr)

    def summary(self, began):
        self.load.terminate()
        self.load.wait(30)
        whole = self.load_lines()[-1]
        scaled = self.xlb.query("SELECT direction, count(*) AS n FROM scaling_history "
                                "WHERE direction <> 'hold' GROUP BY direction")
        self.screen.title("Measured")
        rows = {
            "requests": f"{whole['requests']}, failed {whole['failed']} {whole['failures'] or ''}",
            "latency": "p50 {p50:.1f}, p95 {p95:.1f}, p99 {p99:.1f} ms".format(
                **whole["latency_ms"]),
            "answered by": ", ".join(f"{k} {v}" for k, v in sorted(whole["backends"].items())),
            "scaling": ", ".join(f"{row['n']} {row['direction']}" for row in scaled),
            **self.measured,
            "the demo took": seconds(time.monotonic() - began),
        }
        for name, value in rows.items():
            print(f"  {name:46} {value}")

    def write_helpers(self):
        """Little scripts that work from outside the sandbox."""
        inside = f"nsenter -t {lab.outer_pid} -m -p --"
        enter = PLACE / "enter"
        enter.write_text("#!/bin/sh\n# enter client|lb COMMAND...\n"
                         f"ns=$1; shift\nexec {inside} nsenter "
                         f"--net={self.world.scratch}/ns/$ns -- \"$@\"\n")
        words = " ".join(f"'{w}'" for w in self.xlb.argv())
        xlb = PLACE / "xlb"
        xlb.write_text(f"#!/bin/sh\n# xlb VERB...\nexec {enter} lb {words} \"$@\"\n")
        for path in (enter, xlb):
            path.chmod(0o755)

    def keep(self):
        self.write_helpers()
        self.start_load(CALM)
        self.screen.title("It goes on until Ctrl-C.  From another terminal, as root:")
        place = os.path.relpath(PLACE)
        print(f"""  {place}/xlb status                     what is
  {place}/xlb explain web                why it has so many {self.guest}s
  edit {place}/services.yaml             and save: it follows
  {place}/xlb plan                       what would change
  {place}/enter client curl -s {VIP}   be a client
  echo high >{place}/rate            the load: low, mid, high or a number
  sqlite3 {place}/state/history.db 'SELECT * FROM scaling_history'
  virsh -c '{self.uri}' list
""")
        while True:
            self.watch_for(3600)


def prepare():
    shutil.rmtree(PLACE, ignore_errors=True)
    print(WHAT.format(
        guests="containers" if FAST else "VMs", guest="container" if FAST else "VM",
        how="libvirt lxc" if FAST else "libvirt qemu, 96 MiB each, kvm where there is one",
        calm=CALM, busy=BUSY, time="40 seconds" if FAST else "2 minutes"), flush=True)


def run():
    began = time.monotonic()
    with lab.Lab(client_addresses=20) as world:
        with world.libvirtd() as libvirtd:
            demo = Demo(world, libvirtd)
            try:
                for act in (demo.boot, demo.rise, demo.kill, demo.edit, demo.fall, demo.history):
                    act()
                demo.summary(began)
                if KEEP:
                    demo.keep()
            except Exception:
                print("\nxlb-reconcile's last words:\n" + demo.xlb.log_tail(), file=sys.stderr)
                raise


def main():
    if os.geteuid() != 0:
        sys.exit("the demo makes network namespaces and loads BPF programs: run it as root")
    prepare()
    lab.enter()
    try:
        run()
    except sandbox.Stopped as why:
        print(f"\nstopped by {why}: everything is taken down")
        sys.exit(0 if KEEP else 130)
    finally:
        shutil.rmtree(PLACE, ignore_errors=True)


if __name__ == "__main__":
    main()
