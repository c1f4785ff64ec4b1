#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Backends are added, removed and drained during downloads of 100 MB and with
200 connections held, through nat and dsr, v4 and v6: nothing breaks."""
import netlab
import lab
import tap
from lab import wait_for
from netlab import TARGETS, Download, check

lab.enter()
HELD = 50  # by each of the four ways in


class Traffic:
    """All of it, around one change."""

    def __init__(self, made):
        self.made = made
        self.held = {n: netlab.held_connections(made, t, HELD) for n, t in TARGETS.items()}
        self.fresh = {n: netlab.new_connections(made, t, 50) for n, t in TARGETS.items()}
        self.downloads = {n: Download(made, t) for n, t in TARGETS.items()}
        for name, download in self.downloads.items():
            wait_for(lambda d=download: d.received() > netlab.MEGABYTE, f"{name}: the first MB")

    def servers(self):
        """Who serves the downloads."""
        return [d.backend() for d in self.downloads.values()]

    def still_under_way(self):
        for name, download in self.downloads.items():
            assert download.under_way(), f"{name}: the download was over before the change was"

    def finish(self):
        for name, load in self.held.items():
            load.wait_answers(HELD)
        for name, download in self.downloads.items():
            download.finish()
        for name, load in self.held.items():
            summary = check(load.stop(), f"held, {name}")
            assert summary["connections"]["held_max"] == HELD, summary
            assert summary["connections"]["broken"] == 0, summary
        return {n: check(load.stop(), f"new, {n}") for n, load in self.fresh.items()}


def current(made, *without):
    return [b for b in made.backends if b.name not in without]


@tap.test
def add(made):
    """a backend is added"""
    traffic = Traffic(made)
    netlab.serve(made.add_backend("b4"))
    made.xlb.write(netlab.services(made.backends))
    wait_for(lambda: any(netlab.answers(made, TARGETS["nat v4"]).startswith("b4")
                         for _ in range(5)), "the new backend to serve", 30)
    traffic.still_under_way()
    summaries = traffic.finish()
    for name, summary in summaries.items():
        assert "b4" in summary["backends"], (name, summary)
    made.xlb.wait_converged()


@tap.test
def remove(made):
    """a backend that serves downloads is removed from the file"""
    traffic = Traffic(made)
    victim = traffic.servers()[0]
    made.xlb.write(netlab.services(current(made, victim)))
    wait_for(lambda: not any(netlab.answers(made, t).startswith(victim)
                             for t in TARGETS.values() for _ in range(10)),
             f"{victim} to get no new connections", 30)
    traffic.still_under_way()
    traffic.finish()


@tap.test
def put_back(made):
    """it is put back while it drains"""
    traffic = Traffic(made)
    made.xlb.write(netlab.services(made.backends))
    wait_for(lambda: made.xlb.plan_is_empty(), "an empty plan", 60, 0.2)
    traffic.still_under_way()
    traffic.finish()


@tap.test
def drain(made):
    """a backend that serves downloads is drained by the operator"""
    traffic = Traffic(made)
    victim = traffic.servers()[0]
    for service in ("web", "web-dsr"):
        done = made.xlb.verb("drain", f"{service}/{victim}")
        assert done.returncode == 0, done.stdout + done.stderr
    wait_for(lambda: not any(netlab.answers(made, t).startswith(victim)
                             for t in TARGETS.values() for _ in range(10)),
             f"{victim} to get no new connections", 30)
    traffic.still_under_way()
    traffic.finish()
    rows = made.xlb.query("SELECT * FROM change_history WHERE object LIKE ?", f"%/{victim}")
    assert rows, "the drain isn't in change_history"
    for service in ("web", "web-dsr"):
        done = made.xlb.verb("undrain", f"{service}/{victim}")
        assert done.returncode == 0, done.stdout + done.stderr


@tap.test
def weight(made):
    """a weight is changed"""
    traffic = Traffic(made)
    entries = [(b.name, b.addr4, b.addr6) for b in made.backends]
    entries[0] += ("weight: 3",)
    made.xlb.write(netlab.services(entries))
    wait_for(lambda: made.xlb.plan_is_empty(), "an empty plan", 60, 0.2)
    traffic.still_under_way()
    traffic.finish()


lab.main(netlab.make)
