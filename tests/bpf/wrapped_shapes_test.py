#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""The shapes of shapes_test.py through ipip and gue: behind the outer headers
of encap_test.py a packet is as it came, but for its VLAN tags."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True
import encap_test as encap  # noqa: E402
import packets_test as base  # noqa: E402
import shapes_test as shapes  # noqa: E402
from packets_test import (  # noqa: E402
    CLIENT, CLIENT_MAC, FAMILIES, UP_MAC, Drops, same)
from shapes_test import (  # noqa: E402
    HOP, SHAPES, SOURCE_ROUTE, TAGS, cut, ethernet, l4_bytes, network, tagged)

TESTS = []


def both(function):
    """As base.both(), for this file."""
    before = len(base.TESTS)
    base.both(function)
    TESTS.extend(base.TESTS[before:])
    del base.TESTS[before:]
    return function


def frame_of(mode, kind, family, proto, extra=(), payload=b"hello, world",
             **more):
    l4, number = l4_bytes(proto, family, CLIENT[family], encap.VIP[family],
                          40000, encap.PORT[mode][kind], payload, **more)
    return ethernet(CLIENT_MAC, UP_MAC, (), family) + network(
        family, CLIENT[family], encap.VIP[family], 64, extra, l4, number)


def every():
    for mode, family, proto in encap.every():
        for kind in (encap.BOTH, encap.FOUR, encap.SIX):
            yield mode, kind, family, proto


def wrapped(frame, tags, mode, kind, family, said):
    with Drops():
        verdict, out = shapes.run(tagged(frame, tags))
    same(verdict, "redirect", said)
    return encap.check_wrapped(frame, out, mode, kind, family)


@both
def every_shape_is_wrapped_as_it_is():
    for mode, kind, family, proto in every():
        for shape, extra in SHAPES[family].items():
            frame = frame_of(mode, kind, family, proto, extra)
            spread = {wrapped(frame, tags, mode, kind, family,
                              (mode, kind, family, proto, shape, tags))
                      for tags in TAGS.values()}
            same(len(spread), 1, "one flow, several sources")


@both
def pieces_are_wrapped_as_they_are():
    ident = 100
    for mode, kind, family, proto in every():
        for extra in shapes.PIECE_SHAPES[family]:
            for tags in TAGS.values():
                ident += 1
                frames = cut(frame_of(mode, kind, family, proto,
                                      payload=b"f" * 2000), family,
                             [1024, 8, None], ident, extra)
                for frame in frames:
                    wrapped(frame, tags, mode, kind, family,
                            (mode, kind, family, proto, len(extra), tags))


@both
def what_goes_on_elsewhere_is_not_wrapped():
    for mode in encap.MODES:
        frame = frame_of(mode, encap.BOTH, 6, "tcp", [HOP, SOURCE_ROUTE])
        for tags in TAGS.values():
            with Drops(headers=1):
                same(shapes.run(tagged(frame, tags))[0], "drop")


@both
def next_hops_behind_a_tag():
    """XDP only shows it, tc runs through."""
    for mode, kind, family, proto in every():
        encap.set_backend(kind, more=["vlan=9"])
        try:
            frame = frame_of(mode, kind, family, proto)
            for tags in TAGS.values():
                with Drops():
                    verdict, out = shapes.run(tagged(frame, tags))
                same(verdict, "redirect")
                if base.lab.hook == "xdp":
                    same(out[12:16].hex(), "81000009")
                    out = out[:12] + out[16:]
                encap.check_wrapped(frame, out, mode, kind, family)
        finally:
            encap.set_backend(kind)


if __name__ == "__main__":
    assert set(FAMILIES) == {4, 6}
    sys.exit(base.main(TESTS, encap.set_up))
