"""The report's figures as matplotlib axes, for notebooks.

Every function takes a document (a dict, or the path of its JSON file) and an optional `ax`, draws into it and returns
it; without `ax` it makes a figure of its own (`.figure` of what is returned). Nothing global is touched: no pyplot, no
rcParams. matplotlib is imported when a figure is drawn. A document that lacks what a figure shows raises
`tersor.InvalidArgumentError`.

    analysis = tersor.analyze_files(["my-model"])
    tersor.plot.exponent_histogram(analysis).figure.savefig("exponents.png")
"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING, Any

from . import _plot_style as style
from ._exponents import FORMATS, by_frequency

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Document = dict[str, Any] | str | PathLike

__all__ = [
    "batch_throughput",
    "bits_per_value",
    "coverage",
    "exponent_histogram",
    "figures",
    "kv_layers",
    "pareto",
    "tensor_types",
]

# Runs of at least so many exponents that never occur are cut out.
_LONG_GAP = 6
_GAP_COLUMNS = 2


def _dtype_of(analysis: dict, dtype: str | None) -> tuple[str, dict]:
    """The summary of `dtype`, or of the dtype with most bytes."""
    dtypes = style.member(analysis, "dtypes", "an analysis (tersor.analyze_files)")
    if not dtypes:
        raise style.unfit("the analysis has no tensor with a coded exponent")
    name = dtype or next(iter(dtypes))
    if name not in dtypes:
        raise style.unfit(f"the analysis has no {name}, only {', '.join(dtypes)}")
    return name, dtypes[name]


def _exponent_name(dtype: str, symbol: int) -> str:
    fmt = FORMATS[dtype]
    if symbol == 0:
        return "zero"
    if dtype != "F8_E4M3" and symbol + 1 == 1 << fmt.exponent_bits:
        return "∞"
    return str(symbol - fmt.bias).replace("-", "−")


def _columns(symbols: list[int]) -> tuple[list[int], list[float]]:
    """A column for each exponent, and the middles of what was cut out."""
    columns, gaps, at = [], [], 0
    for i, symbol in enumerate(symbols):
        if i:
            empty = symbol - symbols[i - 1] - 1
            if empty >= _LONG_GAP:
                gaps.append(at + (_GAP_COLUMNS - 1) / 2)
                empty = _GAP_COLUMNS
            at += empty
        columns.append(at)
        at += 1
    return columns, gaps


def _tick_places(dtype: str, symbols: list[int], columns: list[int]) -> list[int]:
    """Which exponents get a label: multiples of a power of two, and those that stand alone."""
    most, every = 14, 1
    while (columns[-1] + 1) / every > most:
        every *= 2
    places: list[int] = []
    for i, (symbol, column) in enumerate(zip(symbols, columns, strict=True)):
        before = i == 0 or column - columns[i - 1] > _GAP_COLUMNS
        after = i + 1 == len(symbols) or columns[i + 1] - column > _GAP_COLUMNS
        if (symbol - FORMATS[dtype].bias) % every and not (before and after) and symbol:
            continue
        if not places or column - columns[places[-1]] >= 0.7 * every:
            places.append(i)
    return places


def exponent_histogram(
    analysis: Document, dtype: str | None = None, *, log: bool = False, ax: Axes | None = None
) -> Axes:
    """Share of the values per exponent, all tensors of `dtype` together, with entropy and coverage.

    Colours: how `rank` codes them under one codebook. `log` shows the rare ones. `dtype` defaults to the one with most
    bytes.
    """
    name, summary = _dtype_of(style.document(analysis), dtype)
    shared = summary["shared_codebook"]
    counts = dict(shared["counts"])
    if not counts:
        raise style.unfit(f"the analysis has no values of {name}")
    ax = style.axes(ax)
    symbols = sorted(counts)
    columns, gaps = _columns(symbols)
    dense = [counts.get(symbol, 0) for symbol in range(256)]
    place = {symbol: i for i, symbol in enumerate(by_frequency(dense)[:16])}
    levels = [min(place[s] // 3 + 1, 4) if s in place else 5 for s in symbols]
    shares = [counts[s] / shared["values"] for s in symbols]
    covered = shared["coverage"]
    named = {5: ("escapes", 1 - covered[16])}
    named |= {i: (f"level {i}: {'to ' if i > 1 else ''}top {k}", covered[k]) for i, k in enumerate((3, 6, 9, 16), 1)}
    for level in sorted(set(levels)):
        chosen = [i for i in range(len(symbols)) if levels[i] == level]
        ax.bar(
            [columns[i] for i in chosen],
            [shares[i] for i in chosen],
            width=0.86,
            color=style.LEVELS[level],
            edgecolor=style.EDGE if level == 4 else "none",
            linewidth=0.5,
            label=f"{named[level][0]}, {style.percent(named[level][1])}",
        )
    ticks = _tick_places(name, symbols, columns)
    ax.set_xticks([columns[i] for i in ticks], [_exponent_name(name, symbols[i]) for i in ticks])
    ax.set_xlim(-1, columns[-1] + 1)
    style.finish(ax, f"Exponents of {name} values", "exponent (power of two)", "share of values", grid="y")
    if log:
        ax.set_yscale("log")
        ax.set_ylim(min(shares) / 2, 1.5)
        ax.minorticks_off()
    style.percent_axis(ax.yaxis)
    for gap in gaps:
        ax.text(gap, 0.01, "⋯", transform=ax.get_xaxis_transform(), ha="center", color=style.MUTED)
    bits = FORMATS[name].exponent_bits
    title = f"entropy {shared['entropy']:.2f} of {bits} bits"
    ax.legend(title=title, loc="upper left", alignment="left", **style.LEGEND)
    return ax


def coverage(analysis: Document, dtype: str | None = None, *, ax: Axes | None = None) -> Axes:
    """Share of values whose exponent is among the k most frequent, k = 0..16; the band spans the single tensors."""
    document = style.document(analysis)
    name, summary = _dtype_of(document, dtype)
    ax = style.axes(ax)
    shares = summary["shared_codebook"]["coverage"]
    ks = range(len(shares))
    single = [row["coverage"] for row in document["tensors"] if row["dtype"] == name and row["values"] >= 1024]
    if single:
        low, high = ([pick(column) for column in zip(*single, strict=True)] for pick in (min, max))
        ax.fill_between(ks, low, high, color=style.KEYS, alpha=0.15, linewidth=0, label="range of the tensors")
    ax.plot(ks, shares, color=style.KEYS, marker="o", markersize=4, label="all tensors, one codebook")
    for k, drop in ((3, -14), (6, -30), (9, -16), (16, -16)):
        ax.annotate(
            style.percent(shares[k]),
            (k, shares[k]),
            xytext=(0 if k != 16 else 4, drop),
            textcoords="offset points",
            ha="left" if k == 3 else "right" if k == 16 else "center",
            va="top",
            **style.NOTE,
        )
    ax.set_xlim(0, 16.4)
    ax.set_ylim(0, 1.04)
    ax.set_xticks(range(0, 17, 2))
    style.finish(ax, f"Coverage, {name}", "k: exponents in the codebook", "share of values covered", grid="y")
    style.percent_axis(ax.yaxis)
    ax.legend(loc="lower right", **style.LEGEND)
    return ax


def _stack(parts: dict) -> list[tuple[str, float]]:
    """A codec's parts in the order they are stacked."""
    flat = [("rest", parts["sign_mantissa"])]
    flat += [(f"level {i}", bits) for i, bits in enumerate(parts["levels"], 1)]
    return [*flat, ("escapes", parts["escapes"]), ("raw", parts["raw_exponents"]), ("records", parts["records"])]


def bits_per_value(analysis: Document, dtype: str | None = None, *, ax: Axes | None = None) -> Axes:
    """Where the bits of a value go: as it is, with `top16`, with `rank`, and at the entropy.

    Means over all values, each tensor with its own codebook. Numbers in the legend: `rank`.
    """
    name, summary = _dtype_of(style.document(analysis), dtype)
    fmt = FORMATS[name]
    entropy = summary["own_codebooks"]["entropy"]
    stacks = {
        "original": [("rest", fmt.rest_bits), ("raw", fmt.exponent_bits)],
        "top16": _stack(summary["top16_parts"]),
        "rank": _stack(summary["rank_parts"]),
        "ideal": [("rest", fmt.rest_bits), ("ideal", entropy)],
    }
    ax = style.axes(ax, height=4.5)
    longest = max(sum(bits for _, bits in parts) for parts in stacks.values())
    numbers = {part: f", {bits:.4f}" for part, bits in stacks["rank"] if part != "rest"}
    seen: set[str] = set()
    for y, parts in enumerate(stacks.values()):
        x = 0.0
        for part, bits in parts:
            label = None if part in seen or bits == 0 else style.PART_LABELS[part] + numbers.get(part, "")
            seen |= {part} if label else set()
            ax.barh(y, bits, left=x, height=0.52, color=style.PARTS[part], edgecolor="white", lw=0.6, label=label)
            number = f"{bits:.2f}".removesuffix(".00")
            if bits > 0.045 * longest:
                ink = "white" if part in style.DARK_PARTS else style.TEXT
                ax.text(x + bits / 2, y, number, ha="center", va="center", fontsize=8, color=ink)
            x += bits
        ax.text(0, y - 0.33, list(stacks)[y], va="bottom", fontsize=9, color=style.TEXT)
        note = f"{x:.2f} bits" if y == 0 else f"{x:.2f} bits, {fmt.value_bits / x:.3f}×"
        ax.text(longest, y - 0.33, note, va="bottom", ha="right", **style.NOTE)
    ax.set_ylim(len(stacks) - 0.6, -0.75)
    ax.set_xlim(0, longest)
    ax.set_yticks([])
    style.finish(ax, f"Bits a value, {name}", "bits a value", "", grid="x")
    ax.spines["left"].set_visible(False)
    style.legend_below(ax, columns=2, order=[style.PART_LABELS[part] for part in style.PART_LABELS])
    return ax


def tensor_types(analysis: Document, codec: str = "rank", *, most: int = 20, ax: Axes | None = None) -> Axes:
    """Predicted ratio of the `most` largest tensor types with `codec` (`rank` or `top16`), and that at the entropy.

    Layers count together. Bars begin at 1, which is no gain.
    """
    types = style.member(style.document(analysis), "tensor_types", "an analysis (tersor.analyze_files)")[:most]
    if codec not in ("rank", "top16"):
        raise style.unfit(f"codec '{codec}' is neither rank nor top16")
    if not types:
        raise style.unfit("the analysis has no tensor with a coded exponent")
    ax = style.axes(ax, height=1.1 + 0.44 * len(types))
    ratios = [row[f"{codec}_ratio"] for row in types]
    ideals = [row["ideal_ratio"] for row in types]
    ys = range(len(types))
    gains = [ratio - 1 for ratio in ratios]
    ax.barh(ys, gains, left=1, height=0.34, color=style.LEVELS[2], label=f"{codec}, predicted")
    # The marks as short lines: a bar's width in points would depend on the size of the figure.
    ax.vlines(ideals, [y - 0.22 for y in ys], [y + 0.26 for y in ys], color=style.TEXT, lw=1.6, label="ideal (entropy)")
    limit = 1 + 1.03 * (max(*ratios, *ideals, 1.05) - 1)
    for y, row in enumerate(types):
        ax.text(1, y - 0.24, style.shorten(row["tensor_type"], 44), va="bottom", **style.NAME)
        note = f"×{row['tensors']} · {style.size(row['bytes'])} · {ratios[y]:.3f}×"
        ax.text(limit, y - 0.24, note, va="bottom", ha="right", fontsize=8, color=style.MUTED)
    ax.set_ylim(len(types) - 0.4, -0.8)
    ax.set_xlim(min(1, *ratios), limit)
    ax.set_yticks([])
    style.finish(ax, "Ratio by tensor type", "original size / stored size", "", grid="x")
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}×")
    style.legend_below(ax, columns=2, order=[codec])
    return ax


def kv_layers(analysis: Document, measure: str = "entropy", *, codec: str = "rank", ax: Axes | None = None) -> Axes:
    """Keys against values by layer: `measure` is `entropy` (bits an exponent) or `ratio` (predicted for `codec`).

    For an analysis whose tensors are named like a KV cache: `layers.3.k`, `past.3.value`, `key_cache.3`.
    """
    if measure not in ("entropy", "ratio") or codec not in ("rank", "top16"):
        raise style.unfit(f"measure '{measure}' with codec '{codec}': know entropy and ratio, rank and top16")
    rows = style.member(style.document(analysis), "tensors", "an analysis (tersor.analyze_files)")
    sums: dict[tuple[bool, int], list[float]] = {}
    for row in rows:
        name = style.kv_name(row["name"])
        if name is None or row["values"] == 0:
            continue
        one = sums.setdefault(name, [0.0, 0.0])
        entropy = measure == "entropy"
        one[0] += row["entropy"] * row["values"] if entropy else row["bytes"]
        one[1] += row["values"] if entropy else row[f"{codec}_bytes"]
    series = {key: {n: a / b for (k, n), (a, b) in sorted(sums.items()) if k == key} for key in (True, False)}
    if not series[True] or not series[False]:
        raise style.unfit("the tensors are no KV cache: their names do not tell keys, values and layers")
    ax = style.axes(ax)
    for is_key, label, color, marker in ((True, "keys", style.KEYS, "o"), (False, "values", style.VALUES, "s")):
        line = series[is_key]
        size = 5 if len(line) <= 48 else 3
        ax.plot(list(line), list(line.values()), color=color, marker=marker, markersize=size, label=label)
    ys = [y for line in series.values() for y in line.values()]
    room = max(0.08 * (max(ys) - min(ys)), 0.05 if measure == "entropy" else 0.01)
    ax.set_ylim(min(ys) - room, max(ys) + room)
    title = "Entropy of keys and values" if measure == "entropy" else "Ratio of keys and values"
    what = "entropy, bits an exponent" if measure == "entropy" else f"ratio predicted for {codec}"
    style.finish(ax, title, "layer", what, grid="y")
    style.whole_numbers(ax.xaxis)
    if measure == "ratio":
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:.4g}×")
    ax.legend(loc="best", ncols=2, **style.LEGEND)
    return ax


def pareto(bench: Document, *, speed: str = "decode", dtype: str = "bf16", ax: Axes | None = None) -> Axes:
    """Ratio against `speed` (`decode` or `encode`) from the JSON of `tersor bench codec`, CPU or GPU.

    The line joins what nothing else beats in both; the dashed one is a copy. Of a GPU's rows the first data of `dtype`
    are taken.
    """
    from ._plot_bench import draw_pareto

    return draw_pareto(style.document(bench), speed, dtype, ax)


def batch_throughput(result: Document, *, ax: Axes | None = None) -> Axes:
    """Tokens a second against batch size, BF16 beside Tersor, with the crossover marked.

    `result`: `{"batch": [1, 4, ...], "bf16_tokens_s": [...], "tersor_tokens_s": [...]}`, and if known `model`,
    `device`; or what bench/python/decode_bench.py writes, of which the fused products are drawn if it has them.
    """
    from ._plot_bench import draw_batch_throughput, from_decode_bench

    document = style.document(result)
    return draw_batch_throughput(from_decode_bench(document) if "decode" in document else document, ax)


def figures(analysis: Document, dtype: str | None = None) -> dict[str, Figure]:
    """Every figure that the analysis has data for, by name; each a `matplotlib.figure.Figure` to show or save."""
    document = style.document(analysis)
    name, _ = _dtype_of(document, dtype)
    out = {
        "exponents": exponent_histogram(document, name),
        "exponents-log": exponent_histogram(document, name, log=True),
        "coverage": coverage(document, name),
        "bits": bits_per_value(document, name),
        "types": tensor_types(document),
    }
    kinds = {style.kv_name(row["name"]) for row in document["tensors"]} - {None}
    if {is_key for is_key, _ in kinds} == {True, False}:
        out |= {"entropy": kv_layers(document, "entropy"), "ratio": kv_layers(document, "ratio")}
    return {key: ax.figure for key, ax in out.items()}
