#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""schemas/services.schema.json and the parser agree: over the golden files and
thousands of files made from good ones, an independent validator refuses what
the parser refuses for its form, and accepts what it accepts.

SEMANTIC lists what only the parser can know; a message that isn't in it must
come with a refusal by the schema."""
import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "lib"))
import tap  # noqa: E402

BUILD = ROOT / "build"
SCHEMA = ROOT / "schemas" / "services.schema.json"
GOLDEN = ROOT / "tests" / "golden" / "desired"

# What two places say about each other, what a number with a unit amounts to,
# and how YAML is written rather than what it says.
SEMANTIC = re.compile("|".join((
    # written, not said
    r"^duplicate key", r"^anchors ", r"^aliases ", r"^merge keys ", r"^tags ", r"^YAML directives ",
    r"^not valid YAML", r"^not readable as text", r"^more than one document", r"^nested more than",
    r"^more than \d+ values", r"NUL byte$", r"control character", r"can be read as", r"^the file is empty$",
    r"must be true or false, not", r"longer than \d+ bytes",
    # amounts
    r"is out of range:", r"is not a level of", r"must be (a whole number|a size|a duration), not",
    # addresses
    r"is not an IP address$", r"is not an address of one machine$", r"is not a network prefix$",
    r"has two IPv[46] addresses$", r"^the range ", r"^a second IPv[46] range$", r"is not an address range$",
    r"is not the hardware address", r"^the (gateway|VIP|backend) ", r" is declared at .* already",
    r"^(nat|dsr) needs an IPv[46] address", r"^nat can't tell", r"^the template .* has no IPv", r"has the address", r"^\d+ addresses for up to",
    # several places of one file
    r"^duplicate (interface|hypervisor|template|service|backend)", r"^no (template|hypervisor) is called",
    r"^a pool needs a hypervisor", r"^the pool", r"^the template .* has nothing to boot", r"^\d+ (services|service ports|backends)",
    r"can't be (its own|the VIP)", r"^no \"services\"$", r"more than \d+ errors", r"is a name for a VM",
    r"^scaling without a pool", r"^a second signal", r"^low must be smaller",
    # several keys of one service
    r"is for source_hash$", r"is for udp services$", r"nothing is remembered of a client$",
    r"nothing to count where", r"can't change the port", r"can't have its own port$",
    r"can have its own port only", r"the check's timeout", r"says nothing for this type", r"^a \w+ check (of a (udp|tcp) service|needs)",
    r"can be asked for$", r"needs two hex digits", r"is named by its path", r"be held against$",
    r"records don't have the address", r"is not the name of a host$", r"of the service's sorry backend$",
)))


class Loader(yaml.SafeLoader):
    """YAML 1.2, as editors read it, and no key twice."""
    yaml_implicit_resolvers = {}


for tag, form, first in (
        ("bool", r"^(true|True|TRUE|false|False|FALSE)$", "tTfF"),
        ("int", r"^([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
        ("float", r"^([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$",
         "-+0123456789."),
        ("null", r"^(~|null|Null|NULL|)$", ["~", "n", "N", ""])):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(form), first)


def construct_int(loader, node):
    value = loader.construct_scalar(node)
    return int(value, 0 if value[:2] in ("0x", "0o") else 10)


Loader.add_constructor("tag:yaml.org,2002:int", construct_int)


def load(text):
    return yaml.load(text, Loader)


def dump(value):
    """As JSON, which is YAML in which all texts are quoted."""
    return json.dumps(value)


def validator():
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


VALIDATOR = validator()


def schema_refuses(value):
    """Why, or None."""
    error = next(VALIDATOR.iter_errors(value), None)
    return None if error is None else f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"


def parser_says(texts):
    """Its errors about each text."""
    done = subprocess.run([BUILD / "tests" / "unit" / "judge"], input="\0".join(texts) + "\0",
                          capture_output=True, text=True, check=True)
    answers = done.stdout.split("\0")[:-1]
    assert len(answers) == len(texts), (len(answers), len(texts))
    return [[line for line in a.splitlines() if not line.startswith("warning: ")] for a in answers]


def disagreement(errors, value):
    """What is wrong with that pair of judgements, or None."""
    why = schema_refuses(value)
    form = [e for e in errors if not SEMANTIC.search(e)]
    if form and not why:
        return f"the parser says {form[0]!r} and the schema nothing"
    if why and not errors:
        return f"the schema says {why!r} and the parser nothing"
    return None


@tap.test
def generated():
    """the committed schema is what `make schema` writes"""
    made = subprocess.run([BUILD / "schemas" / "generate"], capture_output=True, text=True, check=True)
    assert made.stdout == SCHEMA.read_text(), "schemas/services.schema.json is out of date: run `make schema`"


@tap.test
def described():
    """every key has a description, and no key that isn't supported is offered"""
    def walk(schema, path):
        for name, inner in schema.get("properties", {}).items():
            assert inner.get("description"), f"{path}.{name}: give its key .help"
            for each in [inner, inner.get("items", {})]:
                for form in [each, *each.get("anyOf", [])]:
                    walk(form, f"{path}.{name}")
    walk(VALIDATOR.schema, "")


@tap.test
def golden():
    """the golden files are judged alike"""
    judged = 0
    for path in sorted(GOLDEN.glob("*.yaml")):
        try:
            value = load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError):
            continue  # not YAML for anybody
        errors, = parser_says([path.read_text()])
        wrong = disagreement(errors, value)
        assert not wrong, f"{path.name}: {wrong}"
        judged += 1
    assert judged > 50, judged


def places(value, at=()):
    yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*at, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from places(inner, (*at, i))


def put(value, at, what):
    """A copy with something else in that place; ... takes the place away."""
    if not at:
        return what
    copied = copy.copy(value)
    if len(at) > 1 or what is not ...:
        copied[at[0]] = put(value[at[0]], at[1:], what) if len(at) > 1 else what
    else:
        del copied[at[0]]
    return copied


def get(value, at):
    for key in at:
        value = value[key]
    return value


OTHERS = ({}, [], [[]], {"name": "x"}, "a text", "5s", "10%", "4k", "10.9.9.9", "off", -1, 0, 7, 1.5,
          True, None)


def variants(value, seen):
    """Files that differ in one place from a good one, each kind of place once."""
    for at in places(value):
        here = get(value, at)
        kind = tuple("*" if isinstance(key, int) else key for key in at), type(here)
        if kind in seen:
            continue
        seen.add(kind)
        for other in OTHERS:
            yield put(value, at, other)
        if at:
            yield put(value, at, ...)
        if isinstance(here, dict):
            yield put(value, at, {**here, "nonsense": 1})
            yield put(value, at, {str(key) + "x": inner for key, inner in here.items()})
        if isinstance(here, list) and here:
            yield put(value, at, here + [here[-1]])
            yield put(value, at, here * 20)


def seeds():
    """One small service each, so that a file takes no time; the keys of all files."""
    for path in [ROOT / "examples/full/services.yaml", *sorted(GOLDEN.glob("*.yaml"))]:
        if path.name != "services.yaml" and not path.with_suffix(".out").exists():
            continue
        value = load(path.read_text())
        assert not schema_refuses(value), f"{path.name}: {schema_refuses(value)}"
        yield path.name, value


def features(value, at=""):
    """Which keys it has, and with words which words: what it adds to the others."""
    if isinstance(value, dict):
        return set().union(*(features(inner, f"{at}.{key}") for key, inner in value.items()), [at])
    if isinstance(value, list):
        return set().union(*(features(inner, at) for inner in value), [at])
    return {at, f"{at}={value}" if isinstance(value, str) and value.isalpha() else at}


def small_seeds():
    """Of each file what the earlier ones haven't shown."""
    seen = set()
    for name, value in seeds():
        small, new = {}, False
        for key, part in value.items():
            parts = part if isinstance(part, list) else [part]
            kept = [p for p in parts if features(p, key) - seen]
            seen |= features(parts, key)
            new |= bool(kept)
            if key == "version":
                small[key] = part
            elif isinstance(part, list):
                small[key] = kept
            elif kept:
                small[key] = part
        if new:
            yield name, small


@tap.test
def changed_in_one_place():
    """files that differ in one place from good ones are judged alike"""
    judged, refused, seen = 0, 0, set()
    for name, value in small_seeds():
        made = list(variants(value, seen))
        texts = [dump(v) for v in made]
        for errors, changed, text in zip(parser_says(texts), made, texts):
            wrong = disagreement(errors, changed)
            assert not wrong, f"{name}: {wrong}\n{text}"
            judged += 1
            refused += bool(errors)
    print(f"# {judged} files, {refused} of them refused")
    assert judged > 1500 and 0 < refused < judged, (judged, refused)


def defaults(schema, at=()):
    for name, inner in schema.get("properties", {}).items():
        if "default" in inner:
            yield (*at, name), inner["default"]
        for form in [inner, inner.get("items", {}), *inner.get("anyOf", [])]:
            yield from defaults(form, (*at, name))


@tap.test
def defaults_are_the_parsers():
    """a key written with the default that the schema names changes nothing"""
    judged = 0
    for name, value in seeds():
        if name != "services.yaml":
            continue
        before = canonical(value)
        for at, default in defaults(VALIDATOR.schema):
            for place in homes(value, at):
                here = get(value, place)
                with_it = put(value, (*place, at[-1]), default)
                without = put(with_it, (*place, at[-1]), ...)
                errors = parser_says([dump(with_it)])[0]
                if errors:
                    continue  # it says nothing there, as for another type of check
                assert canonical(with_it) == canonical(without), f"{at}: {default!r} isn't the default"
                judged += at[-1] not in here or here[at[-1]] != default
        assert before == canonical(value)
    assert judged > 20, judged


def homes(value, at, here=()):
    """The mappings of a file in which a key of the schema may stand."""
    if len(at) == 1:
        if isinstance(value, dict):
            yield here
        elif isinstance(value, list):
            yield from ((*here, i) for i, inner in enumerate(value) if isinstance(inner, dict))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from homes(inner, at, (*here, i))
    elif isinstance(value, dict) and at[0] in value:
        yield from homes(value[at[0]], at[1:], (*here, at[0]))


def canonical(value):
    done = subprocess.run([BUILD / "xlb-reconcile", "-f", "/dev/stdin", "check", "--print"],
                          input=dump(value), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


sys.exit(tap.run())
