#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Plans with guests in them (containers, of a real libvirt): foretold, applied
later, waiting for the operator's word, and carried to their end over several
passes once they have it."""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
import lab  # noqa: E402
import tap  # noqa: E402
from lab import wait_for  # noqa: E402
from vmlab import VmLab  # noqa: E402

DONE, CHANGES, STALE = 0, 2, 5
TEXT = """version: 1
node: {{interfaces: [uplink], resync: 2s}}
hypervisors: [{{name: local, uri: "{uri}", max_vms: 8}}]
templates:
  - {{name: web, cmdline: {backend} -p 80, memory: 96MiB,
     network: {{bridge: br0, addresses: [10.77.0.10-10.77.0.40/24], gateway: [10.77.0.1]}}}}
services:
  - name: web
    vips: [192.0.2.10]
    ports: [80]
    drain: 4s
    drain_quiet: 1s
    pool: {{template: web, min: {min}, max: 4}}
    health: {{type: http, path: /healthz, interval: 500ms, timeout: 400ms, fall: 2}}
"""


class Pool(VmLab):
    def text(self, minimum=1):
        return TEXT.format(uri=self.libvirtd.lxc, backend=lab.BUILD / "xlb-backend", min=minimum)

    def verb(self, *words, code=DONE):
        done = self.xlb.verb(*words)
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def plan(self, *options, code=DONE):
        return json.loads(self.verb("plan", "--json", *options, code=code).stdout)

    def save(self):
        path = self.lab.scratch / "plan.json"
        self.verb("plan", "--out", path)
        return path

    def told(self, event):
        return self.xlb.log.read_text().count(f"event={event} ")


def of_vms(values):
    return [(c["object"].split("/")[-1], *c["actions"]) for c in values["drift"] + values["changes"]
            if "/vm/" in c["object"]]


@tap.test
def from_nothing(pool):
    """a plan names the guest it will make, makes none, and apply makes that one"""
    values = pool.plan()
    assert of_vms(values) == [("web-1", "add")], values
    vm = next(c for c in values["changes"] if "/vm/" in c["object"])
    assert vm["before"] is None and vm["after"]["addresses"] == ["10.77.0.10"], vm
    assert vm["after"]["hypervisor"] == "local" and vm["after"]["template"] == "web", vm
    assert values["observed"]["scaling"] == [{"service": "web", "min": 1, "max": 4, "wanted": 1,
                                              "vms": 0, "ready": 0, "says": None}], values
    assert "1 wanted of 1 to 4 VMs, 0 there, 0 ready" in pool.verb("plan").stdout
    assert pool.domains() == []
    pool.verb("apply", pool.save())
    assert pool.domains() == ["web-1"]
    assert [r["address"] for r in pool.xlb.query(
        "SELECT address FROM vm_history WHERE event = 'ordered'")] == ["10.77.0.10"]


@tap.test
def edit_waits(pool):
    """run --manual: more guests are planned and not made, until approved"""
    pool.xlb.start("run", "--manual")
    pool.wait_ready(["web-1"])
    wait_for(lambda: pool.ask() == "web-1", "an answer")
    pool.xlb.write(pool.text(3))
    wait_for(lambda: pool.told("file_waits"), "the file to be seen")
    values = pool.plan("--detailed-exitcode", code=CHANGES)
    assert of_vms(values) == [("web-2", "add"), ("web-3", "add")], values
    assert values["observed"]["scaling"][0]["wanted"] == 3, values
    assert pool.plan()["plan_id"] == values["plan_id"]
    assert pool.domains() == ["web-1"]
    pool.verb("approve", values["plan_id"])
    pool.wait_ready(["web-1", "web-2", "web-3"])
    wait_for(lambda: pool.xlb.plan_is_empty(), "nothing to be left")


@tap.test
def death_waits(pool):
    """run --manual: a guest that dies leaves the tables at once, and is replaced when asked"""
    wait_for(lambda: "running, converged" in pool.verb("status").stdout, "it to be at rest", 60)
    path = pool.save()
    told = pool.told("waiting")
    pool.virsh("destroy", "web-2")
    wait_for(lambda: pool.told("waiting") > told, "its replacement to wait")
    wait_for(lambda: {pool.ask() for _ in range(12)} == {"web-1", "web-3"}, "the others alone")
    pool.verb("apply", path, code=STALE)
    assert pool.ready() == ["web-1", "web-3"]
    values = pool.plan()
    assert [name for name, *_ in of_vms(values)] == ["web-2"], values
    pool.verb("apply", pool.save())
    pool.wait_ready(["web-1", "web-2", "web-3"])


@tap.test
def drain_goes_on(pool):
    """run --manual: what is approved is carried to its end, over draining and removal"""
    wait_for(lambda: "running, converged" in pool.verb("status").stdout, "it to be at rest", 60)
    told = pool.told("file_waits")
    pool.xlb.write(pool.text(1))
    wait_for(lambda: pool.told("file_waits") > told, "the file to be seen")
    assert len(pool.domains()) == 3
    pool.verb("apply", pool.save())
    wait_for(lambda: len(pool.domains()) < 3, "guests to go", 60, 0.2)
    left = pool.domains()
    wait_for(lambda: pool.ask() in left, "an answer")
    assert pool.xlb.stop() == 0
    pool.verb("destroy", "--yes")
    assert pool.domains() == []


if __name__ == "__main__":
    lab.enter()
    lab.main(Pool)
