#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""From a save to its slots in the kernel among 1,000 services of 10 backends,
probed every 10 s: one weight changed in one file of them all, and in a folder
of 20 files.  Beside it the same edit by HAProxy's reload and by nft -f.

XLB_BENCH_ROUNDS: how often (40)."""
import os
import shutil
import signal
import socket
import time

import benchlab
import lab
import save_bench
from benchlab import BACKENDS, say

ROUNDS = int(os.environ.get("XLB_BENCH_ROUNDS", "40"))
SERVICES = 1000
SHAPES = (("one file", benchlab.Shape(SERVICES, 16, "10s"), 25, 60),
          ("a folder of 20 files", benchlab.Shape(SERVICES, 16, "10s", 20), 10, None))
PAUSE = 0.25
SHOWN = "1,000 services of 10"


def measure_xlb(made, figures, what, shape, goal, worst):
    say(f"starting {SHOWN} backends in {what}")
    farm = benchlab.Farm(made, shape)
    times, own, ran = [], [], []
    for round_ in range(ROUNDS):
        time.sleep(PAUSE)
        _, result = save_bench.save(farm, round_)
        times.append(result["last_ms"])
        ran.append(result["ran_ms"])
        own.append(farm.xlb.status()["applied_ms"])
        if round_ % 10 == 9:
            say(f"{round_ + 1} of {ROUNDS} saves, the last one took {times[-1]:.1f} ms")
    assert farm.healthy() == SERVICES * BACKENDS, "backends were lost under way"
    figures.add_times(f"save to last slot in the kernel, {SHOWN}, {what}", times, goal)
    figures.add("  the slowest but one in a hundred",
                benchlab.percentile(sorted(times), 99), "ms", worst)
    figures.add_times("  by the daemon's own clock (applied_ms)", own)
    figures.add_times("  CPU it takes, with what follows within 30 ms", ran)
    same = [(unchanged(farm), at_rest(farm)) for _ in range(max(ROUNDS // 4, 3))]
    figures.add_times("  CPU of a save that changes nothing, and a pass that finds nothing",
                      [save - rest for save, rest in same], 10)
    figures.add_times("  CPU of what goes on meanwhile (not contained in that; probes)",
                      [rest for _, rest in same])
    figures.add("  start to all of them serving and an empty plan", farm.start_ms, "ms")
    farm.add_memory(figures, 64)
    farm.close()


def at_rest(farm):
    """ms of CPU in so much time: 100 probes, mostly."""
    before, _ = farm.scheduled()
    time.sleep(0.1)
    return (farm.scheduled()[0] - before) * 1e3


def unchanged(farm):
    """ms of CPU until it is at rest again after the same bytes were saved."""
    bytes_ = farm.file(0).read_bytes()
    before, _ = farm.scheduled()
    farm.file(0).write_bytes(bytes_)
    time.sleep(0.1)
    return (farm.scheduled()[0] - before) * 1e3


def weight(round_, service, backend):
    changed = (round_ * 7 % SERVICES, round_ * 3 % BACKENDS) == (service, backend)
    return 5 + round_ % 4 if changed else 10


def haproxy_text(shape, round_):
    lines = ["global", "    maxconn 1000", "defaults", "    mode tcp", "    timeout connect 1s",
             "    timeout client 30s", "    timeout server 30s"]
    for i in range(SERVICES):
        lines += [f"listen s{i}", f"    bind {shape.vip(i)}:80"]
        lines += [f"    server b{k} {shape.address(i, k)}:{shape.port(i)} weight "
                  f"{weight(round_, i, k)}" for k in range(BACKENDS)]
    return "\n".join(lines) + "\n"


def measure_haproxy(made, figures):
    """Until the new worker is ready; what the old one still has goes on there."""
    if not shutil.which("haproxy"):
        figures.add_missing("  the same by HAProxy's reload", "haproxy isn't installed")
        return
    ns = lab.Netns(made, "haproxy")
    ns.ip("link set lo up", "address add 198.18.0.1/15 dev lo")
    path, told = made.scratch / "haproxy.cfg", made.scratch / "notify"
    shape, times = SHAPES[0][1], []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(told))
        ready.settimeout(60)

        def wait_ready():
            while b"READY=1" not in ready.recv(4096).split(b"\n"):
                pass

        path.write_text(haproxy_text(shape, 0))
        process = ns.start(["env", f"NOTIFY_SOCKET={told}", "haproxy", "-Ws", "-f", path],
                           log="haproxy")
        wait_ready()
        for round_ in range(1, 1 + max(ROUNDS // 4, 3)):
            path.write_text(haproxy_text(shape, round_))
            time.sleep(PAUSE)
            began = time.monotonic()
            process.send_signal(signal.SIGUSR2)
            wait_ready()
            times.append((time.monotonic() - began) * 1e3)
    process.terminate()
    process.wait(30)
    figures.add_times("  the same by HAProxy's reload", times)


def nft_text(shape, round_):
    lines = ["flush ruleset", "table ip lb {"]
    for i in range(SERVICES):
        at, parts = 0, []
        for k in range(BACKENDS):
            share = weight(round_, i, k)
            parts.append(f"{at}-{at + share - 1} : {shape.address(i, k)}")
            at += share
        lines.append(f"chain s{i} {{ dnat to numgen random mod {at} map "
                     f"{{ {', '.join(parts)} }}; }}")
    vips = ", ".join(f"{shape.vip(i)} : goto s{i}" for i in range(SERVICES))
    lines += ["chain in {", "type nat hook prerouting priority -100;",
              f"tcp dport 80 ip daddr vmap {{ {vips} }}", "}", "}"]
    return "\n".join(lines) + "\n"


def measure_nft(made, figures):
    if not shutil.which("nft"):
        figures.add_missing("  the same by nft -f", "nftables isn't installed")
        return
    ns, path, times = lab.Netns(made, "nft"), made.scratch / "rules", []
    for round_ in range(max(ROUNDS // 4, 3)):
        path.write_text(nft_text(SHAPES[0][1], round_))
        time.sleep(PAUSE)
        began = time.monotonic()
        done = ns.run(["nft", "-f", path], check=False)
        times.append((time.monotonic() - began) * 1e3)
        if done.returncode:
            figures.add_missing("  the same by nft -f", done.stderr.splitlines()[0][:60])
            return
    figures.add_times("  the same by nft -f", times)


def measure(made, figures):
    for what, shape, goal, worst in SHAPES:
        measure_xlb(made, figures, what, shape, goal, worst)
    say("the same by HAProxy and by nft")
    measure_haproxy(made, figures)
    measure_nft(made, figures)


if __name__ == "__main__":
    benchlab.main(measure, "save_many")
