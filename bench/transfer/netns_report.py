"""The reporting half of netns.sh: lines of results into a JSON report and a figure; standard library only."""

import argparse
import datetime
import json
import math
import os
import pathlib
import platform
import subprocess

CODINGS = ("top16", "rank", "auto")
# The link is what holds a raw transfer up if it takes at least this share of the time.
LINK_BOUND = 0.9
COLOURS = {"copy": "#8a8f98", "raw": "#c8501b", "top16": "#2a9d5c", "rank": "#1f66c1", "auto": "#8a4fbf"}
NAMES = {"copy": "plain TCP copy", "raw": "raw", "top16": "top16", "rank": "rank", "auto": "auto"}


def text_of(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine():
    cpu = next((line.split(":", 1)[1].strip() for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
                if line.startswith("model name")), platform.machine())
    here = str(pathlib.Path(__file__).parent)
    return {
        "cpu": f"{cpu}, {len(os.sched_getaffinity(0))} virtual cores for both ends",
        "kernel": platform.release(),
        "congestion_control": pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text(encoding="utf-8").strip(),
        "date": datetime.date.today().isoformat(),
        "commit": text_of(["git", "-C", here, "rev-parse", "--short", "HEAD"]),
    }


def tables(lines):
    """One row for each rate and size."""
    rows = {}
    for line in lines:
        row = rows.setdefault((line["gbps"], line["bytes"]), {"gbps": line["gbps"], "bytes": line["bytes"], "load": line["load"], "modes": {}})
        row["modes"][line["mode"]] = {k: v for k, v in line.items() if k not in ("gbps", "bytes", "load", "mode")}
    for row in rows.values():
        modes = row["modes"]
        row["copy_gbps"] = round(8e-9 * row["bytes"] / modes["copy"]["seconds"], 3)
        if row["gbps"]:
            on_wire = 8e-9 * row["bytes"] / row["gbps"]
            row["link_is_bottleneck"] = on_wire >= LINK_BOUND * modes["raw"]["seconds"]
        else:
            row["link_is_bottleneck"] = False
        for name, mode in modes.items():
            mode["gigabytes_per_second"] = round(1e-9 * row["bytes"] / mode["seconds"], 4)
            if name in CODINGS:
                mode["ratio"] = round(row["bytes"] / mode["sent_bytes"], 4)
                mode["over_raw"] = round(modes["raw"]["seconds"] / mode["seconds"], 4)
                mode["over_copy"] = round(modes["copy"]["seconds"] / mode["seconds"], 4)
    return list(rows.values())


def break_even(rows, coding, of="over_raw"):
    """The link speed at which the coding is as fast as what it is compared with, between two measured ones."""
    points = sorted((r["gbps"], r["modes"][coding][of]) for r in rows if r["gbps"])
    for (slow, faster), (quick, slower) in zip(points, points[1:]):
        if faster >= 1 > slower:
            share = (faster - 1) / (faster - slower)
            return {"gbps": round(math.exp(math.log(slow) + share * math.log(quick / slow)), 1)}
    if points and points[-1][1] >= 1:
        return {"above_gbps": points[-1][0]}
    return {"below_gbps": points[0][0]} if points else {}


def print_table(rows):
    print(f"{'Gb/s':>5} {'MB':>5} {'copy s':>8} {'raw s':>8} " + " ".join(f"{c + ' s':>8} {'x raw':>6} {'ratio':>6}" for c in CODINGS) +
          f" {'copy Gb/s':>9}  bottleneck")
    for r in rows:
        m = r["modes"]
        cells = " ".join(f"{m[c]['seconds']:8.3f} {m[c]['over_raw']:6.2f} {m[c]['ratio']:6.3f}" for c in CODINGS)
        print(f"{r['gbps'] or 'none':>5} {r['bytes'] >> 20:5} {m['copy']['seconds']:8.3f} {m['raw']['seconds']:8.3f} {cells} "
              f"{r['copy_gbps']:9.2f}  {'link' if r['link_is_bottleneck'] else 'cores'}")


def draw(rows, size, title, note, even):
    width, height, left, top, w, h = 760, 440, 70, 70, 640, 290
    chosen = sorted((r for r in rows if r["gbps"] and r["bytes"] == size), key=lambda r: r["gbps"])
    rates = [r["gbps"] for r in chosen]
    peak = max(m["gigabytes_per_second"] for r in chosen for m in r["modes"].values())
    low, high = math.log(rates[0]), math.log(rates[-1])
    x = lambda rate: left + w * (math.log(rate) - low) / max(high - low, 1e-9)
    y = lambda speed: top + h - h * speed / (1.1 * peak)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
           '<style>svg { --back: #ffffff; --text: #1b2129; --muted: #57616d; --grid: #e7ebef; }',
           '@media (prefers-color-scheme: dark) { svg { --back: #171c23; --text: #e6ebf0; --muted: #9aa6b2; --grid: #262e38; } }',
           'text { font: 12px system-ui, sans-serif; fill: var(--text); } .head { font-size: 15px; font-weight: 650; }',
           '.tick { fill: var(--muted); font-size: 11px; } .grid { stroke: var(--grid); } path { fill: none; stroke-width: 2; }</style>',
           f'<rect width="{width}" height="{height}" fill="var(--back)"/>', f'<text class="head" x="{left}" y="28">{title}</text>',
           f'<text class="tick" x="{left}" y="48">{note}</text>']
    step = 10 ** math.floor(math.log10(1.1 * peak / 4))
    step *= next(k for k in (1, 2, 5, 10) if 1.1 * peak / (k * step) <= 6)
    for i in range(int(1.1 * peak / step) + 1):
        out.append(f'<line class="grid" x1="{left}" x2="{left + w}" y1="{y(i * step):.1f}" y2="{y(i * step):.1f}"/>'
                   f'<text class="tick" text-anchor="end" x="{left - 8}" y="{y(i * step) + 4:.1f}">{i * step:g}</text>')
    for rate in rates:
        out.append(f'<line class="grid" x1="{x(rate):.1f}" x2="{x(rate):.1f}" y1="{top}" y2="{top + h}"/>'
                   f'<text class="tick" text-anchor="middle" x="{x(rate):.1f}" y="{top + h + 18}">{rate:g}</text>')
    out.append(f'<text class="tick" text-anchor="middle" x="{left + w / 2}" y="{top + h + 38}">link, Gb/s</text>'
               f'<text class="tick" x="{left}" y="{top - 8}">decoded GB/s</text>')
    for i, name in enumerate(("copy", "raw", "top16", "rank", "auto")):
        points = [(x(r["gbps"]), y(r["modes"][name]["gigabytes_per_second"])) for r in chosen]
        path = " ".join(f"{'M' if k == 0 else 'L'}{a:.1f} {b:.1f}" for k, (a, b) in enumerate(points))
        dash = ' stroke-dasharray="5 4"' if name in ("copy", "auto") else ""
        out.append(f'<path d="{path}" stroke="{COLOURS[name]}"{dash}/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{COLOURS[name]}"/>' for a, b in points]
        out.append(f'<rect x="{left + 12}" y="{top + 8 + 18 * i}" width="14" height="3" fill="{COLOURS[name]}"/>'
                   f'<text x="{left + 32}" y="{top + 13 + 18 * i}">{NAMES[name]}</text>')
    for i, coding in enumerate(("top16", "rank")):
        rate = even[coding]["over_raw"].get("gbps")
        if rate is None:
            continue
        out.append(f'<line x1="{x(rate):.1f}" x2="{x(rate):.1f}" y1="{top}" y2="{top + h}" stroke="{COLOURS[coding]}" '
                   f'stroke-dasharray="2 4"/><text class="tick" text-anchor="end" x="{x(rate) - 6:.1f}" '
                   f'y="{top + h - 26 + 16 * i}">break-even of {coding}: {rate:g} Gb/s</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lines", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--data", default="")
    parser.add_argument("--command", default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    lines = [json.loads(line) for line in options.lines.read_text(encoding="utf-8").splitlines()]
    rows = tables(lines)
    largest = max(r["bytes"] for r in rows)
    at_largest = [r for r in rows if r["bytes"] == largest]
    even = {c: {"over_raw": break_even(at_largest, c), "over_copy": break_even(at_largest, c, "over_copy")} for c in CODINGS}
    report = {"machine": machine(), "command": options.command, "data": options.data, "rounds": options.rounds,
              "note": options.note,
              "link": "veth between two network namespaces, MTU 9000, tbf; medians", "break_even_at_largest": even, "rows": rows}
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    note = f"{largest >> 20} MiB of {options.data}; both ends share {len(os.sched_getaffinity(0))} cores; medians of {options.rounds}"
    options.out.with_suffix(".svg").write_text(draw(rows, largest, "KV transfer over a link of a set rate", note, even), encoding="utf-8")
    print_table(rows)
    for coding, places in even.items():
        print(f"break-even of {coding}: {places}")


if __name__ == "__main__":
    main()
