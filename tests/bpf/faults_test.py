#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Seeded faults: each makes the balancer wrong in one place of its source, and
the differential test, run against the object compiled of it, must notice.  A
fault whose text isn't found exactly once fails, so that none is lost when the
source changes.  All are compiled and run ahead, as many at once as there are
processors.
"""
import concurrent.futures
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lib"))
import tap  # noqa: E402

# What is wrong then; file; text; what it becomes.
FAULTS = [
    ("a settled slot is taken for one at rest", "select.h",
     "return XLB_SLOT_STATE(word) == XLB_REST;",
     "return XLB_SLOT_STATE(word) == XLB_REST || XLB_SLOT_STATE(word) == XLB_SETTLED;"),
    ("while a service hashes otherwise, old flows are found as new ones are", "select.h",
     "flags == XLB_VIP_CLIENT_OLD ? hash->client : hash->flow",
     "flags == XLB_VIP_CLIENT_OLD ? hash->flow : hash->client"),
    ("prev of a moving slot is overlooked", "select.h",
     ".fallback = moving ? prev : cur,", ".fallback = cur,"),
    ("prev counts where the slot is settled, too", "select.h",
     "bool moving = prev && (state == XLB_MOVING || state == XLB_HELD);",
     "bool moving = prev && state != XLB_REST;"),
    ("a flow of prev isn't remembered", "select.h",
     "return ANSWER(c.fallback, c.fallback, XLB_FLOW_SIGHTED);", "return c.fallback;"),
    ("a SYN in a moving slot isn't remembered", "select.h",
     "XLB_SLOT_STATE((__u32)word) != XLB_MOVING))", "true))"),
    ("a SYN takes over an established memory", "select.h",
     "return ANSWER(id, known ? known | ANSWER_KNOWN : c.fallback,",
     "if (m.known)\n\t\t__sync_val_compare_and_swap(memory_place(line, m.known_way), "
     "m.known, (m.known & ~0x7fffULL) | id);\n"
     "\treturn ANSWER(id, known ? known | ANSWER_KNOWN : c.fallback,"),
    ("a held slot sends new clients to cur", "select.h",
     ".owner = moving && state == XLB_HELD ? prev : cur,", ".owner = cur,"),
    ("another generation's memory counts", "track.h",
     "backend_generation(backend) == XLB_FLOW_GENERATION(entry);",
     "backend_generation(backend) <= 255;"),
    ("a handshake is accepted with any number", "track.h",
     "return (__u32)(((key ^ seq) * MIX_B) >> 33);",
     "return (__u32)(((key ^ (seq & 1)) * MIX_B) >> 33);"),
    ("of data in a SYN only one number is remembered", "track.h",
     "if (payload && token_take())", "if (payload > 60 && token_take())"),
    ("a living flow makes room for a new one", "track.h",
     "return age > XLB_FLOW_STALE ||", "return age > 4 ||"),
    ("flows seen once take each other's places", "track.h",
     "memory_new(line) < CLASS_QUOTA || memory_turn(tag)", "true"),
    ("a flow never gets its turn", "track.h",
     "return !(((tag >> (3 + (now >> 4))) + now) & (TURNS - 1));", "return tag == now + 1;"),
    ("half-open memories have no quota", "track.h",
     "#define CLASS_QUOTA 3", "#define CLASS_QUOTA 8"),
    ("a promoted handshake leaves the old memory", "track.h",
     "if (m->known)\n", "if (m->known == 1)\n"),
    ("IPv6 packets take the next hop of IPv4", "forward.h",
     "count_packet(id, p->bytes, p->new_flow);\n\treturn leave(ctx, p->data, be, be->l2_v6,",
     "count_packet(id, p->bytes, p->new_flow);\n\treturn leave(ctx, p->data, be, be->l2_v4,"),
    ("the checksum doesn't follow the port", "rewrite.h",
     "delta += csum_change16(r->ports->dest, r->port);", ""),
    ("the IPv4 header's checksum doesn't follow the hop limit", "rewrite.h",
     "\t\tdelta += TTL_DELTA;\n", ""),
    ("a UDP datagram without a checksum gets one", "rewrite.h",
     "} else if (old) {", "} else {"),
    ("a SYN is counted as no new connection", "packet.h",
     "& 0x12) == 0x02;", "& 0x12) == 0x12;"),
    ("a later fragment follows another datagram's", "headers.h",
     "h->key.id = ip.id;", "h->key.id = 0;"),
    ("an echo's answer has the request's hop limit", "icmp_in.h",
     "\te.ip.hop_limit = ICMP_TTL;\n", ""),
    ("an echo is answered for any address", "icmp_in.h",
     "!address_is_vip(vip, FAMILY_V6) ||", ""),
    ("an ICMP error is taken for one about the packet's sender", "quoted.h",
     "ports_word(q->ports.dest, q->ports.source)",
     "ports_word(q->ports.source, q->ports.dest)"),
    ("an ICMPv6 error's checksum leaves out the destination", "quoted.h",
     "quoted_checksum(ctx, q, sum + addr, addr);",
     "quoted_checksum(ctx, q, sum + addr, 0);"),
    ("ipip: all flows look the same outside", "encap.h",
     "bpf_htonl(OUTER_V4_SOURCE | mark >> 16);", "bpf_htonl(OUTER_V4_SOURCE);"),
    ("a flow doesn't keep its outer headers", "encap.h",
     "return (__u32)(hash >> 32) ^ (__u32)hash;",
     "return (__u32)(hash >> 32) ^ (__u32)bpf_ktime_get_ns();"),
    ("the traffic class stays inside", "encap.h",
     "data = outer_put(ctx, s, be, mark, len, ENCAP_TOS(how));",
     "data = outer_put(ctx, s, be, mark, len, 0);"),
    ("an IPv4 packet never goes behind an IPv6 header", "encap.h",
     "bool v6 = !backend_line(id)->addr4;", "bool v6 = false;"),
    ("gue: the UDP header's length is the packet's", "encap.h",
     "(len + (__u32)sizeof(struct udphdr)) << 16", "len << 16"),
    ("the MTU counts without the outer headers", "forward.h",
     "__u32 room = encap_room(be, forwarding, true);", "__u32 room = 0;"),
    ("the old table of VIPs is asked", "service.h",
     "__u32 copy = *(volatile __u32 *)&tables.control.vip_copy & 1;",
     "__u32 copy = 0;"),
]


def compile_bpf(folder, source, out):
    arch = {"x86_64": "x86", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    done = subprocess.run(
        ["clang", "-std=gnu17", "-O2", "-g", "-target", "bpf", "-mcpu=v3", "-w",
         f"-D__TARGET_ARCH_{arch}", "-I.", "-Ibpf", "-idirafter",
         f"/usr/include/{platform.machine()}-linux-gnu", "-c", "-o", out, source],
        cwd=folder, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


class Faults:
    def __init__(self):
        self.scratch = Path(os.environ.get("XLB_TEST_DIR") or "/tmp") / f"faults-{os.getpid()}"
        self.build = Path(os.environ.get("XLB_BUILD") or ROOT / "build")
        self.seed = os.environ.get("XLB_SEED", "1")
        self.pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1)

    def copy(self, name):
        folder = self.scratch / name
        folder.mkdir(parents=True)
        shutil.copytree(ROOT / "bpf", folder / "bpf")
        return folder

    def differential(self, folder, seconds):
        """(did it agree, what it said); None: it could not be compiled"""
        said = compile_bpf(folder, "bpf/xdp.bpf.c", "xdp.o")
        if said:
            return None, said
        done = subprocess.run(
            [self.build / "tests" / "bpf" / "differential_test", "--object", folder / "xdp.o",
             "--seconds", str(seconds), "--seed", self.seed, "--first"],
            capture_output=True, text=True, check=False, cwd=ROOT)
        return done.returncode == 0, done.stdout + done.stderr

    def run_healthy(self):
        return self.differential(self.copy("healthy"), 3)

    def run_fault(self, number, file, text, becomes):
        folder = self.copy(f"fault-{number}")
        source = (folder / "bpf" / file).read_text()
        found = source.count(text)
        assert found == 1, f"found {found} times in bpf/{file}: {text}"
        (folder / "bpf" / file).write_text(source.replace(text, becomes))
        return self.differential(folder, 8)


def healthy(future):
    agreed, said = future.result()
    assert agreed, said


def caught(future):
    agreed, said = future.result()
    assert agreed is not None and "can't be loaded" not in said, said
    assert agreed is False, "not noticed:\n" + said
    notice = [line for line in said.splitlines() if line.startswith("# history")]
    assert notice, said
    print(f"# {notice[0][2:]}")


def main():
    if os.geteuid():
        tap.skip_all("needs root to load programs")
    faults = Faults()
    whole = faults.pool.submit(faults.run_healthy)
    tests = [("the program as it is agrees with the model", lambda: healthy(whole))]
    for number, (what, file, text, becomes) in enumerate(FAULTS):
        future = faults.pool.submit(faults.run_fault, number, file, text, becomes)
        tests.append((f"caught: {what}", lambda f=future: caught(f)))
    for name, run in tests:
        run.__doc__ = name
        tap.test(run)
    try:
        return tap.run()
    finally:
        faults.pool.shutdown(cancel_futures=True)
        shutil.rmtree(faults.scratch, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
