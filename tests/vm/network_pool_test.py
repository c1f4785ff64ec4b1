#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A pool in a network of libvirt's own: addresses from its DHCP range."""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
import lab  # noqa: E402
import pool as pools  # noqa: E402
import tap  # noqa: E402
from vmlab import GUEST, VIP  # noqa: E402

NETWORK = """<network><name>lab</name><forward mode='open'/><bridge name='labbr'/>
<ip address='10.88.0.1' prefix='24'><dhcp>
<range start='10.88.0.10' end='10.88.0.20'/>
<host mac='52:54:00:00:00:01' name='taken' ip='10.88.0.10'/>
</dhcp></ip></network>
"""

TEXT = """version: 1
node: {{interfaces: [uplink], resync: 2s}}
hypervisors: [{{name: local, uri: "{uri}"}}]
templates:
  - {{name: web, kernel: {guest}/vmlinuz, initrd: {guest}/initrd, memory: 96MiB, network: lab}}
services:
  - name: web
    vips: [{vip}]
    protocol: tcp
    ports: [80]
    drain: 2s
    pool: {{template: web, min: {min}, max: 2}}
    health: {{type: http, path: /healthz, interval: 500ms, timeout: 400ms}}
"""


class Pool(pools.Pool):
    def text(self, minimum=1, maximum=2, forwarding="nat"):
        return TEXT.format(uri=self.uri, guest=GUEST, vip=VIP, min=minimum)


def reserved(pool):
    return pool.virsh("net-dumpxml", "lab").stdout.count("<host")


def make():
    pool = Pool("qemu")
    file = pool.lab.scratch / "network.xml"
    file.write_text(NETWORK)
    pool.virsh("net-define", str(file))
    pool.virsh("net-start", "lab")
    return pool


@tap.test
def serves(pool):
    """two guests get free addresses of the range and serve"""
    pool.xlb.write(pool.text(minimum=2))
    pool.xlb.start()
    pool.wait_ready(["web-1", "web-2"])
    addresses = sorted(vm["address"] for vm in pool.vms().values())
    assert addresses == ["10.88.0.11", "10.88.0.12"], addresses
    assert reserved(pool) == 3
    seen = {pool.ask() for _ in range(40)}
    assert seen == {"web-1", "web-2"}, seen


@tap.test
def gives_back(pool):
    """a guest that goes gives its address back"""
    pool.xlb.write(pool.text(minimum=1))
    lab.wait_for(lambda: pool.domains() == ["web-1"], "web-2 to go", 60, 0.2)
    assert reserved(pool) == 2
    assert pool.ask() == "web-1"


if __name__ == "__main__":
    lab.enter()
    lab.main(make)
