#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The same services by native XDP, generic XDP and tc, by several interfaces,
and from one to the other while connections are held."""
import json

import netlab
import lab
import tap
from lab import wait_for
from netlab import TARGETS, check

lab.enter()
HELD = 50
UPLINK2 = ("198.51.100.1", "198.51.100.100")


def text(made, hook, *more):
    interfaces = ", ".join([f"{{name: uplink, hook: {hook}}}"] + list(more))
    return netlab.services(made.backends).replace("interfaces: [uplink]",
                                                  f"interfaces: [{interfaces}]")


def xdp_mode(made, interface="uplink"):
    """1 native, 2 generic, None."""
    link = json.loads(made.lb.out(["ip", "-j", "-d", "link", "show", interface]))[0]
    return link.get("xdp", {}).get("mode")


def tc_filters(made, interface="uplink"):
    return made.lb.out(["tc", "filter", "show", "dev", interface, "ingress"])


def use(made, hook, *more):
    made.xlb.apply(text(made, hook, *more))
    for name, target in TARGETS.items():
        answer = netlab.answers(made, target)
        assert answer.startswith("b"), f"{hook}, {name}: {answer!r}"
    done = made.client.run([netlab.LOAD, "--to", "192.0.2.10:9000", "--to", "[2001:db8::10]:9000",
                            "--to", "192.0.2.20:9000", "--mode", "udp", "--rate", "300",
                            "--count", "300"], check=False)
    check(json.loads(done.stdout.splitlines()[-1]), f"udp by {hook}")


@tap.test
def native(made):
    """hook: xdp attaches natively"""
    use(made, "xdp")
    assert xdp_mode(made) == 1, xdp_mode(made)
    assert "xlb_tc" not in tc_filters(made), tc_filters(made)


@tap.test
def generic(made):
    """hook: xdp_generic attaches in the stack"""
    use(made, "xdp_generic")
    assert xdp_mode(made) == 2, xdp_mode(made)


@tap.test
def tc(made):
    """hook: tc attaches a filter and no XDP program"""
    use(made, "tc")
    assert xdp_mode(made) is None, xdp_mode(made)
    assert "xlb_tc" in tc_filters(made), tc_filters(made)


@tap.test
def auto(made):
    """hook: auto takes native XDP, which a veth's driver has"""
    use(made, "auto")
    assert xdp_mode(made) == 1, xdp_mode(made)


@tap.test
def switched(made):
    """connections are held from hook to hook"""
    held = {n: netlab.held_connections(made, t, HELD) for n, t in TARGETS.items()}
    for hook in ("tc", "xdp", "tc", "xdp_generic", "xdp"):
        made.xlb.apply(text(made, hook))
        for load in held.values():
            load.wait_answers(HELD)
    for name, load in held.items():
        summary = check(load.stop(), name)
        assert summary["connections"]["broken"] == 0, (name, summary)


def port_counts(made):
    """Frames and bytes that went to the backends' ports."""
    links = json.loads(made.lb.out(["ip", "-j", "-s", "link", "show"]))
    ports = [link["stats64"]["tx"] for link in links if link["ifname"].startswith("port-")]
    return sum(p["packets"] for p in ports), sum(p["bytes"] for p in ports)


@tap.test
def offload(made):
    """bulk TCP by tc keeps its segmentation offload"""
    made.xlb.apply(text(made, "tc"))
    made.client.ethtool("eth0", tx="on", tso="on")
    body = made.scratch / "upload"
    body.write_bytes(b"x" * 50 * netlab.MEGABYTE)
    try:
        for target in (TARGETS["nat v4"], TARGETS["nat v6"], TARGETS["dsr v4"]):
            packets, size = port_counts(made)
            answer = made.client.curl(f"http://{target}/", "--data-binary", f"@{body}",
                                      "-H", "Expect:", timeout=60)
            assert answer.startswith("b"), (target, answer)
            # A veth counts what it took after it has passed it on.
            wait_for(lambda: port_counts(made)[1] - size >= 50 * netlab.MEGABYTE,
                     f"all of the upload to {target} to be counted")
            now = port_counts(made)
            mean = (now[1] - size) / (now[0] - packets)
            tap.note(f"{target}: {mean:.0f} bytes a frame")
            assert mean > 3000, f"{target}: {mean:.0f} bytes a frame: cut to the MTU"
    finally:
        made.client.ethtool("eth0", tx="off")
        body.unlink()


@tap.test
def two_uplinks(made):
    """clients come in by two interfaces, each with its own hook"""
    made.lb.ip(f"link add uplink2 numrxqueues 1 numtxqueues 1 type veth peer name eth1 "
               f"netns {made.client.path} numrxqueues 1 numtxqueues 1",
               f"address add {UPLINK2[0]}/24 dev uplink2", "link set uplink2 up")
    made.client.ip(f"address add {UPLINK2[1]}/24 dev eth1", "link set eth1 up",
                   f"rule add from {UPLINK2[1]} lookup 100",
                   f"route add default via {UPLINK2[0]} table 100")
    made.client.ethtool("eth1", gro="on", tx="off")
    for hook in ("xdp", "tc"):
        use(made, "xdp", f"{{name: uplink2, hook: {hook}}}")
        for target in (TARGETS["nat v4"], TARGETS["dsr v4"]):
            seen = made.client.curl(f"http://{target}/echo", "--interface", UPLINK2[1])
            assert UPLINK2[1] in seen, (hook, seen)
        assert (xdp_mode(made, "uplink2") == 1) == (hook == "xdp")
        assert ("xlb_tc" in tc_filters(made, "uplink2")) == (hook == "tc")
    use(made, "xdp")
    wait_for(lambda: "xlb_tc" not in tc_filters(made, "uplink2")
             and xdp_mode(made, "uplink2") is None, "the second uplink to be left alone")


@tap.test
def destroyed(made):
    """destroy leaves no program on any hook"""
    made.xlb.apply(text(made, "tc", "{name: uplink2, hook: xdp}"))
    made.xlb.stop()
    done = made.xlb.verb("destroy", "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    for interface in ("uplink", "uplink2"):
        assert xdp_mode(made, interface) is None
        assert "xlb" not in tc_filters(made, interface), tc_filters(made, interface)
    assert not made.xlb.bpffs.exists() or not list(made.xlb.bpffs.iterdir())


lab.main(netlab.make)
