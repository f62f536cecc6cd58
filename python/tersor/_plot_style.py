"""What the figures of tersor.plot share: colours (those of the HTML report), axes and number formats."""

from __future__ import annotations

import json
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from ._errors import error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TEXT, MUTED, RULE, GRID = "#1b2129", "#57616d", "#b9c2cc", "#e7ebef"
LEVELS = {1: "#1b4f9c", 2: "#3b82d6", 3: "#85b6ec", 4: "#c3dcf7", 5: "#c8501b"}
EDGE = "#6f93bd"
KEYS, VALUES, IDEAL, GRAY = "#1f66c1", "#c8501b", "#2f8f5b", "#8c97a3"
PARTS = {
    "rest": "#8c97a3",
    "level 1": LEVELS[1],
    "level 2": LEVELS[2],
    "level 3": LEVELS[3],
    "level 4": LEVELS[4],
    "escapes": LEVELS[5],
    "raw": "#b9a06a",
    "records": "#d3b8e6",
    "ideal": IDEAL,
}
PART_LABELS = {
    "rest": "sign and mantissa",
    "level 1": "level 1 (top16: 4-bit codes)",
    "level 2": "level 2",
    "level 3": "level 3",
    "level 4": "level 4",
    "escapes": "escapes",
    "raw": "exponent as it is",
    "records": "records, headers, rounding",
    "ideal": "entropy",
}
DARK_PARTS = {"level 1", "level 2", "escapes", "ideal"}
LEGEND = {"frameon": False, "fontsize": 8, "title_fontsize": 9, "labelcolor": MUTED, "handlelength": 1.2}
NOTE = {"fontsize": 8, "fontweight": "bold", "color": TEXT}
NAME = {"fontsize": 8, "family": "monospace", "color": TEXT}

_KEY_NAMES = {"k", "key", "keys", "k_cache", "key_cache"}
_VALUE_NAMES = {"v", "value", "values", "v_cache", "value_cache"}


def unfit(message: str) -> Exception:
    return error("invalid_argument", message)


def document(source: dict[str, Any] | str | PathLike) -> dict[str, Any]:
    """The document itself, or what is in its JSON file."""
    if isinstance(source, dict):
        return source
    try:
        with open(source, encoding="utf-8") as file:
            found = json.load(file)
    except FileNotFoundError as e:
        raise error("not_found", e.strerror or str(e), file=str(source)) from None
    except OSError as e:
        raise error("io_error", e.strerror or str(e), file=str(source)) from None
    except ValueError as e:
        raise error("malformed", f"not JSON: {e}", file=str(source)) from None
    if not isinstance(found, dict):
        raise error("malformed", "not a JSON object", file=str(source))
    return found


def member(source: dict[str, Any], name: str, what: str) -> Any:
    if name not in source:
        raise unfit(f"no member '{name}': this is not {what}")
    return source[name]


def axes(ax: Axes | None, width: float = 6.4, height: float = 4.0) -> Axes:
    """`ax`, or the axes of a new figure that pyplot does not know."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white").subplots()


def finish(ax: Axes, title: str, x_label: str, y_label: str, grid: str) -> None:
    ax.set_title(title, loc="left", fontsize=11, fontweight="bold", color=TEXT)
    ax.set_xlabel(x_label, fontsize=9, color=MUTED)
    ax.set_ylabel(y_label, fontsize=9, color=MUTED)
    ax.tick_params(labelsize=8, colors=MUTED, length=0)
    ax.grid(axis=grid, color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(RULE)


def legend_below(ax: Axes, columns: int, order: Sequence[str] = ()) -> None:
    """A legend under the axis label, whatever the height of the axes; in the order of what labels begin with."""
    handles, labels = ax.get_legend_handles_labels()

    def place(i: int) -> int:
        return next((at for at, start in enumerate(order) if labels[i].startswith(start)), len(order))

    chosen = sorted(range(len(labels)), key=place)
    ax.legend(
        [handles[i] for i in chosen],
        [labels[i] for i in chosen],
        loc="upper left",
        bbox_to_anchor=(0, 0, 1, 0),
        ncols=columns,
        borderaxespad=3.6,
        **LEGEND,
    )


def percent(share: float) -> str:
    """With as many digits as tell the share from 0 and 100%."""
    value = 100 * share
    for digits in (1, 2, 3, 4):
        text = f"{value:.{digits}f}"
        if float(text) not in (0.0, 100.0) or value in (0.0, 100.0):
            break
    return f"{text}%"


def percent_axis(axis: Any) -> None:
    axis.set_major_formatter(lambda share, _: f"{100 * share:.6f}".rstrip("0").rstrip(".") + "%")


def whole_numbers(axis: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def size(n_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n_bytes < 1024:
            return f"{n_bytes:.0f} {unit}" if unit == "B" or n_bytes >= 100 else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} TiB"


def shorten(name: str, most: int) -> str:
    """Cuts the middle out of a long name."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-(most - most // 2) :]}"


def kv_name(name: str) -> tuple[bool, int] | None:
    """(is it a key, layer) of a KV cache's tensor: "layers.3.k", "past.3.value", "key_cache.3"."""
    last_two = name.split(".")[-2:]
    if len(last_two) < 2:
        return None
    word, number = last_two if last_two[1].isdecimal() else reversed(last_two)
    if not number.isdecimal() or word not in _KEY_NAMES | _VALUE_NAMES:
        return None
    return word in _KEY_NAMES, int(number)


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def plain_log_axis(axis: Any) -> None:
    """Numbers as one reads them, at 1, 2 and 5 of each power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())


def outline() -> list:
    """Keeps text readable where a line runs through it."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=3, foreground="white")]


def label_points(ax: Axes, points: dict[str, tuple[float, float]], bold: tuple[str, ...]) -> None:
    """Names beside points: on the right, or on the left if a point is there; above and below if they are as one."""
    at = {name: ax.transData.transform(point) for name, point in points.items()}
    for name, (x, y) in at.items():
        steps = {other: (ox - x, oy - y) for other, (ox, oy) in at.items() if other != name and abs(oy - y) < 16}
        as_one = [other for other, (dx, _) in steps.items() if abs(dx) < 12]
        to_right = any(12 <= dx < 90 for dx, _ in steps.values())
        above = all((points[name][1], other) > (points[other][1], name) for other in as_one)
        ax.annotate(
            name,
            points[name],
            xytext=(-7 if to_right else 7, 0 if not as_one else 9 if above else -9),
            textcoords="offset points",
            ha="right" if to_right else "left",
            va="center",
            fontsize=9 if name in bold else 8,
            fontweight="bold" if name in bold else "normal",
            color=TEXT if name in bold else MUTED,
            path_effects=outline(),
        )
