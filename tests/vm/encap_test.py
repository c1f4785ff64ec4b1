#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A real guest that takes off outer headers: ipip and gue, each family in each.

One TCG guest of a pool, with two addresses more.  Further services name one of
these as their backend, so that packets of the other family have to cross.
"""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
import lab  # noqa: E402
import pool as pools  # noqa: E402
import tap  # noqa: E402
from vmlab import GUEST, VIP, VIP6  # noqa: E402

ADDRESS = {4: "10.77.0.5", 6: "fd00:77::5"}
# name: (VIP, mode, family outside); the packet's own where a guest has both.
CROSSINGS = {
    "ipip-4-in-6": ("192.0.2.21", "ipip", 6),
    "ipip-6-in-4": ("2001:db8::21", "ipip", 4),
    "gue-4-in-6": ("192.0.2.22", "gue", 6),
    "gue-6-in-4": ("2001:db8::22", "gue", 4),
    "gue-4-in-4": ("192.0.2.23", "gue", 4),
    "gue-6-in-6": ("2001:db8::23", "gue", 6),
}
ECHO_VIP = "192.0.2.24"
UPLOAD = 300000  # bytes; full-sized packets, which have to become smaller

TEXT = """version: 1
node: {{interfaces: [{{name: uplink, hook: {hook}}}], resync: 2s}}
hypervisors: [{{name: local, uri: "{uri}"}}]
templates:
  - name: guest
    kernel: {guest}/vmlinuz
    initrd: {guest}/initrd
    cmdline: "xlb.tunnels=on xlb.ip=10.77.0.5/24,fd00:77::5/64 xlb.vips={vips}"
    memory: 96MiB
    network:
      bridge: br0
      addresses: [10.77.0.10-10.77.0.40/24, "fd00:77::10-fd00:77::40/64"]
      gateway: [10.77.0.1, "fd00:77::1"]
services:
  - name: web
    vips: [{vip}, "{vip6}"]
    ports: [80]
    forwarding: ipip
    drain: 1s
    pool: {{template: guest, min: 1, max: 1}}
    health: {{type: http, path: /healthz, interval: 1s, timeout: 900ms, fall: 5}}
  - name: echo
    vips: [{echo_vip}]
    protocol: udp
    ports: [9000]
    forwarding: gue
    drain: 1s
    backends: [{{name: guest, address: 10.77.0.5}}]
"""
CROSSING = """  - name: {name}
    vips: ["{vip}"]
    ports: [80]
    forwarding: {mode}
    drain: 1s
    backends: [{{name: guest, address: "{address}"}}]
"""


class Pool(pools.Pool):
    hook = "xdp"

    def text(self, minimum=1, maximum=1, forwarding="ipip"):
        vips = [vip for vip, _, _ in CROSSINGS.values()] + [ECHO_VIP]
        return TEXT.format(uri=self.uri, guest=GUEST, vip=VIP, vip6=VIP6,
                           vips=",".join(vips), echo_vip=ECHO_VIP, hook=self.hook) + "".join(
            CROSSING.format(name=name, vip=vip, mode=mode, address=ADDRESS[outer])
            for name, (vip, mode, outer) in CROSSINGS.items())

    def url(self, vip, path=""):
        return f"http://[{vip}]/{path}" if ":" in vip else f"http://{vip}/{path}"

    def sees(self, vip):
        """What the guest says of the connection: its name, the client, itself."""
        return self.lab.client.curl(self.url(vip, "echo"), check=False, timeout=5).split()

    def everything_answers(self):
        for vip, client in ((VIP, lab.CLIENT4), (VIP6, lab.CLIENT6)) + tuple(
                (vip, lab.CLIENT6 if ":" in vip else lab.CLIENT4)
                for vip, _, _ in CROSSINGS.values()):
            lab.wait_for(lambda: self.sees(vip)[:1] == ["web-1"], f"an answer from {vip}", 30)
            said = " ".join(self.sees(vip))
            assert client in said and vip in said, (vip, said)

    def upload(self, vip):
        blob = self.lab.scratch / "blob"
        blob.write_bytes(b"u" * UPLOAD)
        return self.lab.client.curl(self.url(vip), "--data-binary", f"@{blob}", timeout=30)


@tap.test
def serves_by_ipip(pool):
    """the guest boots; clients of both families reach it behind every outer header"""
    pool.xlb.start()
    pool.wait_ready(["web-1"])
    pool.everything_answers()


@tap.test
def keeps_addresses(pool):
    """the guest's own addresses answer too, without us"""
    assert pool.lab.lb.curl(pool.url(ADDRESS[4])).startswith("web-1")


@tap.test
def uploads(pool):
    """full-sized packets don't fit: the client is told, and sends smaller ones"""
    for vip in (VIP, VIP6, *(vip for vip, _, _ in CROSSINGS.values())):
        assert pool.upload(vip).startswith("web-1"), vip
    # Learnt for each VIP: 1500 less the outer headers.
    for vip, room in ((VIP, 20), ("192.0.2.21", 40), ("192.0.2.22", 48), ("192.0.2.23", 28)):
        route = pool.lab.client.out(["ip", "route", "get", vip])
        assert f"mtu {1500 - room}" in route, (vip, route)


@tap.test
def downloads(pool):
    """answers come directly, at full size"""
    for vip in (VIP, VIP6):
        body = pool.lab.client.curl(pool.url(vip, "bytes/3000000"))
        assert len(body) == 3000000, (vip, len(body))


@tap.test
def datagrams(pool):
    """UDP behind gue"""
    udp = pool.lab.client.run([lab.BUILD / "xlb-load", "--mode", "udp", "--to", f"{ECHO_VIP}:9000",
                               "--rate", "100", "--duration", "2"], check=False).stdout
    summary = json.loads(udp.splitlines()[-1])
    assert summary["answers"] >= 190 and summary["failed"] <= 10, summary


@tap.test
def echo(pool):
    """the balancer answers pings to a VIP, not the host behind it"""
    def heard():
        lines = [line.split() for line in pool.lab.lb.out(
            ["cat", "/proc/net/snmp", "/proc/net/snmp6"]).splitlines()]
        four = dict(zip(*[line for line in lines if line[0] == "Icmp:"][:2]))
        six = dict(line for line in lines if len(line) == 2)
        return four["InEchos"], six["Icmp6InEchos"]

    before = heard()
    for vip in (VIP, "192.0.2.21", VIP6, "2001:db8::22"):
        pool.lab.client.run(["busybox", "ping", "-c", "2", "-W", "5", vip])
    assert heard() == before, (before, heard())


@tap.test
def through_tc(pool):
    """the same by the tc hook, with the client's segments and sums left to hardware"""
    assert pool.xlb.stop() == 0
    pool.hook = "tc"
    pool.xlb.write(pool.text())
    pool.xlb.start()
    pool.xlb.wait_converged()
    pool.lab.client.ethtool("eth0", tx="on", tso="on", gso="on")
    pool.lab.client.ip("route flush cache")
    pool.everything_answers()
    uploads(pool)
    downloads(pool)
    datagrams(pool)
    echo(pool)


if __name__ == "__main__":
    lab.enter()
    lab.main(lambda: Pool("qemu"))
