"""The document of `tersor analyze --json`, and a codebook file, from histograms that were counted elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ._exponents import FORMATS, LEVEL_WIDTHS, BitParts, codebook_of, predict_bytes, split_bits, statistics


class Counted(NamedTuple):
    """One tensor's exponents: `counts[e]` values have the exponent field `e`; 256 integers."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    counts: Sequence[int]


def tensor_type(name: str) -> str:
    """A tensor's type: every run of digits between dots becomes `*`."""
    return ".".join("*" if part.isascii() and part.isdigit() else part for part in name.split("."))


def _sum(histograms: Iterable[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*histograms, strict=True)]


def _ratio(original: float, stored: float) -> float:
    return original / stored if original > 0 and stored > 0 else 1.0


def _ideal_bits(row: dict) -> float:
    return row["values"] * (FORMATS[row["dtype"]].rest_bits + row["entropy"])


def _sums(rows: Sequence[dict]) -> dict:
    """Sums over tensors, each with its own codebook."""
    values, size = sum(row["values"] for row in rows), sum(row["bytes"] for row in rows)
    out = {
        "tensors": len(rows),
        "values": values,
        "bytes": size,
        "entropy": sum(row["entropy"] * row["values"] for row in rows) / values if values else 0.0,
        "ideal_ratio": _ratio(8 * size, sum(map(_ideal_bits, rows))),
    }
    for codec in LEVEL_WIDTHS:
        stored = sum(row[f"{codec}_bytes"] for row in rows)
        out |= {f"{codec}_bytes": stored, f"{codec}_ratio": _ratio(size, stored)}
    return out


def _mean_parts(codec: str, dtype: str, tensors: Sequence[Counted], rows: Sequence[dict]) -> dict:
    """Bits by part, the mean over all values; `records` takes what the predicted size has beyond codes and rests."""
    fmt = FORMATS[dtype]
    sums, n_values = [0.0] * 8, sum(row["values"] for row in rows)
    for tensor, row in zip(tensors, rows, strict=True):
        parts = split_bits(codec, dtype, tensor.counts, codebook_of(tensor.counts))
        if row[f"{codec}_bytes"] >= row["bytes"]:
            parts = BitParts(fmt.rest_bits, (0.0,) * 4, 0.0, fmt.exponent_bits, 0.0)
        flat = (parts.sign_mantissa, *parts.levels, parts.escapes, parts.raw_exponents, parts.records)
        sums = [total + part * row["values"] for total, part in zip(sums, flat, strict=True)]
    mean = [part / n_values for part in sums] if n_values else sums
    predicted = 8 * sum(row[f"{codec}_bytes"] for row in rows) / n_values if n_values else 0.0
    mean[-1] = max(0.0, mean[-1] + predicted - sum(mean))
    rest, *levels, escapes, raw, records = mean
    return {
        "sign_mantissa": rest,
        "levels": levels,
        "escapes": escapes,
        "raw_exponents": raw,
        "records": records,
        "total": sum(mean),
    }


def _dtype_summary(dtype: str, tensors: Sequence[Counted], rows: Sequence[dict]) -> dict:
    together = _sum(tensor.counts for tensor in tensors)
    shared = statistics(dtype, together)
    for codec in LEVEL_WIDTHS:
        book = codebook_of(together)
        size = sum(predict_bytes(codec, dtype, tensor.counts, book) for tensor in tensors)
        shared |= {f"{codec}_bytes": size, f"{codec}_ratio": shared["bytes"] / size if size else 1.0}
    return {
        "shared_codebook": shared,
        "own_codebooks": _sums(rows),
        "rank_parts": _mean_parts("rank", dtype, tensors, rows),
        "top16_parts": _mean_parts("top16", dtype, tensors, rows),
    }


def _by_bytes(groups: dict[str, dict], size_of) -> dict[str, dict]:
    return dict(sorted(sorted(groups.items()), key=lambda item: -size_of(item[1])))


def analysis_document(
    tensors: Sequence[Counted], *, file: str = "", n_files: int = 1, other_tensors: int = 0, other_bytes: int = 0
) -> dict:
    """The document that `tersor analyze --json` would print for tensors with these counts.

    `file` names their source in each row; `other_*` are tensors without a coded exponent.
    """
    rows = []
    for tensor in tensors:
        row = {"file": file, "name": tensor.name, "tensor_type": tensor_type(tensor.name)}
        row |= {"dtype": tensor.dtype, "shape": list(tensor.shape)}
        rows.append(row | statistics(tensor.dtype, tensor.counts))
    dtypes, types = {}, {}
    for dtype in {row["dtype"] for row in rows}:
        chosen = [(tensor, row) for tensor, row in zip(tensors, rows, strict=True) if row["dtype"] == dtype]
        dtypes[dtype] = _dtype_summary(dtype, *zip(*chosen, strict=True))
    for row in rows:
        types.setdefault(row["tensor_type"], []).append(row)
    types = _by_bytes({name: _sums(group) for name, group in types.items()}, lambda sums: sums["bytes"])
    dtypes = _by_bytes(dtypes, lambda summary: summary["own_codebooks"]["bytes"])
    total = other_bytes + sum(row["bytes"] for row in rows)
    stored = {codec: other_bytes + sum(row[f"{codec}_bytes"] for row in rows) for codec in LEVEL_WIDTHS}
    return {
        "total": {
            "files": n_files,
            "tensors": len(rows) + other_tensors,
            "bytes": total,
            "other_tensors": other_tensors,
            "other_bytes": other_bytes,
            "ideal_ratio": _ratio(total, other_bytes + sum(map(_ideal_bits, rows)) / 8),
            "rank_ratio": _ratio(total, stored["rank"]),
            "top16_ratio": _ratio(total, stored["top16"]),
        },
        "dtypes": dtypes,
        "tensor_types": [{"tensor_type": name} | sums for name, sums in types.items()],
        "tensors": rows,
    }


def _widened_book(counts: Sequence[int], elsewhere: Sequence[int]) -> list[int]:
    """The canonical codebook, but entries that the sample does not need go to exponents that are frequent elsewhere."""
    order = sorted(range(len(elsewhere)), key=lambda symbol: elsewhere[symbol])
    weights = [0] * len(counts)
    for rank, symbol in enumerate(order):
        if counts[symbol]:
            weights[symbol] = counts[symbol] * len(order)
        elif elsewhere[symbol]:
            weights[symbol] = rank
    return codebook_of(weights)


def codebook_document(tensors: Sequence[Counted]) -> dict:
    """The codebook file that `tersor calibrate` would write: books per tensor, per tensor type and per dtype."""
    names: dict[str, dict[str, list]] = {}
    types: dict[str, dict[str, list]] = {}
    dtypes: dict[str, list] = {}
    for tensor in tensors:
        if sum(tensor.counts) == 0:
            continue
        names.setdefault(tensor.name, {}).setdefault(tensor.dtype, []).append(tensor.counts)
        types.setdefault(tensor_type(tensor.name), {}).setdefault(tensor.dtype, []).append(tensor.counts)
        dtypes.setdefault(tensor.dtype, []).append(tensor.counts)
    everywhere = {dtype: _sum(histograms) for dtype, histograms in sorted(dtypes.items())}

    def entry(by_dtype: dict[str, list]) -> dict:
        summed = {dtype: _sum(histograms) for dtype, histograms in by_dtype.items()}
        dtype = max(summed, key=lambda name: sum(summed[name]))
        return {"dtype": dtype, "symbols": _widened_book(summed[dtype], everywhere[dtype])}

    return {
        "tersor_codebooks": 0,
        "by_dtype": {dtype: codebook_of(counts) for dtype, counts in everywhere.items()},
        "by_type": {name: entry(types[name]) for name in sorted(types)},
        "by_name": {name: entry(names[name]) for name in sorted(names)},
    }
