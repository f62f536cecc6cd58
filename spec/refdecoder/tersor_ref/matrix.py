"""packed.md: matrix frames, both layouts, to values row by row."""

import struct
from collections import namedtuple

from . import digest
from .errors import TersorError, require
from .frame import HEADER_BYTES, MAX_SECTION, align

MAGIC = b"TSRM"
VERSION = 1
PACKED, TCATBE = 1, 2
BF16, F16 = 1, 2
DTYPES = {BF16: "BF16", F16: "F16"}
BLOCK_DOMAIN, HEADER_DOMAIN, INDEX_DOMAIN = 5, 6, 7

Header = namedtuple("Header", "layout dtype rows cols size words")
Sections = namedtuple("Sections", "blocks block_bytes overflow_at digests_at size gaps")


def ceil_div(a, b):
    return -(-a // b)


def is_matrix(data):
    return bytes(data[:4]) == MAGIC


def parse_header(data):
    """Steps 1-5 of packed.md "Reading", as far as the layouts have them in common."""
    require(len(data) >= HEADER_BYTES, "fewer than 128 bytes", "truncated")
    require(is_matrix(data), "not a matrix frame", "bad_magic")
    words = struct.unpack("<16Q", data[:HEADER_BYTES])
    zeroed = bytes(data[:40]) + bytes(8) + bytes(data[48:HEADER_BYTES])
    require(digest.records_digest(zeroed, 8, HEADER_DOMAIN) == words[5], "header digest differs", "digest_mismatch")
    version, layout, dtype, zero = data[4:8]
    require(version == VERSION, f"version {version}", "unsupported_version")
    require(layout in (PACKED, TCATBE), f"layout {layout}", "unsupported")
    require(dtype in DTYPES and (layout == PACKED or dtype == BF16), f"dtype {dtype}", "unsupported")
    require(zero == 0, "byte 7 is not zero")
    require(words[1] and words[2], "an empty matrix")
    return Header(layout, dtype, words[1], words[2], words[3], words)


def section(at, size):
    require(size <= MAX_SECTION, "a section of more than 2^60 bytes", "size_overflow")
    return at + size


def check_rest(data, h, gaps, blocks, digests_at, tails):
    """Steps 6 and 7: size, gaps, content digest."""
    require(len(data) >= h.size, "the matrix ends early", "truncated")
    require(len(data) == h.size, "bytes after the matrix")
    require(not any(any(data[a:b]) for a, b in gaps), "non-zero bytes between sections")
    digests = struct.unpack_from(f"<{blocks}Q", data, digests_at)
    content = sum(digest.chain(INDEX_DOMAIN, b, (d, t)) for b, (d, t) in enumerate(zip(digests, tails))) & digest.M64
    require(content == h.words[10], "content digest differs", "digest_mismatch")
    return digests


def fragment(row, col):
    """Step, lane and value j of a place in a strip of 16 rows."""
    c = col % 16
    return col // 16, row % 8 * 4 + c % 8 // 2, c // 8 * 4 + row // 8 * 2 + c % 2


def hash_tile(values, number):
    return digest.tile_hash(struct.pack("<1024H", *values), 2, BLOCK_DOMAIN, number)


def join(half, symbol, rest):
    """`rest`: sign above the mantissa."""
    bits = 10 if half else 7
    return rest >> bits << 15 | symbol << bits | rest & (1 << bits) - 1


# ---- packed ----

def packed_sections(h):
    half = h.dtype == F16
    block_bytes, places = h.words[4] & digest.M32, h.words[4] >> 32
    require(places % 8 == 0 and 8 <= places <= 1024, "number of inline places")
    require(h.words[8] <= digest.M32, "number of overflow entries")
    blocks = ceil_div(h.rows, 16) * ceil_div(h.cols, 128)
    require(blocks <= digest.M64, "the number of blocks leaves 64 bits", "size_overflow")
    expected = (3600 if half else 2832) + 2 * places
    blocks_end = section(HEADER_BYTES, blocks * expected)
    overflow_at = align(blocks_end)
    overflow_end = section(overflow_at, 4 * h.words[8])
    digests_at = align(overflow_end)
    digests_end = section(digests_at, 8 * blocks)
    size = align(digests_end)
    require(block_bytes == expected, "block size")
    require(h.words[3] == size and h.words[6:8] == (HEADER_BYTES, overflow_at) and h.words[9] == digests_at,
            "place of a section")
    require(not any(h.words[11:]), "unused words")
    gaps = [(blocks_end, overflow_at), (overflow_end, digests_at), (digests_end, size)]
    return Sections(blocks, block_bytes, overflow_at, digests_at, size, gaps)


def window(c):
    return 0 if c <= 22 else 224 if c >= 246 else c - 22


class Block:
    """One block of `packed`: values by (step, lane, j) as `codes` and `rests`."""

    def __init__(self, data, half):
        self.data, self.half = data, half
        self.head = 3584 if half else 2816
        self.book = data[self.head:self.head + 8]
        self.inline, self.more, self.first = struct.unpack_from("<HHI", data, self.head + 8)
        require(len(set(self.book)) == 8 and max(self.book) < (32 if half else 256), "codebook")

    def bit(self, at, word, bit):
        return self.data[at + 4 * word + bit // 8] >> bit % 8 & 1

    def code(self, q, lane, j):
        low = 4 * j + 2 * (q % 2)
        word = 4 * lane + q // 2
        code = self.bit(2048, word, low) | self.bit(2048, word, low + 1) << 1
        if self.half:
            return code | self.bit(2560, 128 * (q // 4) + 4 * lane + q % 4, 4 * j + 2) << 2
        return code | self.bit(2560, 2 * lane + q // 4, 4 * j + (2, 3, 1, 0)[q % 4]) << 2

    def rest(self, q, lane, j):
        byte = self.data[position(q, lane, j)]
        if not self.half:
            return byte
        word = 128 * (q // 4) + 4 * lane + q % 4
        high = sum(self.bit(2560, word, 4 * j + b) << s for b, s in ((0, 0), (1, 1), (3, 2)))
        return high << 8 | byte

    def inline_entries(self):
        places = self.data[self.head + 16:]
        require(2 * self.inline <= len(places), "more entries than places")
        require(not any(places[2 * self.inline:]), "unused places are not zero")
        for e, in struct.iter_unpack("<H", places[:2 * self.inline]):
            index = e >> 11
            yield e & 2047, index if self.half else 0 if index == 31 else window(self.book[0]) + index


def position(q, lane, j):
    return 512 * (q // 2) + 16 * lane + 8 * (q % 2) + j


def take_escapes(entries, codes, symbols, n_symbols):
    last = -1
    for at, symbol in entries:
        require(last < at < 2048, "positions of escapes")
        require(symbol < n_symbols, "an escape is no symbol")
        require(codes[at] == 0, "an escape at a value with a code")
        symbols[at] = symbol
        last = at


def check_fill(block, used):
    """Entries that no value uses are the smallest symbols that do not occur."""
    if used == set(range(8)):
        return
    n = len(used)
    require(used == set(range(n)) and not block.inline and not block.more, "codes in use")
    absent = [s for s in range(256) if s not in block.book[:n]]
    require(list(block.book[n:]) == absent[:8 - n], "unused codebook entries")


def packed_block(block, number, overflow, rows, cols):
    """The values inside the matrix by (row, col), and the digest."""
    half = block.half
    places = {position(q, lane, j): (q, lane, j) for q in range(8) for lane in range(32) for j in range(8)}
    codes = {at: block.code(*p) for at, p in places.items()}
    symbols = {at: block.book[c] for at, c in codes.items()}
    inside = {position(*fragment(r, c)): (r, c) for r in range(rows) for c in range(cols)}
    check_fill(block, {0} | {codes[at] for at in inside})
    take_escapes(block.inline_entries(), codes, symbols, 32 if half else 256)
    take_escapes(((e & 0xFFFF, e >> 16) for e in overflow), codes, symbols, 32 if half else 256)
    values = {at: join(half, symbols[at], block.rest(*p)) for at, p in places.items()}
    pad = join(half, block.book[block.book[0] == (31 if half else 255)], 0)
    require(all(values[at] == pad for at in values if at not in inside), "padding")
    ordered = [values[position(q, lane, j)] for q in range(8) for lane in range(32) for j in range(8)]
    hashed = (hash_tile(ordered[:1024], 2 * number) + hash_tile(ordered[1024:], 2 * number + 1)) & digest.M64
    return {inside[at]: values[at] for at in inside}, hashed


def decode_packed(data, h):
    s = packed_sections(h)
    digests = check_rest(data, h, s.gaps, s.blocks, s.digests_at, [0] * s.blocks)
    across = ceil_div(h.cols, 128)
    overflow = struct.unpack_from(f"<{h.words[8]}I", data, s.overflow_at)
    out = {}
    taken = 0
    for b in range(s.blocks):
        try:
            at = HEADER_BYTES + b * s.block_bytes
            block = Block(data[at:at + s.block_bytes], h.dtype == F16)
            require(block.first == (taken if block.more else 0), "first overflow entry")
            require(taken + block.more <= len(overflow), "overflow entries leave their section")
            row, col = b // across * 16, b % across * 128
            values, hashed = packed_block(block, b, overflow[taken:taken + block.more], min(16, h.rows - row),
                                          min(128, h.cols - col))
            require(hashed == digests[b], "block digest differs", "digest_mismatch")
        except TersorError as e:
            raise TersorError(e.code, e.args[0], b) from None
        taken += block.more
        out.update({(row + r, col + c): v for (r, c), v in values.items()})
    require(taken == len(overflow), "overflow entries of no block")
    return out


# ---- tcatbe ----

def tcatbe_sections(h):
    tiles = ceil_div(h.rows, 64) * ceil_div(h.cols, 64)
    require(tiles <= 1 << 48, "number of tiles", "size_overflow")
    index_at = HEADER_BYTES + 1536 * tiles
    digests_at = align(index_at + 24 * tiles)
    coded_at = align(digests_at + 8 * tiles)
    w = h.words
    require(w[4] <= 249, "window")
    require((w[6], w[9], w[11], w[12]) == (HEADER_BYTES, digests_at, index_at, coded_at), "place of a section")
    require(w[13] <= 4096 * tiles and w[14] <= 8192 * tiles and w[8] <= 4096 * tiles, "size of a stream")
    require(w[7] == align(coded_at + w[13]) and w[3] == align(w[7] + w[14]), "place of the escapes")
    require(w[15] == 0, "unused word")
    gaps = [(index_at + 24 * tiles, digests_at), (digests_at + 8 * tiles, coded_at), (coded_at + w[13], w[7]),
            (w[7] + w[14], w[3])]
    return tiles, gaps


def up16(n):
    return ceil_div(n, 16) * 16


def tcatbe_order():
    """Places of a 64 x 64 tile in the order of the streams, with strip, small tile, row and column of the latter."""
    for strip in range(4):
        for small in range(16):
            for r in range(8):
                for c in range(8):
                    yield (16 * strip + small % 2 * 8 + r, small // 2 * 8 + c), (strip, small, r, c)


def tcatbe_tile(bitmaps, coded, escapes, counts, first, number):
    words = struct.unpack("<384I", bitmaps)
    values = {}
    n_coded = n_escapes = 0
    for place, (strip, small, r, c) in tcatbe_order():
        bit = r % 4 * 4 + c // 2 + 16 * (c % 2)
        code = sum((words[96 * strip + 32 * k + 16 * (r // 4) + small] >> bit & 1) << k for k in range(3))
        if code:
            values[place] = join(False, first + code - 1, coded[n_coded]) if n_coded < len(coded) else 0
            n_coded += 1
        else:
            values[place] = escapes[n_escapes] if n_escapes < len(escapes) else 0
            n_escapes += 1
        if (small, r, c) == (15, 7, 7):
            require(n_coded == counts[strip], "bitmaps and index disagree", "digest_mismatch")
    hashed = 0
    for strip in range(4):
        tile = [0] * 1024
        for r in range(16):
            for c in range(64):
                q, lane, j = fragment(r, c)
                tile[256 * q + 8 * lane + j] = values[16 * strip + r, c]
        hashed += hash_tile(tile, 4 * number + strip)
    return values, hashed & digest.M64


def decode_tcatbe(data, h):
    tiles, gaps = tcatbe_sections(h)
    require(len(data) >= h.size, "the matrix ends early", "truncated")
    w = h.words
    records = list(struct.iter_unpack("<3Q", data[w[11]:w[11] + 24 * tiles]))
    at_coded = at_escapes = total = 0
    for b, (c, e, n) in enumerate(records):
        counts = [n >> 16 * s & 0xFFFF for s in range(4)]
        steps = [y - x for x, y in zip([0] + counts, counts)]
        require((c, e) == (at_coded, at_escapes) and all(0 <= x <= 1024 for x in steps), "index record", chunk=b)
        at_coded += up16(counts[3])
        at_escapes += up16(2 * (4096 - counts[3]))
        total += 4096 - counts[3]
    require((at_coded, at_escapes, total) == (w[13], w[14], w[8]), "the index and the header disagree")
    digests = check_rest(data, h, gaps, tiles, w[9], [r[2] for r in records])
    across = ceil_div(h.cols, 64)
    out = {}
    for b, (c, e, n) in enumerate(records):
        counts = [n >> 16 * s & 0xFFFF for s in range(4)]
        k = 4096 - counts[3]
        coded = data[w[12] + c:w[12] + c + up16(counts[3])]
        escapes = data[w[7] + e:w[7] + e + up16(2 * k)]
        bitmaps = data[HEADER_BYTES + 1536 * b:HEADER_BYTES + 1536 * (b + 1)]
        values, hashed = tcatbe_tile(bitmaps, coded[:counts[3]], struct.unpack(f"<{k}H", escapes[:2 * k]), counts, w[4], b)
        require(not any(coded[counts[3]:]) and not any(escapes[2 * k:]), "bytes behind a tile's values", chunk=b)
        require(hashed == digests[b], "block digest differs", "digest_mismatch", chunk=b)
        row, col = b // across * 64, b % across * 64
        out.update({(row + r, col + c): v for (r, c), v in values.items() if row + r < h.rows and col + c < h.cols})
    return out


def decode(data):
    """The values row by row, as bytes."""
    data = bytes(data)
    h = parse_header(data)
    values = (decode_packed if h.layout == PACKED else decode_tcatbe)(data, h)
    return struct.pack(f"<{h.rows * h.cols}H", *(values[r, c] for r in range(h.rows) for c in range(h.cols)))
