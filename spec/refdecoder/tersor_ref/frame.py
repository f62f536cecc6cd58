"""frame.md: header, index, sections, and the order in which they are checked."""

import struct
from collections import namedtuple

from . import codecs, digest
from .errors import TersorError, require

MAGIC = b"\x89TERSOR\n"
VERSION = 1
HEADER_BYTES = 128
RAW_CHUNK = 16384
MAX_SECTION = 1 << 60

Header = namedtuple("Header", "codec dtype shape values tail_words index_digest header_digest codebook")
Section = namedtuple("Section", "name offset size tile_bytes")
Record = namedtuple("Record", "digest first_word escapes raw tail_words")


def align(n):
    return (n + 127) // 128 * 128


def parse_header(data):
    """Steps 1-4 of frame.md "Reading"."""
    require(len(data) >= HEADER_BYTES, "fewer than 128 bytes", "truncated")
    head = bytes(data[:HEADER_BYTES])
    require(head[:8] == MAGIC, "not a Tersor frame", "bad_magic")
    (_, version, codec, dtype, dims, flags, widths, values, tail_words, index_digest,
     header_digest) = struct.unpack("<8sHBBBBHQQQQ", head[:48])
    computed = digest.records_digest(head[:40] + bytes(8) + head[48:128], 8, digest.FRAME_HEADER)
    require(computed == header_digest, "header digest differs", "digest_mismatch")
    require(version == VERSION, f"format version {version}", "unsupported_version")
    shape = struct.unpack("<8Q", head[64:])
    check_shape(flags, dims, shape, values)
    require(codec < len(codecs.CODECS), f"codec {codec}", "unsupported")
    require(dtype < len(codecs.DTYPES), f"dtype {dtype}", "unsupported")
    name = codecs.CODECS[codec]
    book = head[48:64]
    if name == "raw":
        require(widths == 0 and tail_words == 0 and not any(book), "a raw frame has no levels, tails or codebook")
    else:
        require(dtype in codecs.CODED, "a coded frame of a dtype without exponent")
        require(widths == sum(w << 4 * i for i, w in enumerate(codecs.WIDTHS[name])), "level widths", "unsupported")
        check_codebook(name, dtype, book)
    require(values * codecs.VALUE_BYTES[dtype] <= digest.M64, "the size leaves 64 bits", "size_overflow")
    return Header(name, dtype, list(shape[:dims]), values, tail_words, index_digest, header_digest, book)


def check_shape(flags, dims, shape, values):
    require(flags == 0, "flags")
    require(dims <= 8, "more than 8 dimensions")
    product = 1
    for d in shape[:dims]:
        product *= d
        require(product <= digest.M64, "the product of the shape leaves 64 bits", "size_overflow")
    require(not any(shape[dims:]), "unused shape entries are not zero")
    require(product == values, "shape and number of values disagree")


def check_codebook(codec, dtype, book):
    entries = codecs.CODEBOOK_ENTRIES[codec]
    require(not any(book[entries:]), "unused codebook entries are not zero")
    require(len(set(book[:entries])) == entries, "codebook entries are not distinct")
    require(max(book[:entries]) < 1 << codecs.CODED[dtype].symbol_bits, "a codebook entry is no symbol")


def layout(h):
    """The sections after the header, and the frame's size."""
    tiles = -(-h.values // codecs.TILE)
    if h.codec == "raw":
        payload = h.values * codecs.VALUE_BYTES[h.dtype]
        plan = [("index", 8 * -(-payload // RAW_CHUNK), 0), ("payload", payload, 0)]
    else:
        d = codecs.CODED[h.dtype]
        plan = [("index", 24 * -(-tiles // codecs.TILES_PER_CHUNK), 0)]
        plan += [(f"rest bytes {i}", 1024 * tiles, 1024) for i in range(d.byte_planes)]
        plan += [(f"rest fields {w}", 128 * w * tiles, 128 * w) for w in d.field_planes]
        w1 = codecs.WIDTHS[h.codec][0]
        plan += [("codes", 128 * w1 * tiles, 128 * w1), ("tails", 4 * h.tail_words, 0)]
    at = HEADER_BYTES
    sections = []
    for name, size, tile_bytes in plan:
        require(size <= MAX_SECTION, "a section of more than 2^60 bytes", "size_overflow")
        sections.append(Section(name, at, size, tile_bytes))
        at = align(at + size)
    return sections, at


def parse_index(h, index):
    """Coded frames: every record against the bounds of frame.md "Chunk record"."""
    tiles = -(-h.values // codecs.TILE)
    raw_words = codecs.raw_tail_words(h.dtype, codecs.WIDTHS[h.codec][0])
    records = []
    for c in range(len(index) // 24):
        chunk_digest, packed = struct.unpack_from("<QQ", index, 24 * c)
        r = Record(chunk_digest, packed & (1 << 48) - 1, packed >> 48 & 0xFF, packed >> 56,
                   list(index[24 * c + 16:24 * c + 24]))
        exist = min(codecs.TILES_PER_CHUNK, tiles - codecs.TILES_PER_CHUNK * c)
        for t, words in enumerate(r.tail_words):
            escapes, raw = r.escapes >> t & 1, r.raw >> t & 1
            if t >= exist:
                require(not (words or escapes or raw), "a tile that does not exist is described", chunk=c)
            elif raw:
                require(not escapes, "a tile is both raw and with escapes", chunk=c)
                require(words == raw_words, "length of a raw tile", chunk=c)
            else:
                require(words < raw_words, "length of a coded tile", chunk=c)
        require(r.first_word + sum(r.tail_words) <= h.tail_words, "a tail leaves its section", chunk=c)
        records.append(r)
    require(sum(sum(r.tail_words) for r in records) == h.tail_words, "tails do not sum to the declared words")
    return records


class Frame:
    """Header and index of the frame that begins `data`, checked; `chunk(i)` decodes."""

    def __init__(self, data, fills=True):
        self.data = data
        self.header = parse_header(data)
        self.sections, self.size = layout(self.header)
        require(len(data) >= self.size, "the frame ends early", "truncated")
        require(not fills or len(data) == self.size, "bytes after the frame")
        index = self.section(0)
        record_bytes = 8 if self.header.codec == "raw" else 24
        require(digest.records_digest(index, record_bytes) == self.header.index_digest, "index digest differs",
                "digest_mismatch")
        if self.header.codec == "raw":
            self.records = [Record(d, 0, 0, 0, []) for d, in struct.iter_unpack("<Q", index)]
        else:
            self.records = parse_index(self.header, index)
        ends = [HEADER_BYTES] + [s.offset + s.size for s in self.sections]
        starts = [s.offset for s in self.sections] + [self.size]
        require(not any(any(data[e:s]) for e, s in zip(ends, starts)), "non-zero padding between sections")

    def section(self, i):
        s = self.sections[i]
        return bytes(self.data[s.offset:s.offset + s.size])

    def chunk(self, i):
        """The decoded bytes of chunk `i`, after its digest was compared."""
        h = self.header
        try:
            if h.codec == "raw":
                s = self.sections[1]
                start = s.offset + RAW_CHUNK * i
                out = bytes(self.data[start:min(start + RAW_CHUNK, s.offset + s.size)])
                width = 2
            else:
                out = self._coded_chunk(i)
                width = codecs.CODED[h.dtype].value_bytes
            computed = digest.digest(out, width, digest.CHUNK, codecs.TILES_PER_CHUNK * i)
            require(computed == self.records[i].digest, "chunk digest differs", "digest_mismatch")
        except TersorError as e:
            raise TersorError(e.code, e.args[0], i) from None
        return out

    def _coded_chunk(self, i):
        record = self.records[i]
        words = record.first_word
        out = []
        tiles = -(-self.header.values // codecs.TILE)
        first = codecs.TILES_PER_CHUNK * i
        for t in range(first, min(first + codecs.TILES_PER_CHUNK, tiles)):
            n = record.tail_words[t - first]
            start = self.sections[-1].offset + 4 * words
            out.append(self._tile(t, bytes(self.data[start:start + 4 * n]), record.raw >> t - first & 1,
                                  record.escapes >> t - first & 1))
            words += n
        return b"".join(out)

    def _tile(self, t, tail, raw, has_escapes):
        h = self.header
        planes = []
        for s in self.sections[1:-1]:
            start = s.offset + s.tile_bytes * t
            planes.append(bytes(self.data[start:start + s.tile_bytes]))
        d = codecs.CODED[h.dtype]
        widths = codecs.WIDTHS[h.codec]
        tile_rests = codecs.rests(h.dtype, planes[:d.byte_planes], planes[d.byte_planes:-1])
        codes = codecs.fields(planes[-1], widths[0])
        if raw:
            symbols = codecs.raw_symbols(codes, tail, h.dtype, widths[0])
        else:
            symbols, escaped = codecs.coded_symbols(codes, tail, widths, h.codebook, d.symbol_bits)
            require(escaped == bool(has_escapes), "the escape flag is wrong")
        count = min(codecs.TILE, h.values - codecs.TILE * t)
        codecs.check_padding(count, codes, tile_rests, symbols, raw)
        return codecs.join(h.dtype, tile_rests, symbols, count)

    def decode(self):
        return b"".join(self.chunk(i) for i in range(len(self.records)))


def decode(data):
    return Frame(data).decode()
