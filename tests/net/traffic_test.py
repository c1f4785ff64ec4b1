#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Real clients reach real servers through native XDP, and what isn't for a
service is left alone."""
import json

import netlab
import lab
import tap
from netlab import TARGETS, check

lab.enter()


def udp(made, target, *options):
    done = made.client.run([netlab.LOAD, "--to", f"{target}:9000", "--mode", "udp", *options],
                           check=False)
    return json.loads(done.stdout.splitlines()[-1])


@tap.test
def native(made):
    """the program is attached natively to the uplink, by a pinned link"""
    links = json.loads(made.lb.out(["ip", "-j", "-d", "link", "show", "uplink"]))
    assert links[0]["xdp"]["mode"] == 1, links  # 1: driver
    assert (made.xlb.bpffs / "link_uplink").exists()


@tap.test
def names(made):
    """tcp reaches every backend, nat and dsr, v4 and v6"""
    for name, target in TARGETS.items():
        done = made.client.run([netlab.LOAD, "--to", f"{target}:80", "--rate", "500",
                                "--count", "600"], check=False)
        summary = check(json.loads(done.stdout.splitlines()[-1]), name)
        assert set(summary["backends"]) == {"b1", "b2", "b3"}, summary
        # Maglev gives each a third of the slots; flows are random.
        assert min(summary["backends"].values()) > 120, summary


@tap.test
def datagrams(made):
    """udp reaches every backend, nat and dsr, v4 and v6"""
    for name, target in TARGETS.items():
        summary = check(udp(made, target, "--rate", "500", "--count", "600", "--bytes", "100"),
                        name)
        assert set(summary["backends"]) == {"b1", "b2", "b3"}, summary


@tap.test
def source_kept(made):
    """the server sees the client's address"""
    for target, address in (("192.0.2.10", "192.0.2.105"), ("[2001:db8::10]", "2001:db8::105"),
                            ("192.0.2.20", "192.0.2.105"), ("[2001:db8::20]", "2001:db8::105")):
        text = made.client.curl(f"http://{target}/echo", "--interface", address)
        assert address in text, text


@tap.test
def uploads(made):
    """a 10 MB upload and a 100 MB download come through whole"""
    body = made.scratch / "upload"
    body.write_bytes(b"x" * 10 * netlab.MEGABYTE)
    for target in TARGETS.values():
        text = made.client.curl(f"http://{target}/", "--data-binary", f"@{body}", "-H", "Expect:")
        assert text.startswith("b"), text
        size = made.client.curl(f"http://{target}/bytes/100000000", "-o", "/dev/null",
                                "-w", "%{size_download}", timeout=60)
        assert size == "100000000", size


@tap.test
def fragmented_answers(made):
    """3000-byte datagrams, fragmented both ways, come back from the VIP"""
    # The requests are fragmented too: the later ones, which have no ports,
    # follow their first one, or are counted as dropped.
    summary = udp(made, "192.0.2.10", "--rate", "50", "--count", "50", "--bytes", "3000",
                  "--timeout", "2")
    if summary["answers"] == 0:
        drops = made.xlb.verb("status").stdout
        raise tap.Skip("fragmented requests are dropped, and counted: "
                       + " ".join(w for w in drops.split() if "fragment" in w))
    check(summary, "fragments")


@tap.test
def probes(made):
    """this host reaches the backends themselves, port and all"""
    for backend in made.backends:
        for address in (backend.addr4, f"[{backend.addr6}]"):
            assert made.lb.curl(f"http://{address}/") .startswith(backend.name)


@tap.test
def direct(made):
    """direct clients reach nat backends at their own addresses"""
    for backend in made.backends:
        for address, source in ((backend.addr4, "192.0.2.200"),
                                (f"[{backend.addr6}]", "2001:db8::200")):
            text = made.client.curl(f"http://{address}/", "--interface", source)
            assert text.startswith(backend.name), text


@tap.test
def direct_and_through(made):
    """a client at an address that isn't direct still reaches the VIP"""
    text = made.client.curl("http://192.0.2.10/", "--interface", "192.0.2.105")
    assert text.startswith("b"), text


@tap.test
def between_backends(made):
    """backends reach each other and the outside"""
    one, two, _ = made.backends
    assert one.ns.curl(f"http://{two.addr4}/").startswith(two.name)
    assert one.ns.curl(f"http://[{two.addr6}]/").startswith(two.name)
    made.client.start(["python3", "-m", "http.server", "8000", "--bind", "::", "--directory",
                       made.scratch / "ns"], log="outside")
    for address in (lab.CLIENT4, f"[{lab.CLIENT6}]"):
        ask = ["curl", "-sf", "-g", "-m", "3", "-o", "/dev/null", f"http://{address}:8000/"]
        lab.wait_for(lambda a=ask: one.ns.run(a, check=False).returncode == 0,
                     "the outside to answer")


@tap.test
def others(made):
    """what is for this host itself passes untouched"""
    made.client.run(["busybox", "ping", "-c", "3", "-W", "2", "192.0.2.1"])
    made.client.run(["busybox", "ping", "-c", "3", "-W", "2", "2001:db8::1"])
    made.lb.start(["python3", "-m", "http.server", "8001", "--bind", "::", "--directory",
                   made.scratch / "ns"], log="host")
    for address in ("192.0.2.1", "[2001:db8::1]", "192.0.2.10"):
        lab.wait_for(lambda a=address: made.client.run(
            ["curl", "-sf", "-g", "-m", "3", "-o", "/dev/null", f"http://{a}:8001/"], check=False
            ).returncode == 0, f"this host's own server at {address}")


@tap.test
def dead_server(made):
    """a backend whose port refuses leaves at once, and comes back"""
    victim = made.backends[0]
    load = netlab.held_connections(made, TARGETS["nat v4"], 30)
    victim.server.terminate()
    victim.server.wait()

    def gone():
        done = made.client.run([netlab.LOAD, "--to", "192.0.2.10:80", "--rate", "500",
                                "--count", "100", "--timeout", "1"], check=False)
        summary = json.loads(done.stdout.splitlines()[-1])
        return summary["failed"] == 0 and victim.name not in summary["backends"]

    lab.wait_for(gone, "the dead backend to leave the tables", 30)
    netlab.serve(victim)

    def back():
        return any(netlab.answers(made, TARGETS["nat v4"]).startswith(victim.name)
                   for _ in range(20))

    lab.wait_for(back, "the backend to be admitted again", 30)
    summary = load.stop()
    assert set(summary["failures"]) <= {"reset", "closed", "refused"}, summary
    # Only those of the dead one: the other two held theirs.
    assert 0 < summary["connections"]["broken"] < 25, summary
    rows = made.xlb.query("SELECT * FROM health_history WHERE backend = ?", victim.name)
    assert len(rows) >= 2, rows
    assert all(row["reason"] for row in rows), rows


@tap.test
def idle_plan(made):
    """after all this the plan is empty"""
    made.xlb.wait_converged()


def make():
    made = netlab.make()
    made.forward()  # this host is also a router, for direct clients
    return made


lab.main(make)
