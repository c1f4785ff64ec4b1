#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The manual and the completion say what the program does: every verb, option
and key of its tables, and none that it hasn't."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lib"))
import tap  # noqa: E402

MAN = ROOT / "packaging" / "man"
COMPLETION = ROOT / "packaging" / "completion"
BUILD = Path(os.environ.get("XLB_BUILD", ROOT / "build")).resolve()
LATER = "Not supported yet"

# Each kind of mapping, as the parser calls it, and the page's section for it.
SECTIONS = {
    "the file": "the file", "node": "node", "an interface": "node.interfaces",
    "a hypervisor": "hypervisors", "safety": "safety", "max_vm_deletes": "safety.max_vm_deletes",
    "history": "history",
    "a template": "templates", "a template's network": "templates.network",
    "a service": "services", "a port": "services.ports", "affinity": "services.affinity",
    "a backend": "services.backends", "sorry": "services.sorry",
    "a pool": "services.pool", "health": "services.health",
    "scaling": "services.scaling", "a signal": "services.scaling.signals",
    "a scaling direction": "services.scaling.up and down",
}


def source(name):
    return (ROOT / "reconciler" / name).read_text()


# ---- what the program has ------------------------------------------------

def verbs():
    main = source("main.c")
    table = main[main.index("verbs[] = {"):]
    table = table[:table.index("\n};")]
    return re.findall(r'^\t\{ "([a-z]+)", cmd_', table, re.M)


def later_verbs():
    found = re.search(r"later\[\] = \{(.*?)\}", source("main.c"), re.S)
    return re.findall(r'"([a-z]+)"', found.group(1)) if found else []


def long_options():
    """name: the enumerator, of all in the table."""
    return dict(re.findall(r'\{ "([a-z-]+)", (?:no|required)_argument, NULL,\s+(OPT_\w+) \}',
                           source("cli/options.c")))


def grammar():
    """verb: the options that say something to it alone, with two dashes."""
    names = {enum: name for name, enum in long_options().items()}
    text = source("cli/options.c")
    macros = re.findall(r"#define (PREVIEWS|PLANS)((?:.*\\\n)*.*)\n", text)
    for name, words in reversed(macros):  # the later ones hold earlier ones
        text = re.sub(rf"\b{name}\b", lambda _, w=words: w.replace("\\", " "), text)
    table = text[text.index("grammars[] = {"):]
    table = table[:table.index("\n};")]
    entries = re.split(r'\{\s*"(?=[a-z]+",)', table)[1:]
    return {re.match(r"[a-z]+", e).group(0): {f"--{names[o]}" for o in re.findall(r"BIT\((\w+)\)", e)}
            for e in entries}


def anywhere():
    names = {enum: name for name, enum in long_options().items()}
    block = re.search(r"#define ANYWHERE(.*?)\n\n", source("cli/options.c"), re.S).group(1)
    return {f"--{names[o]}" for o in re.findall(r"BIT\((OPT_\w+)\)", block)} | {"-f", "-v"}


def later_options():
    return {f"--{name}" for name, enum in long_options().items() if enum == "OPT_LATER"}


def key_tables():
    """what: {key: is it supported}"""
    found = {}
    for path in sorted((ROOT / "reconciler" / "desired").glob("*.c")):
        text = path.read_text()
        for what, keys in re.findall(
                r'key_?table\w*(?:\(\s*\w+,| \w+ = \{)\s*"([^"]+)",\s*(\w+)\s*[,)]', text, re.I):
            array = re.search(rf"{keys}\[\] = \{{(.*?)\n\}};", text, re.S)
            assert array, f"{path.name}: no array {keys}"
            found[what] = {name: kind == "KEY" and reader != "read_false" for kind, name, reader in
                               re.findall(r'\b(KEY|KEY_LATER)\("(\w+)",\s*("|\w+)', array.group(1))}
    return found


def choices():
    """Words that keys accept, and those that they will: {word: supported}."""
    text = source("desired/names.c")
    found = {w: True for w in re.findall(r'\{ "(\w+)", \w+ \}', text)}
    found.update({w: False for w in re.findall(r'LATER\("(\w+)"\)', text)})
    return found


# ---- what the pages say --------------------------------------------------

def page(name):
    return (MAN / name).read_text()


def sections(text, macro):
    parts = re.split(rf"^\.{macro} (.*)\n", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def items(text):
    """The items of the outermost lists, each: its head, and the text below."""
    depth, found = 0, []
    for line in text.splitlines():
        if line.startswith(".Bl"):
            depth += 1
        elif line.startswith(".El"):
            depth -= 1
        elif line.startswith(".It ") and depth == 1:
            found.append([line[4:], ""])
            continue
        if found:
            found[-1][1] += line + "\n"
    return found


def flags(text):
    """Those of all Fl macros; `Fl -a , -b` is two."""
    runs = re.findall(r"\bFl ((?:-?[a-z][a-z-]*)(?: , -?[a-z][a-z-]*)*)", text)
    return {f"-{word}" for run in runs for word in run.split(" , ")}


def verb_entries():
    return {re.match(r"Ic ([a-z]+)", head).group(1): head
            for head, _ in items(sections(page("xlb-reconcile.8"), "Sh")["VERBS"])}


def same(documented, real, what):
    missing, unknown = sorted(real - documented), sorted(documented - real)
    assert not missing, f"{what}: not in the manual: {', '.join(missing)}"
    assert not unknown, f"{what}: in the manual only: {', '.join(unknown)}"


# ---- tests ---------------------------------------------------------------

@tap.test
def tables_are_read():
    """the test itself sees the tables"""
    assert {"run", "plan", "destroy"} <= set(verbs()), verbs()
    assert set(verbs()) == set(grammar()), (verbs(), grammar())
    assert "--timeout" in grammar()["run"] and "--state-dir" in anywhere()
    assert set(key_tables()) == set(SECTIONS), set(key_tables()) ^ set(SECTIONS)
    assert key_tables()["a service"]["vips"] is True
    assert choices()["maglev"] is True


@tap.test
def manual_has_verbs():
    """every verb, with its options, and those to come"""
    entries = verb_entries()
    same(set(entries), set(verbs()), "verbs")
    for verb, options in grammar().items():
        same({f for f in flags(f".It {entries[verb]}") if f.startswith("--")}, options, verb)
    text = sections(page("xlb-reconcile.8"), "Sh")["VERBS"]
    tail = text[text.rindex(".El"):]
    if later_verbs():
        assert LATER in tail, tail
        listed = set(re.findall(r"[a-z]+", re.search(r"^\.Ic (.*)$", tail, re.M).group(1)))
        same(listed, set(later_verbs()), "verbs to come")


@tap.test
def manual_has_options():
    """every option that goes with all verbs, and those to come"""
    text = sections(page("xlb-reconcile.8"), "Sh")
    documented = set()
    for head, body in items(text["OPTIONS"]):
        if LATER not in body:
            documented |= flags(f".It {head}")
    same(documented - {"-h"}, anywhere(), "options")
    tail = text["VERBS"][text["VERBS"].rindex(".El"):]
    to_come = flags(tail) | {f for head, body in items(text["OPTIONS"]) if LATER in body
                             for f in flags(f".It {head}")}
    same(to_come, later_options(), "options to come")


@tap.test
def manual_has_exit_codes():
    """every exit code"""
    enum = re.search(r"enum exit_code \{(.*?)\}", source("reconcile.h"), re.S).group(1)
    real = set(re.findall(r"= (\d+)", enum))
    text = sections(page("xlb-reconcile.8"), "Sh")["EXIT STATUS"]
    same({head for head, _ in items(text)}, real, "exit codes")


@tap.test
def manual_has_keys():
    """every key of the file, under its mapping, and whether it works yet"""
    text = sections(page("xlb-services.yaml.5"), "Sh")["KEYS"]
    documented = sections(text, "Ss")
    same(set(documented), set(SECTIONS.values()), "kinds of mappings")
    for what, keys in key_tables().items():
        entries = {head.removeprefix("Ic "): body for head, body in items(documented[SECTIONS[what]])}
        same(set(entries), set(keys), what)
        for name, supported in keys.items():
            told = re.search(rf"^{LATER}", entries[name], re.M) is None
            assert told == supported, f"{what}: {name}: the manual is wrong about whether it works"


@tap.test
def manual_has_words():
    """every word that a key accepts"""
    text = page("xlb-services.yaml.5")
    words = set()
    for line in re.findall(r"^\.(?:.* )?Cm (.*)", text, re.M):
        words |= set(re.findall(r"\w+", line))
    for word in choices():
        assert word in words, f"{word} is not in the manual"


@tap.test
def manual_is_well_formed():
    """mandoc and groff find nothing wrong with the pages"""
    ignored = re.compile(r"referenced manual not found|outdated mandoc.db|unexpected whitespace")
    for path in sorted(MAN.iterdir()):
        done = subprocess.run(["mandoc", "-T", "lint", "-W", "all", path], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        wrong = [line for line in done.stdout.splitlines() if not ignored.search(line)]
        assert not wrong, "\n".join(wrong)
        done = subprocess.run(["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", path], text=True,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              env=dict(os.environ, LC_ALL="C.UTF-8", MANROFFSEQ="", MANWIDTH="80"))
        assert done.returncode == 0 and not done.stderr, done.stderr


FILE = """version: 1
node: {interfaces: [eth0]}
hypervisors: [{name: local, uri: "qemu:///system"}]
templates:
  - {name: t, image: /bin/sh, network: default}
services:
  - name: web
    vips: [192.0.2.10]
    ports: [80]
    backends: [{name: old-1, address: 10.77.0.5}, {address: 10.77.0.6}]
  - name: api
    vips: [192.0.2.11]
    ports: [80]
    pool: {template: t, min: 1, max: 3}
"""

ASK = """
set -u
cd "$1"; shift
PATH=$1:$PATH; shift
. "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_xlb_reconcile
printf '%s\\n' "${COMPREPLY[@]+"${COMPREPLY[@]}"}"
"""


class Shell:
    """Asks the completion as bash does when Tab is pressed."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(dir=os.environ.get("XLB_TEST_DIR")))
        (self.folder / "services.yaml").write_text(FILE)
        (self.folder / "bad.yaml").write_text("version: 1\nservcies: []\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder)

    def complete(self, *words, shell=("bash", "--norc", "--noprofile"), before=""):
        argv = [*shell, "-c", before + ASK, "-", str(self.folder), str(BUILD), str(COMPLETION / "xlb-reconcile.bash"),
                "xlb-reconcile", *words]
        done = subprocess.run(argv, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
        assert done.returncode == 0 and not done.stderr, (words, done.stderr)
        return done.stdout.split()


@tap.test
def bash_completes_verbs_and_options():
    """bash: all verbs, and for each its options and those of all"""
    with Shell() as sh:
        assert sh.complete("") == verbs(), sh.complete("")
        assert sh.complete("-v", "pl") == ["plan"]
        assert sh.complete("--state-dir", "run", "--hook", "tc", "sta") == ["status"]
        for verb, options in grammar().items():
            same(set(sh.complete(verb, "-")), options | anywhere(), f"completion of {verb}")
        same(set(sh.complete("-")), anywhere(), "completion before a verb")
        assert sh.complete("plan", "--det") == ["--detailed-exitcode"]


@tap.test
def bash_completes_names():
    """bash: services and backends of the file, and values of options"""
    with Shell() as sh:
        assert sh.complete("history", "") == ["api", "web"], sh.complete("history", "")
        assert sh.complete("history", "w") == ["web"]
        backends = ["api/api-1", "api/api-2", "api/api-3", "web/old-1", "web/10.77.0.6"]
        assert sh.complete("drain", "") == backends, sh.complete("drain", "")
        assert sh.complete("drain", "web/o") == ["web/old-1"]
        assert sh.complete("-f", "bad.yaml", "history", "") == []
        assert sh.complete("-f", str(sh.folder / "services.yaml"), "history", "a") == ["api"]
        assert sh.complete("-f", "serv") == ["services.yaml"]
        assert sh.complete("--hook", "xdp") == ["xdp", "xdp_generic"]
        assert sh.complete("history", "--kind", "v") == ["vm"]
        assert "lo" in sh.complete("--interface", "l")


@tap.test
def zsh_completes():
    """zsh: the same by way of bashcompinit"""
    if not shutil.which("zsh"):
        raise tap.Skip("no zsh here")
    start = "autoload -U +X compinit && compinit -D -u; autoload -U +X bashcompinit && bashcompinit; " \
            "emulate sh; setopt kshglob noshglob braceexpand ksharrays"
    with Shell() as sh:
        for words in (("pl",), ("drain", "web/o"), ("plan", "--det"), ("--hook", "xdp")):
            wanted = sh.complete(*words)
            found = sh.complete(*words, shell=("zsh", "-f"), before=start)
            assert wanted and found == wanted, (words, wanted, found)


sys.exit(tap.run())
