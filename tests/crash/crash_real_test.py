#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""xlb-reconcile dies at, or is failed by, everything that it does to libvirtd,
bpffs, tc, netlink and sqlite: the real ones.

The program under test is the product, linked once more so that each call that
acts on the outside goes through tests/crash/seam.c.  First a life without harm
says which calls each phase of it makes, and where it ends.  Then a life in which
the process is killed before (or after) the first call of each kind, and started
again; and one in which the first call of each kind fails, or is made and fails
all the same.  Each phase must come to the same end, with nothing left.

What acts on the outside is found in the objects themselves: a function that is
neither wrapped nor known to be harmless fails the test.
"""
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
import bpfmap  # noqa: E402
import lab  # noqa: E402
import tap  # noqa: E402
from lab import wait_for  # noqa: E402

SOAK = bool(os.environ.get("XLB_SOAK"))
# Of each kind the first call is hurt before or after it, by the seed; the long
# form does both.
SEED = int(os.environ.get("XLB_SEED", "1"))
ENOUGH = 60  # seconds to die in; on a busy machine some kinds are left for other seeds
PROGRAM = lab.BUILD / "tests" / "crash" / "xlb-reconcile"
VIPS = ("192.0.2.10", "192.0.2.20", "2001:db8::20")

# ---- which functions act on the outside ----

SUSPECT = re.compile(r"^(vir[A-Z]|bpf_|sqlite3_|datapath_|net_[a-z]+(_|$)|sysctl_|mkdir|rmdir|unlink"
                     r"|rename|link$|symlink|chmod|truncate|fallocate)")
# They only look, hold things in this process's memory, or lead to wrapped ones.
HARMLESS = re.compile(
    r"^(virDomainInterfaceAddresses"
    r"|vir\w*(Get|Is|Lookup|List|NumOf|Free|Open|Close|Register|Deregister|Unregister|SetErrorFunc"
    r"|SetKeepAlive|RegisterImpl|RegisterAny|RegisterCloseCallback|StreamNew|StreamAbort|Refresh)\w*"
    r"|bpf_(map|prog|link)_get_fd_by_id|bpf_link_get_next_id|bpf_obj_get\w*"
    r"|bpf_map_get_next_key|bpf_map_lookup_(elem|batch)"
    r"|bpf_map__\w+|bpf_object__(btf|close|find_program_by_name|next_map|open_mem)|bpf_program__fd"
    r"|bpf_object__find_map_by_name|bpf_tc_query|bpf_xdp_query"
    r"|sqlite3_(?!step|exec)\w+"
    r"|datapath_(attached|close|count|drops|events|links|owner_count|owners|remembered"
    r"|reply_attached|reread|sets|unpinned|view|vips_whole|grace|open|destroy|attach|detach|reply_attach|reply_detach|repin"
    r"|reload|set_owner|set_replies|set_direct"
    r"|stamps|stamps_drop|sweep|flow_line|trace_start|trace_stop)"
    r"|net_(addresses|attributes|close|link|link_by_name|links|nested|open|path|refresh|source"
    r"|native|find_address|resolve|keep|catch_up)"
    r"|sysctl_read)$")


def undefined(objects):
    out = subprocess.run(["nm", "-u", *objects], capture_output=True, text=True, check=True).stdout
    return {line.split()[1] for line in out.splitlines() if line.strip().startswith("U ")}


def seams():
    out = subprocess.run(["nm", lab.BUILD / "tests/crash/seam.o"], capture_output=True, text=True,
                         check=True).stdout
    return set(re.findall(r" T __wrap_(\w+)", out)) - {"seam_change"}


def announced():
    """The changes of the outside that the product's source names: see base/seam.h."""
    return {name for folder in ("reconciler", "state") for file in (lab.ROOT / folder).rglob("*.c")
            for name in re.findall(r'seam_change\("(\w+)"\)', file.read_text())}


# Kinds that none of the phases can come to, and why.
ELSEWHERE = {
    "virDomainCreateXML": "only where this machine may have kvm",
    "virNetworkUpdate": "of libvirt's own networks: the best effort of network_pool_test",
    "virDomainResume": "of a guest that is found paused",
    "datapath_tick": "the coarse clock goes on; nothing else does with it",
    "virDomainRename": "of adopt, a verb of its own",
    "virDomainSetMetadata": "of adopt, a verb of its own",
    "rmdir": "of destroy, at its very end",
}

# Announced changes that no phase makes.
CHANGES_ELSEWHERE = {
    "adoption_release": "of adopt, a verb of its own",
    "adoption_take": "of adopt, a verb of its own",
    "applied_forget": "of destroy, at its very end",
    "datapath_destroy": "of destroy, at its very end",
    "datapath_repin": "of pins that somebody removed: drift_test",
    "datapath_tick": "the coarse clock goes on; nothing else does with it",
    "datapath_trace_start": "of trace, a verb of its own",
    "datapath_trace_stop": "of trace, a verb of its own",
    "vm_start": "of a guest that is found off: pool_test",
}

KINDS = sorted(seams() - set(ELSEWHERE))

# ---- a life ----

HEAD = """version: 1
node: {{interfaces: [{{name: uplink, hook: {hook}}}], resync: 1s}}
safety: {{allow_empty: true{safety}}}
hypervisors:
  - {{name: local, uri: "{lxc}"}}
  - {{name: machines, uri: "{qemu}"}}
templates:
  - {{name: web, cmdline: "{backend} -p 80", memory: 96MiB,
     network: {{bridge: br0, addresses: [10.77.0.40-10.77.0.60/24], gateway: [10.77.0.1]}}}}
  - {{name: disk, image: "{image}", memory: 32MiB, cloud_init: "{user_data}",
     network: {{bridge: br0, addresses: [10.77.0.70-10.77.0.80/24], gateway: [10.77.0.1]}}}}
services:{none}
"""
WEB = """  - name: web
    vips: [192.0.2.10]
    protocol: tcp
    ports: [80]
    algorithm: {algorithm}
    drain: 1s
    pool: {{template: web, min: {min}, max: {min}, hypervisors: [local]}}
    health: {{type: http, path: /healthz, interval: 300ms, timeout: 250ms}}
"""
DNS = """  - name: dns
    vips: [192.0.2.20, "2001:db8::20"]
    protocol: udp
    ports: [9000]
    forwarding: {forwarding}
    drain: 1s
    health: {{type: tcp, port: 80, interval: 300ms, timeout: 250ms}}
    backends: [{{name: b1, addresses: [10.77.0.11, "fd00:77::11"]}}]
"""
DISK = """  - name: disk
    vips: [192.0.2.30]
    protocol: udp
    ports: [80]
    pool: {{template: disk, min: 1, max: 1, hypervisors: [machines]}}
"""
PHASES = {
    "made": ("xdp", WEB.format(algorithm="maglev", min=1) + DNS.format(forwarding="dsr")
             + DISK.format(), {"web-1", "disk-1"}),
    "scaled up": ("xdp", WEB.format(algorithm="maglev", min=2) + DNS.format(forwarding="dsr")
                  + DISK.format(), {"web-1", "web-2", "disk-1"}),
    "edited": ("xdp", WEB.format(algorithm="source_hash", min=2) + DNS.format(forwarding="gue")
               + DISK.format(), {"web-1", "web-2", "disk-1"}),
    "scaled down": ("xdp", WEB.format(algorithm="source_hash", min=1)
                    + DNS.format(forwarding="gue"), {"web-1"}),
    "hook changed": ("tc", WEB.format(algorithm="source_hash", min=1)
                     + DNS.format(forwarding="gue"), {"web-1"}),
    "removed": ("tc", "", set()),
}


class Reconciler(lab.Reconciler):
    def begin(self, at=""):
        if self.process and not self.ended():
            self.kill9()
        self.calls = self.lab.scratch / "seams"
        self.calls.write_text("")
        self.process = self.lab.lb.start(
            [PROGRAM, *map(str, self.argv("-v", "run")[1:])], "xlb-reconcile",
            env=dict(os.environ, XLB_SEAM_AT=at, XLB_SEAM_LOG=str(self.calls)))
        return self

    def ended(self):
        return self.process.poll() is not None

    def hits(self, how):
        return {line.split()[0] for line in self.calls.read_text().splitlines()
                if line.endswith(" " + how)}


class World:
    def __init__(self):
        self.lab = lab.Lab(client_addresses=2)
        backend = self.lab.add_backend("b1")
        backend.ns.start([lab.BUILD / "xlb-backend", "-n", "b1", "-p", "80", "-u", "9000"],
                         log="server-b1")
        self.libvirtd = self.lab.libvirtd()
        self.libvirtd.start()
        self.image = self.lab.scratch / "nothing.raw"
        self.image.write_bytes(bytes(1 << 20))
        self.user_data = self.lab.scratch / "user-data"
        self.user_data.write_text("#cloud-config\n{}\n")
        self.died, self.no_time, self.changes = set(), set(), set()
        self.was_forwarding = self.forwarding()
        made = self.lab.reconciler("")
        self.xlb = Reconciler(self.lab, made.file)

    def close(self):
        try:
            self.libvirtd.stop()
        finally:
            self.lab.close()

    def write(self, phase):
        hook, services, _ = PHASES[phase]
        head = HEAD.format(hook=hook, safety=self.safety(), lxc=self.libvirtd.lxc, qemu=self.libvirtd.qemu,
                           backend=lab.BUILD / "xlb-backend", image=self.image,
                           user_data=self.user_data, none="" if services else " []")
        self.xlb.write(head + services)

    def safety(self):
        """Guards that let the phases pass, where there are guards."""
        keys = ", max_service_removals: 100%, max_vm_deletes: {count: 20, per: 1s}"
        if not hasattr(self, "has_guards"):
            file = self.lab.scratch / "guards.yaml"
            file.write_text("version: 1\nnode: {interfaces: [uplink]}\nservices: []\n"
                            f"safety: {{allow_empty: true{keys}}}\n")
            self.has_guards = not self.lab.lb.run([PROGRAM, "-f", file, "check"],
                                                  check=False).returncode
        return keys if self.has_guards else ""

    def virsh(self, uri, *words):
        done = self.lab.lb.run(["virsh", "-q", "-c", uri, *words], check=False)
        return done.stdout if not done.returncode else ""

    def domains(self):
        return {name for uri in (self.libvirtd.lxc, self.libvirtd.qemu)
                for name in self.virsh(uri, "list", "--all", "--name").split()}

    def volumes(self):
        found = set()
        for pool in self.virsh(self.libvirtd.qemu, "pool-list", "--all", "--name").split():
            found.add("pool")
            found |= {line.split()[0] for line in
                      self.virsh(self.libvirtd.qemu, "vol-list", pool).splitlines() if line.strip()}
        return found

    def owners(self):
        if not self.xlb.bpffs.exists():
            return set()
        name = lambda words: bytes(int(w, 16) for w in words).split(b"\0")[0].decode()
        services = {int.from_bytes(bytes(int(w, 16) for w in k), "little"): name(v)
                    for k, v in bpfmap.entries(self.xlb.bpffs / "services")}
        number = lambda words: int.from_bytes(bytes(int(w, 16) for w in words), "little")
        return {(services.get(number(v[64:68])), name(v))
                for _, v in bpfmap.entries(self.xlb.bpffs / "owners") if v[68] != "0x02"}

    def filters(self):
        return {(dev, name) for dev in ("uplink", "br0") for name in
                re.findall(r"xlb_\w+", self.lab.lb.out(["tc", "filter", "show", "dev", dev,
                                                        "ingress"]))}

    def forwarding(self):
        return self.lab.lb.out(["grep", "-H", "", *(
            f"/proc/sys/net/ipv{n}/conf/{of}/forwarding"
            for n in "46" for of in ("uplink", "br0", "all"))])

    def state(self):
        """All that is to be the same, however it came about."""
        status = self.xlb.status() or {}
        return {
            "domains": sorted(self.domains()),
            "volumes": sorted(self.volumes()),
            "pins": sorted(p.name for p in self.xlb.bpffs.iterdir() if p.name != "prog_tc")
            if self.xlb.bpffs.exists() else [],
            "owners": sorted(map(str, self.owners())),
            "filters": sorted(self.filters()),
            "xdp": "xlb_xdp" in self.lab.lb.out(["ip", "-d", "link", "show", "uplink"]),
            "addresses": sorted(re.findall(r"(?:192\.0\.2|2001:db8:)[0-9a-f.:]+/(?:32|128)",
                                           self.lab.lb.out(["ip", "address", "show", "uplink"]))),
            "forwarding": self.forwarding(),
            "vms": sorted((v["name"], v["address"]) for v in status.get("vms", [])),
            "up": sorted((s["name"], b["name"], b["state"]) for s in status.get("services", [])
                         for b in s["backends"]),
            "failing": status.get("failing"),
            "plan": self.xlb.verb("plan", "--detailed-exitcode").returncode,
        }

    def at_end(self, phase, end=None):
        """Waits for the end of the phase; returns the state, that of `end`."""
        last = {"now": None}

        def there():
            if not self.xlb.plan_is_empty():
                return False
            before, last["now"] = last["now"], self.state()
            if end:
                return last["now"] == end
            now = last["now"]
            # It is read piece by piece, while things may yet change.
            return now == before and set(now["domains"]) == PHASES[phase][2] and not \
                now["failing"] and all(s == "up" for _, n, s in now["up"] if n != "disk-1")
        began = time.monotonic()
        try:
            wait_for(there, f"the end of '{phase}'", 120, 0.1)
        except lab.Timeout:
            for key, value in (end or {}).items():
                if last["now"] and last["now"][key] != value:
                    tap.note(f"{key}: {last['now'][key]} instead of {value}")
            tap.note(self.xlb.verb("plan").stdout)
            tap.note(self.xlb.verb("status").stdout)
            raise
        tap.note(f"{phase}: {time.monotonic() - began:.1f} s")
        return last["now"]


def from_nothing(world):
    if world.xlb.process and not world.xlb.ended():
        world.xlb.kill9()
    world.xlb.verb("destroy", "--yes", check=True)
    assert not world.domains() and not world.xlb.bpffs.exists()
    assert world.forwarding() == world.was_forwarding, world.forwarding()


def before(world, phase):
    """To where the phase begins, again."""
    last = list(PHASES).index(phase) - 1
    if last < 0:
        from_nothing(world)
    else:
        name = list(PHASES)[last]
        world.write(name)
        world.xlb.begin()
        world.at_end(name, world.phases[name][1])
        world.xlb.kill9()
    world.write(phase)


def harmless_life(world):
    """{phase: (its kinds in the order of their first calls, its end)}"""
    phases = {}
    for phase in PHASES:
        world.write(phase)
        world.xlb.begin()
        end = world.at_end(phase)
        calls = dict.fromkeys(world.xlb.calls.read_text().split())
        world.xlb.kill9()
        world.changes |= {call[1:] for call in calls if call.startswith("=")}
        phases[phase] = ([call for call in calls if not call.startswith("=")], end)
    return phases


@tap.test
def all_is_wrapped(_):
    """every function that acts on the outside is in the seam, or known to be harmless"""
    objects = [p for folder in ("reconciler", "state") for p in (lab.BUILD / folder).rglob("*.o")
               if p.name != "main.o"]
    assert len(objects) > 50
    used, wrapped = undefined(objects), seams()
    suspects = {name for name in used if SUSPECT.match(name)}
    unknown = {n for n in suspects if n not in wrapped and not HARMLESS.match(n)}
    assert not unknown, f"neither in tests/crash/seam.c nor harmless: {sorted(unknown)}"
    assert wrapped <= used, f"in the seam, and used by nobody: {sorted(wrapped - used)}"
    assert len(wrapped) > 40


@tap.test
def a_life(world):
    """a life without harm comes to the end of each of its phases"""
    world.phases = harmless_life(world)
    seen = {kind for kinds, _ in world.phases.values() for kind in kinds}
    never = seams() - seen - set(ELSEWHERE)
    assert not never, f"no phase makes these calls: {sorted(never)}"
    changes = announced()
    assert len(changes) > 40
    never = changes - world.changes - set(CHANGES_ELSEWHERE)
    assert not never, f"no phase makes these changes: {sorted(never)}"


def die_at(world, phase, kind, how):
    """True: it died there.  False: it came to the end without."""
    world.xlb.begin(f"{kind}:1:{how}")
    end = world.phases[phase][1]
    since = time.monotonic()

    def over():
        nonlocal since
        if world.xlb.ended() or world.xlb.hits(how):
            return True
        if time.monotonic() - since < 1:
            return False
        since = time.monotonic()
        return world.xlb.plan_is_empty() and world.state() == end
    wait_for(over, f"its death at {kind} ({how})", 120, 0.02)
    if not world.xlb.ended() and not world.xlb.hits(how):
        world.xlb.kill9()
        return False
    world.xlb.process.wait(20)
    return True


def share(kind):
    """Of the short form: 0, killed whatever the time; 1, after those.  And how
    it is killed.  Each has all four in four seeds."""
    turn = SEED + KINDS.index(kind)
    return turn % 2, ("before", "after")[turn // 2 % 2]


def die_in(world, phase, todo, missed):
    """Dies at each (kind, how) of todo; what it came to."""
    done = []
    for kind, how in todo:
        for _ in range(2):
            if die_at(world, phase, kind, how):
                done.append((kind, how))
                break
            # It was done already; and now so is all the rest.
            before(world, phase)
        else:
            missed.append((phase, kind, how))
    return done


def die_in_turn(world, wanted, until=float("inf")):
    """Through all phases; wanted is [(kind, how)].  What there was no time for."""
    left, missed = set(wanted), []
    from_nothing(world)
    for phase, (kinds, end) in world.phases.items():
        world.write(phase)
        for kind in kinds:
            if time.monotonic() > until:
                break
            done = die_in(world, phase, sorted(t for t in left if t[0] == kind), missed)
            left -= set(done)
            world.died |= {kind for kind, _ in done}
        world.xlb.begin()
        world.at_end(phase, end)
        world.xlb.kill9()
    tap.note(f"killed at {len(wanted) - len(left)} places; not come to: {missed}")
    return left if time.monotonic() > until else set()


@tap.test
def dies_at_each(world):
    """killed at the first call of each kind, it comes to the same end of every phase"""
    if SOAK:
        die_in_turn(world, [(k, how) for k in KINDS for how in ("before", "after")])
        return
    first, then = ([(k, share(k)[1]) for k in KINDS if share(k)[0] == turn] for turn in (0, 1))
    until = time.monotonic() + ENOUGH
    die_in_turn(world, first)
    assert len(world.died) >= len(KINDS) / 3, f"only at {sorted(world.died)}"
    world.no_time = set(then)
    if time.monotonic() < until:
        world.no_time = die_in_turn(world, then, until)


@tap.test
def died_at_all(world):
    """there is no kind of call that it wasn't killed at"""
    late = {kind for kind, _ in world.no_time} - world.died
    never = sorted(set(KINDS) - world.died - late)
    tap.note(f"not killed at: {never}")
    assert len(never) <= 2, never
    if late:
        raise tap.Skip(f"in {ENOUGH} s and by seed {SEED} it was killed at {len(world.died)} kinds "
                       f"of call, but not at {' '.join(sorted(late))}")


def fail_at(world, phase, todo):
    """One process that todo happens to: what did, and does it take another?"""
    world.xlb.begin(",".join(f"{k}:1:{how}" for k, how in todo))
    end = world.phases[phase][1]
    reached = lambda: {(k, how) for how in ("fail", "lie") for k in world.xlb.hits(how)}
    # VMs that fail are tried again ever later, but at once by a new process.
    over = lambda: world.xlb.ended() or sum(k.startswith("vir") for k, _ in reached()) >= 3
    try:
        wait_for(lambda: over() or (world.xlb.plan_is_empty() and world.state() == end),
                 "an end", 60, 0.2)
    except lab.Timeout:
        world.at_end(phase, end)
    if world.xlb.ended():
        assert world.xlb.process.returncode > 0, world.xlb.log_tail()
    return reached(), over()


@tap.test
def is_failed_by_each(world):
    """failed by the first call of each kind, done or not, it comes to the same end"""
    hit = set()
    from_nothing(world)
    for phase, (kinds, end) in world.phases.items():
        todo = [(k, ("fail", "lie")[(SEED + i) % 2]) for i, k in enumerate(kinds)]
        if not SOAK:
            todo = [t for t in todo if t[0] not in {k for k, _ in hit}]
        world.write(phase)
        for _ in range(len(todo) + 1):
            reached, again = fail_at(world, phase, todo)
            hit |= reached
            todo = [t for t in todo if t not in reached]
            if not again:
                break
        world.at_end(phase, end)
        world.xlb.kill9()
    tap.note(f"{len(hit)} calls failed")
    never = seams() - {k for k, _ in hit} - set(ELSEWHERE)
    assert len(never) < len(seams()) / 4, f"never failed: {sorted(never)}"
    tap.note(f"not come to again in a process whose other calls failed: {sorted(never)}")


if __name__ == "__main__":
    lab.enter()
    made = World()
    try:
        result = tap.run(made, on_failure=made.lab.print_logs)
    finally:
        made.close()
    sys.exit(result)
