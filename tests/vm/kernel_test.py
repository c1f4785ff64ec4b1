#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole of xlb on the distribution's own kernels.

The tests run on whatever kernel this machine has.  Here the kernel that the
guests use (Debian 12: 6.1) and that of its backports (6.12) boot under TCG
with xlb in their initramfs; the programs must load there, with every feature,
and real connections get through: by the backends' own tunnels where packets
travel inside others.
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

APPLETS = "sh mount insmod unshare nsenter sleep cat cp mv echo grep kill poweroff tail".split()
# In insmod order; what a kernel has built in is left out.
MODULES = """llc stp bridge veth sch_ingress cls_bpf tunnel4 ip_tunnel ipip tunnel6 ip6_tunnel sit udp_tunnel
ip6_udp_tunnel fou fou6""".split()

B1 = '{name: b1, addresses: [10.77.1.11, "fd00:77:1::11"]}'
B2 = '{name: b2, addresses: [10.77.2.11, "fd00:77:2::11"]}'
# The same two, on the uplink's network.
STICK = tuple(f'{{name: b{n}, addresses: [192.0.2.5{n}, "2001:db8::5{n}"]}}' for n in (1, 2))
OUTER = {4: ["{name: b1, address: 192.0.2.51}"], 6: ['{name: b1, address: "2001:db8::51"}']}
ALGORITHMS = ("source_hash", "round_robin", "weighted_round_robin", "random", "least_connections",
              "least_load")
TUNNELS = tuple((forwarding, outer) for forwarding in ("ipip", "gue") for outer in (4, 6))


def vips(number):
    return f"192.0.2.{number}", f"2001:db8::{number}"


NAT, DSR, STICKY, FIRST_ALGORITHM, FIRST_TUNNEL = vips(10), vips(20), vips(21), 30, 40


def service(name, both, backends, port=80, **keys):
    lines = [f"  - name: {name}", f'    vips: [{both[0]}, "{both[1]}"]', f"    ports: [{port}]",
             "    health: {type: http, path: /healthz, port: 80, interval: 500ms, timeout: 400ms}",
             *(f"    {key}: {value}" for key, value in keys.items()),
             f"    backends: [{', '.join(backends)}]"]
    return "\n".join(lines) + "\n"


def file(hook, *services):
    return (f"version: 1\nnode:\n  interfaces: [{{name: uplink, hook: {hook}}}]\n  resync: 1s\n"
            "services:\n" + "".join(services))


def basic(*backends, **keys):
    return (service("web", NAT, backends, **keys),
            service("echo", NAT, backends, 9000, protocol="udp"))


def everything():
    """Each feature of the programs is wanted by some service."""
    out = [*basic(B1, B2), service("dsr", DSR, STICK, forwarding="dsr"),
           service("sticky", STICKY, STICK, 9000, protocol="udp", udp="sticky", forwarding="dsr")]
    out += [service(name.replace("_", "-"), vips(FIRST_ALGORITHM + i), STICK, algorithm=name,
                    forwarding="dsr") for i, name in enumerate(ALGORITHMS)]
    out += [service(f"{forwarding}-{outer}", vips(FIRST_TUNNEL + i), OUTER[outer],
                    forwarding=forwarding) for i, (forwarding, outer) in enumerate(TUNNELS)]
    return out


FILES = {
    "one": file("auto", *basic(B1)),
    "two": file("auto", *basic(B1, B2)),
    "turns": file("auto", *basic(B1, B2, algorithm="round_robin")),
    "all": file("xdp", *everything()),
    "tc": file("tc", *everything()),
}
FEW = "--count 20 --rate 40"


def load(name, address, options=FEW, port=80):
    to = f"[{address}]" if ":" in address else address
    return f"load {name} --to '{to}:{port}' {options}"


def load_both(name, both, *more):
    return [load(f"{name}_v4", both[0], *more), load(f"{name}_v6", both[1], *more)]


def load_all(stage):
    """Every service of everything(), over both families."""
    out = load_both(f"{stage}_nat", NAT) + load_both(f"{stage}_dsr", DSR)
    out.append(load(f"{stage}_bulk", NAT[0], "--count 4 --rate 4 --bytes 2000000"))
    out += load_both(f"{stage}_udp", NAT, f"--mode udp {FEW}", 9000)
    out += load_both(f"{stage}_sticky", STICKY,
                     "--mode udp-keep --connections 10 --interval 0.2 --count 40 --rate 40", 9000)
    for i, name in enumerate(ALGORITHMS):
        out += load_both(f"{stage}_{name}", vips(FIRST_ALGORITHM + i))
    for i, (forwarding, outer) in enumerate(TUNNELS):
        out += load_both(f"{stage}_{forwarding}_in_v{outer}", vips(FIRST_TUNNEL + i))
    return out


HOLD = f"hold --to {NAT[0]}:80 --to '[{NAT[1]}]:80' --connections 30 --interval 0.3 --rate 60"
STEPS = [
    "apply one once", *load_both("first", NAT),
    # Slots move under connections that are held, and so do programs.
    HOLD, "apply two joined", *load_both("moving", NAT),
    "apply turns live", *load_both("turning", NAT),
    "apply all all", "release held", *load_all("all"), "empty all_empty", "trace all_trace",
    HOLD, "apply tc tc", *load_all("tc"), "release tc_held", "empty tc_empty", "trace tc_trace",
]


PASS = """__attribute__((section("xdp"), used)) int pass(void *ctx) { return 2; /* XDP_PASS */ }
char _license[] __attribute__((section("license"), used)) = "GPL";
"""


def copy_program(root, program):
    """With the libraries it wants."""
    shutil.copy(program, root / "bin")
    done = subprocess.run(["ldd", str(program)], capture_output=True, text=True)
    for word in done.stdout.split():
        if word.startswith("/") and not (root / word[1:]).exists():
            (root / word[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, root / word[1:])


def copy_modules(root, kernel):
    """Those of a kernel's folder, whatever its layout."""
    found = {path.name.split(".")[0].replace("-", "_"): path for path in kernel.rglob("*.ko*")}
    for name in filter(found.get, MODULES):
        path, to = found[name], root / "lib/modules" / f"{name}.ko"
        if path.suffix == ".ko":
            shutil.copy(path, to)
        else:
            tool = {".xz": "xz", ".zst": "zstd"}[path.suffix]
            to.write_bytes(subprocess.run([tool, "-dc", path], capture_output=True,
                                          check=True).stdout)
        with open(root / "lib/modules/order", "a", encoding="ascii") as order:
            order.write(name + "\n")


def write_etc(root):
    numbers = [20, 21, *range(FIRST_ALGORITHM, FIRST_ALGORITHM + len(ALGORITHMS))]
    tunnels = range(FIRST_TUNNEL, FIRST_TUNNEL + len(TUNNELS))
    for name, text in FILES.items():
        (root / f"etc/{name}.yaml").write_text(text)
    (root / "etc/vips").write_text("".join(
        f"{v4}/32\n{v6}/128 nodad\n" for v4, v6 in map(vips, [*numbers, *tunnels])))
    (root / "etc/steps").write_text("\n".join(STEPS) + "\n")


def make_initrd(folder, kernel):
    root = folder / "root"
    for name in "bin dev proc sys etc run tmp lib/modules".split():
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox"), root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    for program in (lab.BUILD / "xlb-reconcile", lab.BUILD / "xlb-load", lab.BUILD / "xlb-backend",
                    Path(shutil.which("ip")), Path(shutil.which("ethtool"))):
        copy_program(root, program)
    copy_modules(root, kernel)
    write_etc(root)
    subprocess.run(["clang", "-O2", "-target", "bpf", "-x", "c", "-c", "-o", root / "etc/pass.o",
                    "-"], input=PASS, text=True, check=True)
    shutil.copy(HERE / "kernel_init.sh", root / "init")
    (root / "init").chmod(0o755)
    with open(folder / "initrd", "wb") as out:
        names = subprocess.run(["find", "."], cwd=root, capture_output=True, check=True).stdout
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names, stdout=out,
                       check=True)
    shutil.rmtree(root)
    return folder / "initrd"


class Machine:
    """One kernel with all steps run on it; started at once, looked at later."""

    def __init__(self, name, folder, kernel):
        self.name, self.kernel, self.console, self.results = name, kernel, None, {}
        self.process = None
        self.why_not = None
        image = kernel / "vmlinuz"
        if not image.exists():
            reason = kernel / "reason"
            self.why_not = reason.read_text().strip() if reason.exists() else \
                f"{image} is not there: make image"
            return
        place = folder / name
        place.mkdir()
        self.log = place / "console"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                # QEMU 7.2 spoils the flags after cmpxchg16b now and then.
                ["qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", "qemu64,-cx16",
                 "-m", "1024", "-kernel", image, "-initrd", make_initrd(place, kernel), "-append",
                 "console=ttyS0 quiet panic=-1 cryptomgr.notests", "-nographic", "-no-reboot",
                 "-net", "none"], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                preexec_fn=die_with_parent)

    def wait(self):
        """Until it has powered itself off."""
        if self.why_not:
            raise tap.Skip(self.why_not)
        if self.console is None:
            try:
                self.process.wait(timeout=240)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.console = self.log.read_text(errors="replace")
            words = [line.split() for line in self.console.splitlines()
                     if line.startswith("RESULT ")]
            self.results = {w[1]: int(w[2]) for w in words}
            running = [line for line in self.console.splitlines() if line.startswith("KERNEL ")]
            tap.note(running[0][:60] if running else f"{self.name}: it did not come to its end")
        return self

    def expect(self, *names):
        self.wait()
        never = [name for name in names if name not in self.results]
        failed = [name for name in names if self.results.get(name)]
        assert not never and not failed, \
            f"{self.name}: failed: {failed}; never came to: {never}"

    def print_logs(self):
        if self.console:
            tap.note(self.console[-6000:])
            self.console = ""  # once


def both(*names):
    return [f"{name}_{family}" for name in names for family in ("v4", "v6")]


def loads(machine):
    """the programs verify, load and attach"""
    machine.expect("once", "joined", "live", "all")


def forwards(machine):
    """nat and dsr: tcp, large transfers and udp get through over v4 and v6"""
    machine.expect(*both("first", "all_nat", "all_dsr", "all_udp"), "all_bulk")


def moves(machine):
    """connections stay while slots move, the algorithm changes and programs are swapped"""
    machine.expect(*both("moving", "turning"), "held")


def picks(machine):
    """every algorithm, and datagrams that stick"""
    machine.expect(*both("all_sticky", *(f"all_{name}" for name in ALGORITHMS)))


def tunnels(machine):
    """ipip and gue, any family in any: the kernel's own tunnels understand them"""
    machine.expect(*both(*(f"all_{f}_in_v{outer}" for f, outer in TUNNELS)))


def hooks(machine):
    """the same at the tc hook, changed to while connections are held"""
    names = ("nat", "dsr", "udp", "sticky", *ALGORITHMS,
             *(f"{f}_in_v{outer}" for f, outer in TUNNELS))
    machine.expect("tc", *both(*(f"tc_{name}" for name in names)), "tc_bulk", "tc_held")


def traces(machine):
    """programs that sample packets verify, take the others' place at either hook, and go again"""
    machine.expect(*(f"{hook}_trace{what}" for hook in ("all", "tc") for what in ("", "_load")))


def leaves(machine):
    """plans are empty when all is applied, and destroy takes it all away again"""
    machine.expect("all_empty", "tc_empty", "destroy")


def declare(number, name, function):
    def run(machines):
        function(machines[number])
    run.__doc__ = f"{name}: {function.__doc__}"
    tap.test(run)


KERNELS = (("the release's kernel", lab.BUILD / "guest"),
           ("6.12", lab.BUILD / "tests/kernel/6.12"))


def main():
    place = Path(sandbox.scratch_folder("xlb-kernel.", os.environ.get("XLB_TEST_DIR")))
    machines = []
    try:
        machines += [Machine(name, place, kernel) for name, kernel in KERNELS]
        return tap.run(machines, on_failure=lambda: [m.print_logs() for m in machines])
    finally:
        for machine in machines:
            if machine.process and machine.process.poll() is None:
                machine.process.kill()
                machine.process.wait()
        shutil.rmtree(place, ignore_errors=True)


for n, (title, _) in enumerate(KERNELS):
    for case in (loads, forwards, moves, picks, tunnels, hooks, traces, leaves):
        declare(n, title, case)

if __name__ == "__main__":
    sys.exit(main())
