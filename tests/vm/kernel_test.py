#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole of xlb on the distribution's own kernel.

The tests run on whatever kernel this machine has.  Here the kernel that the
guests use (Debian 12: 6.1) boots under TCG with xlb in its initramfs; the
programs must load there and real connections get through.
"""
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "lib"))
import lab  # noqa: E402
import sandbox  # noqa: E402
import tap  # noqa: E402
from libvirtd import die_with_parent  # noqa: E402
from tap import test  # noqa: E402

GUEST = lab.BUILD / "guest"
SERVICES = """version: 1
node: {interfaces: [uplink], resync: 1s}
services:
  - name: web
    vips: [192.0.2.10, "2001:db8::10"]
    protocol: tcp
    ports: [80]
    health: {type: http, path: /healthz, interval: 500ms, timeout: 400ms}
    backends:
      - {name: b1, addresses: [10.77.0.11, "fd00:77::11"]}
  - name: echo
    vips: [192.0.2.10]
    protocol: udp
    ports: [9000]
    backends:
      - {name: b1, addresses: [10.77.0.11]}
"""
APPLETS = "sh mount insmod unshare nsenter sleep cat echo poweroff tail".split()


def copy_program(root, program):
    """With the libraries it wants."""
    shutil.copy(program, root / "bin")
    done = subprocess.run(["ldd", str(program)], capture_output=True, text=True)
    for word in done.stdout.split():
        if word.startswith("/") and not (root / word[1:]).exists():
            (root / word[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, root / word[1:])


def make_initrd(folder):
    root = folder / "root"
    for name in "bin dev proc sys etc run tmp lib/modules".split():
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    for program in (lab.BUILD / "xlb-reconcile", lab.BUILD / "xlb-load", lab.BUILD / "xlb-backend",
                    Path(shutil.which("ip"))):
        copy_program(root, program)
    for module in ("veth", "sch_ingress", "cls_bpf"):
        shutil.copy(next(GUEST.glob(f"kernel/**/{module}.ko")), root / "lib/modules")
    (root / "etc/services.yaml").write_text(SERVICES)
    shutil.copy(HERE / "kernel_init.sh", root / "init")
    (root / "init").chmod(0o755)
    with open(folder / "initrd", "wb") as out:
        names = subprocess.run(["find", "."], cwd=root, capture_output=True, check=True).stdout
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names, stdout=out,
                       check=True)
    return folder / "initrd"


def boot(folder):
    done = subprocess.run(
        ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-m", "768", "-kernel",
         GUEST / "vmlinuz", "-initrd", make_initrd(folder), "-append",
         "console=ttyS0 quiet panic=-1 cryptomgr.notests", "-nographic", "-no-reboot",
         "-net", "none"], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        errors="replace", timeout=200, preexec_fn=die_with_parent)
    return done.stdout


class Machine:
    def __init__(self, console):
        self.console = console
        words = [line.split() for line in console.splitlines() if line.startswith("RESULT ")]
        self.results = {w[1]: int(w[2]) for w in words}

    def print_logs(self):
        tap.note(self.console[-8000:])


@test
def loads(machine):
    """the programs verify, load and attach, and the plan is then empty"""
    kernels = [line for line in machine.console.splitlines() if line.startswith("KERNEL ")]
    assert kernels, "it did not come to its end"
    tap.note(kernels[0][:60])
    assert machine.results.get("once") == 0, machine.results
    assert machine.results.get("plan") == 0, machine.results


@test
def forwards(machine):
    """tcp over v4 and v6, large transfers and udp get through"""
    for name in ("tcp4", "tcp6", "bulk", "udp4"):
        assert machine.results.get(name) == 0, (name, machine.results)


@test
def leaves(machine):
    """destroy takes it all away again"""
    assert machine.results.get("destroy") == 0, machine.results


if __name__ == "__main__":
    place = Path(sandbox.scratch_folder("xlb-kernel.",
                                        os.environ.get("XLB_TEST_DIR")))
    try:
        made = Machine(boot(place))
        sys.exit(tap.run(made, on_failure=made.print_logs))
    finally:
        shutil.rmtree(place, ignore_errors=True)
