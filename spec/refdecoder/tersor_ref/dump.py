"""An annotated dump of one frame: header fields, chunk records, the first bytes of every section."""

from . import codecs, frame

_FIELDS = [(0, 8, "magic"), (8, 2, "version"), (10, 1, "codec"), (11, 1, "dtype"), (12, 1, "dims"), (13, 1, "flags"),
           (14, 2, "level widths"), (16, 8, "values"), (24, 8, "tail words"), (32, 8, "index digest"),
           (40, 8, "header digest"), (48, 16, "codebook")]
_SHOWN = 16


def _line(offset, data, note):
    return f"{offset:6}  {data[:_SHOWN].hex(' '):<47}  {note}".rstrip()


def _header(f):
    h = f.header
    notes = {"codec": h.codec, "dtype": codecs.DTYPES[h.dtype], "dims": len(h.shape), "values": h.values, "tail words": h.tail_words,
             "level widths": ", ".join(map(str, codecs.WIDTHS[h.codec])) or "none"}
    for at, size, name in _FIELDS:
        note = f"{name}: {notes[name]}" if name in notes else name
        yield _line(at, f.data[at:at + size], note)
    for i, d in enumerate(h.shape):
        yield _line(64 + 8 * i, f.data[64 + 8 * i:72 + 8 * i], f"shape[{i}]: {d}")
    if len(h.shape) < 8:
        yield f"{64 + 8 * len(h.shape):6}  zero to 127"


def _tile_note(record, t):
    kind = "raw" if record.raw >> t & 1 else "coded with escapes" if record.escapes >> t & 1 else "coded"
    return f"tile {t} {kind}, tail words: {record.tail_words[t]}"


def _index(f):
    base = f.sections[0].offset
    step = 8 if f.header.codec == "raw" else 24
    tiles = -(-f.header.values // codecs.TILE)
    for c, record in enumerate(f.records):
        at = base + step * c
        yield _line(at, f.data[at:at + 8], f"chunk {c}: digest")
        if f.header.codec == "raw":
            continue
        yield _line(at + 8, f.data[at + 8:at + 16],
                    f"chunk {c}: first word {record.first_word}, escape flags {record.escapes:08b}, "
                    f"raw flags {record.raw:08b}")
        exist = min(codecs.TILES_PER_CHUNK, tiles - codecs.TILES_PER_CHUNK * c)
        yield _line(at + 16, f.data[at + 16:at + 24], "; ".join(_tile_note(record, t) for t in range(exist)))


def lines(data):
    f = frame.Frame(data, fills=False)
    yield f"frame of {f.size} bytes"
    yield from _header(f)
    yield from _index(f)
    for s in f.sections[1:]:
        if s.size:
            shown = f.data[s.offset:s.offset + min(s.size, _SHOWN)]
            yield _line(s.offset, shown, f"{s.name}: {s.size} bytes to {s.offset + s.size - 1}")
    f.decode()
    yield "every digest is right"
