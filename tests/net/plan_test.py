#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Plans that are saved, applied later, held, approved, or have moved on; drift
and edits apart; run --manual: the real program, kernel and files."""
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jsonschema

import netlab
import lab
import tap
from lab import wait_for
from netlab import TARGETS

lab.enter()
DONE, FAILED, CHANGES, INVALID, HELD, STALE, USAGE = 0, 1, 2, 3, 4, 5, 64
EMPTY = netlab.HEADER.replace("services:", "services: []")
SCHEMA = jsonschema.Draft202012Validator(json.loads(
    (Path(__file__).resolve().parents[2] / "schemas" / "plan.schema.json").read_text()))


def xlb(made, *words, code=DONE):
    done = made.xlb.verb(*words)
    assert done.returncode == code, \
        f"{' '.join(map(str, words))}: {done.returncode}, not {code}\n{done.stdout}{done.stderr}"
    return done


def plan(made, *options, code=DONE):
    """The plan as JSON, valid by the schema."""
    values = json.loads(xlb(made, "plan", "--json", *options, code=code).stdout)
    wrong = [f"{list(e.absolute_path)}: {e.message}" for e in SCHEMA.iter_errors(values)]
    assert not wrong, wrong
    return values


def saved(made, code=DONE):
    path = made.scratch / "saved.json"
    xlb(made, "plan", "--out", path, code=code)
    SCHEMA.validate(json.loads(path.read_text()))
    return path


def objects(changes):
    return Counter((c["object"], *c["actions"]) for c in changes)


def last_row(made):
    return (made.xlb.query("SELECT max(id) AS id FROM change") or [{"id": 0}])[0]["id"] or 0


def rows_since(made, row):
    return made.xlb.query("SELECT * FROM change WHERE id > ?", row)


def make():
    made = lab.Lab(client_addresses=2)
    for i in range(3):
        netlab.serve(made.add_backend(f"b{i + 1}"))
    made.text = netlab.services(made.backends)
    made.xlb = made.reconciler(made.text)
    return made


def converge(made, text):
    """Without a daemon."""
    made.xlb.write(text)
    xlb(made, "run", "--once", "--timeout", "60s")


def owner(made, service, backend):
    """Key and value of a backend in the owners map, as bytes."""
    names = json.loads(made.lb.out(["bpftool", "-j", "map", "dump", "pinned",
                                    made.xlb.bpffs / "services"]))
    ids = {bytes(int(b, 16) for b in e["value"][:64]).rstrip(b"\0").decode():
           int.from_bytes(bytes(int(b, 16) for b in e["key"]), sys.byteorder) for e in names}
    for e in json.loads(made.lb.out(["bpftool", "-j", "map", "dump", "pinned",
                                     made.xlb.bpffs / "owners"])):
        value = bytes(int(b, 16) for b in e["value"])
        if value[:64].rstrip(b"\0").decode() == backend and \
                int.from_bytes(value[64:68], sys.byteorder) == ids[service]:
            return bytes(int(b, 16) for b in e["key"]), value
    raise AssertionError(f"no owner {service}/{backend}")


def reweigh(made, service, backend, weight):
    """Somebody with bpftool."""
    key, value = owner(made, service, backend)
    value = value[:70] + weight.to_bytes(2, sys.byteorder)
    made.lb.run(["bpftool", "map", "update", "pinned", made.xlb.bpffs / "owners", "key", "hex",
                 *(f"{b:02x}" for b in key), "value", "hex", *(f"{b:02x}" for b in value)])


def lose_vip(made):
    made.lb.ip("address del 192.0.2.10/32 dev uplink")


def has_vip(made):
    return "192.0.2.10/" in made.lb.out(["ip", "-4", "address", "show", "uplink"])


def weighted(made, weight, backend="b1"):
    """The file with another weight in the first service."""
    return made.text.replace(f"name: {backend},", f"name: {backend}, weight: {weight},", 1)


# ---- without a daemon ----

@tap.test
def first(made):
    """a saved plan of nothing yet is applied, and then nothing is left to do"""
    path = saved(made)
    values = json.loads(path.read_text())
    assert values["config"]["path"] == str(made.xlb.file), values["config"]
    assert values["config"]["git_revision"] is None and values["drift"] == []
    assert objects(values["changes"])["service.web", "add"] == 1
    assert not made.xlb.bpffs.exists(), "a plan loaded something"
    xlb(made, "apply", path, "--dry-run")
    assert not made.xlb.bpffs.exists(), "a dry run loaded something"
    assert "Applied" in xlb(made, "apply", path).stdout
    assert "No changes." in xlb(made, "plan", "--detailed-exitcode").stdout
    # The world moved on by what was done itself.
    assert "has changed since the plan was made" in xlb(made, "apply", path, code=STALE).stderr
    xlb(made, "apply", saved(made))


@tap.test
def impossible(made):
    """a file that can't be carried out here is a plan with errors, on stdout"""
    made.xlb.write(made.text.replace("[uplink]", "[nope]"))
    values = plan(made, code=INVALID)
    assert [(d["severity"], d["line"]) for d in values["diagnostics"]] == [("error", 3)], values
    assert "there is no interface nope" in values["diagnostics"][0]["message"]
    path = saved(made, code=INVALID)
    assert "there is no interface nope" in xlb(made, "apply", path, code=INVALID).stderr
    made.xlb.write(made.text.replace("drain: 60s", "drian: 60s"))
    done = xlb(made, "plan", "--json", code=INVALID)
    assert not done.stdout and "unknown key" in done.stderr, done
    made.xlb.write(made.text)


@tap.test
def same_id(made):
    """two plans of the same world have the same id, also with traffic in between"""
    made.xlb.write(weighted(made, 3))
    one = plan(made)
    for _ in range(20):
        assert netlab.answers(made, TARGETS["nat v4"]).startswith("b")
    two = plan(made)
    assert one == two, (one, two)
    other = made.scratch / "etc" / "other.yaml"
    other.write_text(weighted(made, 4))
    done = made.lb.run(["/usr/bin/env", *made.xlb.argv("plan", "--json")[:1], "-f", other,
                        *made.xlb.argv("plan", "--json")[3:]])
    assert json.loads(done.stdout)["plan_id"] != one["plan_id"]
    assert json.loads(done.stdout)["observed"]["fingerprint"] == one["observed"]["fingerprint"]


@tap.test
def stale(made):
    """refused with 5 when the file or the world moved on, and nothing changes"""
    made.xlb.write(weighted(made, 3))
    path = saved(made)
    row = last_row(made)
    made.xlb.write(weighted(made, 4))
    assert "the file has changed" in xlb(made, "apply", path, code=STALE).stderr
    made.xlb.write(weighted(made, 3))
    lose_vip(made)
    assert "what is running has changed" in xlb(made, "apply", path, code=STALE).stderr
    assert not has_vip(made) and not rows_since(made, row)
    path = saved(made)
    reweigh(made, "echo", "b2", 9)
    assert "what is running has changed" in xlb(made, "apply", path, code=STALE).stderr
    assert not rows_since(made, row)
    reweigh(made, "echo", "b2", 1)
    xlb(made, "apply", path)
    assert has_vip(made) and rows_since(made, row)


@tap.test
def drift_and_change(made):
    """drift and an edit in one plan stand apart, by object; --drift-only"""
    converge(made, made.text)
    lose_vip(made)
    reweigh(made, "web", "b1", 7)
    made.xlb.write(weighted(made, 3))
    line = weighted(made, 3).split("weight: 3")[0].count("\n") + 1
    text = xlb(made, "plan").stdout
    drift, changes = text.split("Changes:\n")
    assert "+ node/address/192.0.2.10 " in drift and "weight 7 -> 1" in drift, text
    assert "weight 1 -> 3" in changes and "slots move" in changes, text
    assert "node/address" not in changes and f"(services.yaml:{line})" in changes, text
    last = text.splitlines()[-1]
    assert last == "Plan: 2 drift to repair, 0 to add, 2 to change, 0 to replace, 0 to destroy."
    values = plan(made, "--detailed-exitcode", code=CHANGES)
    assert objects(values["drift"]) == Counter({("node/address/192.0.2.10", "add"): 1,
                                                ("service.web/backend/b1", "change"): 1})
    assert objects(values["changes"]) == Counter({("service.web/backend/b1", "change"): 1,
                                                  ("service.web/slots", "change"): 1})
    weight = next(c for c in values["changes"] if "backend" in c["object"])
    assert weight["before"]["weight"] == 1 and weight["after"]["weight"] == 3, weight
    assert weight["source"]["line"] == line and weight["source"]["file"].endswith("services.yaml")
    slots = next(c for c in values["changes"] if "slots" in c["object"])
    assert sum(slots["before"]["owners"].values()) == slots["before"]["slots"], slots
    assert slots["after"]["owners"]["b1"] > slots["before"]["owners"]["b1"], slots
    assert values["summary"]["slots_moved"] == slots["after"]["moved"] > 0
    only = plan(made, "--drift-only", "--detailed-exitcode", code=CHANGES)
    assert only["changes"] == [] and only["drift"] == values["drift"], only
    text = xlb(made, "plan", "--drift-only").stdout
    assert "Changes:" not in text and text.splitlines()[-1].startswith("Plan: 2 drift")


def check_foretold(made, text, *spoil):
    """What a plan shows is what apply then records, change by change."""
    converge(made, made.text)
    for act in spoil:
        act(made)
    made.xlb.write(text)
    path = saved(made)
    values = json.loads(path.read_text())
    foretold = Counter((c["object"], "repair") for c in values["drift"])
    for c in values["changes"]:
        action = "replace" if len(c["actions"]) > 1 else c["actions"][0]
        foretold[c["object"], action] += 1
    row = last_row(made)
    xlb(made, "apply", path)
    rows = rows_since(made, row)
    assert all(r["result"] == "done" for r in rows), rows
    # What an edit makes happen later, by a probe or when it has drained, is
    # recorded with its cause and was shown; what probes then cause wasn't.
    done = Counter((r["object"], r["action"]) for r in rows
                   if r["file"] or r["action"] == "repair"
                   or (r["object"], r["action"]) in foretold)
    assert done == foretold, f"only planned: {foretold - done}\nonly done: {done - foretold}"


@tap.test
def foretold(made):
    """the changes a plan shows are those that apply makes"""
    check_foretold(made, weighted(made, 5))
    check_foretold(made, made.text.replace("ports: [80]", "ports: [80, 8080]", 1))
    check_foretold(made, weighted(made, 2), lose_vip, lambda m: reweigh(m, "web", "b1", 9))
    check_foretold(made, made.text.replace("    forwarding: nat\n",
                                           "    forwarding: nat\n    algorithm: source_hash\n", 1),
                   lambda m: m.lb.run(["sysctl", "-qw", "net.ipv4.conf.br0.forwarding=0"]))
    end = made.text.rindex("  - name: ")
    check_foretold(made, made.text[:end], lose_vip)


@tap.test
def hostile(made):
    """saved plans that are cut short, altered, foreign or odd change nothing"""
    converge(made, made.text)
    made.xlb.write(weighted(made, 6))
    good = saved(made).read_bytes()
    values = json.loads(good)
    row, revisions = last_row(made), made.xlb.revisions()
    bad = made.scratch / "bad.json"
    odd = [good[:at] for at in range(0, len(good), len(good) // 12)]
    odd += [b"[]", b"{}", b"null", b"\0" * 99, b"[" * 100000, good + good, b"\xff\xfe" + good,
            good.replace(b"service.web/", b"service.dns/"), good.replace(b'"weight": 6', b'"weight": 5')]
    for key, value in (("format_version", 2), ("plan_id", "0" * 16), ("plan_id", "../../x"),
                       ("changes", []), ("config", None), ("observed", {"fingerprint": "x"})):
        odd.append(json.dumps({**values, key: value}).encode())
    for content in odd:
        bad.write_bytes(content)
        done = xlb(made, "apply", bad, code=FAILED)
        assert "bad.json" in done.stderr and "hint: make it again" in done.stderr, done.stderr
    for path in ("/nowhere", made.scratch):
        assert "can't be read" in xlb(made, "apply", path, code=FAILED).stderr
    assert not rows_since(made, row) and made.xlb.revisions() == revisions
    assert "3 to change" not in xlb(made, "plan").stdout
    xlb(made, "plan", "--out", "/nowhere/plan.json", code=FAILED)
    for words in (["apply"], ["approve"], ["run", "--json"], ["run", "--manual", "--once"],
                  ["plan", "--out", "x", "--drift-only"], ["drain", "web/b1", "--json"]):
        xlb(made, *words, code=USAGE)


@tap.test
def git(made):
    """the plan says which commit the file is of, and whether it was edited since"""
    folder = made.xlb.file.parent

    def run(*words):
        subprocess.run(["git", "-C", folder, "-c", "user.name=t", "-c", "user.email=t@t", *words],
                       check=True, capture_output=True, text=True)
    run("init", "-q")
    run("add", "services.yaml")
    run("commit", "-qm", "first")
    head = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], check=True, text=True,
                          capture_output=True).stdout.strip()
    config = plan(made)["config"]
    assert (config["git_revision"], config["git_dirty"]) == (head, False), config
    made.xlb.write(weighted(made, 8))
    assert json.loads(saved(made).read_text())["config"]["git_dirty"] is True
    subprocess.run(["rm", "-rf", folder / ".git"], check=True)


@tap.test
def commented(made):
    """an edit that changes nothing leaves drift what it is, also that of events"""
    converge(made, made.text)
    lose_vip(made)
    made.lb.run(["tc", "qdisc", "del", "dev", "br0", "clsact"])
    made.xlb.write("# nothing new\n" + made.text)
    values = plan(made, "--detailed-exitcode", code=CHANGES)
    assert objects(values["drift"]) == Counter({("node/address/192.0.2.10", "add"): 1,
                                                ("node/replies/br0", "add"): 1}), values
    assert values["changes"] == [], values
    row = last_row(made)
    xlb(made, "apply", saved(made))
    assert {r["action"] for r in rows_since(made, row)} == {"repair"}, rows_since(made, row)


@tap.test
def folder(made):
    """in a folder of files each change says which file it comes from"""
    made.xlb.write(made.text)
    folder = made.scratch / "folder"
    folder.mkdir()
    (folder / "a.yaml").write_text(weighted(made, 9))
    (folder / "b.yaml").write_text(
        "version: 1\nservices:\n  - {name: more, vips: [192.0.2.30], protocol: tcp, ports: [81],"
        " backends: [{address: 10.77.0.11}]}\n")
    file, made.xlb.file = made.xlb.file, folder
    try:
        values = plan(made)
        path = saved(made)
        sources = {c["object"]: (Path(c["source"]["file"]).name, c["source"]["line"])
                   for c in values["changes"] if c["source"]}
        assert sources["service.more"] == ("b.yaml", 3), sources
        assert sources["service.web/backend/b1"][0] == "a.yaml", sources
        assert values["config"]["path"] == str(folder), values["config"]
        (folder / "c.yaml").write_text("version: 1\nservices: []\n")
        assert "the file has changed" in xlb(made, "apply", path, code=STALE).stderr
    finally:
        made.xlb.file = file


@tap.test
def approved_alone(made):
    """without a daemon: a held plan is shown with 4, and approved once"""
    converge(made, made.text)
    made.xlb.write(EMPTY)
    values = plan(made, code=HELD)
    assert [g["guard"] for g in values["guards"]] == ["allow_empty"], values["guards"]
    assert values["guards"][0]["object"] is None and values["guards"][0]["until"] is None
    assert f"approve {values['plan_id']}" in xlb(made, "plan", code=HELD).stdout
    xlb(made, "run", "--once", code=HELD)
    xlb(made, "apply", saved(made, code=HELD), code=HELD)
    assert values["plan_id"] in xlb(made, "approve", "0" * 16, code=STALE).stderr
    assert "Held: " in xlb(made, "approve", values["plan_id"], "--dry-run", code=HELD).stdout
    assert has_vip(made)
    xlb(made, "approve", values["plan_id"])
    assert not has_vip(made)
    assert "nothing is held back" in xlb(made, "approve", values["plan_id"], code=FAILED).stderr
    converge(made, made.text)
    made.xlb.write(EMPTY)
    xlb(made, "run", "--once", code=HELD)  # once was once
    made.xlb.write(made.text)


# ---- with a daemon ----

@tap.test
def approved(made):
    """a daemon holds, shows the same plan at each look, and releases it once"""
    made.xlb.write(made.text)
    made.xlb.start()
    netlab.wait_serving(made)
    assert "nothing is held back" in xlb(made, "approve", "0" * 16, code=FAILED).stderr
    xlb(made, "apply", saved(made))
    made.xlb.write(EMPTY)
    wait_for(lambda: ": held; " in xlb(made, "status").stdout, "the file to be held")
    values = plan(made, code=HELD)
    assert plan(made, code=HELD)["plan_id"] == values["plan_id"]
    assert netlab.answers(made, TARGETS["nat v4"]).startswith("b")
    xlb(made, "approve", "0" * 16, code=STALE)
    xlb(made, "approve", values["plan_id"], "--dry-run", code=HELD)
    assert "under way" in xlb(made, "approve", values["plan_id"]).stdout
    wait_for(lambda: not has_vip(made), "the services to go")
    made.xlb.apply(made.text)
    made.xlb.write(EMPTY)
    wait_for(lambda: ": held; " in xlb(made, "status").stdout, "the file to be held again")
    made.xlb.apply(made.text)


@tap.test
def daemon_refuses(made):
    """through the socket too: stale by edit, by drift, or for another file"""
    other = made.scratch / "etc" / "other.yaml"
    other.write_text(weighted(made, 4))
    path = made.scratch / "other.json"
    xlb(made, "plan", "--detailed-exitcode")
    file, made.xlb.file = made.xlb.file, other
    try:
        xlb(made, "plan", "--out", path, "--detailed-exitcode", code=CHANGES)
    finally:
        made.xlb.file = file
    assert "the daemon applies" in xlb(made, "apply", path, code=FAILED).stderr
    path = saved(made)
    made.xlb.apply(weighted(made, 2))
    xlb(made, "apply", path, code=STALE)
    made.xlb.apply(made.text)
    assert made.xlb.stop() == 0


def waits(made):
    return xlb(made, "status").stdout


def start_manual(made):
    made.xlb.start("run", "--manual")
    wait_for(lambda: made.xlb.alive() and "not running" not in waits(made), "the daemon to answer")


def served_by(made):
    """Who answers; a connection that was tried in vain has no answer."""
    return {(netlab.answers(made, TARGETS["nat v4"]).split() or [""])[0] for _ in range(20)}


def say_count(made, word):
    return made.xlb.log.read_text().count(f"event={word}")


@tap.test
def manual(made):
    """run --manual: edits and drift wait, until apply or approve"""
    start_manual(made)
    row = last_row(made)
    told = say_count(made, "file_waits")
    made.xlb.write(weighted(made, 5))
    wait_for(lambda: say_count(made, "file_waits") > told, "the file to be seen")
    assert "waits" in waits(made)
    path = saved(made)
    text = xlb(made, "plan", "--detailed-exitcode", code=CHANGES).stdout
    assert "weight 1 -> 5" in text and "Waits: `xlb-reconcile approve " in text, text
    assert text.splitlines()[-1].startswith("Plan: 0 drift to repair, ")
    xlb(made, "status", "--check", code=FAILED)
    told = say_count(made, "waiting")
    lose_vip(made)
    wait_for(lambda: say_count(made, "waiting") > told, "the drift to be seen")
    xlb(made, "apply", path, code=STALE)
    assert not has_vip(made) and not rows_since(made, row)
    values = plan(made)
    assert objects(values["drift"]) == Counter({("node/address/192.0.2.10", "add"): 1})
    assert objects(values["changes"]) == Counter({("service.web/backend/b1", "change"): 1,
                                                  ("service.web/slots", "change"): 1})
    xlb(made, "apply", saved(made))
    wait_for(lambda: made.xlb.plan_is_empty(), "the plan to be applied")
    assert has_vip(made)
    assert Counter((r["object"], r["action"]) for r in rows_since(made, row)) == Counter(
        {("node/address/192.0.2.10", "repair"): 1, ("service.web/backend/b1", "change"): 1,
         ("service.web/slots", "change"): 1})


@tap.test
def manual_approve(made):
    """run --manual: approve takes the plan by its id, and later drift waits again"""
    made.xlb.write(made.text)
    wait_for(lambda: made.xlb.verb("plan", "--detailed-exitcode").returncode == CHANGES,
             "the edit to be planned")
    xlb(made, "approve", "0" * 16, code=STALE)
    xlb(made, "approve", plan(made)["plan_id"])
    wait_for(lambda: made.xlb.plan_is_empty(), "the plan to be applied")
    wait_for(lambda: "running, converged" in waits(made), "it to be at rest")
    told = say_count(made, "waiting")
    lose_vip(made)
    wait_for(lambda: say_count(made, "waiting") > told, "the drift to be seen")
    xlb(made, "approve", plan(made)["plan_id"])
    assert has_vip(made)


@tap.test
def manual_health(made):
    """run --manual: backends that fail leave the tables all the same, and come back"""
    wait_for(lambda: "running, converged" in waits(made), "it to be at rest")
    made.backends[0].server.kill()
    made.backends[0].server.wait()
    wait_for(lambda: served_by(made) == {"b2", "b3"}, "b1 to be left out")
    netlab.serve(made.backends[0])
    wait_for(lambda: "b1" in served_by(made), "b1 to serve again")


@tap.test
def manual_restart(made):
    """run --manual: a file that was edited meanwhile waits, and what was applied goes on"""
    assert made.xlb.stop() == 0
    made.xlb.write(weighted(made, 4))
    told = say_count(made, "file_waits")
    start_manual(made)
    wait_for(lambda: say_count(made, "file_waits") > told, "the file to be seen")
    made.backends[1].server.kill()
    made.backends[1].server.wait()
    wait_for(lambda: served_by(made) == {"b1", "b3"}, "b2 to be left out")
    netlab.serve(made.backends[1])
    assert "weight 1 -> 4" in xlb(made, "plan").stdout
    wait_for(lambda: "b2" in served_by(made), "b2 to serve again")
    xlb(made, "apply", saved(made))
    wait_for(lambda: made.xlb.plan_is_empty(), "the plan to be applied")
    assert made.xlb.stop() == 0
    xlb(made, "destroy", "--yes")


@tap.test
def manual_first(made):
    """run --manual: with nothing applied yet all waits, and approve takes it to its end"""
    made.xlb.write(made.text)
    told, row = say_count(made, "file_waits"), last_row(made)
    start_manual(made)
    wait_for(lambda: say_count(made, "file_waits") > told, "the file to be seen")
    assert "waits" in waits(made) and not has_vip(made)
    assert "prog" not in made.lb.out(["ip", "link", "show", "uplink"])
    values = plan(made, "--detailed-exitcode", code=CHANGES)
    assert objects(values["changes"])["node/link/uplink", "add"] == 1, values
    assert not rows_since(made, row)
    xlb(made, "approve", values["plan_id"])
    netlab.wait_serving(made)
    wait_for(lambda: "running, converged" in waits(made), "it to be at rest")
    assert made.xlb.query("SELECT result FROM revisions ORDER BY id DESC LIMIT 1")[0]["result"] \
        == "applied"
    assert made.xlb.stop() == 0
    xlb(made, "destroy", "--yes")


lab.main(make)
