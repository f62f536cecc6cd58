"""Figures of measurements: ratio against speed, tokens a second against batch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from . import _plot_style as style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OURS = ("rank", "top16")


def _bench_rows(bench: dict[str, Any], dtype: str) -> tuple[list[dict], float | None, str]:
    """Rows to draw, the speed of a copy, and what was measured."""
    if "codecs" in bench:
        return bench["codecs"], bench.get("memcpy_gb_s"), f"CPU, {style.count(bench.get('threads', 1), 'thread')}"
    if "runs" in bench:
        raise style.unfit("this document holds several runs: give one, document['runs'][i]['result']")
    rows = [row for row in style.member(bench, "rows", "the JSON of tersor bench codec") if row["dtype"] == dtype]
    if not rows:
        raise style.unfit(f"the bench has no rows of dtype '{dtype}'")
    data = rows[0]["data"]
    copy = bench.get("copy_gb_s")
    chosen = [row for row in rows if row["data"] == data]
    # A copy reads and writes each byte: in original bytes it is half as fast as its traffic.
    return chosen, copy and copy / 2, f"{bench.get('device', 'GPU')}, {data}"


def _frontier(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points that no other beats in both, by rising speed."""
    best, out = -math.inf, []
    for point in sorted(points, reverse=True):
        if point[1] > best:
            best = point[1]
            out.append(point)
    return out[::-1]


def draw_pareto(bench: dict[str, Any], speed: str, dtype: str, ax: Axes | None) -> Axes:
    if speed not in ("decode", "encode"):
        raise style.unfit(f"speed '{speed}' is neither decode nor encode")
    rows, copy, what = _bench_rows(bench, dtype)
    points = {row["codec"]: (row[f"{speed}_gb_s"], row["ratio"]) for row in rows if row.get(f"{speed}_gb_s")}
    if not points:
        raise style.unfit(f"the bench has no {speed} speeds")
    ax = style.axes(ax)
    line = _frontier(list(points.values()))
    ax.plot(*zip(*line, strict=True), color=style.KEYS, linewidth=1, alpha=0.5, zorder=1)
    speeds = [x for x, _ in points.values()] + ([copy] if copy else [])
    ratios = [y for _, y in points.values()]
    wide = max(speeds) > 8 * min(speeds)
    if wide:
        ax.set_xscale("log")
        ax.set_xlim(min(speeds) / 1.6, max(speeds) * 1.9)
    else:
        span = max(speeds) - min(speeds) or max(speeds)
        ax.set_xlim(min(speeds) - 0.15 * span, max(speeds) + 0.22 * span)
    room = max(0.12 * (max(ratios) - min(ratios)), 0.03)
    ax.set_ylim(min(ratios) - room, max(ratios) + 1.4 * room)
    if copy:
        ax.axvline(copy, color=style.GRAY, linestyle=(0, (4, 3)), linewidth=1)
        ax.annotate(
            "copy", (copy, 0), xycoords=ax.get_xaxis_transform(), xytext=(4, 4), textcoords="offset points",
            fontsize=8, color=style.MUTED,
        )  # fmt: skip
    for codec, (x, y) in points.items():
        ours = codec in _OURS
        ax.scatter(x, y, s=52 if ours else 36, color=style.KEYS if ours else style.GRAY, zorder=3)
    style.label_points(ax, points, bold=_OURS)
    style.finish(ax, f"Ratio against {speed} speed", f"{speed}, GB/s of original bytes", "ratio", grid="both")
    ax.set_title(what, loc="right", fontsize=8, color=style.MUTED)
    if wide:
        style.plain_log_axis(ax.xaxis)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}×")
    return ax


def _check_throughput(result: dict[str, Any]) -> tuple[list[float], list[float], list[float]]:
    names = ("batch", "bf16_tokens_s", "tersor_tokens_s")
    columns = [style.member(result, name, "a result of tokens a second by batch") for name in names]
    if len({len(column) for column in columns}) != 1 or not columns[0]:
        raise style.unfit("batch, bf16_tokens_s and tersor_tokens_s are not equally long lists")
    if not all(isinstance(x, int | float) and x > 0 and math.isfinite(x) for column in columns for x in column):
        raise style.unfit("batch sizes and speeds are not all numbers above 0")
    order = sorted(range(len(columns[0])), key=lambda i: columns[0][i])
    return tuple([column[i] for i in order] for column in columns)


def crossovers(batch: list[float], bf16: list[float], tersor: list[float]) -> list[float]:
    """Batch sizes where the two curves cross, between the measured ones on logarithmic axes."""
    gains = [math.log(t / b) for t, b in zip(tersor, bf16, strict=True)]
    found = []
    for i in range(1, len(gains)):
        if gains[i - 1] * gains[i] < 0:
            part = gains[i - 1] / (gains[i - 1] - gains[i])
            found.append(math.exp((1 - part) * math.log(batch[i - 1]) + part * math.log(batch[i])))
    return found


def from_decode_bench(document: dict[str, Any]) -> dict[str, Any]:
    """The columns that are drawn, out of a decode_bench document: plain BF16 beside the best that Tersor offers."""
    try:
        rows = document["decode"]
        ours = "tersor_fused" if all("tersor_fused_tokens_s" in row for row in rows) else "tersor"
        return {
            "batch": [row["batch"] for row in rows],
            "bf16_tokens_s": [row["bf16_tokens_s"] for row in rows],
            "tersor_tokens_s": [row[f"{ours}_tokens_s"] for row in rows],
            "model": document.get("model"),
            "device": document.get("machine", {}).get("gpu"),
        }
    except (KeyError, TypeError, AttributeError):
        raise style.unfit("the rows of `decode` have no batch, bf16_tokens_s and tersor_tokens_s") from None


def draw_batch_throughput(result: dict[str, Any], ax: Axes | None) -> Axes:
    batch, bf16, tersor = _check_throughput(result)
    ax = style.axes(ax)
    ax.plot(batch, bf16, color=style.GRAY, marker="s", markersize=5, label="BF16")
    ax.plot(batch, tersor, color=style.KEYS, marker="o", markersize=5, label="Tersor")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xticks(batch, [f"{n:g}" for n in batch])
    ax.minorticks_off()
    ax.set_xlim(min(batch) / 1.6, max(batch) * 1.4)
    speeds = bf16 + tersor
    ax.set_ylim(min(speeds) / 1.5, max(speeds) * 1.7)
    for n, plain, ours in zip(batch, bf16, tersor, strict=True):
        ax.annotate(
            f"{ours / plain:.2f}×",
            (n, max(plain, ours)),
            xytext=(-7 if ours >= plain else 2, 6),
            textcoords="offset points",
            ha="center",
            path_effects=style.outline(),
            **style.NOTE,
        )
    for crossing in crossovers(batch, bf16, tersor):
        ax.axvline(crossing, color=style.VALUES, linestyle=(0, (4, 3)), linewidth=1)
        ax.annotate(
            f"crossover at {crossing:.0f}", (crossing, 0.03), xycoords=ax.get_xaxis_transform(), xytext=(-4, 0),
            textcoords="offset points", ha="right", fontsize=8, color=style.VALUES,
        )  # fmt: skip
    style.finish(ax, "Tokens a second by batch", "batch size", "tokens/s", grid="y")
    what = ", ".join(str(result[key]) for key in ("model", "device") if result.get(key))
    ax.set_title(what, loc="right", fontsize=8, color=style.MUTED)
    style.plain_log_axis(ax.yaxis)
    ax.legend(loc="upper left", **style.LEGEND)
    return ax
