#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What each algorithm does with real connections: the spread it promises,
clients and datagrams that stay, and a change from one to another."""
import json

import netlab
import lab
import tap
from lab import wait_for
from netlab import check

lab.enter()
VIPS = ("192.0.2.10", "2001:db8::10")
WEIGHTS = {"b1": 1, "b2": 2, "b3": 3}
PICKING = ("round_robin", "weighted_round_robin", "random", "least_connections", "least_load")


def declare(made, algorithm, weights=None, extra=(), protocol="tcp", port=80, name="web"):
    weights = weights or {b.name: 1 for b in made.backends}
    entries = [(b.name, b.addr4, b.addr6, f"weight: {weights[b.name]}") for b in made.backends
               if b.name in weights]
    made.xlb.apply(netlab.HEADER
                   + netlab.service(name, VIPS, protocol, port, "nat", entries,
                                    (f"algorithm: {algorithm}", *extra)))


def spread(made, count=1200, *more):
    done = made.client.run([netlab.LOAD, "--to", "192.0.2.10:80", "--rate", "1500", "--count",
                            count, "--from", "192.0.2.101-192.0.2.119", *more], check=False)
    summary = check(json.loads(done.stdout.splitlines()[-1]), "connections")
    return summary["backends"]


def shares(backends):
    total = sum(backends.values())
    return {name: n / total for name, n in backends.items()}


def near(found, wanted, slack):
    total = sum(wanted.values())
    for name, weight in wanted.items():
        assert abs(found.get(name, 0) - weight / total) <= slack, (found, wanted)


@tap.test
def turns(made):
    """round_robin gives each its turn, whatever its weight"""
    declare(made, "round_robin", WEIGHTS)
    found = spread(made)
    tap.note(found)
    # Every CPU walks the schedule by itself; that is the slack.
    assert max(found.values()) - min(found.values()) <= 30, found


@tap.test
def weighted_turns(made):
    """weighted_round_robin gives turns by weight"""
    declare(made, "weighted_round_robin", WEIGHTS)
    found = shares(spread(made))
    tap.note(found)
    near(found, WEIGHTS, 0.02)


@tap.test
def hashed(made):
    """maglev and random follow the weights, as far as chance lets them"""
    for algorithm in ("maglev", "random"):
        declare(made, algorithm, WEIGHTS)
        found = shares(spread(made, 2400))
        tap.note(f"{algorithm}: {found}")
        near(found, WEIGHTS, 0.06)  # 5 standard deviations of 2400 draws


@tap.test
def client_stays(made):
    """source_hash: a client has one backend, and keeps it when others join"""
    first = {b.name: 1 for b in made.backends[:2]}
    declare(made, "source_hash", first, ("affinity: {timeout: 60s}",))

    def servers():
        found = {}
        for i in range(101, 119):
            names = {made.client.curl(f"http://{t}/", "--interface", s).strip().split()[0]
                     for t, s in (("192.0.2.10", f"192.0.2.{i}"),) for _ in range(3)}
            assert len(names) == 1, (i, names)
            found[i] = names.pop()
        return found

    before = servers()
    assert set(before.values()) == set(first), before
    declare(made, "source_hash", None, ("affinity: {timeout: 60s}",))
    assert servers() == before
    declare(made, "source_hash", {b.name: 1 for b in made.backends[1:]},
            ("affinity: {timeout: 60s}",))
    after = servers()
    assert "b1" not in after.values(), after
    for client, name in before.items():
        assert name == "b1" or after[client] == name, (client, before, after)


@tap.test
def least(made):
    """least_connections gives new connections to those that hold few"""
    declare(made, "least_connections", {"b1": 1})
    held = netlab.Load(made, "--mode", "keep", "--to", "192.0.2.10:80", "--connections", "300",
                       "--interval", "0.5", "--rate", "300", "--duration", "600",
                       "--from", "192.0.2.101-192.0.2.119", name="held-by-b1")
    wait_for(lambda: any(line.get("open") == 300 for line in held.lines()), "300 connections")
    declare(made, "least_connections")
    more = netlab.Load(made, "--mode", "keep", "--to", "192.0.2.10:80", "--connections", "300",
                       "--interval", "0.5", "--rate", "300", "--duration", "600",
                       "--from", "192.0.2.101-192.0.2.119", name="held-by-others")
    wait_for(lambda: any(line.get("open") == 300 for line in more.lines()), "300 more")
    more.wait_answers(600)
    summary = check(more.stop(), "the later ones")
    tap.note(summary["backends"])
    found = shares(summary["backends"])
    # Two random choices of three: b1 is chosen only against itself, 1 in 9.
    assert found.get("b1", 0) < 0.2, found
    assert min(found["b2"], found["b3"]) > 0.3, found
    assert check(held.stop(), "the first ones")["connections"]["broken"] == 0


@tap.test
def live_change(made):
    """from each algorithm to the next, connections are held"""
    declare(made, "maglev")
    held = netlab.Load(made, "--mode", "keep", "--to", "192.0.2.10:80", "--to",
                       "[2001:db8::10]:80", "--connections", "200", "--interval", "0.3",
                       "--rate", "400", "--duration", "600", "--from", "192.0.2.101-192.0.2.119",
                       "--from", "2001:db8::101-2001:db8::113", name="held")
    wait_for(lambda: any(line.get("open") == 200 for line in held.lines()), "200 connections")
    for algorithm in ("round_robin", "source_hash", "least_connections", "maglev", "random",
                      "weighted_round_robin", "least_load", "maglev"):
        declare(made, algorithm)
        held.wait_answers(200)
    summary = check(held.stop(), "held")
    assert summary["connections"]["held_max"] == 200, summary
    assert summary["connections"]["broken"] == 0, summary


def udp_keep(made, count=100):
    load = netlab.Load(made, "--mode", "udp-keep", "--to", "192.0.2.10:9000", "--connections",
                       count, "--interval", "0.2", "--rate", "500", "--duration", "600",
                       name="udp-keep")
    load.wait_answers(3 * count)
    return load


@tap.test
def sticky(made):
    """udp: sticky keeps a flow's backend when others join; stateless follows the table"""
    for mode in ("sticky", "stateless"):
        declare(made, "maglev", {"b1": 1}, (f"udp: {mode}",), "udp", 9000, mode)
        load = udp_keep(made)
        declare(made, "maglev", None, (f"udp: {mode}",), "udp", 9000, mode)
        load.wait_answers(1000)
        summary = check(load.stop(), mode)
        tap.note(f"{mode}: {summary['backends']}")
        if mode == "sticky":
            assert set(summary["backends"]) == {"b1"}, summary
        else:
            assert set(summary["backends"]) == {"b1", "b2", "b3"}, summary


lab.main(netlab.make)
