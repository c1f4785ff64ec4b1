#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""All the ways in which a file is saved: applied at once, or refused and the
traffic untouched."""
import hashlib
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path

import netlab
import lab
import tap
from lab import wait_for
from netlab import TARGETS, check

lab.enter()


def text_for(made, name):
    """services.yaml whose service `web` has one backend."""
    mine = [b for b in made.backends if b.name == name]
    return netlab.services(mine)


def serves(made, name):
    return all(netlab.answers(made, t).startswith(name) for t in TARGETS.values())


def other(made):
    made.now = "b2" if made.now == "b1" else "b1"
    return made.now, text_for(made, made.now)


def recorded(made):
    sha = hashlib.sha256(made.xlb.file.read_bytes()).hexdigest()
    return made.xlb.query("SELECT * FROM revisions WHERE sha256 = ?", sha)


def applied(made, name, how):
    wait_for(lambda: made.xlb.alive() and serves(made, name), f"{how} to be applied", 30)
    wait_for(lambda: recorded(made), f"{how} to be recorded", 30)


def shell(made, script, **env):
    done = subprocess.run(["bash", "-ec", script], cwd=made.xlb.file.parent, text=True,
                          env=dict(os.environ, HOME=str(made.scratch), **env),
                          stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


@tap.test
def in_place(made):
    """opened, truncated, written in pieces, closed"""
    name, text = other(made)
    with open(made.xlb.file, "w") as f:
        for start in range(0, len(text), 100):
            f.write(text[start:start + 100])
            f.flush()
            netlab.settle(0.005)
    applied(made, name, "a save in place")


@tap.test
def rename_over(made):
    """a new file renamed over it"""
    name, text = other(made)
    made.xlb.write(text)
    applied(made, name, "a rename")


@tap.test
def sed(made):
    """sed -i"""
    # Both backends' lines differ in name and addresses only.
    was, now = made.now, "b2" if made.now == "b1" else "b1"
    old = next(b for b in made.backends if b.name == was)
    new = next(b for b in made.backends if b.name == now)
    made.now = now
    shell(made, f"sed -i 's/name: {was},/name: {now},/; s/\"{old.addr4}\"/\"{new.addr4}\"/;"
                f" s/\"{old.addr6}\"/\"{new.addr6}\"/' services.yaml")
    applied(made, now, "sed -i")


@tap.test
def vim(made):
    """vim"""
    editor = shutil.which("vim") or shutil.which("vim.tiny")
    if not editor:
        raise tap.Skip("no vim here")
    name, text = other(made)
    (made.scratch / "wanted").write_text(text)
    for backup in ("no", "yes"):  # vim's two ways: write in place, or rename
        shell(made, f"{editor} -u NONE -N -es -c 'set backupcopy={backup}' "
                    f"-c '%!cat {made.scratch}/wanted' -c 'wq' services.yaml </dev/null")
        applied(made, name, f"vim, backupcopy={backup}")
        name, text = other(made)
        (made.scratch / "wanted").write_text(text)
    shell(made, f"cp {made.scratch}/wanted services.yaml")
    applied(made, name, "cp")


@tap.test
def truncated(made):
    """cut in the middle of a word: refused, said, and traffic untouched"""
    load = netlab.new_connections(made, TARGETS["nat v4"], 100)
    good = made.xlb.file.read_text()
    # Cut inside a quoted address, as a full disk would.
    made.xlb.file.write_text(good[:good.rindex('"') - 3])
    wait_for(lambda: made.xlb.verb("status", "--check").returncode == 1,
             "status to say that the file is bad", 30)
    assert serves(made, made.now)
    load.wait_answers(100)
    done = made.xlb.verb("plan")
    assert done.returncode == 3, (done.returncode, done.stdout, done.stderr)
    assert "services.yaml:" in done.stdout + done.stderr
    made.xlb.file.write_text(good)
    wait_for(lambda: made.xlb.verb("status", "--check").returncode == 0,
             "status to be well again", 30)
    check(load.stop(), "traffic around a truncated file")


@tap.test
def empty(made):
    """emptied, or gone: refused, and traffic untouched"""
    load = netlab.new_connections(made, TARGETS["nat v6"], 100)
    good = made.xlb.file.read_text()
    for text in ("", "version: 1\n", "version: 1\nservices: []\n"):
        made.xlb.file.write_text(text)
        wait_for(lambda: made.xlb.verb("status", "--check").returncode == 1,
                 f"status to say that {text!r} is refused", 30)
        assert serves(made, made.now), text
    made.xlb.file.unlink()
    load.wait_answers(200)
    assert made.xlb.alive() and serves(made, made.now)
    made.xlb.write(good)
    wait_for(lambda: made.xlb.verb("status", "--check").returncode == 0,
             "status to be well again", 30)
    check(load.stop(), "traffic around an empty file")


@tap.test
def bare_write(made):
    """a write without close is not a save"""
    good = made.xlb.file.read_text()
    name, text = other(made)
    before = made.xlb.revisions()
    with open(made.xlb.file, "w") as f:
        f.write(text[:200])
        f.flush()
        os.fsync(f.fileno())
        netlab.settle(0.5)
        assert made.xlb.verb("status", "--check").returncode == 0, "read while it was written"
        f.write(text[200:])
    applied(made, name, "the close")
    assert made.xlb.revisions() == before + 1
    assert good != text


def answers_for(made):
    """Which backend has each slot, and the addresses that are answered at.
    What slots had before may come to rest meanwhile."""
    dump = json.loads(made.lb.out(["bpftool", "-j", "map", "dump", "pinned",
                                   made.xlb.bpffs / "slots"]))
    lines = [bytes(int(b, 16) for b in e["value"]) for e in dump]
    owners = [word & 0x7fff for line in lines for word, in struct.iter_unpack("<I", line)]
    return owners, made.lb.out(["ip", "-o", "address", "show", "uplink"])


@tap.test
def cut_off(made):
    """every beginning of a file that ends with "..." changes nothing live"""
    text = text_for(made, made.now) + "...\n"
    made.xlb.apply(text)
    made.xlb.wait_converged()
    revision, before = made.xlb.status()["revision"], answers_for(made)
    load = netlab.new_connections(made, TARGETS["nat v4"], 100)
    # In between, where less would be valid, it is left as it is for longer.
    lines = {i for i, c in enumerate(text) if c == "\n"}
    for length in range(len(text) - 1):
        made.xlb.file.write_text(text[:length])
        netlab.settle(0.3 if length in lines and length % 5 == 0 else 0.002)
    wait_for(lambda: "looks cut off" in str(made.xlb.status()["file"]), "the cut to be told", 30)
    assert made.xlb.status()["revision"] == revision
    assert answers_for(made) == before and any(before[0])
    rows = made.xlb.query("SELECT DISTINCT result FROM revisions WHERE id > ?", revision)
    assert [row["result"] for row in rows] == ["invalid"], rows
    made.xlb.file.write_text(text)
    wait_for(lambda: made.xlb.verb("status", "--check").returncode == 0,
             "status to be well again", 30)
    check(load.stop(), "traffic around a file that is cut off")


def restart_on(made, path):
    """From now on it runs with that file."""
    assert made.xlb.stop() == 0
    made.xlb.file = Path(path)
    made.xlb.start()
    wait_for(lambda: made.xlb.alive() and serves(made, made.now), "it to run", 30)
    made.xlb.wait_converged()


@tap.test
def git_checkout(made):
    """git checkout of another branch"""
    folder = made.scratch / "repository"
    folder.mkdir()
    now, later = made.now, "b2" if made.now == "b1" else "b1"
    file = folder / "services.yaml"
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example", "-C", str(folder)]
    env = dict(os.environ, HOME=str(made.scratch), GIT_CONFIG_NOSYSTEM="1")

    def run(*words):
        subprocess.run([*git, *words], check=True, env=env, capture_output=True)

    run("init", "-q", "-b", "one")
    file.write_text(text_for(made, now))
    run("add", "."), run("commit", "-qm", "one"), run("checkout", "-qb", "two")
    file.write_text(text_for(made, later))
    run("commit", "-qam", "two"), run("checkout", "-q", "one")
    restart_on(made, file)
    run("checkout", "-q", "two")
    made.now = later
    applied(made, later, "git checkout")
    rows = recorded(made)
    head = subprocess.run([*git, "rev-parse", "HEAD"], env=env, capture_output=True, text=True)
    assert rows[-1]["git_revision"] in head.stdout and rows[-1]["git_revision"], rows
    run("checkout", "-q", "one")
    made.now = now
    applied(made, now, "git checkout back")


def folder_texts(made, name):
    """The same as text_for(), in three files."""
    top, *services = text_for(made, name).split("  - name: ")
    half = len(services) // 2
    head = "version: 1\nservices:\n"
    return {"00-node.yaml": top.replace("services:", "services: []"),
            "10-some.yaml": head + "".join("  - name: " + s for s in services[:half]),
            "20-more.yaml": head + "".join("  - name: " + s for s in services[half:])}


@tap.test
def folder_in_git(made):
    """a checkout that changes several files of a folder is one revision"""
    top = made.scratch / "fleet"
    place = top / "xlb"
    place.mkdir(parents=True)
    now, later = made.now, "b2" if made.now == "b1" else "b1"
    env = dict(os.environ, HOME=str(made.scratch), GIT_CONFIG_NOSYSTEM="1")

    def git(*words):
        return subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example", "-C",
                               str(top), *words], check=True, env=env, text=True,
                              capture_output=True).stdout.strip()

    def write(name):
        for file, text in folder_texts(made, name).items():
            (place / file).write_text(text)

    git("init", "-q", "-b", "one"), write(now), git("add", "."), git("commit", "-qm", "one")
    git("checkout", "-qb", "two"), write(later), git("commit", "-qam", "two")
    git("checkout", "-q", "one")
    restart_on(made, place)
    known = made.xlb.revisions()
    # As a checkout of many files does: one after the other, under the lock.
    (top / ".git" / "index.lock").touch()
    write(later)
    netlab.settle(0.3)
    assert made.xlb.revisions() == known, "it didn't wait for index.lock"
    write(now)
    (top / ".git" / "index.lock").unlink()
    git("checkout", "-q", "two")
    made.now = later
    wait_for(lambda: serves(made, later), "the checkout to be applied", 30)
    made.xlb.wait_converged()
    wait_for(lambda: last_revision(made)["git_revision"], "the commit to be recorded", 30)
    row = last_revision(made)
    assert row["git_revision"] == git("rev-parse", "HEAD") and not row["git_dirty"], row
    assert row["sha256"] == folder_hash(place), row
    assert made.xlb.revisions() == known + 1, made.xlb.query("SELECT * FROM revisions")
    # One of the files edited by hand, and not committed; it is the cause by line.
    lines = (place / "20-more.yaml").read_text().splitlines()
    line = max(i for i, text in enumerate(lines) if f"name: {later}," in text)
    lines[line] = lines[line].replace("}", ", weight: 7}")
    (place / "20-more.yaml").write_text("# by hand\n" + "\n".join(lines) + "\n")
    wait_for(lambda: made.xlb.revisions() == known + 2 and last_revision(made)["git_dirty"],
             "the edit to be recorded as dirty", 30)
    wait_for(lambda: made.xlb.query("SELECT file, line FROM change_history WHERE revision_id = ?"
                                    " AND file = ? AND line = ?", last_revision(made)["id"],
                                    str(place / "20-more.yaml"), line + 2),
             "the change to be recorded with its file and line", 30)


def last_revision(made):
    return made.xlb.query("SELECT * FROM revisions ORDER BY id DESC LIMIT 1")[0]


def folder_hash(place):
    """Of each file its name, a NUL byte, its length (8 bytes) and its bytes."""
    total = hashlib.sha256()
    for path in sorted(place.glob("*.yaml")):
        data = path.read_bytes()
        total.update(path.name.encode() + b"\0" + len(data).to_bytes(8, "little") + data)
    return total.hexdigest()


def said(made):
    return str((made.xlb.status() or {"file": ""})["file"])


@tap.test
def folder_mistakes(made):
    """names and blocks twice are refused with both places; a file renamed is no change"""
    place = made.xlb.file
    text = (place / "20-more.yaml").read_text()
    for extra, words in (
            (text, ["30-twice.yaml:", "20-more.yaml:", "duplicate service"]),
            ("version: 1\nnode: {resync: 5s}\n", ["30-twice.yaml:2:", "00-node.yaml:", '"node" stands at']),
            ("version: 2\n", ["30-twice.yaml:1:10"])):
        (place / "30-twice.yaml").write_text(extra)
        wait_for(lambda w=words: all(word in said(made) for word in w), f"{words} to be told", 30)
        assert serves(made, made.now)
    done = made.xlb.verb("check")
    assert done.returncode == 3 and "30-twice.yaml:1:10" in done.stdout + done.stderr, done
    (place / "30-twice.yaml").unlink()
    wait_for(lambda: made.xlb.verb("status", "--check").returncode == 0, "it to be well again", 30)
    known = made.xlb.revisions()
    os.rename(place / "20-more.yaml", place / "25-more.yaml")
    wait_for(lambda: made.xlb.revisions() == known + 1, "the new name to be recorded", 30)
    made.xlb.wait_converged()
    assert made.xlb.plan_is_empty() and serves(made, made.now)
    changes = made.xlb.query("SELECT * FROM change_history WHERE revision_id = ?",
                             last_revision(made)["id"])
    assert not changes, changes


@tap.test
def symlinks(made):
    """symlinks flipped: of the file, and of its folder"""
    folder = made.scratch / "flip"
    for name in ("b1", "b2"):
        (folder / f"of-{name}").mkdir(parents=True)
        (folder / f"of-{name}" / "services.yaml").write_text(text_for(made, name))
    (folder / "current").symlink_to(f"of-{made.now}")
    (folder / "services.yaml").symlink_to("current/services.yaml")
    restart_on(made, folder / "services.yaml")
    for link, target in (("current", "of-{}"), ("services.yaml", "of-{}/services.yaml")):
        name, _ = other(made)
        (folder / "new").symlink_to(target.format(name))
        os.rename(folder / "new", folder / link)
        applied(made, name, f"a flip of {link}")


def planned_ahead(made):
    return made.xlb.log.read_text(errors="replace").count("event=planned_ahead")


@tap.test
def folder(made):
    """a folder of files: one added, one removed"""
    place = made.scratch / "parts"
    place.mkdir()
    text = text_for(made, made.now)
    (place / "10-all.yaml").write_text(text)
    restart_on(made, place)
    mine = [b for b in made.backends if b.name == made.now]
    extra = "version: 1\nservices:\n" + netlab.service(
        "more", ["192.0.2.30"], "tcp", "{listen: 81, target: 8080}", "nat",
        [(b.name, b.addr4, b.addr6) for b in mine], ())
    server = mine[0].ns.start([netlab.BACKEND, "-n", mine[0].name, "-p", "8080"], log="more")
    before = planned_ahead(made)
    (place / "20-more.yaml").write_text(extra)
    wait_for(lambda: made.xlb.alive() and netlab.answers(made, "192.0.2.30:81").startswith("b"),
             "the added file to be applied", 30)
    (place / "20-more.yaml").unlink()
    wait_for(lambda: "192.0.2.30" not in made.lb.out(["ip", "address", "show", "uplink"]),
             "the removed file's service to go", 90)
    assert serves(made, made.now)
    # What else may belong to a save isn't waited for idly.
    assert planned_ahead(made) > before, "both saves were planned for after the wait"
    server.terminate()


def make():
    made = netlab.make(2, 20)
    made.now = "b1"
    made.xlb.write(text_for(made, "b1"))
    wait_for(lambda: serves(made, "b1"), "the first edit", 30)
    return made


lab.main(make)
