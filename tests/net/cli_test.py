#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line as an operator meets it: every verb with and without a
daemon, the exit codes, what goes to stdout and what to stderr, and a drain
under real connections."""
import contextlib
import json
import subprocess
from pathlib import Path

import netlab
import lab
import tap
from lab import wait_for
from netlab import TARGETS

lab.enter()
XLB = lab.BUILD / "xlb-reconcile"
DONE, FAILED, CHANGES, INVALID, HELD, USAGE = 0, 1, 2, 3, 4, 64
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
EMPTY = "version: 1\nnode: {interfaces: [uplink]}\nservices: []\n"


class Answer:
    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr
        self.words = " ".join(map(str, done.args))

    def ends(self, code):
        assert self.code == code, f"{self.words}: {self.code}, not {code}\n{self.out}{self.err}"
        return self

    def says(self, *texts):
        for text in texts:
            assert text in self.out, f"{self.words}: no {text!r} on stdout:\n{self.out}"
        return self

    def complains(self, *texts):
        for text in texts:
            assert text in self.err, f"{self.words}: no {text!r} on stderr:\n{self.err}"
        assert not self.out, f"{self.words}: stdout isn't empty:\n{self.out}"
        return self

    def quiet(self):
        assert not self.err, f"{self.words}: stderr isn't empty:\n{self.err}"
        return self


def line_of(text, part):
    """The number of the first line that has part."""
    return text[:text.index(part)].count("\n") + 1


def xlb(made, *words, file=None, prefix=()):
    argv = made.xlb.argv(*words)
    if file:
        argv[2] = file
    return Answer(made.lb.run([*prefix, *argv], check=False, timeout=60))


def good(made, *words, code=DONE, **keywords):
    """A verb that answers: nothing on stderr."""
    return xlb(made, *words, **keywords).ends(code).quiet()


def other_file(made, name, text):
    path = made.scratch / "etc" / name
    path.write_text(text)
    return path


def make():
    made = lab.Lab(client_addresses=20)
    for i in range(3):
        netlab.serve(made.add_backend(f"b{i + 1}"))
    made.text = netlab.services(made.backends)
    made.xlb = made.reconciler(made.text)
    return made


def daemon(made):
    made.xlb.start()
    netlab.wait_serving(made)


@tap.test
def usage(made):
    """what is not understood ends with 64 and one line that says why"""
    for words, text in (
            (["bogus"], "there is no verb bogus"), (["--bogus"], "no such option"),
            (["--state-dir"], "needs a value"), (["plan", "-f"], "needs a value"),
            (["drain"], "SERVICE/BACKEND"), (["drain", "web"], "has no slash"),
            (["drain", "web/b1", "web/b2"], "SERVICE/BACKEND"),
            (["drain", "web/b1", "--for", "soon"], "not a duration"),
            (["history", "--since", "1y"], "not a duration"),
            (["history", "--kind", "all"], "scaling, change, vm, health, revision"),
            (["run", "--timeout", "5s"], "--once"), (["check", "more"], "no words"),
            (["status", "--yes"], "no option --yes"), (["plan", "--once"], "no option --once"),
            (["destroy", "--for", "1s"], "no option --for")):
        answer = Answer(made.lb.run([XLB, *words], check=False)).ends(USAGE).complains(text)
        assert answer.err.count("\n") == 1, answer.err


@tap.test
def later(made):
    """verbs and options to come say that they are not supported yet"""
    for words in (["top"], ["--listen", "127.0.0.1:1"]):
        Answer(made.lb.run([XLB, *words], check=False)).ends(USAGE).complains("not supported yet")


@tap.test
def help_and_version(made):
    """--help and --version anywhere"""
    for verb in ([], ["run"], ["plan"], ["diff"], ["check"], ["status"], ["history"], ["drain"],
                 ["undrain"], ["refresh"], ["pause"], ["resume"], ["unprotect"], ["explain"],
                 ["trace"], ["adopt"], ["destroy"]):
        answer = good(made, *verb, "--help").says("usage: xlb-reconcile", "64 usage", *verb)
        assert max(map(len, answer.out.splitlines())) <= 80, answer.out
        good(made, *verb, "--version").says("xlb-reconcile ")


@tap.test
def before_the_first_run(made):
    """with nothing there: plan, status, check and dry runs answer, and change nothing"""
    good(made, "check").says("is valid: 4 services")
    printed = good(made, "check", "--print").out
    good(made, "check", file=other_file(made, "printed.yaml", printed)).says("is valid")
    for words in (["plan"], ["diff"], ["run", "--dry-run"], ["--dry-run"]):
        good(made, *words).says("+ service.web ", "Plan: 0 drift to repair, ", " 0 to destroy.")
    good(made, "plan", "--detailed-exitcode", code=CHANGES)
    good(made, "status").says("not running", "not applied")
    good(made, "status", "--check", code=FAILED).says("not applied")
    xlb(made, "history").ends(FAILED).complains("can't open", "hint:")
    for words in (["drain", "web/b1"], ["undrain", "web/b1"], ["refresh"],
                  ["drain", "--dry-run", "web/b1"]):
        xlb(made, *words).ends(FAILED).complains("no xlb-reconcile runs", "--state-dir")
    xlb(made, "destroy").ends(FAILED).complains("--yes", "nothing was removed")
    good(made, "destroy", "--dry-run").says("Nothing of this installation is there.")
    assert not list(made.xlb.state.iterdir()), list(made.xlb.state.iterdir())
    assert not made.xlb.bpffs.exists()
    good(made, "destroy", "--yes").says("Nothing of this installation was there.")


@tap.test
def files(made):
    """files that are wrong, folders, and files that can't be read"""
    bad = other_file(made, "bad.yaml", made.text.replace("drain: 60s", "drian: 60s"))
    at = line_of(made.text, "drain: 60s")
    for words in (["check"], ["plan"], ["status"], ["run", "--once"], ["destroy", "--yes"]):
        xlb(made, *words, file=bad).ends(INVALID).complains(
            f"{bad}:{at}:5: error:", 'unknown key "drian"', 'did you mean "drain"?')
    xlb(made, "check", file="/nowhere.yaml").ends(INVALID).complains("No such file", "-f")
    nowhere = other_file(made, "nowhere.yaml", made.text.replace("[uplink]", "[nope]"))
    xlb(made, "plan", file=nowhere).ends(INVALID).complains("there is no interface nope")
    xlb(made, "run", "--once", file=nowhere).ends(INVALID).complains("there is no interface nope")
    xlb(made, "--interface", "nope", "plan").ends(INVALID).complains("no interface nope")
    folder = made.scratch / "folder"
    folder.mkdir()
    (folder / "a.yaml").write_text(made.text)
    one = "version: 1\nservices:\n  - {name: %s, vips: [192.0.2.30], protocol: tcp, ports: [81]," \
          " backends: [{address: 10.77.0.11}]}\n"
    (folder / "b.yaml").write_text(one % "more")
    good(made, "check", file=folder).says("is valid: 5 services")
    (folder / "b.yaml").write_text(one % "web")
    xlb(made, "check", file=folder).ends(INVALID).complains("b.yaml:3:", "a.yaml:", "web")


@tap.test
def once(made):
    """run --once: 0 when all is as declared, then the plan is empty"""
    answer = xlb(made, "run", "--once", "--timeout", "30s").ends(DONE)
    assert not answer.out, answer.out
    good(made, "plan", "--detailed-exitcode").says("No changes. services.yaml matches")
    good(made, "status", "--check").says("not running", "applied, revision ", "3 of 3 up")
    good(made, "history", "--kind", "revision").says("revision 1 of ", ": applied")


@tap.test
def once_fails(made):
    """run --once ends with 1 and says what is missing when its time is over"""
    text = made.text.replace("services:\n", """hypervisors: [{name: local, uri: "qemu+unix:///system?socket=/nowhere"}]
templates:
  - {name: t, kernel: /bin/sh, initrd: /bin/sh, memory: 96MiB, vcpus: 1,
     network: {bridge: br0, addresses: [10.77.0.50-10.77.0.60/24, "fd00:77::50-fd00:77::60/64"]}}
services:
""", 1).replace("    backends:", "    pool: {template: t, min: 1, max: 2}\n    backends:", 1)
    file = other_file(made, "vms.yaml", text)
    xlb(made, "run", "--once", "--timeout", "2s", file=file).ends(FAILED).complains(
        "hypervisor local (qemu+unix:///system?socket=/nowhere) does not answer")
    xlb(made, "plan", file=file).ends(DONE).says("does not answer", "not in this plan")
    good(made, "status", "--check", code=FAILED, file=file).says("does not answer", "not known")
    argv = ["--state-dir", made.scratch / "state2", "--bpffs", made.scratch / "etc" / "xlb"]
    xlb(made, *argv, "run", "--once", "--timeout", "1s").ends(FAILED).complains(
        "is not a bpf file system", "mount -t bpf")


@tap.test
def held(made):
    """an empty list of services: held with 4 unless the file allows it"""
    file = other_file(made, "empty.yaml", EMPTY)
    good(made, "plan", code=HELD, file=file).says("Held: ", "allow_empty")
    xlb(made, "run", "--once", file=file).ends(HELD).complains("allow_empty")
    allowed = other_file(made, "allowed.yaml", EMPTY + "safety: {allow_empty: true}\n")
    good(made, "plan", "--detailed-exitcode", code=CHANGES, file=allowed).says("- service.web ")


@contextlib.contextmanager
def passable(folder):
    """Anybody may go into the folder, and through those above it."""
    closed = [(f, f.stat().st_mode) for f in (folder, *folder.parents)
              if not f.stat().st_mode & 0o001]
    for f, mode in closed:
        f.chmod(mode | 0o011)
    try:
        yield
    finally:
        for f, mode in closed:
            f.chmod(mode)


@tap.test
def not_root(made):
    """without rights: check works, the others say to be root"""
    with passable(made.scratch / "etc"):
        good(made, "check", prefix=NOBODY)
        for words in (["plan"], ["status"], ["run"], ["destroy", "--yes"]):
            xlb(made, *words, prefix=NOBODY).ends(FAILED).complains("Permission denied",
                                                                    "run as root")


@tap.test
def many_neighbours(made):
    """more backends than the neighbour table takes are pointed out"""
    knob = Path("/proc/sys/net/ipv4/neigh/default/gc_thresh3")
    if not knob.exists():
        raise tap.Skip("the limit shows only in the machine's own network namespace")
    limit = int(knob.read_text())
    count = limit * 8 // 10 + 1
    if count > 30000:
        raise tap.Skip(f"gc_thresh3 is {limit} here")
    backends = ", ".join(f"{{address: 10.9.{i >> 8}.{i & 255}}}" for i in range(count))
    file = other_file(made, "many.yaml", "version: 1\nnode: {interfaces: [lo]}\nservices:\n  - "
                      "{name: m, vips: [192.0.2.10], protocol: tcp, ports: [80], backends: ["
                      + backends + "]}\n")
    # The limit shows only in the machine's own namespace; status only looks.
    status = subprocess.run([XLB, "-f", file, "--state-dir", made.scratch / "none", "--bpffs",
                             made.scratch / "bpf" / "none", "status"], text=True,
                            capture_output=True, timeout=60, check=False)
    Answer(status).ends(DONE).quiet().says(f"{count} IPv4 backends are declared",
                                           "gc_thresh3")


@tap.test
def two_daemons(made):
    """a second daemon on the state dir is refused, and told who has it"""
    daemon(made)
    for words in (["run"], ["run", "--once"], ["destroy", "--yes"]):
        xlb(made, *words).ends(FAILED).complains("error: process ", "state dir", "hint: stop it")
    for words in (["plan"], ["drain", "web/b1"], ["status"]):
        xlb(made, *words, prefix=NOBODY).ends(FAILED).complains("Permission denied", "run as root")


@tap.test
def just_started(made):
    """a verb waits for a daemon that has the state dir and doesn't answer yet, but not for ever"""
    argv = made.xlb.argv("refresh")
    with made.xlb.held(lock=True):
        asked = made.lb.start(argv, "refresh")
        netlab.settle(0.3)
        assert asked.poll() is None, asked.returncode
    assert asked.wait(20) == DONE
    with made.xlb.held(lock=True):
        xlb(made, "refresh").ends(FAILED).complains("no xlb-reconcile runs")
    good(made, "status").says("running")


@tap.test
def dry_runs(made):
    """every verb that changes something shows its plan with --dry-run, and does nothing"""
    for words in (["run"], ["refresh"]):
        good(made, *words, "--dry-run").says("No changes. services.yaml matches")
    good(made, "drain", "--dry-run", "web/b1").says("~ service.web/slots", "b1 drains",
                                                    "1 to change")
    good(made, "destroy", "--dry-run").says(
        "- service.web ", "- node/link/uplink", "- node/address/192.0.2.10", "programs and maps",
        "forwarding back to 0", "0 to add", " 10 to destroy.")
    good(made, "plan", "--detailed-exitcode").says("No changes.")
    good(made, "status", "--check").says("running, converged", "3 of 3 up")
    assert "drained" not in good(made, "status").out
    assert not made.xlb.query("SELECT * FROM change_history WHERE action = 'drain'")


@tap.test
def status(made):
    """status: aligned tables, notes, drops by reason; the same in JSON"""
    lines = good(made, "status").says("direct_clients (192.0.2.200/32", "from this host itself",
                                      "uplink: xdp ours").out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("BACKEND"))
    column = lines[at].index("STATE")
    rows = [line for line in lines[at + 1:] if "/b" in line]
    assert len(rows) == 12 and all(row[column:].startswith("up") for row in rows), lines
    values = json.loads(good(made, "status", "--json").out)
    assert values["converged"] and values["file"]["state"] == "applied", values
    service = next(s for s in values["services"] if s["name"] == "web")
    assert (service["state"], service["up"], service["active"]) == ("ok", 3, 3), service
    assert len(service["backends"]) == 3 and service["vips"] == ["192.0.2.10:80",
                                                                 "[2001:db8::10]:80"]


@tap.test
def candidate(made):
    """with a daemon, plan -f takes another file, and no edit is called drift"""
    file = other_file(made, "candidate.yaml", made.text.replace("name: b3", "name: b9"))
    answer = good(made, "plan", "--detailed-exitcode", code=CHANGES, file=file)
    answer.says("+ service.web/backend/b9", "- service.web/backend/b3", "candidate.yaml:",
                "Plan: 0 drift")
    assert "Drift:" not in answer.out, answer.out
    good(made, "plan").says("No changes. services.yaml matches")


def served_by(made, count=40):
    return {netlab.answers(made, TARGETS["nat v4"]).split()[0] for _ in range(count)}


@tap.test
def drain(made):
    """a drained backend keeps its connections, gets no new ones, and comes back"""
    held_ones = netlab.held_connections(made, TARGETS["nat v4"], 60)
    xlb(made, "drain", "web/nope").ends(FAILED).complains("no backend web/nope", "status")
    xlb(made, "undrain", "web/nope").ends(FAILED).complains("no backend web/nope")
    good(made, "undrain", "web/b1").says("was not drained")
    good(made, "drain", "web/b1").says("web/b1 drains", "no new connections")
    wait_for(lambda: made.xlb.plan_is_empty(), "the drain to be applied")
    good(made, "status").says("drained", "by the operator", "2 of 2 up")
    flows = flows_of(made, "b1")
    assert served_by(made) == {"b2", "b3"}
    held_ones.wait_answers(120)
    assert flows_of(made, "b1") == flows, "new connections reached the drained backend"
    good(made, "undrain", "--dry-run", "web/b1").says("~ service.web/slots")
    good(made, "undrain", "web/b1").says("takes new connections again")
    wait_for(lambda: "b1" in served_by(made, 10), "b1 to serve again")
    held_ones.wait_answers(60)
    summary = held_ones.stop()
    assert "b1" in summary["backends"], summary
    assert summary["connections"]["broken"] == 0 and summary["failed"] == 0, summary
    good(made, "history", "web", "--kind", "change").says(
        " drain service.web/backend/b1: done (operator)",
        " undrain service.web/backend/b1: done (operator)")


def flows_of(made, name):
    services = json.loads(good(made, "status", "--json").out)["services"]
    web = next(s for s in services if s["name"] == "web")
    return next(b["flows"] for b in web["backends"] if b["name"] == name)


@tap.test
def drain_for(made):
    """drain --for ends by itself, and that is recorded"""
    good(made, "drain", "web/b2", "--for", "2s").says("web/b2 drains until 20")
    good(made, "status").says("by the operator until 20")
    wait_for(lambda: "drained" not in xlb(made, "status").out, "the drain to be over")
    wait_for(lambda: "b2" in served_by(made, 10), "b2 to serve again")
    good(made, "history", "web", "--kind", "change").says(
        " undrain service.web/backend/b2: done (its time is over)")


@tap.test
def history(made):
    """history: by service, kind and age, as text and JSON"""
    good(made, "history").says("  revision ", "  change ", "  health ")
    rows = json.loads(good(made, "history", "web", "--json").out)
    assert rows and {row["service"] for row in rows} == {"web"}, rows[:3]
    assert all(set(row) == {"time", "kind", "service", "text"} for row in rows)
    rows = json.loads(good(made, "history", "--kind", "health", "--json").out)
    assert rows and {row["kind"] for row in rows} == {"health"}, rows[:3]
    good(made, "history", "nobody").says("nothing of that is recorded")
    assert json.loads(good(made, "history", "--since", "1ms", "--json").out) == []


@tap.test
def refresh(made):
    """refresh reads again what was changed behind its back"""
    made.lb.ip("address del 192.0.2.10/32 dev uplink")
    good(made, "refresh").says("read again")
    wait_for(lambda: "192.0.2.10/" in made.lb.out(["ip", "-4", "address", "show", "uplink"]),
             "the VIP to be there again")


@tap.test
def stale_file(made):
    """a bad save shows in status, and status --check ends with 1"""
    made.xlb.write(made.text.replace("drain: 60s", "drian: 60s"))
    wait_for(lambda: xlb(made, "status", "--check").code == FAILED, "the file to be read")
    good(made, "status", "--check", code=FAILED).says(
        ": stale; revision ", f"{line_of(made.text, 'drain: 60s')}:5: error: unknown")
    made.xlb.write(EMPTY)
    wait_for(lambda: ": held; " in xlb(made, "status").out, "the file to be held")
    good(made, "plan", code=HELD).says("Held: ")
    made.xlb.apply(made.text)
    good(made, "status", "--check").says(": applied")


@tap.test
def foreign_program(made):
    """someone else's XDP program on the interface is named"""
    assert made.xlb.stop() == 0
    good(made, "destroy", "--yes").says("Removed all")
    pin = made.scratch / "bpf" / "foreign"
    made.lb.run(["bpftool", "prog", "load", lab.BUILD / "bpf" / "xdp.bpf.o", pin])
    made.lb.run(["bpftool", "net", "attach", "xdp", "pinned", pin, "dev", "uplink"])
    good(made, "plan").says("native XDP, once another's program is off")
    good(made, "status").says("uplink: xdp foreign")
    xlb(made, "run", "--once", "--timeout", "1s").ends(FAILED).complains(
        "uplink has an XDP program already", "xdp off")
    # The host itself would answer at a VIP that no program guards.
    assert "192.0.2.10/" not in made.lb.out(["ip", "address"])
    made.lb.run(["bpftool", "net", "detach", "xdp", "dev", "uplink"])
    pin.unlink()


@tap.test
def destroy(made):
    """destroy removes what its dry run listed, and the next plan starts afresh"""
    xlb(made, "run", "--once", "--timeout", "30s").ends(DONE)
    xlb(made, "destroy").ends(FAILED).complains("no terminal", "--yes")
    listed = good(made, "destroy", "--dry-run").out
    assert "10 to destroy" in listed, listed
    good(made, "destroy", "--yes").says("Removed all of this installation.")
    assert not made.xlb.bpffs.exists() or not list(made.xlb.bpffs.iterdir())
    assert "192.0.2.10/" not in made.lb.out(["ip", "address"])
    assert made.lb.out(["sysctl", "-n", "net.ipv4.conf.br0.forwarding"]).strip() == "0"
    good(made, "destroy", "--dry-run").says("Nothing of this installation is there.")
    answer = good(made, "plan").says("+ service.web ", "Plan: 0 drift")
    assert "Drift:" not in answer.out, answer.out
    good(made, "history", "--kind", "change").says("destroy service.web: done (destroy)")


lab.main(make)
