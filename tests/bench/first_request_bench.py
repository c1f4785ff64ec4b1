#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""How soon a new VM serves: from its first SYN-ACK, seen on the bridge, to the
first request answered by it through the VIP.  Real VMs; the pool's min goes
from 1 to 2 by an edit and back.

XLB_BENCH_ROUNDS: how often (5)."""
import json
import os
import time

import benchlab
import lab
from benchlab import say
from lab import wait_for
from libvirtd import Libvirtd

ROUNDS = int(os.environ.get("XLB_BENCH_ROUNDS", "5"))
VIP = lab.VIP4

SERVICES = """version: 1
node: {{interfaces: [uplink]}}
hypervisors:
  - {{name: local, uri: "qemu:///system"}}
templates:
  - name: web
    kernel: {build}/guest/vmlinuz
    initrd: {build}/guest/initrd
    memory: 96MiB
    vcpus: 1
    network: {{bridge: br0, addresses: [10.77.0.10-10.77.0.99/24], gateway: [10.77.0.1]}}
services:
  - name: web
    vips: [{vip}]
    protocol: tcp
    ports: [80]
    drain: 2s
    drain_quiet: 500ms
    health: {{type: http, path: /healthz, interval: 1s, timeout: 500ms, fall: 3}}
    pool: {{template: web, min: {least}, max: {most}}}
"""

# In the balancer's namespace: when each address sent its first SYN-ACK.
SNIFFER = r"""
import socket, time
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
sock.bind(("br0", 0))
seen = set()
while True:
    frame = sock.recv(2048)
    now = time.monotonic_ns()
    if frame[12:14] != b"\x08\x00" or frame[23] != 6:
        continue
    tcp = 14 + (frame[14] & 15) * 4
    source = socket.inet_ntoa(frame[26:30])
    if frame[tcp + 13] & 0x12 == 0x12 and source not in seen:
        seen.add(source)
        print('{"address": "%s", "at": %d}' % (source, now), flush=True)
"""

# In the client's: asks until an answer isn't one of the names it is given.
CLIENT = r"""
import socket, sys, time
known = set(sys.argv[2:])
while True:
    try:
        with socket.create_connection((sys.argv[1], 80), 0.25) as s:
            s.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = s.makefile("rb").read().decode()
        name = answer.split("\r\n\r\n", 1)[1].strip()
        if name and name not in known:
            print('{"name": "%s", "at": %d}' % (name, time.monotonic_ns()), flush=True)
            break
    except OSError:
        pass
    time.sleep(0.01)
"""


def text(least, most):
    return SERVICES.format(build=lab.BUILD, vip=VIP, least=least, most=most)


def lines(process):
    found = []
    for line in process.log.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            pass
    return found


class Pool:
    def __init__(self, made, libvirtd):
        self.made = made
        self.xlb = lab.Reconciler(made, made.scratch / "services.yaml", "--libvirt",
                                  libvirtd.qemu, state=benchlab.STATE)
        self.xlb.file.write_text(text(1, 1))
        self.xlb.start()
        self.wait_vms(1)

    def vms(self):
        self.xlb.alive()
        return (self.xlb.status() or {}).get("vms", [])

    def wait_vms(self, count):
        def ready():
            vms = self.vms()
            return len(vms) == count and all(vm["phase"] == "ready" for vm in vms) and vms
        return wait_for(ready, f"{count} VMs", 120, 0.25)

    def round(self, number):
        """Milliseconds from the save to SYN-ACK and answer."""
        known = [vm["name"] for vm in self.vms()]
        sniffer = self.made.lb.start(["python3", "-c", SNIFFER], log=f"sniffer-{number}")
        client = self.made.client.start(["python3", "-c", CLIENT, VIP, *known],
                                        log=f"client-{number}")
        time.sleep(1)  # both are listening; nothing depends on it but the figure
        saved = time.monotonic_ns()
        self.xlb.write(text(2, 2))
        answer = wait_for(lambda: lines(client), "an answer of the new VM", 120, 0.1)[0]
        vm = next(v for v in self.wait_vms(2) if v["name"] == answer["name"])
        sniffer.terminate()
        sniffer.wait()
        first = next(line for line in lines(sniffer) if line["address"] == vm["address"])
        self.xlb.write(text(1, 1))
        self.wait_vms(1)
        return (first["at"] - saved) / 1e6, (answer["at"] - saved) / 1e6


def measure(made, figures):
    say("booting the first VM")
    begun, served, between = [], [], []
    with Libvirtd(made.scratch / "lv", netns=str(made.lb.path)) as libvirtd:
        pool = Pool(made, libvirtd)
        for number in range(ROUNDS):
            synack, answer = pool.round(number)
            begun.append(synack)
            served.append(answer)
            between.append(answer - synack)
            say(f"round {number + 1} of {ROUNDS}: save to the new VM's first SYN-ACK "
                f"{synack:.0f} ms, to its first answer {answer - synack:.0f} ms more")
    figures.add_times("new VM: first SYN-ACK to first request served", between, 300)
    figures.add_times("  decision (edit) to its first SYN-ACK", begun)
    figures.add_times("  decision (edit) to its first request served", served)


if __name__ == "__main__":
    benchlab.main(measure, "first request")
