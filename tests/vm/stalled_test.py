#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A hypervisor whose calls hang (its libvirtd is stopped by a signal in the
middle of them): probes and tables go on as if nothing were, and neither taking
it out of the file nor ending waits for it."""
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
import lab  # noqa: E402
import tap  # noqa: E402
from lab import wait_for  # noqa: E402
from vmlab import VmLab  # noqa: E402

TEXT = """version: 1
node: {{interfaces: [uplink], resync: 1s}}
hypervisors:
  - {{name: local, uri: "{uri}", max_vms: 4}}
{spare}templates:
  - name: web
    cmdline: {backend} -p 80
    memory: 96MiB
    network: {{bridge: br0, addresses: [10.77.0.110-10.77.0.140/24], gateway: [10.77.0.1]}}
services:
  - name: pool
    vips: [192.0.2.11]
    ports: [80]
    pool: {{template: web, min: {min}, max: 3, hypervisors: [local]}}
    health: {{type: http, path: /healthz, interval: 300ms, timeout: 250ms, fall: 2}}
  - name: shop
    vips: [192.0.2.12]
    ports: [80]
    health: {{type: http, path: /healthz, interval: 300ms, timeout: 250ms, fall: 2}}
    backends:
      - {{name: s1, address: 10.77.0.11, weight: {weight}}}
      - {{name: s2, address: 10.77.0.12}}
"""


class World(VmLab):
    def __init__(self):
        super().__init__()
        self.stopped = None
        for name in ("s1", "s2"):
            b = self.lab.add_backend(name)
            self.serve(b)
        self.xlb.start()

    @staticmethod
    def serve(b):
        b.server = b.ns.start([lab.BUILD / "xlb-backend", "-n", b.name, "-p", "80"], b.name)

    def text(self, minimum=1, weight=1, spare=True):
        return TEXT.format(uri=self.uri, min=minimum, weight=weight, backend=lab.BUILD / "xlb-backend",
                           spare=f'  - {{name: spare, uri: "{self.uri}"}}\n' if spare else "")

    def stall(self):
        self.stopped = self.libvirtd.daemon_pid()
        os.kill(self.stopped, signal.SIGSTOP)

    def go_on(self):
        if self.stopped:
            os.kill(self.stopped, signal.SIGCONT)
        self.stopped = None

    def revision(self):
        row = self.xlb.query("SELECT result, time_ms FROM revisions ORDER BY id DESC LIMIT 1")
        return row[0]["result"] if row else None

    def states(self, service):
        status = self.xlb.status() or {"services": []}
        return {b["name"]: b["state"] for s in status["services"] if s["name"] == service
                for b in s["backends"]}

    def close(self):
        self.go_on()
        super().close()


@tap.test
def tables_go_on(w):
    """a save is applied while calls hang"""
    wait_for(lambda: w.xlb.alive() and w.states("pool").get("pool-1") == "up", "a VM", 60)
    w.xlb.wait_converged()
    w.stall()
    w.xlb.write(w.text(minimum=2))  # a create that hangs
    wait_for(lambda: len(w.xlb.query("SELECT id FROM revisions")) == 2, "the file to be read")
    time.sleep(2)  # time for several resyncs to ask for the list in vain
    began = time.monotonic()
    w.xlb.write(w.text(minimum=2, weight=3))
    wait_for(lambda: w.xlb.query("SELECT * FROM change_history WHERE object = 'service.shop/slots' "
                                 "AND result = 'done' AND revision_id = 3"), "its tables", 30)
    took = time.monotonic() - began
    status = w.xlb.status()
    tap.note(f"save to tables {status['applied_ms']:.1f} ms by the daemon's clock, seen after "
             f"{took * 1000:.0f} ms")
    # Of the 30 s that a call may hang nothing was waited for.
    assert took < 10, took
    assert status["running"] and w.stopped


@tap.test
def probes_go_on(w):
    """a backend that dies meanwhile is found, and found again"""
    before = w.xlb.status()["probes"]
    s1 = w.lab.backends[0]
    s1.server.kill()
    s1.server.wait()
    wait_for(lambda: w.states("shop")["s1"] in ("down", "dead"), "s1 to be found dead", 30)
    w.serve(s1)
    wait_for(lambda: w.states("shop")["s1"] == "up", "s1 to be up again", 30)
    after = w.xlb.status()["probes"]
    assert after["sent"] > before["sent"]
    tap.note(f"probes began at most {after['late_max_ms']:.1f} ms late, 99 % within "
             f"{after['late_p99_ms']:.1f} ms")
    assert after["late_max_ms"] < 5000, after
    assert w.states("pool")["pool-1"] == "up", w.states("pool")


@tap.test
def one_is_taken_out(w):
    """a hypervisor goes from the file while its calls hang"""
    w.xlb.write(w.text(minimum=2, weight=3, spare=False))
    wait_for(lambda: [h["name"] for h in w.xlb.status()["hypervisors"]] == ["local"],
             "the spare one to be gone", 30)
    assert w.stopped


@tap.test
def ends_at_once(w):
    """SIGTERM ends it while calls hang, with 0; started again it goes on"""
    began = time.monotonic()
    assert w.xlb.stop() == 0
    took = time.monotonic() - began
    tap.note(f"ended after {took:.1f} s")
    assert took < 15, took
    assert "hypervisor_calls=under_way" in w.xlb.log.read_text(), "no call was under way"
    w.go_on()
    w.xlb.start()
    wait_for(lambda: w.xlb.alive() and w.states("pool").get("pool-2") == "up", "the second VM", 90)
    w.xlb.wait_converged()


lab.enter()
lab.main(World)
