#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The reconciler is killed and started again while traffic flows."""
import json

import netlab
import lab
import tap
from lab import wait_for
from netlab import TARGETS, Download, check

lab.enter()
PAGE = 4096


def dump(made, pin):
    text = made.lb.out(["bpftool", "-j", "map", "dump", "pinned", made.xlb.bpffs / pin])
    return json.loads(text)


def maps(made):
    """Contents of what the packets are forwarded by, but for the clock and
    what merely counts."""
    pins = ["slots", "replies", "services", "owners", "direct", "addresses"]
    found = {pin: dump(made, pin) for pin in pins}
    words = dump(made, "tables")[0]["value"]
    found["tables"] = bytes(int(w, 16) for w in words[PAGE:])  # behind the control page
    return found


def traffic(made):
    if made.xlb.process.poll() is not None:  # an earlier test failed
        made.xlb.start()
        made.xlb.wait_converged()
    held = {n: netlab.held_connections(made, t, 50) for n, t in TARGETS.items()}
    fresh = {n: netlab.new_connections(made, t, 100) for n, t in TARGETS.items()}
    return held, fresh


def check_all(held, fresh):
    for name, load in fresh.items():
        load.wait_answers(100)
        check(load.stop(), f"new, {name}")
    for name, load in held.items():
        load.wait_answers(50)
        summary = check(load.stop(), f"held, {name}")
        assert summary["connections"]["broken"] == 0, summary


@tap.test
def killed(made):
    """kill -9 loses no packet's connection, restart converges on nothing"""
    held, fresh = traffic(made)
    download = Download(made, TARGETS["nat v4"])
    wait_for(lambda: download.received() > netlab.MEGABYTE, "the first MB")
    before = maps(made)
    made.xlb.kill9()
    for load in fresh.values():
        load.wait_answers(100)
    done = made.xlb.verb("plan", "--detailed-exitcode")
    assert done.returncode == 0, "without a daemon: " + done.stdout + done.stderr
    made.xlb.start()
    made.xlb.wait_converged()
    assert download.under_way()
    after = maps(made)
    for pin, content in before.items():
        assert content == after[pin], f"{pin} was written again"
    download.finish()
    check_all(held, fresh)


@tap.test
def stopped(made):
    """SIGTERM ends with 0 and stops no packet"""
    held, fresh = traffic(made)
    assert made.xlb.stop() == 0
    for load in fresh.values():
        load.wait_answers(100)
    made.xlb.start()
    made.xlb.wait_converged()
    check_all(held, fresh)


@tap.test
def killed_often(made):
    """killed again and again, at any moment, it comes to the same end"""
    held, fresh = traffic(made)
    before = maps(made)
    for i in range(200 if netlab.SOAK else 8):
        made.xlb.kill9()
        made.xlb.start()
        netlab.settle(0.02 * i)
    made.xlb.wait_converged()
    after = maps(made)
    for pin, content in before.items():
        assert content == after[pin], f"{pin} is different"
    check_all(held, fresh)


@tap.test
def edited_meanwhile(made):
    """what was edited while it was dead is applied when it starts"""
    held, fresh = traffic(made)
    made.xlb.kill9()
    netlab.serve(made.add_backend("b4"))
    made.xlb.write(netlab.services(made.backends))
    done = made.xlb.verb("plan", "--detailed-exitcode")
    assert done.returncode == 2 and "b4" in done.stdout, done.stdout + done.stderr
    made.xlb.start()
    wait_for(lambda: any(netlab.answers(made, TARGETS["nat v4"]).startswith("b4")
                         for _ in range(5)), "the new backend to serve", 30)
    made.xlb.wait_converged()
    check_all(held, fresh)


@tap.test
def second(made):
    """a second reconciler is refused and says who holds the lock"""
    if made.xlb.process.poll() is not None:
        made.xlb.start()
        made.xlb.wait_converged()
    done = made.xlb.verb("run", "--once")
    assert done.returncode == 1, done.stdout + done.stderr
    assert str(made.xlb.process.pid) in done.stdout + done.stderr, done.stdout + done.stderr
    made.xlb.alive()


@tap.test
def drift(made):
    """the address, the tc filter and the sysctl taken away are put back"""
    held, fresh = traffic(made)
    made.lb.ip("address del 192.0.2.20/32 dev uplink")
    wait_for(lambda: "192.0.2.20/32" in made.lb.out(["ip", "address", "show", "uplink"]),
             "the VIP to come back", 30)
    made.xlb.wait_converged()
    for load in [*held.values(), *fresh.values()]:
        load.stop()
    netlab.wait_serving(made)


@tap.test
def destroyed(made):
    """destroy says what it would remove, and removes all of it"""
    made.xlb.stop()
    done = made.xlb.verb("destroy", "--dry-run")
    assert done.returncode == 0 and "- service.web " in done.stdout, done.stdout + done.stderr
    assert list(made.xlb.bpffs.iterdir())
    done = made.xlb.verb("destroy", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not made.xlb.bpffs.exists() or not list(made.xlb.bpffs.iterdir())
    assert "192.0.2.10" not in made.lb.out(["ip", "address", "show", "uplink"])
    links = json.loads(made.lb.out(["ip", "-j", "-d", "link", "show", "uplink"]))
    assert "xdp" not in links[0], links
    assert "bpf" not in made.lb.out(["tc", "filter", "show", "dev", "br0", "ingress"])


lab.main(netlab.make)
