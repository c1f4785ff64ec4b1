#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab and the load generator, by plain routing: what the other tests
believe when they measure."""
import json

import netlab
import lab
import tap
from lab import wait_for

lab.enter()


def load(made, *options):
    done = made.client.run([netlab.LOAD, *options], check=False)
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


def targets(made, port=80):
    return [w for b in made.backends for a in (b.addr4, f"[{b.addr6}]")
            for w in ("--to", f"{a}:{port}")]


@tap.test
def new_connections(made):
    """new connections are counted, and who answered"""
    status, summary = load(made, *targets(made), "--rate", "1000", "--count", "400")
    assert status == 0 and summary["answers"] == summary["requests"] == 400, summary
    assert summary["backends"] == {"b1": 200, "b2": 200}, summary
    assert summary["connections"]["opened"] == 400, summary
    assert 0 < summary["latency_ms"]["p50"] <= summary["latency_ms"]["p99"], summary


@tap.test
def other_server(made):
    """a server that ends its answer by closing is understood"""
    made.backends[0].ns.start(["python3", "-m", "http.server", "8000", "--bind", "::",
                               "--directory", made.scratch / "ns"], log="other")
    wait_for(lambda: made.client.run(["curl", "-sfo", "/dev/null", "http://10.77.0.11:8000/"],
                                     check=False).returncode == 0, "python's server")
    status, summary = load(made, "--to", "10.77.0.11:8000", "--rate", "100", "--count", "20")
    assert status == 0 and summary["answers"] == 20, summary


@tap.test
def failures(made):
    """each way to fail has its name"""
    for options, kind in (
            (("--to", "10.77.0.11:81"), "refused"),
            (("--to", "10.77.0.99:80", "--timeout", "0.3"), "timeout"),
            (("--to", "10.77.0.11:80", "--path", "/nothing"), "status"),
            (("--to", "10.77.0.11:80", "--slow", "2000", "--timeout", "0.2"), "timeout"),
            (("--to", "10.77.0.11:9001", "--mode", "udp"), "refused")):
        status, summary = load(made, *options, "--count", "3", "--rate", "100")
        assert status == 1 and summary["failures"] == {kind: 3}, (options, summary)


@tap.test
def downloads(made):
    """bytes are counted to the last"""
    status, summary = load(made, "--to", "10.77.0.11:80", "--bytes", "12345678", "--count", "3")
    assert status == 0 and summary["bytes"] == 3 * 12345678, summary


@tap.test
def datagrams(made):
    """datagrams come back, large ones too"""
    for size in ("4", "1000", "3000"):
        status, summary = load(made, *targets(made, 9000), "--mode", "udp", "--rate", "500",
                               "--count", "100", "--bytes", size)
        assert status == 0 and summary["backends"] == {"b1": 50, "b2": 50}, summary


@tap.test
def held(made):
    """held connections that break are counted as broken"""
    victim = made.backends[1]
    running = netlab.Load(made, *targets(made), "--mode", "keep", "--connections", "40",
                          "--rate", "400", "--interval", "0.1", "--duration", "60")
    wait_for(lambda: any(line["open"] == 40 for line in running.lines()), "40 connections")
    victim.server.kill()
    wait_for(lambda: any(line["open"] == 20 for line in running.lines()), "half of them to break")
    summary = running.stop()
    assert summary["connections"]["held_max"] == 40, summary
    assert summary["connections"]["broken"] == summary["failed"] == 20, summary
    netlab.serve(victim)


@tap.test
def rate_changed(made):
    """the rate follows its file"""
    control = made.scratch / "rate"
    control.write_text("20\n")
    running = netlab.Load(made, "--to", "10.77.0.11:80", "--control", control)
    wait_for(lambda: any(line["rate"] == 20 for line in running.lines()), "20 a second")
    control.write_text("high\n")
    wait_for(lambda: any(line["rate"] == 500 and line["answers"] > 300
                         for line in running.lines()), "500 a second")
    control.write_text("0\n")
    wait_for(lambda: running.lines()[-1]["answers"] == 0, "no more")
    assert running.stop()["failed"] == 0


@tap.test
def sources(made):
    """source addresses are taken in turn"""
    seen = set()
    for _ in range(3):
        text = made.client.curl("http://10.77.0.11/echo", "--interface", "192.0.2.103")
        seen.add(text.split()[2])
    assert seen == {"192.0.2.103"}, seen
    status, summary = load(made, *targets(made), "--from", "192.0.2.101-192.0.2.105",
                           "--from", "2001:db8::101-2001:db8::105", "--rate", "500",
                           "--count", "50")
    assert status == 0, summary


@tap.test
def bounds(made):
    """a load without end is refused"""
    done = made.client.run([netlab.LOAD, "--to", "10.77.0.11:80", "--duration", "0"], check=False)
    assert done.returncode == 64, done


def make():
    made = lab.Lab(client_addresses=20)
    made.forward()
    for name in ("b1", "b2"):
        netlab.serve(made.add_backend(name))
    for backend in made.backends:
        wait_for(lambda b=backend: netlab.answers(made, b.addr4).startswith(b.name), "a server")
    return made


lab.main(make)
