#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever can change the outside says so at the seam.

Every public function that gets a handle of kernel, network, hypervisor or
store which it may alter calls seam_change() with its own name, itself or by
way of the store's one writer, or is listed below as one that only looks.  A
new one that is in neither fails this test."""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lib"))
import tap  # noqa: E402

# Header: the handle, and where its functions are.
HANDLES = {
    "reconciler/actual/bpf.h": ("datapath", "reconciler/actual/bpf*.c"),
    "reconciler/actual/netlink.h": ("net", "reconciler/actual/net*.c"),
    "reconciler/actual/libvirt.h": ("hypervisor", "reconciler/actual/libvirt*.c"),
    "state/store.h": ("store", "state/*.c"),
}
# They let go, read, or read anew into what this process remembers.
LOOKS = set("""datapath_close datapath_count datapath_owners datapath_grace datapath_reread datapath_sets
    datapath_stamps datapath_stamps_drop
    net_close net_refresh net_catch_up
    hypervisor_free hypervisor_refresh hypervisor_stats
    store_close store_last_applied store_load_scaler store_overrides store_history store_decisions
    store_declarations store_deletions store_scaler_saved""".split())
# Not told by a handle.
BY_NAME = {"sysctl_write": "reconciler/actual/sysctl.c", "datapath_open": "reconciler/actual/bpf.c",
           "store_open": "state/store.c", "applied_keep": "reconciler/applied.c",
           "applied_forget": "reconciler/applied.c"}
SEAM = re.compile(r'seam_change\("(\w+)"\)')
# The store's writers come together in these.
STORE = re.compile(r"\b(db_write|store_begin|store_commit|set_result|insert|add_row)\(")


def without_comments(text):
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


def declared(header, handle):
    """Functions whose handle isn't const."""
    text = without_comments((ROOT / header).read_text())
    for name, words in re.findall(r"\b(\w+)\(([^;{}()]*(?:\([^;{}()]*\)[^;{}()]*)*)\)\s*(?:__\w+[^;]*)?;",
                                  text):
        if re.search(rf"(?<!const )struct {handle} \*\w+\b", words):
            yield name


def bodies(pattern):
    found = {}
    for path in sorted(ROOT.glob(pattern)):
        text = without_comments(path.read_text())
        for m in re.finditer(r"^[a-z][^;{}#\n]*?\b(\w+)\([^;{}]*\)\n\{\n(.*?)^\}", text, re.M | re.S):
            found[m.group(1)] = m.group(2)
    return found


def check(header):
    handle, pattern = HANDLES[header]
    code, names = bodies(pattern), set(declared(header, handle))
    assert len(names) > 4, f"{header}: {names}"
    silent = set()
    for name in names - LOOKS:
        assert name in code, f"{name} is declared and not found in {pattern}"
        by_itself = name in SEAM.findall(code[name])
        if not by_itself and not (handle == "store" and STORE.search(code[name])):
            silent.add(name)
    assert not silent, f"no seam_change() in {', '.join(sorted(silent))}"
    return names


@tap.test
def all_say_so():
    """all functions that may alter a handle, but those that only look"""
    seen = set()
    for header in HANDLES:
        seen |= check(header)
    assert LOOKS <= seen, f"listed as looking, but not there: {LOOKS - seen}"


@tap.test
def others():
    """and those that need no handle"""
    for name, file in BY_NAME.items():
        assert name in SEAM.findall(bodies(file)[name]), name


@tap.test
def first():
    """before anything else is done but finding out"""
    for handle, pattern in HANDLES.values():
        for name, body in bodies(pattern).items():
            at = body.find(f'seam_change("{name}")')
            before = body[:max(at, 0)]
            assert not re.search(r"\b(bpf_\w*update\w*|write|sendto|netsock_ask|sqlite3_step|db_step|"
                                 r"submit\w*|unlink|rename)\(", before), f"{name}: {before}"


@tap.test
def seen():
    """the test itself sees one that says nothing"""
    text = "int made_up(struct datapath *d, int x);\nint looks(const struct datapath *d);\n"
    assert re.findall(r"\b(\w+)\(", text) and "made_up" not in LOOKS
    code = bodies("reconciler/actual/bpf.c")
    assert "datapath_set_vips" in code and "datapath_view" in code
    assert not SEAM.findall(code["datapath_view"])


sys.exit(tap.run())
