# SPDX-License-Identifier: GPL-2.0-or-later
"""A table that is redrawn in place on a terminal, with lines above it; plain
lines, one a few seconds, where the output isn't a terminal."""
import shutil
import sys
import time

PLAIN_EVERY = 3.0


def seconds(value):
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"


class Screen:
    def __init__(self):
        self.live = sys.stdout.isatty()
        self.drawn = []  # lines of the table that stand on the terminal
        self.began = time.monotonic()
        self.last_plain = 0.0

    def _erase(self):
        if self.drawn:
            # Up over the table, and clear to the end of the screen.
            sys.stdout.write(f"\x1b[{len(self.drawn)}A\r\x1b[J")

    def _draw(self):
        width = shutil.get_terminal_size().columns
        for number, line in enumerate(self.drawn):
            bold, plain = ("\x1b[1m", "\x1b[0m") if number == 0 else ("", "")
            sys.stdout.write(bold + line[:width - 1] + plain + "\n")
        sys.stdout.flush()

    def line(self, text):
        """A lasting line, above the table."""
        if self.live:
            self._erase()
        print(f"{time.monotonic() - self.began:6.1f} s {text}", flush=True)
        if self.live:
            self._draw()

    def title(self, text):
        if self.live:
            self._erase()
            self.drawn = []
        print(f"\n== {text}", flush=True)
        self.last_plain = 0.0

    def table(self, head, *rows):
        if self.live:
            self._erase()
            self.drawn = [head, *rows]
            self._draw()
        elif time.monotonic() - self.last_plain >= PLAIN_EVERY:
            if not self.last_plain:
                print(f"{'':8} {head}")
            self.last_plain = time.monotonic()
            for row in rows:
                print(f"{time.monotonic() - self.began:6.1f} s {row}", flush=True)
