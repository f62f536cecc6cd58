"""codecs.md section 5: the position-keyed digest of decoded bytes."""

import struct

M32 = (1 << 32) - 1
M64 = (1 << 64) - 1

CHUNK, INDEX, FRAME_HEADER, CONTAINER_HEADER, STORED_RAW = range(5)


def mix(z):
    z ^= z >> 30
    z = z * 0xBF58476D1CE4E5B9 & M64
    z ^= z >> 27
    z = z * 0x94D049BB133111EB & M64
    return z ^ z >> 31


def _keys(n):
    return [mix(((n << 32) + i + 1) * 0x9E3779B97F4A7C15 & M64) >> 32 for i in range(260)]


def _column_keys(n, width):
    """For each word of a tile, in order: the two key sums that its halves meet."""
    k = _keys(n)
    return [((k[2 * c] + k[256 + s]) & M32, (k[2 * c + 1] + k[256 + s]) & M32)
            for s in range(4) for c in range(32 * width)]


_KEYS = {}


def _nh(halves, keys, columns):
    sums = [0] * columns
    word = 0
    for a, b, (ka, kb) in zip(halves[0::2], halves[1::2], keys):
        sums[word % columns] += ((a + ka) & M32) * ((b + kb) & M32)
        word += 1
    low = sum(p & M32 for p in sums) & M32
    high = sum((p & M64) >> 32 for p in sums) & M32
    return high << 32 | low


def chain(domain, number, words):
    h = mix(domain << 56 | number)
    for w in words:
        h = mix(w ^ h)
    return h


def records_digest(data, record_bytes, domain=INDEX):
    """The sum of the chains of all records: of the index, or of the header's words."""
    return sum(chain(domain, i, struct.unpack_from(f"<{record_bytes // 8}Q", data, i * record_bytes))
               for i in range(len(data) // record_bytes)) & M64


def tile_hash(data, width, domain, number):
    """`data` is at most 1024 * width bytes; the missing ones count as zero."""
    if width not in _KEYS:
        _KEYS[width] = (_column_keys(0, width), _column_keys(1, width))
    keys0, keys1 = _KEYS[width]
    halves = struct.unpack(f"<{256 * width}I", bytes(data).ljust(1024 * width, b"\0"))
    t0 = _nh(halves, keys0, 32 * width)
    t1 = _nh(halves, keys1, 32 * width)
    return chain(domain, number, (t1, t0))


def digest(data, width=2, domain=CHUNK, first_tile=0):
    size = 1024 * width
    return sum(tile_hash(data[at:at + size], width, domain, first_tile + at // size)
               for at in range(0, len(data), size)) & M64
