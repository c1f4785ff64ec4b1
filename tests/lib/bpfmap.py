# SPDX-License-Identifier: GPL-2.0-or-later
"""Pinned maps, read and spoilt by tests: what somebody with bpftool would do.

The syscall itself, because a value of a MiB fits no command line.
"""
import ctypes
import json
import mmap
import os
import platform
import subprocess

_SYS_BPF = {"x86_64": 321, "aarch64": 280}[platform.machine()]
_BPF_OBJ_GET = 7
_libc = ctypes.CDLL(None, use_errno=True)


class _ObjGet(ctypes.Structure):
    _fields_ = [("pathname", ctypes.c_uint64), ("bpf_fd", ctypes.c_uint32),
                ("file_flags", ctypes.c_uint32)]


def mapped(path, size, offset=0):
    """A writable mapping of a mmapable map's first bytes; offset: whole pages."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    attr = _ObjGet(pathname=ctypes.addressof(name))
    fd = _libc.syscall(_SYS_BPF, _BPF_OBJ_GET, ctypes.byref(attr), ctypes.sizeof(attr))
    if fd < 0:
        raise OSError(ctypes.get_errno(), f"can't open the map {path}")
    try:
        return mmap.mmap(fd, size, mmap.MAP_SHARED, offset=offset)
    finally:
        os.close(fd)


def entries(path):
    """[(key, value)] as bpftool's lists of hex words."""
    text = subprocess.run(["bpftool", "-j", "map", "dump", "pinned", str(path)], check=True,
                          capture_output=True, text=True).stdout
    return [(e["key"], e["value"]) for e in json.loads(text)]


def _plain(words):
    return [w[2:] if w.startswith("0x") else w for w in words]


def update(path, key, value):
    subprocess.run(["bpftool", "map", "update", "pinned", str(path), "key", "hex", *_plain(key),
                    "value", "hex", *_plain(value)], check=True, capture_output=True)


def delete(path, key):
    subprocess.run(["bpftool", "map", "delete", "pinned", str(path), "key", "hex",
                    *_plain(key)], check=True, capture_output=True)
