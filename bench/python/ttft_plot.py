"""Draws the JSON of ttft.py: time to the first token against link speed, one panel for each length of the prompt.

python bench/python/ttft_plot.py bench/results/ttft-cpu*.json docs/img/ttft-cpu.svg

Where several files have a length and a link, the one that was measured while the machine did least else is drawn.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from matplotlib.figure import Figure

from tersor import _plot_style as style

LINES = {
    "raw": (style.GRAY, "s", "raw"),
    "top16": (style.LEVELS[3], "^", "top16"),
    "rank": (style.KEYS, "o", "rank"),
}


def least_loaded(documents: list[dict]) -> list[dict]:
    """The rows of each length and link from one document."""
    groups: dict[tuple, list[list[dict]]] = {}
    for document in documents:
        own: dict[tuple, list[dict]] = {}
        for row in document["rows"]:
            own.setdefault((row["tokens"], row["link_gbit_s"]), []).append(row)
        for key, rows in own.items():
            groups.setdefault(key, []).append(rows)
    chosen = [
        min(found, key=lambda rows: statistics.mean(x for row in rows for x in row["load"]))
        for found in groups.values()
    ]
    return [row for rows in chosen for row in rows]


def draw(documents: list[dict], out: Path) -> None:
    rows = [row for row in least_loaded(documents) if row["mode"] == "clock"]
    lengths = sorted({row["tokens"] for row in rows})
    figure = Figure(figsize=(3.2 * len(lengths), 3.4), layout="constrained")
    for i, (tokens, ax) in enumerate(zip(lengths, figure.subplots(1, len(lengths), squeeze=False)[0], strict=True)):
        here = [row for row in rows if row["tokens"] == tokens]
        for codec, (colour, marker, label) in LINES.items():
            points = sorted((row["link_gbit_s"], row["median_seconds"]) for row in here if row["codec"] == codec)
            if points:
                ax.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=5, label=label)
        prefill = here[0]["modelled_prefill_seconds"]
        ax.axhline(prefill, color=style.VALUES, linestyle=(0, (4, 3)), linewidth=1)
        ax.annotate(
            "prefill (modelled)", (0.02, prefill), xycoords=ax.get_yaxis_transform(), xytext=(0, 3),
            textcoords="offset points", fontsize=8, color=style.VALUES,
        )  # fmt: skip
        ax.set_xscale("log")
        rates = sorted({row["link_gbit_s"] for row in here})
        ax.set_xticks(rates, [f"{rate:g}" for rate in rates])
        ax.minorticks_off()
        ax.set_ylim(0, None)
        style.finish(ax, f"{tokens // 1024}k tokens, {here[0]['raw_bytes'] / 1e9:.2f} GB", "link, Gb/s", "", grid="y")
        if i == 0:
            ax.set_ylabel("seconds to the first token")
            ax.legend(loc="upper right", **style.LEGEND)
    figure.savefig(out)


if __name__ == "__main__":
    *sources, target = (Path(argument) for argument in sys.argv[1:])
    draw([json.loads(source.read_text(encoding="utf-8")) for source in sources], target)
