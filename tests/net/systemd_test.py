#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""`make install`, and the unit as it will be run: systemd is the first process
of a small machine in the balancer's namespace, xlb its service, the journal
the real one, and traffic flows through all of it."""
import re

import netlab
import lab
import systemd
import tap
from lab import wait_for
from netlab import TARGETS, check

lab.enter()
UNIT = "xlb-reconcile"
FILE = f"/usr/lib/systemd/system/{UNIT}.service"
EXPOSURE = 2.5  # systemd-analyze security: no worse than this (10 is the worst)
CAPABILITIES = {"net_admin": 12, "net_raw": 13, "perfmon": 38, "bpf": 39}


def make():
    made = lab.Lab(client_addresses=20)
    for i in range(2):
        netlab.serve(made.add_backend(f"b{i + 1}"))
    made.sd = systemd.Systemd(made)
    made.sd.install()
    made.sd.start()
    made.xlb = systemd.Installed(made.sd, netlab.services(made.backends)).start()
    return made


def status_text(made):
    return made.sd.show(UNIT, "StatusText")


def entries(made, **fields):
    return [e for e in made.sd.journal()
            if all(e.get(name) == value for name, value in fields.items())]


def main_pid(made):
    return int(made.sd.show(UNIT, "MainPID"))


def restarts(made):
    return int(made.sd.show(UNIT, "NRestarts"))


@tap.test
def verified(made):
    """systemd finds nothing wrong with the unit, and it exposes no more than is stated"""
    done = made.sd.run("systemd-analyze", "verify", FILE)
    said = [line for line in (done.stdout + done.stderr).splitlines() if UNIT in line]
    assert done.returncode == 0 and not said, done.stdout + done.stderr
    done = made.sd.run("systemd-analyze", "security", "--offline=true", "--no-pager",
                       FILE)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    tap.note(found.group(0))
    assert float(found.group(1)) <= EXPOSURE, done.stdout


@tap.test
def started(made):
    """it is up when systemctl start returns, with the unit's capabilities and no others"""
    assert re.search(r"revision \d+, 4 services", status_text(made)), status_text(made)
    assert made.sd.show(UNIT, "ActiveState") == "active"
    status = made.sd.run("cat", f"/proc/{made.xlb.pid()}/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    wanted = sum(1 << bit for bit in CAPABILITIES.values())
    for name in ("CapBnd", "CapEff", "CapPrm"):
        assert int(fields[name], 16) == wanted, (name, fields[name])
    assert fields["NoNewPrivs"].strip() == "1" and fields["Seccomp"].strip() == "2", status
    netlab.wait_serving(made)


@tap.test
def journal(made):
    """what it logs has the fields that the journal can be asked for"""
    run_ids = {e["XLB_RUN_ID"] for e in entries(made) if "XLB_RUN_ID" in e}
    assert len(run_ids) == 1, run_ids
    applied = entries(made, XLB_EVENT="applied")
    assert applied and applied[-1]["PRIORITY"] == "6", applied
    revision = made.xlb.query("SELECT max(id) AS id FROM revisions")[0]["id"]
    assert applied[-1]["XLB_REVISION"] == str(revision), (applied[-1], revision)
    changes = entries(made, XLB_EVENT="change", XLB_SERVICE="web-dsr")
    assert changes and all("object=service.web-dsr" in e["MESSAGE"] for e in changes), changes
    rows = made.xlb.query("SELECT * FROM change_history WHERE run_id = ?", run_ids.pop())
    assert len(rows) >= len(changes), "the store knows another run"
    health = entries(made, XLB_EVENT="health", XLB_SERVICE="web")
    assert health, "no change of health of web in the journal"
    raw = [e for e in entries(made) if e.get("_PID") == str(made.xlb.pid())
           and "XLB_EVENT" not in e]
    assert not raw, f"not by way of the journal's protocol: {raw}"


@tap.test
def reloaded(made):
    """systemctl reload, and SIGHUP, read everything again"""
    for i, how in enumerate((lambda: made.sd.run("systemctl", "reload", UNIT, check=True),
                             lambda: made.sd.run("kill", "-HUP", made.xlb.pid(), check=True))):
        before = len(entries(made, XLB_EVENT="refresh"))
        how()
        wait_for(lambda b=before: len(entries(made, XLB_EVENT="refresh")) == b + 1,
                 "the refresh to be logged", 30, 0.1)
        assert made.sd.show(UNIT, "ActiveState") == "active", i
    assert restarts(made) == 0


def damage(made):
    """What the unit's few capabilities must be enough to put back."""
    made.lb.ip("address del 192.0.2.20/32 dev uplink")
    made.lb.run(["tc", "filter", "del", "dev", "br0", "ingress"])
    made.lb.sysctl(net__ipv4__conf__br0__forwarding=0)


def is_repaired(made):
    return (made.lb.out(["sysctl", "-n", "net.ipv4.conf.br0.forwarding"]).strip() == "1"
            and "192.0.2.20/32" in made.lb.out(["ip", "address", "show", "uplink"])
            and "xlb_reply" in made.lb.out(["tc", "filter", "show", "dev", "br0", "ingress"]))


@tap.test
def repaired(made):
    """drift is repaired with those capabilities: address, tc filter, sysctl"""
    damage(made)
    wait_for(lambda: is_repaired(made), "the drift to be repaired", 60, 0.1)
    netlab.wait_serving(made)


@tap.test
def unpinned(made):
    """all pins gone while it was down: the tc filters left are known for ours, all is made anew"""
    made.xlb.stop()
    made.sd.run("rm", "-r", "/sys/fs/bpf/xlb", check=True)
    assert "xlb_reply" in made.lb.out(["tc", "filter", "show", "dev", "br0", "ingress"])
    made.xlb.start()
    netlab.wait_serving(made)
    assert not entries(made, XLB_EVENT="change", PRIORITY="3"), made.sd.log()


@tap.test
def refused(made):
    """a bad file: told in the journal and the status, the last good one served, also by a restart"""
    good = made.xlb.file.read_text()
    load = netlab.new_connections(made, TARGETS["nat v4"], 100)
    made.xlb.write(good.replace("drain: 60s", "drian: 60s"))
    wait_for(lambda: "refused" in status_text(made), "the status to tell", 30, 0.1)
    said = entries(made, XLB_EVENT="diagnostics", PRIORITY="3")
    assert said and 'did you mean "drain"' in said[-1]["MESSAGE"], said
    assert entries(made, XLB_EVENT="file_refused", PRIORITY="3")
    made.sd.run("systemctl", "restart", UNIT, check=True)
    assert "refused" in status_text(made), status_text(made)
    load.wait_answers(100)
    made.xlb.write(good)
    wait_for(lambda: status_text(made).endswith("services"), "the status to be well", 30, 0.1)
    made.xlb.wait_converged()
    check(load.stop(), "traffic around a bad file")


def drop_in(made, text):
    folder = made.sd.root / f"etc/systemd/system/{UNIT}.service.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test.conf").write_text(text)
    made.sd.run("systemctl", "daemon-reload", check=True)
    made.sd.run("systemctl", "restart", UNIT, check=True)


@tap.test
def watched(made):
    """signs of life come while the loop turns; when it stands still it is killed and comes back"""
    drop_in(made, "[Service]\nWatchdogSec=4s\n")
    load = netlab.new_connections(made, TARGETS["nat v4"], 100)
    first, pid = made.sd.show(UNIT, "WatchdogTimestampMonotonic"), made.xlb.pid()
    wait_for(lambda: made.sd.show(UNIT, "WatchdogTimestampMonotonic") != first, "a sign of life", 30)
    before = restarts(made)
    made.sd.run("kill", "-STOP", pid, check=True)
    wait_for(lambda: restarts(made) > before and main_pid(made) not in (0, pid),
             "the watchdog to restart it", 60, 0.1)
    assert "watchdog" in made.sd.log().lower(), made.sd.log()
    wait_for(lambda: status_text(made).endswith("services"), "it to serve again", 30, 0.1)
    made.xlb.wait_converged()
    load.wait_answers(100)
    check(load.stop(), "traffic around the watchdog")
    drop_in(made, "")


@tap.test
def crashed(made):
    """killed, it is started again; nothing changes for the traffic"""
    load = netlab.new_connections(made, TARGETS["nat v6"], 100)
    pid = made.xlb.pid()
    made.sd.run("kill", "-KILL", pid, check=True)
    wait_for(lambda: main_pid(made) not in (0, pid), "it to come back", 60, 0.1)
    made.xlb.wait_converged()
    load.wait_answers(100)
    check(load.stop(), "traffic around a kill")


@tap.test
def stopped(made):
    """stopped it ends well, and the traffic goes on"""
    load = netlab.new_connections(made, TARGETS["nat v4"], 100)
    made.xlb.stop()
    assert made.sd.show(UNIT, "Result") == "success", made.sd.log()
    assert made.sd.show(UNIT, "ExecMainStatus") == "0", made.sd.log()
    load.wait_answers(200)
    check(load.stop(), "traffic while it is stopped")
    done = made.xlb.verb("destroy", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr


lab.main(make)
