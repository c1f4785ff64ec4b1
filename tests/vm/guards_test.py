#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What an edit can't do by mistake, on real guests (containers), with the real
program, file, store and kernel: VMs deleted a few at a time, services that are
protected or paused, files that are suddenly empty.
"""
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
import lab  # noqa: E402
from lab import wait_for  # noqa: E402
from tap import test  # noqa: E402
from vmlab import VIP, VmLab  # noqa: E402

VIP_FIXED = "192.0.2.20"
PER = 8  # seconds
DONE, FAILED, HELD, STALE = 0, 1, 4, 5

HEAD = """version: 1
node: {{interfaces: [uplink], resync: 2s}}
safety: {{max_vm_deletes: {{count: 2, per: {per}s}}}}
"""
MACHINES = """hypervisors:
  - {{name: local, uri: "{uri}"}}
templates:
  - name: web
    cmdline: {build}/xlb-backend -p 80
    memory: 96MiB
    network: {{bridge: br0, addresses: [10.77.0.30-10.77.0.90/24], gateway: [10.77.0.1]}}
"""
FIXED = """  - name: fixed
    vips: [192.0.2.20]
    ports: [80]
    backends: [{name: b1, address: 10.77.0.11}]
"""
WEB = """  - name: web
    vips: [192.0.2.10]
    ports: [80]
    drain: 2s
    drain_quiet: 500ms
    {keys}
    pool: {{template: web, min: {min}, max: {max}}}
    health: {{type: http, path: /healthz, interval: 500ms, timeout: 400ms, fall: 2}}
"""
SCALING = """    scaling:
      interval: 1s
      signals: [{metric: new_connections_per_second, target: 10}]
      up: {window: 0s, step: 2, cooldown: 1s}
      down: {window: 600s, step: 1, cooldown: 1s}
      warmup: 1s
"""


class World(VmLab):
    def __init__(self):
        super().__init__(backends=["b1"], client_addresses=10)
        self.lab.backends[0].ns.start([lab.BUILD / "xlb-backend", "-p", "80", "-n", "b1"],
                                      log="b1")

    def first(self):
        return self.text(self.web(10))

    def text(self, *services, machines=True):
        return (HEAD + (MACHINES if machines else "")).format(
            per=PER, uri=self.uri, build=lab.BUILD) + "services:\n" + FIXED + "".join(services)

    @staticmethod
    def web(least, most=None, scaling="", **keys):
        words = "\n    ".join(f"{key}: {value}" for key, value in keys.items())
        return WEB.format(min=least, max=most or least, keys=words) + scaling

    def service(self, name="web"):
        found = [s for s in (self.xlb.status() or {}).get("services", []) if s["name"] == name]
        return found[0] if found else {}

    def held(self):
        return (self.xlb.status() or {}).get("held", [])

    def guards(self):
        return sorted({h["guard"] for h in self.held()})

    def drains(self):
        return [r["time_ms"] for r in self.xlb.query(
            "SELECT time_ms FROM vm_history WHERE event = 'draining' ORDER BY time_ms")]

    def wait_count(self, count):
        wait_for(lambda: self.xlb.alive() and len(self.ready()) == count, f"{count} VMs to be ready",
                 60, 0.1)

    def restart(self):
        self.xlb.kill9()
        self.xlb.start()


def check_pace(times):
    """No more than two in any stretch of PER seconds."""
    for i in range(len(times) - 2):
        assert times[i + 2] - times[i] >= PER * 1000, times


@test
def eight_of_ten(world):
    """an edit that removes 8 VMs lets 2 go; 6 stay through kills and deaths, and are told"""
    world.xlb.start()
    world.wait_count(10)
    world.xlb.write(world.text(world.web(2)))
    wait_for(lambda: len(world.domains()) == 8, "two VMs to go", 30, 0.05)
    assert len(world.drains()) == 2
    plan = world.xlb.verb("plan")
    assert plan.returncode == HELD, plan
    assert plan.stdout.count("max_vm_deletes") >= 1, plan.stdout
    held = world.held()
    assert len(held) == 6 and {h["guard"] for h in held} == {"max_vm_deletes"}, held
    assert all(h["object"].startswith("service.web/vm/web-") and h["until"] for h in held), held
    rows = world.xlb.query("SELECT * FROM change_history WHERE result = 'held'")
    assert len(rows) == 6 and all(r["cause"] == "max_vm_deletes" and "until" in r["error"]
                                  for r in rows), rows
    world.restart()
    world.virsh("destroy", "web-3")
    wait_for(lambda: len(world.drains()) == 4, "the next two", 30, 0.05)
    check_pace(world.drains())
    wait_for(lambda: len(world.domains()) == 6, "the next two to be gone", 30, 0.05)
    assert world.ask().startswith("web-")
    status = world.xlb.verb("status")
    assert "held back" in status.stdout and "max_vm_deletes" in status.stdout, status.stdout
    assert world.xlb.verb("status", "--check").returncode == FAILED


@test
def store_lost(world):
    """without the history nothing more goes for as long as something may have gone"""
    assert world.xlb.stop() == 0
    for file in world.xlb.state.glob("history.db*"):
        file.unlink()
    began = time.time() * 1000
    world.xlb.start()
    wait_for(lambda: world.xlb.alive() and any("history is new" in h["why"] for h in world.held()),
             "the guard to say so", 20)
    assert len(world.domains()) == 6
    wait_for(lambda: len(world.drains()) == 2, "the next two", 30, 0.05)
    assert world.drains()[0] >= began + PER * 1000
    # The edit is taken back: nothing is held any more.
    world.xlb.apply(world.text(world.web(4)))
    wait_for(lambda: len(world.domains()) == 4 and len(world.ready()) == 4, "four", 30)
    assert world.guards() == []


@test
def approved(world):
    """approve lets go at once of what the plan holds back, and of nothing later"""
    world.xlb.apply(world.text(world.web(9)))
    world.wait_count(9)
    world.xlb.write(world.text(world.web(3)))
    wait_for(lambda: len(world.held()) >= 4, "the guard", 20)
    plan = json.loads(world.xlb.verb("plan", "--json").stdout)
    assert {g["guard"] for g in plan["guards"]} == {"max_vm_deletes"}, plan["guards"]
    assert world.xlb.verb("approve", "0" * 12).returncode == STALE
    said = world.xlb.verb("approve", plan["plan_id"])
    assert said.returncode == DONE, said
    wait_for(lambda: len(world.domains()) == 3, "all of them to go", 30, 0.1)
    wait_for(lambda: world.guards() == [], "nothing to be held", 20)
    world.xlb.apply(world.text(world.web(6)))
    world.wait_count(6)
    world.xlb.write(world.text(world.web(2)))
    wait_for(lambda: world.guards() == ["max_vm_deletes"], "the guard again", 20)
    world.xlb.apply(world.text(world.web(len(world.domains()))))


@test
def service_gone(world):
    """a service that is edited away serves until the last of its VMs may go"""
    world.xlb.write(world.text())
    wait_for(lambda: world.guards() == ["max_vm_deletes"], "the service to be held", 20)
    objects = {h["object"] for h in world.held()}
    assert "service.web" in objects, objects
    world.restart()
    while len(world.domains()) > 2:
        if world.ask() == "" and len(world.domains()) > 2:
            raise AssertionError("it stopped serving before its time")
    wait_for(lambda: world.domains() == [], "the last ones to go", 40, 0.1)
    world.xlb.wait_converged()
    assert VIP not in world.lab.lb.out(["ip", "address"])
    check_pace(world.drains()[-2:])


@test
def protected_stays(world):
    """a protected service stays without its block, over a restart and destroy"""
    world.xlb.apply(world.text(world.web(2, protect="true")))
    world.wait_count(2)
    assert world.xlb.verb("unprotect", "web").returncode == FAILED  # the file says so
    world.xlb.write(world.text())
    wait_for(lambda: world.guards() == ["protect"], "the guard", 20)
    world.xlb.kill9()
    world.xlb.start()
    world.wait_count(2)
    # It is as alive as ever.
    world.virsh("destroy", "web-1")
    wait_for(lambda: world.running() == ["web-1", "web-2"], "web-1 to be replaced", 30)
    world.wait_count(2)
    assert world.ask().startswith("web-")
    assert world.xlb.verb("plan").returncode == HELD
    # A file in its way is refused as a whole.
    thief = FIXED.replace("fixed", "thief").replace("192.0.2.20", VIP).replace(".0.11", ".0.12")
    world.xlb.write(world.text(thief))
    wait_for(lambda: world.xlb.status()["file"]["state"] == "held", "the file to be held", 20)
    assert world.ask().startswith("web-")
    world.xlb.write(world.text())
    wait_for(lambda: world.xlb.status()["file"]["state"] == "applied", "the file", 20)
    assert world.xlb.stop() == 0
    gone = world.xlb.verb("destroy", "--yes")
    assert gone.returncode == DONE and "web is protected" in gone.stdout, gone
    assert world.running() == ["web-1", "web-2"]
    assert world.ask().startswith("web-")
    assert world.ask(VIP_FIXED) == ""


@test
def unprotected_goes(world):
    """unprotect, once and recorded, lets it go"""
    world.xlb.start()
    wait_for(lambda: world.ask(VIP_FIXED) == "b1", "the other service", 20)
    said = world.xlb.verb("unprotect", "web", "--dry-run")
    assert "service.web" in said.stdout and world.service(), said
    assert world.xlb.verb("unprotect", "web").returncode == DONE
    wait_for(lambda: world.domains() == [], "its VMs to go", 40, 0.1)
    world.xlb.wait_converged()
    assert VIP not in world.lab.lb.out(["ip", "address"])
    rows = world.xlb.query("SELECT * FROM change_history WHERE action = 'unprotect'")
    assert len(rows) == 1 and rows[0]["object"] == "service.web", rows
    assert world.xlb.verb("unprotect", "web").returncode == FAILED  # there is none
    # Once: declared and protected again, it is.
    world.xlb.apply(world.text(world.web(1, protect="true")))
    world.wait_count(1)
    world.xlb.write(world.text())
    wait_for(lambda: world.guards() == ["protect"], "the guard", 20)


@test
def protected_without_a_store(world):
    """what protects a service outlives the history: nothing goes, and it is said why"""
    assert world.xlb.stop() == 0
    for file in world.xlb.state.glob("history.db*"):
        file.unlink()
    world.xlb.start()
    wait_for(lambda: world.xlb.alive() and (world.xlb.status() or {}).get("file", {}).get("state")
             == "held", "the file to be held", 20)
    assert "unprotect web" in world.xlb.verb("status").stdout
    assert world.ask() == "web-1" and world.running() == ["web-1"]
    assert world.xlb.stop() == 0
    assert world.xlb.verb("destroy", "--yes").returncode == HELD
    assert world.ask() == "web-1"
    world.xlb.start()
    # The key goes, and the block stays: that lifts it.
    world.xlb.apply(world.text(world.web(1)))
    world.wait_count(1)


@test
def paused_under_load(world):
    """a paused service keeps its VMs and its declaration under load, and health goes on"""
    world.xlb.apply(world.text(world.web(2, 4, SCALING)))
    world.wait_count(2)
    assert world.xlb.verb("pause", "web", "--dry-run").returncode == DONE
    assert not world.service()["paused"]
    assert world.xlb.verb("pause", "web", check=True).returncode == DONE
    load = world.lab.client.start(
        [lab.BUILD / "xlb-load", "--rate", "80", "--duration", "60", "--from",
         "192.0.2.101-192.0.2.109", "--to", f"{VIP}:80"], log="load")
    wait_for(lambda: world.xlb.query(
        "SELECT * FROM scaling_history WHERE limited_by = 'paused' AND wanted_vms > to_vms"),
             "the scaler to want more", 30)
    world.xlb.write(world.text(world.web(3, 6, SCALING)))
    wait_for(lambda: world.guards() == ["paused"], "the edit to wait", 20)
    world.virsh("destroy", "web-1")
    wait_for(lambda: {world.ask() for _ in range(6)} == {"web-2"}, "web-1 to be out", 20)
    world.restart()
    wait_for(lambda: world.xlb.alive() and world.service().get("paused"), "the pause", 20)
    time.sleep(2.5)  # a resync passes
    assert world.domains() == ["web-1", "web-2"]
    assert world.service()["pool"]["max"] == 4
    assert "ok, paused" in world.xlb.verb("status").stdout or \
        ", paused" in world.xlb.verb("status").stdout
    assert world.xlb.verb("resume", "web").returncode == DONE
    wait_for(lambda: len(world.running()) > 2, "it to go on", 40, 0.1)
    assert world.service()["pool"]["max"] == 6
    load.terminate()
    rows = world.xlb.query("SELECT action FROM change_history WHERE cause = 'operator' AND "
                           "action IN ('pause', 'resume') ORDER BY time_ms")
    assert [r["action"] for r in rows] == ["pause", "resume"], rows


@test
def paused_by_the_file(world):
    """paused: true in the file wins over resume; without a daemon verbs take the lock"""
    count = len(world.domains())
    world.xlb.write(world.text(world.web(1, 1, paused="true")))
    wait_for(lambda: world.service().get("paused"), "the pause", 20)
    said = world.xlb.verb("resume", "web")
    assert said.returncode == FAILED and "paused: true" in said.stderr, said
    time.sleep(2.5)  # a resync passes
    assert len(world.domains()) == count
    assert world.xlb.stop() == 0
    assert world.xlb.verb("pause", "web").returncode == DONE
    world.xlb.write(world.text(world.web(count, 6)))
    world.xlb.start()
    wait_for(lambda: world.xlb.alive() and world.service().get("paused"), "the operator's", 20)
    assert world.xlb.verb("resume", "web").returncode == DONE
    world.xlb.wait_converged()
    assert not world.service()["paused"]


@test
def suddenly_empty(world):
    """a file without services removes nothing, nor one with too few, also after a restart"""
    full = world.xlb.file.read_text()
    answers = world.ask(VIP_FIXED)
    empty = world.text().replace(FIXED, " []\n").replace("services:\n []", "services: []")
    for text, guard in ((empty, "allow_empty"),
                        (empty.replace("services: []", "services:\n" + FIXED.replace(
                            "fixed", "new").replace(".20]", ".21]")), "max_service_removals")):
        world.xlb.write(text)
        wait_for(lambda: world.xlb.status()["file"]["state"] == "held", "the file to be held", 20)
        plan = world.xlb.verb("plan")
        assert plan.returncode == HELD and guard in plan.stdout, plan.stdout
        world.restart()
        wait_for(lambda: world.xlb.alive() and (world.xlb.status() or {}).get("file", {}).get(
            "state") == "held", "the file to be held again", 20)
        assert world.ask().startswith("web-") and world.ask(VIP_FIXED) == answers == "b1"
    world.xlb.apply(full)


@test
def destroys(world):
    """destroy isn't held back: it was asked for in so many words"""
    assert world.xlb.stop() == 0
    assert world.xlb.verb("destroy", "--yes").returncode == DONE
    assert world.domains() == []


if __name__ == "__main__":
    lab.enter()
    lab.main(World)
