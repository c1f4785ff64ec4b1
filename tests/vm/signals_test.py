#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Pools of TCG guests that scale on other signals, behind dsr and over UDP.

`web` is dsr and scales on the guests' CPU; `echo` is UDP, takes turns, has no
probe, and scales on packets a second.
"""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
import lab  # noqa: E402
import pool as pools  # noqa: E402
import tap  # noqa: E402
from vmlab import GUEST, VIP, VIP6  # noqa: E402

ECHO_VIP = "192.0.2.20"
TEXT = """version: 1
node: {{interfaces: [uplink], resync: 2s}}
hypervisors: [{{name: local, uri: "{uri}"}}]
templates:
  - name: guest
    kernel: {guest}/vmlinuz
    initrd: {guest}/initrd
    memory: 96MiB
    network:
      bridge: br0
      addresses: [10.77.0.10-10.77.0.40/24, "fd00:77::10-fd00:77::40/64"]
      gateway: [10.77.0.1, "fd00:77::1"]
services:
  - name: echo
    vips: [{echo_vip}]
    protocol: udp
    ports: [9000]
    algorithm: round_robin
    drain: 1s
    pool: {{template: guest, min: 1, max: 2}}
    scaling:
      interval: 1s
      signals: [{{metric: packets_per_second, high: 200, low: 20, for: 2s}}]
      up: {{step: 1, cooldown: 1s}}
      down: {{window: 2s, step: 1, cooldown: 1s}}
      warmup: 0s
  - name: web
    vips: [{vip}, "{vip6}"]
    protocol: tcp
    ports: [80]
    forwarding: dsr
    drain: 2s
    pool: {{template: guest, min: 1, max: 2}}
    health: {{type: http, path: /healthz, interval: 1s, timeout: 900ms, fall: 5}}
    scaling:
      interval: 1s
      signals: [{{metric: cpu, high: 60%, low: 25%, for: 2s}}]
      up: {{step: 1, cooldown: 1s}}
      down: {{window: 2s, step: 1, cooldown: 1s}}
      warmup: 0s
"""


class Pool(pools.Pool):
    def text(self, minimum=1, maximum=2, forwarding="dsr"):
        return TEXT.format(uri=self.uri, guest=GUEST, vip=VIP, vip6=VIP6,
                           echo_vip=ECHO_VIP)

    def load_on(self, name, *argv):
        return self.lab.client.start([lab.BUILD / "xlb-load", "--duration", "90", *argv], log=name)

    def decisions(self, service, direction):
        return self.xlb.query("SELECT * FROM scaling_history WHERE service = ? AND direction = ? "
                              "AND reason <> 'bounds' ORDER BY time_ms", service, direction)


@tap.test
def both_serve(pool):
    """dsr guests answer from the VIP, v4 and v6; a UDP guest gets none before it runs"""
    pool.xlb.start()
    pool.wait_ready(["echo-1", "web-1"])
    assert pool.ask(VIP) == "web-1"
    assert pool.ask(f"[{VIP6}]") == "web-1"
    udp = pool.lab.client.run([lab.BUILD / "xlb-load", "--mode", "udp", "--to", f"{ECHO_VIP}:9000",
                               "--rate", "50", "--duration", "2"], check=False).stdout
    summary = json.loads(udp.splitlines()[-1])
    assert summary["answers"] >= 95 and summary["failed"] <= 5, summary


@tap.test
def cpu_scales(pool):
    """busy guests get company: cpu over its threshold"""
    load = pool.load_on("burn", "--to", f"{VIP}:80", "--rate", "8", "--path", "/burn/400",
                        "--timeout", "30")
    lab.wait_for(lambda: "web-2" in pool.ready(), "a second web guest", 90, 0.2)
    first = pool.decisions("web", "up")[0]
    assert first["reason"] == "threshold_high", first
    signal = json.loads(first["signals"])[0]
    assert signal["metric"] == "cpu" and signal["value"] > 60, signal
    load.terminate()


@tap.test
def packets_scale(pool):
    """many packets a second get company, and both take turns"""
    load = pool.load_on("udp", "--mode", "udp", "--to", f"{ECHO_VIP}:9000", "--rate", "500")
    lab.wait_for(lambda: "echo-2" in pool.ready(), "a second echo guest", 90, 0.2)
    first = pool.decisions("echo", "up")[0]
    assert first["reason"] == "threshold_high", first
    assert json.loads(first["signals"])[0]["metric"] == "packets_per_second", first
    load.terminate()
    udp = pool.lab.client.run([lab.BUILD / "xlb-load", "--mode", "udp", "--to", f"{ECHO_VIP}:9000",
                               "--rate", "50", "--duration", "3"], check=False).stdout
    backends = json.loads(udp.splitlines()[-1])["backends"]
    assert min(backends.get(f"echo-{i}", 0) for i in (1, 2)) > 50, backends


@tap.test
def calm(pool):
    """calm brings both back to one"""
    lab.wait_for(lambda: pool.domains() == ["echo-1", "web-1"], "one guest each", 90, 0.2)
    for service in ("web", "echo"):
        assert pool.decisions(service, "down")[-1]["reason"] == "threshold_low"
    assert pool.ask(VIP) == "web-1"


if __name__ == "__main__":
    lab.enter()
    lab.main(lambda: Pool("qemu"))
