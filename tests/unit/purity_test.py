#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Pure modules stay pure: what their objects may call, and that they keep no state.

Every undefined symbol of the objects must be in the allow-list below or be
defined by another pure object; nothing that reads a clock, a file, the
environment or a random number is there.  Sections that can be written to
must be empty (constants with pointers in them, .data.rel.ro, are fine).
"""
import functools
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lib"))
import tap  # noqa: E402

OBJECTS = ROOT / "build" / "reconciler"
MODULES = {  # what must be pure, and what of it is allowed not to be
    "desired": ("desired/*.c", {"desired/read.c"}),
    "scale": ("scale/*.c", set()),
    "plan": ("plan/*.c", set()),
    "tables": ("tables/*.c", set()),
    "health": ("health/*.c", {f"health/{name}.c" for name in
                             ("probe", "stream", "web", "datagram", "command")}),
}
# Called by pure code and pure themselves, but for buf_read_file().
BASE = ["base/buf.c", "base/diag.c", "base/ip.c", "base/mem.c", "base/strmap.c"]
NOT_FROM_BASE = {"buf_read_file"}

MEMORY = """malloc calloc realloc reallocarray free memcpy memmove memset memcmp memchr memrchr
    memmem __memcpy_chk __memset_chk __memmove_chk __explicit_bzero_chk explicit_bzero"""
STRINGS = """strlen strnlen strcmp strncmp strcasecmp strncasecmp strchr strchrnul strrchr strstr
    strspn strcspn strpbrk strdup strndup strcpy strncpy stpcpy strtol strtoul strtoll strtoull strtod
    __isoc23_strtol __isoc23_strtoul __isoc23_strtoll __isoc23_strtoull
    __strcpy_chk __strncpy_chk __stpcpy_chk __strcat_chk __strncat_chk snprintf vsnprintf vasprintf asprintf
    __snprintf_chk __vsnprintf_chk __asprintf_chk __vasprintf_chk __ctype_b_loc __ctype_tolower_loc
    inet_pton inet_ntop htons ntohs htonl ntohl"""
MATHS = """ceil floor round rint lround llround fabs fmin fmax pow sqrt log log2 exp ldexp lrint llrint
    nearbyint trunc isnan __isnan __isinf __finite __udivti3 __umodti3 __divti3 __modti3"""
ORDER = "qsort qsort_r bsearch abort __assert_fail"
COMPILER = """_GLOBAL_OFFSET_TABLE_ __stack_chk_fail __tls_get_addr __popcountdi2
    __asan_.* __ubsan_.* __sanitizer_.* __sancov_.*"""
LIBRARIES = r"yaml_\w+ nettle_sha256_\w+ nettle_base16_\w+ json_\w+"
# Of those libraries, what does I/O or keeps state.
IMPURE = r"yaml_parser_set_input_file|yaml_emitter_set_output_file|json_load_?f\w*|json_load_file|json_dump_?f\w*|" \
    r"json_dump_file|json_object_seed|json_set_alloc_funcs\w*"

ALLOWED = re.compile("|".join(f"(?:{word})" for group in (
    MEMORY, STRINGS, MATHS, ORDER, COMPILER, LIBRARIES) for word in group.split()))


def objects_of(pattern, but=()):
    sources = [p.relative_to(ROOT / "reconciler") for p in (ROOT / "reconciler").glob(pattern)]
    return [OBJECTS / s.with_suffix(".o") for s in sorted(sources) if str(s) not in but]


def run(*argv):
    return subprocess.run([str(a) for a in argv], check=True, capture_output=True, text=True).stdout


@functools.lru_cache(maxsize=None)
def symbols(path, option):
    out = run("nm", "--format=posix", option, path)
    return {line.split()[0].split("@")[0] for line in out.splitlines() if line.strip()}


def defined(paths):
    return set().union(*(symbols(p, "--extern-only") - symbols(p, "--undefined-only") for p in paths))


def writable_bytes(path):
    """Sizes of the sections that code could write to at run time."""
    found = {}
    for line in run("objdump", "-h", "-w", path).splitlines():
        field = line.split()
        if len(field) < 3 or not field[0].isdigit():
            continue
        name, size = field[1], int(field[2], 16)
        if re.match(r"\.(data|bss|tdata|tbss)(\.|$)", name) and not name.startswith(".data.rel.ro"):
            found[name] = size
    return {name: size for name, size in found.items() if size}


def all_objects():
    return [p for pattern, but in MODULES.values() for p in objects_of(pattern, but)]


@functools.lru_cache(maxsize=None)
def pure_symbols():
    base = [OBJECTS / Path(name).with_suffix(".o") for name in BASE if (ROOT / "reconciler" / name).exists()]
    return (defined(all_objects()) | defined(base)) - NOT_FROM_BASE


def is_allowed(symbol, ours):
    if symbol in ours:
        return True
    return ALLOWED.fullmatch(symbol) is not None and re.fullmatch(IMPURE, symbol) is None


def check_module(name):
    pattern, but = MODULES[name]
    paths = objects_of(pattern, but)
    assert paths, f"no sources match {pattern}"
    ours = pure_symbols()
    wrong = []
    for path in paths:
        assert path.exists(), f"{path.relative_to(ROOT)} is not built: run make"
        wrong += [f"{path.stem}.o calls {s}" for s in sorted(symbols(path, "--undefined-only"))
                  if not is_allowed(s, ours)]
        wrong += [f"{path.stem}.o can write to {n} bytes of {section}"
                  for section, n in writable_bytes(path).items()]
    assert not wrong, "; ".join(wrong)


def module_test(name):
    def body():
        check_module(name)
    body.__doc__ = f"{name} is pure"
    return tap.test(body)


for module in MODULES:
    module_test(module)


@tap.test
def impure_is_seen():
    """the check itself sees what is impure"""
    ours = pure_symbols()
    for symbol in ("time", "clock_gettime", "getenv", "open", "fopen", "read", "rand", "getrandom", "stat",
                   "printf", "fprintf", "stderr", "buf_read_file", "log_line", "json_load_file",
                   "yaml_parser_set_input_file", "strtok", "localtime", "sqlite3_open", "virConnectOpen"):
        assert not is_allowed(symbol, ours), f"{symbol} would be allowed"
    for symbol in ("memcpy", "buf_addf", "spec_parse", "yaml_parser_parse", "nettle_sha256_init"):
        assert is_allowed(symbol, ours), f"{symbol} would be refused"
    reader = symbols(OBJECTS / "desired" / "read.o", "--undefined-only")
    assert any(not is_allowed(s, ours) for s in reader), "read.o passes for pure"
    assert writable_bytes(OBJECTS / "base" / "log.o"), "log.o's static level isn't seen"


sys.exit(tap.run())
