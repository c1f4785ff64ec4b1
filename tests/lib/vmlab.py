# SPDX-License-Identifier: GPL-2.0-or-later
"""A lab with a private libvirtd in the balancer's namespace."""
import lab
from lab import wait_for

VIP, VIP6 = "192.0.2.10", "2001:db8::10"
GUEST = lab.BUILD / "guest"


class VmLab:
    """One lab, one libvirtd, one reconciler; a subclass has its files."""

    boot_limit = 60  # s, until VMs are ready

    def __init__(self, kind="lxc", **keywords):
        self.kind = kind
        self.lab = lab.Lab(**keywords)
        self.libvirtd = self.lab.libvirtd()
        self.libvirtd.start()
        self.uri = self.libvirtd.qemu if kind == "qemu" else self.libvirtd.lxc
        self.xlb = self.lab.reconciler(self.first())

    def first(self):
        """The file to begin with."""
        return self.text()

    def text(self):
        raise NotImplementedError

    def close(self):
        try:
            self.libvirtd.stop()
        finally:
            self.lab.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def print_logs(self):
        self.lab.print_logs()

    def virsh(self, *words, check=True):
        return self.lab.lb.run(["virsh", "-q", "-c", self.uri, *words], check=check)

    def domains(self, *options):
        """Names: of all, or of what the options of `virsh list` say."""
        return sorted(self.virsh("list", *(options or ("--all",)), "--name").stdout.split())

    def running(self):
        return self.domains("--state-running")

    def ask(self, vip=VIP):
        """The name of the guest that answers, or ''."""
        return self.lab.client.curl(f"http://{vip}/", check=False, timeout=2).split(" ")[0].strip()

    def vms(self):
        status = self.xlb.status() or {}
        return {vm["name"]: vm for vm in status.get("vms", [])}

    def ready(self):
        return sorted(n for n, vm in self.vms().items() if vm["phase"] == "ready")

    def wait_ready(self, names):
        wait_for(lambda: self.xlb.alive() and self.ready() == sorted(names),
                 f"{names} to be ready, not {self.vms()}", self.boot_limit, 0.1)
