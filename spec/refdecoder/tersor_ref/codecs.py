"""codecs.md sections 1-4: from planes and tails to values."""

import struct
from collections import namedtuple

from .errors import require

# mantissa: bits of the rest below the sign bit.
DTypeCoding = namedtuple("DTypeCoding", "name value_bytes symbol_bits mantissa byte_planes field_planes")
CODED = {
    1: DTypeCoding("BF16", 2, 8, 7, 1, ()),
    2: DTypeCoding("F16", 2, 5, 10, 1, (2, 1)),
    3: DTypeCoding("F32", 4, 8, 23, 3, ()),
    4: DTypeCoding("F8_E4M3", 1, 4, 3, 0, (4,)),
    5: DTypeCoding("F8_E5M2", 1, 5, 2, 0, (2, 1)),
}
DTYPES = ["BYTES", "BF16", "F16", "F32", "F8_E4M3", "F8_E5M2", "BOOL", "U8", "I8", "U16", "I16", "U32",
          "I32", "U64", "I64", "F64"]
VALUE_BYTES = [1, 2, 2, 4, 1, 1, 1, 1, 1, 2, 2, 4, 4, 8, 8, 8]
CODECS = ["raw", "top16", "rank"]
WIDTHS = {"raw": (), "top16": (4,), "rank": (2, 2, 2, 3)}
CODEBOOK_ENTRIES = {"top16": 15, "rank": 16}

TILE = 1024
TILES_PER_CHUNK = 8
CHUNK = TILE * TILES_PER_CHUNK

# LANE_ORDER[v] is the place j in lane order of value v of a tile.
LANE_ORDER = [32 * (v >> 3 & 31) + 8 * (v >> 8) + (v & 7) for v in range(TILE)]
_SPLIT = {w: [tuple(byte >> at & (1 << w) - 1 for at in range(0, 8, w)) for byte in range(256)]
          for w in (1, 2, 4)}


def raw_tail_widths(dtype, w1):
    """Field planes of a raw tile's tail: the symbol bits that the code plane does not hold."""
    left = CODED[dtype].symbol_bits - w1
    widths = []
    for w in (4, 2, 1):
        while left >= w:
            widths.append(w)
            left -= w
    return widths


def raw_tail_words(dtype, w1):
    return sum(TILE * w // 32 for w in raw_tail_widths(dtype, w1))


def fields(data, width):
    """A tile of a field plane as 1,024 numbers in lane order."""
    table = _SPLIT[width]
    return [f for byte in data for f in table[byte]]


class BitString:
    """Numbers of a few bits in order of rising position."""

    def __init__(self, data):
        self.bits = "".join(format(byte, "08b")[::-1] for byte in data)
        self.at = 0

    def take(self, width):
        require(self.at + width <= len(self.bits), "a level stream overruns the tail")
        self.at += width
        return int(self.bits[self.at - width:self.at][::-1], 2)


def coded_symbols(codes, tail, widths, book, symbol_bits):
    """Symbols in lane order of a coded tile, and whether it has escapes. section 4.1"""
    symbols = [0] * TILE
    stream = BitString(tail)
    base = 0
    waiting = range(TILE)
    for level, width in enumerate(widths):
        last = (1 << width) - 1
        continued = []
        for j in waiting:
            code = codes[j] if level == 0 else stream.take(width)
            if code == last:
                continued.append(j)
            else:
                symbols[j] = book[base + code]
        waiting = continued
        base += last
    used = (stream.at + 7) // 8
    require("1" not in stream.bits[stream.at:8 * used], "non-zero bits between level streams and escapes")
    require(used + len(waiting) <= len(tail), "the escapes overrun the tail")
    for j in waiting:
        require(tail[used] < 1 << symbol_bits, "an escape is no symbol of the dtype")
        symbols[j] = tail[used]
        used += 1
    require((used + 3) // 4 * 4 == len(tail), "the tail does not fill its declared words")
    require(not any(tail[used:]), "non-zero padding after a tail")
    return symbols, bool(waiting)


def raw_symbols(codes, tail, dtype, w1):
    """Symbols in lane order of a raw tile. section 4.2"""
    symbols = list(codes)
    shift, at = w1, 0
    for width in raw_tail_widths(dtype, w1):
        part = fields(tail[at:at + 128 * width], width)
        symbols = [s | p << shift for s, p in zip(symbols, part)]
        shift += width
        at += 128 * width
    return symbols


def rests(dtype, byte_planes, field_planes):
    """Rests in lane order of one tile. section 1"""
    out = [0] * TILE
    shift = 0
    for plane in byte_planes:
        for v, byte in enumerate(plane):
            out[LANE_ORDER[v]] |= byte << shift
        shift += 8
    for width, plane in zip(CODED[dtype].field_planes, field_planes):
        out = [o | f << shift for o, f in zip(out, fields(plane, width))]
        shift += width
    return out


def check_padding(count, codes, tile_rests, symbols, raw):
    """Bits that belong to the missing values of the last tile are zero."""
    for v in range(count, TILE):
        j = LANE_ORDER[v]
        require(codes[j] == 0 and tile_rests[j] == 0 and not (raw and symbols[j]),
                "non-zero padding in the last tile")


def join(dtype, tile_rests, symbols, count):
    """The first `count` values of a tile as bytes."""
    d = CODED[dtype]
    low = (1 << d.mantissa) - 1
    values = []
    for v in range(count):
        j = LANE_ORDER[v]
        rest = tile_rests[j]
        values.append((rest >> d.mantissa << d.symbol_bits | symbols[j]) << d.mantissa | rest & low)
    return struct.pack(f"<{count}{'_BH_I'[d.value_bytes]}", *values)
