# SPDX-License-Identifier: GPL-2.0-or-later
"""Plots of the benchmarks' rows: horizontal bars with intervals and goals, by
gnuplot.  draw() returns the PNG files; none where there is no gnuplot."""
import shutil
import subprocess

HEAD = """set terminal pngcairo size {width},{height} font "sans,11" background "white"
set output "{out}"
set title "{title}\\n{{/=9 {below}}}" font "sans,13"
set style fill solid 0.85 noborder
set grid x lc rgb "#dddddd" lt 1
set border 3 lc rgb "#444444"
set tics nomirror
set xlabel "{xlabel}"
set xrange [0:{most}]
set yrange [{bottom}:0.5]
set bmargin 6
set rmargin 9
set lmargin {left}
set key {key}
unset ytics
"""

ROW = {"met": "#3b7dd8", "missed": "#d8553b", "none": "#9aa5b1", "plain": "#9aa5b1"}


def text(words):
    return words.replace("\\", "").replace('"', "'").replace("_", "\\\\_")


def group(rows, keep):
    return [row for row in rows if row["value"] is not None and keep(row)]


def colour(row):
    if row["goal"] is None:
        return "none"
    return "met" if row["met"] else "missed"


def edge(row, which):
    return row.get(which) if row.get(which) is not None else row["value"]


def data_block(name, lines):
    return f"${name} << EOD\n" + "\n".join(lines) + "\nEOD\n"


def bars(rows):
    """One block a colour: y value low high."""
    blocks, draws = "", []
    names = {"met": "goal met", "missed": "goal missed", "none": "no goal"}
    for kind in ("met", "missed", "none"):
        lines = [f"{-i} {row['value']} {edge(row, 'low')} {edge(row, 'high')}"
                 for i, row in enumerate(rows) if colour(row) == kind]
        if not lines:
            continue
        blocks += data_block(kind, lines)
        draws.append(f'${kind} using ($2/2):1:($2/2):(0.36) with boxxyerror '
                     f'lc rgb "{ROW[kind]}" title "{names[kind]}"')
    return blocks, draws


def plot(rows, out, title, xlabel, below):
    """rows from top to bottom; the figures stand at their right."""
    most = max(max(edge(row, "high"), row["goal"] or 0) for row in rows) * 1.04
    blocks, draws = bars(rows)
    whiskers = [f"{row['value']} {-i} {edge(row, 'low')} {edge(row, 'high')}"
                for i, row in enumerate(rows)]
    goals = [f"{row['goal']} {-i - 0.45} {row['goal']} {-i + 0.45}"
             for i, row in enumerate(rows) if row["goal"] is not None]
    blocks += data_block("whiskers", whiskers)
    draws.append('$whiskers using 1:2:3:4 with xerrorbars pt 0 lw 1.5 lc rgb "#222222" '
                 'title "95 % interval"')
    if goals:
        blocks += data_block("goals", goals)
        draws.append('$goals using 1:2:(0):($4-$2) with vectors nohead lw 2.5 dt 1 '
                     'lc rgb "#111111" title "goal"')
    names = [text(row["label"]) for row in rows]
    script = blocks + HEAD.format(
        width=1100, height=165 + 27 * len(rows), out=out, title=text(title), xlabel=xlabel,
        below=text(below), most=most, bottom=-len(rows) + 0.5,
        left=max(map(len, names)) * 0.95 + 3, key="outside bottom right horizontal")
    script += "".join(f'set label {10 + i} "{name}" at graph 0, first {-i} right offset -1,0\n'
                      f'set label {510 + i} "{rows[i]["value"]:.3g}" at graph 1, first {-i} '
                      'left offset 1,0\n' for i, name in enumerate(names))
    script += "plot " + ", \\\n     ".join(draws) + "\n"
    out.with_suffix(".gnuplot").write_text(script)
    done = subprocess.run(["gnuplot", out.with_suffix(".gnuplot")], capture_output=True,
                          text=True, timeout=60, check=False)
    if done.returncode or not out.exists():
        raise RuntimeError(f"gnuplot: {done.stderr.strip()}")
    return out


def labelled(rows, cut=lambda what: what):
    return [dict(row, label=cut(row["what"])) for row in rows]


def pictures(rows):
    """(file, title, what the x axis is, rows)"""
    packet = group(rows, lambda row: row["part"] == "packet" and row["unit"] == "ns")
    yield ("packet", "What a packet costs over an empty program with the same verdict",
           "ns a packet over the floor (BPF\\\\_PROG\\\\_TEST\\\\_RUN)", labelled(packet))
    live = group(rows, lambda row: row["part"] == "live" and row["unit"] == "x")
    yield ("live", "Packets a second on a veth, on a stick, 1 million flows, one core",
           "part of what an empty XDP\\\\_TX program does",
           labelled(live, lambda what: what.removeprefix("live, ").replace(" over the floor", "")))
    for mode, title in (("keep-alive", "HTTP requests on connections that stay"),
                        ("new connections", "HTTP requests, each on a new connection"),
                        ("bulk", "Bulk TCP to the client"), ("upload", "Bulk TCP to the servers")):
        found = group(rows, lambda row, m=mode: row["what"].startswith(f"HTTP {m},")
                      and row["unit"] == "x")
        yield (f"http-{mode.split()[0]}", title + ", against plain routing",
               "part of what plain routing does (1 = the same)",
               labelled(found, lambda what, m=mode: what.removeprefix(f"HTTP {m}, ")
                        .replace(" over plain routing", "")))


def draw(rows, folder, below):
    for old in folder.glob("*.png"):
        old.unlink()
    if not shutil.which("gnuplot"):
        return []
    return [plot(found, folder / f"{name}.png", title, xlabel, below)
            for name, title, xlabel, found in pictures(rows) if found]
