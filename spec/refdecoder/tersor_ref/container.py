"""container.md: a compressed safetensors file back to the original, byte for byte."""

import json
import re
import struct
from collections import namedtuple

from . import codecs, digest, matrix
from .errors import TersorError, require
from .frame import Frame

VERSION = "1"
MAX_HEADER = 100_000_000
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16,
        "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64, "F4": 4,
        "F6_E2M3": 6, "F6_E3M2": 6}

_HEAD = re.compile(r'\{"__metadata__":\{"tersor":"(?P<version>[0-9]{1,9})","tersor\.header_digest":"(?P<digest>[0-9a-f]{16})')
_DIGESTS_KEY = '","tersor.digests":"'
_HEADER_KEY = '","tersor.header":"'

Tensor = namedtuple("Tensor", "name dtype shape begin end")


def _pairs(pairs):
    out = dict(pairs)
    require(len(out) == len(pairs), "duplicate key")
    return out


def _refuse(text):
    raise TersorError("malformed", f"{text} in a header")


def _size(value, what):
    require(type(value) is int and 0 <= value <= digest.M64, f"{what} is not an unsigned integer")
    return value


def _tensor(name, entry):
    require(isinstance(entry, dict) and set(entry) == {"dtype", "shape", "data_offsets"}, f"entry of {name!r}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    require(isinstance(dtype, str) and isinstance(shape, list) and isinstance(offsets, list), f"entry of {name!r}")
    require(len(offsets) == 2, f"offsets of {name!r}")
    begin, end = (_size(o, "offset") for o in offsets)
    bits = BITS.get(dtype, 0)
    for d in shape:
        bits *= _size(d, "dimension")
    require(begin <= end, f"offsets of {name!r}")
    require(dtype not in BITS or (bits % 8 == 0 and end - begin == bits // 8), f"size of {name!r}")
    return Tensor(name, dtype, shape, begin, end)


def parse_header(header):
    """Strict safetensors header: metadata, tensors in data order."""
    require(header[:1] == b"{", "a header does not begin with {")
    try:
        document = json.loads(header.decode("utf-8"), object_pairs_hook=_pairs, parse_constant=_refuse,
                              parse_float=_refuse)
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise TersorError("malformed", "a header is not UTF-8 JSON") from None
    metadata = document.pop("__metadata__", {})
    require(isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values()), "__metadata__")
    tensors = sorted((_tensor(n, e) for n, e in document.items()), key=lambda t: (t.begin, t.end, t.name.encode()))
    at = 0
    for t in tensors:
        require(t.begin == at, f"a hole or an overlap before {t.name!r}")
        at = t.end
    return metadata, tensors, at


def is_container_key(key):
    return key == "tersor" or key.startswith("tersor.")


def check_header_digest(header):
    """Steps 2 and 3 of container.md "Reading", and the four members' places."""
    text = header.decode("latin-1")
    found = _HEAD.match(text)
    require(found, "the header does not begin as a container's")
    place = found.end() - 16
    zeroed = header[:place] + b"0" * 16 + header[place + 16:]
    computed = digest.digest(zeroed, domain=digest.CONTAINER_HEADER)
    require(found["digest"] == f"{computed:016x}", "header digest differs", "digest_mismatch")
    require(found["version"] == VERSION, f"container version {found['version']}", "unsupported_version")
    rest = text[place + 16:]
    require(rest.startswith(_DIGESTS_KEY), "tersor.digests is not the third member")
    end = rest.find('"', len(_DIGESTS_KEY))
    require(rest[end:].startswith(_HEADER_KEY), "tersor.header is not the fourth member")


def split(data):
    """Header bytes and data of a safetensors file."""
    require(len(data) >= 8, "fewer than 8 bytes", "truncated")
    n = struct.unpack("<Q", data[:8])[0]
    require(n <= MAX_HEADER, "header longer than 100,000,000 bytes")
    require(8 + n <= len(data), "the file ends in its header", "truncated")
    return data[8:8 + n], data[8 + n:]


def _restore(t, packed, listed):
    size = t.end - t.begin
    if len(packed) == size:
        require(f"{digest.digest(packed, domain=digest.STORED_RAW):016x}" == listed, f"digest of {t.name!r}",
                "digest_mismatch")
        return packed
    require(len(packed) < size, f"{t.name!r} is larger than the original")
    if matrix.is_matrix(packed):
        return _restore_matrix(t, packed, listed)
    f = Frame(packed)
    h = f.header
    require(codecs.DTYPES[h.dtype] == t.dtype, f"dtype of {t.name!r}")
    product = 1
    for d in t.shape:
        product *= d
    require(h.shape == (t.shape if len(t.shape) <= 8 else [product]), f"shape of {t.name!r}")
    require(f"{h.header_digest:016x}" == listed, f"frame digest of {t.name!r}", "digest_mismatch")
    return f.decode()


def _restore_matrix(t, packed, listed):
    h = matrix.parse_header(packed)
    require(matrix.DTYPES[h.dtype] == t.dtype, f"dtype of {t.name!r}")
    require([h.rows, h.cols] == t.shape, f"shape of {t.name!r}")
    require(f"{h.words[5]:016x}" == listed, f"matrix digest of {t.name!r}", "digest_mismatch")
    return matrix.decode(packed)


def _check_order(tensors, packed, by_name):
    """Coded tensors first, then stored ones, each in original data order."""
    def coded(t):
        return by_name[t.name].end - by_name[t.name].begin != t.end - t.begin

    expected = [t.name for t in tensors if coded(t)] + [t.name for t in tensors if not coded(t)]
    # Empty tensors share their offset with a neighbour, so only the others have a place in the data.
    sized = [n for n in expected if by_name[n].begin != by_name[n].end]
    require(sized == [t.name for t in packed if t.begin != t.end], "order of the data")
    for t in tensors:
        if coded(t):
            p = by_name[t.name]
            require(p.dtype == "U8" and p.shape == [p.end - p.begin], f"entry of coded {t.name!r}")
        else:
            require((by_name[t.name].dtype, by_name[t.name].shape) == (t.dtype, t.shape), f"entry of stored {t.name!r}")


def decompress(data):
    header, body = split(data)
    metadata, packed, end = parse_header(header)
    require(end <= len(body), "the file ends early", "truncated")
    require(end == len(body), "bytes after the data")
    require(any(map(is_container_key, metadata)), "not a Tersor file", "wrong_kind")
    check_header_digest(header)
    require((8 + len(header)) % 128 == 0, "header length")
    require("tersor.header" in metadata and "tersor.digests" in metadata, "metadata of a container is missing")
    original = metadata["tersor.header"].encode("utf-8")
    original_metadata, tensors, original_end = parse_header(original)
    require(not any(map(is_container_key, original_metadata)), "compressed twice")
    by_name = {t.name: t for t in packed}
    require(set(by_name) == {t.name for t in tensors}, "tensors of the original and the container differ")
    digests = metadata["tersor.digests"]
    require(re.fullmatch(f"[0-9a-f]{{{16 * len(tensors)}}}", digests), "tersor.digests")
    _check_order(tensors, packed, by_name)
    out = [struct.pack("<Q", len(original)), original]
    for i, t in enumerate(tensors):
        p = by_name[t.name]
        out.append(_restore(t, body[p.begin:p.end], digests[16 * i:16 * i + 16]))
    restored = b"".join(out)
    require(len(restored) == 8 + len(original) + original_end, "size of the restored file")
    return restored
