"""What follows from a histogram of exponents: entropy, coverage, codebook, and what each codec makes of it.

The same quantities, by the same rules, as the library's `tersor analyze` and `tersor calibrate`, for counts that were
made elsewhere (on a GPU, say). Pure Python: a histogram has 256 numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class FloatFormat(NamedTuple):
    """Where a dtype keeps its exponent; `field_widths` are the rest's planes that are not whole bytes."""

    value_bits: int
    exponent_bits: int
    mantissa_bits: int
    byte_planes: int
    field_widths: tuple[int, ...]

    @property
    def rest_bits(self) -> int:
        """Sign and mantissa."""
        return self.value_bits - self.exponent_bits

    @property
    def bias(self) -> int:
        """What is subtracted from the exponent field to get the power of two."""
        return (1 << (self.exponent_bits - 1)) - 1


FORMATS = {
    "BF16": FloatFormat(16, 8, 7, 1, ()),
    "F16": FloatFormat(16, 5, 10, 1, (2, 1)),
    "F32": FloatFormat(32, 8, 23, 3, ()),
    "F8_E4M3": FloatFormat(8, 4, 3, 0, (4,)),
    "F8_E5M2": FloatFormat(8, 5, 2, 0, (2, 1)),
}
LEVEL_WIDTHS = {"rank": (2, 2, 2, 3), "top16": (4,)}
BOOK_ENTRIES = 16

_TILE_VALUES = 1024
_CHUNK_TILES = 8
_RECORD_BYTES = 24
_HEADER_BYTES = 128
_ALIGNMENT = 128
RECORD_BITS = 8 * _RECORD_BYTES / (_TILE_VALUES * _CHUNK_TILES)


def by_frequency(counts: Sequence[int]) -> list[int]:
    """Exponents by falling count, ties by the smaller exponent."""
    return sorted(range(len(counts)), key=lambda symbol: -counts[symbol])


def codebook_of(counts: Sequence[int]) -> list[int]:
    """The canonical codebook: the 16 most frequent exponents."""
    return by_frequency(counts)[:BOOK_ENTRIES]


def entropy(counts: Sequence[int]) -> float:
    """Bits an exponent needs at least, each coded by itself."""
    total = sum(counts)
    return -sum(count / total * math.log2(count / total) for count in counts if count) if total else 0.0


def coverage(counts: Sequence[int]) -> list[float]:
    """Share of values whose exponent is among the k most frequent, k = 0..16."""
    total = sum(counts)
    if total == 0:
        return [1.0] * (BOOK_ENTRIES + 1)
    shares, covered = [0.0], 0
    for symbol in codebook_of(counts):
        covered += counts[symbol]
        shares.append(covered / total)
    return shares


class BitParts(NamedTuple):
    """Where the bits of a coded value go, in bits a value; `levels` has four entries."""

    sign_mantissa: float
    levels: tuple[float, ...]
    escapes: float
    raw_exponents: float
    records: float

    def total(self) -> float:
        return self.sign_mantissa + sum(self.levels) + self.escapes + self.raw_exponents + self.records


def split_bits(codec: str, dtype: str, counts: Sequence[int], book: Sequence[int]) -> BitParts:
    """Expected bits of a value under `book`; the whole exponent where coding it would not pay."""
    fmt = FORMATS[dtype]
    total = left = sum(counts)
    plain = BitParts(fmt.rest_bits, (0.0,) * 4, 0.0, fmt.exponent_bits, RECORD_BITS)
    if total == 0:
        return plain
    levels, entry = [0.0] * 4, 0
    for level, width in enumerate(LEVEL_WIDTHS[codec]):
        levels[level] = width * left / total
        end = entry + (1 << width) - 1
        left -= sum(counts[symbol] for symbol in book[entry:end])
        entry = end
    escapes = 8 * left / total
    if sum(levels) + escapes >= fmt.exponent_bits:
        return plain
    return BitParts(fmt.rest_bits, tuple(levels), escapes, 0.0, RECORD_BITS)


def _word_padding(mean_bytes: float) -> float:
    """Mean number of bits that round a Poisson number of bytes up to whole 32-bit words."""
    bits = 0.0
    for remainder in (1, 2, 3):
        sign = 1 if remainder % 2 == 0 else -1
        wave = 2 * math.exp(-mean_bytes) * math.cos(mean_bytes - math.pi / 2 * remainder)
        bits += 8 * (4 - remainder) * max((1 + sign * math.exp(-2 * mean_bytes) + wave) / 4, 0.0)
    return bits


def _tail_words(codec: str, dtype: str, parts: BitParts) -> float:
    """Expected words of the tail of a full tile."""
    widths = LEVEL_WIDTHS[codec]
    raw_words = (FORMATS[dtype].exponent_bits - widths[0]) * (_TILE_VALUES // 32)
    if parts.raw_exponents > 0:
        return raw_words
    bits = (parts.escapes + sum(parts.levels[1:])) * _TILE_VALUES
    if len(widths) > 1:
        # A tail of many fields ends anywhere in its last word.
        bits += 15.5 * (1 - math.exp(-parts.levels[1] * _TILE_VALUES / widths[1]))
    else:
        bits += _word_padding(parts.escapes * _TILE_VALUES / 8)
    return min(bits / 32, raw_words)


def predict_bytes(codec: str, dtype: str, counts: Sequence[int], book: Sequence[int]) -> int:
    """Size of the frame of values with these counts, spread evenly; at most the original size."""
    fmt = FORMATS[dtype]
    n_values = sum(counts)
    tiles = -(-n_values // _TILE_VALUES)
    per_tile = _tail_words(codec, dtype, split_bits(codec, dtype, counts, book))
    sections = [-(-tiles // _CHUNK_TILES) * _RECORD_BYTES]
    sections += [tiles * _TILE_VALUES] * fmt.byte_planes
    sections += [tiles * width * _TILE_VALUES // 8 for width in fmt.field_widths]
    sections.append(tiles * LEVEL_WIDTHS[codec][0] * _TILE_VALUES // 8)
    sections.append(4 * math.ceil(per_tile * n_values / _TILE_VALUES))
    aligned = sum(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sections)
    return min(_HEADER_BYTES + aligned, n_values * fmt.value_bits // 8)


def statistics(dtype: str, counts: Sequence[int]) -> dict:
    """The members that one histogram gives in the JSON of `tersor analyze`, with its own codebook."""
    fmt = FORMATS[dtype]
    n_values = sum(counts)
    n_bytes = n_values * fmt.value_bits // 8
    book = codebook_of(counts)
    bits = entropy(counts)
    out = {
        "values": n_values,
        "bytes": n_bytes,
        "entropy": bits,
        "coverage": coverage(counts),
        "ideal_ratio": fmt.value_bits / (fmt.rest_bits + bits) if n_values else 1.0,
    }
    for codec in LEVEL_WIDTHS:
        size = predict_bytes(codec, dtype, counts, book)
        out[f"{codec}_bits"] = split_bits(codec, dtype, counts, book).total() if n_values else float(fmt.value_bits)
        out[f"{codec}_bytes"] = size
        out[f"{codec}_ratio"] = n_bytes / size if size else 1.0
    out["counts"] = [[symbol, count] for symbol, count in enumerate(counts) if count]
    return out
