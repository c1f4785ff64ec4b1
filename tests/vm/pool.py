# SPDX-License-Identifier: GPL-2.0-or-later
"""A pool that scales on connections, as several tests have it."""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
import lab  # noqa: E402
from vmlab import GUEST, VIP, VIP6, VmLab  # noqa: E402

TEXT = """version: 1
node: {{interfaces: [uplink], resync: 2s}}
safety: {{max_vm_deletes: {{count: 100, per: 1s}}}}
hypervisors:
  - {{name: local, uri: "{uri}", max_vms: 8}}
templates:
  - name: web
{boot}
    memory: 96MiB
    network:
      bridge: br0
      addresses: [10.77.0.10-10.77.0.40/24, "fd00:77::10-fd00:77::40/64"]
      gateway: [10.77.0.1, "fd00:77::1"]
services:
  - name: web
    vips: [{vip}, "{vip6}"]
    protocol: tcp
    ports: [80]
    forwarding: {forwarding}
    drain: 4s
    drain_quiet: 1s
    pool: {{template: web, min: {min}, max: {max}}}
    health: {{type: http, path: /healthz, interval: 500ms, timeout: 400ms, fall: 2}}
    scaling:
      interval: 1s
      signals:
        - {{metric: new_connections_per_second, target: 20}}
      up: {{window: 0s, step: 2, cooldown: 1s}}
      down: {{window: 6s, step: 4, cooldown: 2s}}
      warmup: 1s
"""


class Pool(VmLab):
    def __init__(self, kind):
        super().__init__(kind, client_addresses=20)
        self.boot_limit = 120 if kind == "qemu" else 30
        self.load = None

    def text(self, minimum=1, maximum=3, forwarding="nat"):
        boot = (f"    kernel: {GUEST}/vmlinuz\n    initrd: {GUEST}/initrd" if self.kind == "qemu"
                else f"    cmdline: {lab.BUILD}/xlb-backend -p 80")
        return TEXT.format(uri=self.uri, boot=boot, vip=VIP, vip6=VIP6, min=minimum, max=maximum,
                           forwarding=forwarding)

    def start_load(self, rate, seconds):
        self.load = self.lab.client.start(
            [lab.BUILD / "xlb-load", "--rate", str(rate), "--duration", str(seconds),
             "--from", "192.0.2.101-192.0.2.115", "--to", f"{VIP}:80"], log="load")

    def load_summary(self):
        self.load.wait(timeout=120)
        lines = (self.lab.scratch / "log" / "load").read_text().splitlines()
        return json.loads([line for line in lines if line.startswith("{")][-1])
