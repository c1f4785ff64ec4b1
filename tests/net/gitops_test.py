#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""examples/gitops from end to end: a bare repository, a developer's clone with
the hook, CI's script, and on the balancer (a machine with systemd) the timer
that pulls and the service that follows; with traffic."""
import json

import netlab
import lab
import systemd
import tap
from lab import wait_for
from netlab import TARGETS, check

lab.enter()
EXAMPLE = "/usr/share/doc/xlb/examples/gitops"
INVALID = 3
NODE = """version: 1
node:
  interfaces: [uplink]
  direct_clients: [192.0.2.200/32, "2001:db8::200/128"]
  resync: 2s
"""


def files_for(backends):
    """services/: the node, and two files of services over the backends."""
    text = netlab.services(backends)
    blocks = text[text.index("services:\n") + len("services:\n"):].split("  - name: ")[1:]
    split = [blocks[:2], blocks[2:]]
    return {"00-node.yaml": NODE,
            **{f"{name}.yaml": "version: 1\nservices:\n" + "".join(f"  - name: {b}" for b in part)
               for name, part in zip(("nat", "dsr"), split)}}


class Clone:
    """The developer's, with the example's content."""

    def __init__(self, made):
        self.made = made

    def git(self, *words, check=True):
        done = self.made.sd.run("env", "HOME=/root", "git", "-C", "/home/dev", "-c", "user.name=dev",
                                "-c", "user.email=dev@xlb.test", *words)
        assert not check or done.returncode == 0, (words, done.stdout, done.stderr)
        return done

    def write(self, files):
        for name, text in files.items():
            (self.made.sd.root / "home/dev/services" / name).write_text(text)

    def commit(self, message, *words, check=True):
        self.git("add", "-A")
        return self.git("commit", "-q", "-m", message, *words, check=check)

    def push(self):
        self.git("push", "-q", "origin", "main")
        return self.git("rev-parse", "HEAD").stdout.strip()

    def ci(self, *words):
        return self.made.sd.run("/home/dev/ci/check.sh", *words)


def make():
    made = lab.Lab(client_addresses=20)
    for i in range(2):
        netlab.serve(made.add_backend(f"b{i + 1}"))
    made.sd = systemd.Systemd(made)
    made.sd.install()
    (made.sd.root / "etc/gitconfig").write_text("[init]\n\tdefaultBranch = main\n")
    made.sd.start()
    made.clone = Clone(made)
    return made


def sh(made, script):
    return made.sd.run("sh", "-ec", script, check=True).stdout


def revision(made, commit):
    """The rows of the history that came of this commit."""
    return made.xlb.query("SELECT * FROM revisions WHERE git_revision = ?", commit)


def wait_result(made, commit, result):
    wait_for(lambda: any(r["result"] == result for r in revision(made, commit)),
             f"{commit[:12]} to be {result}", 60, 0.1)
    rows = revision(made, commit)
    assert len(rows) == 1, f"one commit, one revision: {rows}"
    assert not rows[0]["git_dirty"], rows
    return rows[0]


def serves(made, *names):
    found = set()
    for _ in range(40):
        found.add(netlab.answers(made, TARGETS["nat v4"]).split()[0])
        if found >= set(names):
            break
    return found == set(names)


@tap.test
def example_is_valid(made):
    """the example as it is shipped passes its own CI script, from where it is installed"""
    done = made.sd.run(f"{EXAMPLE}/ci/check.sh")
    assert done.returncode == 0 and "is valid: 2 services" in done.stdout, done.stdout + done.stderr


@tap.test
def set_up(made):
    """the README's steps: a repository, a clone, the balancer's work tree, timer and service"""
    sh(made, f"""
        mkdir -p /srv /home
        git init -q --bare /srv/xlb.git
        cp -r {EXAMPLE} /home/dev
        cd /home/dev && git init -q && git config core.hooksPath hooks
        git remote add origin /srv/xlb.git""")
    made.clone.write(files_for(made.backends[:1]))
    sh(made, "rm /home/dev/services/web.yaml /home/dev/services/dns.yaml")
    made.clone.commit("the first")
    made.clone.git("push", "-q", "-u", "origin", "main")
    sh(made, """
        git clone -q /srv/xlb.git /srv/xlb
        echo 'XLB_OPTIONS="-f /srv/xlb/services"' >/etc/default/xlb
        install -m 755 /srv/xlb/host/pull.sh /usr/local/sbin/xlb-pull
        install -m 644 /srv/xlb/host/xlb-pull.service /srv/xlb/host/xlb-pull.timer /etc/systemd/system
        mkdir /etc/systemd/system/xlb-pull.timer.d
        # The test doesn't wait for half a minute.
        printf '[Timer]\\nOnActiveSec=\\nOnActiveSec=0\\nOnUnitInactiveSec=1s\\nAccuracySec=100ms\\n' \
            >/etc/systemd/system/xlb-pull.timer.d/test.conf
        systemctl daemon-reload
        systemctl start xlb-reconcile""")
    made.xlb = systemd.Installed(made.sd, "")
    made.xlb.file.unlink()
    made.xlb.options = ["-f", "/srv/xlb/services"]
    first = made.clone.git("rev-parse", "HEAD").stdout.strip()
    wait_result(made, first, "applied")
    netlab.wait_serving(made)
    made.sd.run("systemctl", "start", "xlb-pull.timer", check=True)


@tap.test
def pushed(made):
    """commit, push, pull: two files at once are one revision, with the commit's name"""
    load = netlab.new_connections(made, TARGETS["nat v4"], 100)
    made.clone.write(files_for(made.backends))
    made.clone.commit("b2 joins, for nat and dsr")
    done = made.clone.ci("--plan", "/tmp/plan.json")
    assert done.returncode == 0, done.stdout + done.stderr
    plan = json.loads((sh(made, "cat /tmp/plan.json")))
    added = {c["object"] for c in plan["changes"] if "b2" in c["object"]}
    assert "service.web/backend/b2" in added and "service.web-dsr/backend/b2" in added, plan
    assert not revision(made, made.clone.git("rev-parse", "HEAD").stdout.strip())
    made.joined = made.clone.push()
    wait_result(made, made.joined, "applied")
    wait_for(lambda: serves(made, "b1", "b2"), "the new backend to serve", 30)
    made.xlb.wait_converged()
    check(load.stop(), "traffic around a pull")
    assert made.joined[:12] in made.xlb.verb("history", "--kind", "revision").stdout


@tap.test
def refused(made):
    """a bad commit: refused by the hook, by CI, and by the daemon, which goes on with the last good one"""
    bad = {n: t.replace("drain: 60s", "drian: 60s") for n, t in files_for(made.backends).items()}
    made.clone.write(bad)
    done = made.clone.commit("a slip", check=False)
    assert done.returncode != 0 and 'did you mean "drain"' in done.stderr, done.stderr
    assert made.clone.git("rev-parse", "HEAD").stdout.strip() == made.joined
    made.clone.commit("a slip, in a hurry", "--no-verify")
    done = made.clone.ci("--plan", "/tmp/plan.json")
    assert done.returncode == INVALID and 'did you mean "drain"' in done.stderr, done.stderr
    load = netlab.new_connections(made, TARGETS["nat v4"], 100)
    made.bad = made.clone.push()
    wait_result(made, made.bad, "invalid")
    assert made.xlb.verb("status", "--check").returncode == 1
    assert serves(made, "b1", "b2")
    load.wait_answers(100)
    check(load.stop(), "traffic around a bad commit")


@tap.test
def reverted(made):
    """git revert takes the bad commit back, and then the good one"""
    made.clone.git("revert", "--no-edit", made.bad)
    now = made.clone.push()
    # The content of what runs: back to it, nothing to apply.
    wait_for(lambda: made.xlb.verb("status", "--check").returncode == 0, "status to be well", 60, 0.1)
    assert serves(made, "b1", "b2")
    load = netlab.new_connections(made, TARGETS["nat v4"], 100)
    made.clone.git("revert", "--no-edit", made.joined)
    now = made.clone.push()
    wait_result(made, now, "applied")
    wait_for(lambda: serves(made, "b1"), "b2 to get nothing new", 60)
    check(load.stop(), "traffic around a revert")


@tap.test
def in_the_way(made):
    """an edit on the balancer is applied, told as dirty, and no pull overwrites it"""
    path = made.sd.root / "srv/xlb/services/nat.yaml"
    path.write_text(path.read_text().replace("drain: 60s", "drain: 50s"))
    wait_for(lambda: made.xlb.query("SELECT * FROM revisions WHERE git_dirty AND result = 'applied'"),
             "the edit to be applied", 60, 0.1)
    made.clone.write(files_for(made.backends))
    made.clone.commit("touches the same file")
    wanted = made.clone.push()
    wait_for(lambda: made.sd.show("xlb-pull.service", "Result") == "exit-code", "the pull to fail", 60, 0.1)
    assert "drain: 50s" in path.read_text() and not revision(made, wanted)
    sh(made, "git -C /srv/xlb checkout -q .")
    wait_result(made, wanted, "applied")
    wait_for(lambda: made.sd.show("xlb-pull.service", "Result") == "success", "pulls to be well", 60, 0.1)


@tap.test
def stopped(made):
    """all of it ends"""
    made.sd.run("systemctl", "stop", "xlb-pull.timer", "xlb-pull.service", check=True)
    made.xlb.stop()
    done = made.xlb.verb("destroy", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr


lab.main(make)
