"""What the engines store: the frames of one entry behind a header that says how long they are and whose they are.

Little endian: magic `89 54 53 52 4B 56 42 0A`, u16 version (1), u16 frames, u32 CRC-32 of the header (with zero in its
place), u64 bytes of the blob, header included, u64 BLAKE2b-64 of the key, zero up to 128 bytes; then the frames
(spec/frame.md), one after another. The key's digest finds entries that were mixed up; it is no authentication.
"""

from __future__ import annotations

import hashlib
import math
import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from tersor import _core
from tersor._arrays import VALUE_BYTES
from tersor._errors import error

CODECS = ("rank", "top16", "raw")
MAGIC = b"\x89TSRKVB\n"
VERSION = 1
_HEADER = struct.Struct("<8sHHIQQ96s")
HEADER_BYTES = _HEADER.size


class Part(NamedTuple):
    """Contiguous bytes on the CPU and what they are. Written to when decoding; belongs to the caller."""

    data: Any
    dtype: str
    shape: tuple[int, ...]

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * VALUE_BYTES[self.dtype]


class BlobHeader(NamedTuple):
    n_frames: int
    n_bytes: int
    key_digest: int


def check_codec(codec: Any) -> str:
    """Errors: InvalidArgumentError."""
    if codec not in CODECS:
        raise error("invalid_argument", f"unknown codec {codec!r}: {', '.join(CODECS)} are known")
    return str(codec)


def tensor_part(tensor: Any) -> Part:
    """A view of a contiguous torch tensor on the CPU. Errors: InvalidArgumentError, UnsupportedError."""
    import torch

    from tersor._arrays import dtype_of_torch

    if tensor.device.type != "cpu" or not tensor.is_contiguous():
        raise error("invalid_argument", f"the tensor is not contiguous on the CPU (it is on {tensor.device})")
    flat = tensor.detach().reshape(-1).view(torch.uint8).numpy() if tensor.numel() else bytearray()
    return Part(flat, dtype_of_torch(tensor.dtype), tuple(tensor.shape))


def blob_bound(codec: str, parts: Sequence[tuple[str, Sequence[int]]]) -> int:
    """No blob of values of these dtypes and shapes is longer. Errors: SizeOverflowError, UnsupportedError."""
    total = HEADER_BYTES
    for dtype, shape in parts:
        if dtype not in VALUE_BYTES:
            raise error("unsupported", f"no dtype of Tersor for {dtype}")
        n_values = math.prod(shape)
        # The codec may store a frame raw where that is smaller; neither form exceeds the larger bound.
        bound = max(_core.encode_bound(codec, dtype, n_values), _core.encode_bound("raw", dtype, n_values))
        if bound == 0:
            raise error("size_overflow", f"{n_values} values of {dtype} are too many")
        total += bound
    return total


def encode_blob(codec: str, parts: Sequence[Part], key: bytes, context: Any = None) -> bytes:
    """The blob of these parts. Nothing of them is kept. Errors: those of `tersor.encode`."""
    ctx = context or _context()
    frames = [memoryview(_core.encode(ctx, p.data, p.dtype, list(p.shape), codec)) for p in parts]
    return b"".join([pack_header(len(frames), HEADER_BYTES + sum(len(f) for f in frames), key), *frames])


def encode_blob_into(codec: str, parts: Sequence[Part], key: bytes, dst: Any, context: Any = None) -> int:
    """Writes the blob to the beginning of `dst` (writable bytes on the CPU, at least `blob_bound`), and gives its size.
    Errors: DestinationTooSmallError, those of `tersor.encode`."""
    out = memoryview(dst).cast("B")
    ctx = context or _context()
    at = HEADER_BYTES
    if len(out) < at:
        raise error("destination_too_small", f"{len(out)} bytes hold no header")
    for p in parts:
        frame = memoryview(_core.encode(ctx, p.data, p.dtype, list(p.shape), codec))
        if at + len(frame) > len(out):
            raise error("destination_too_small", f"the destination has {len(out)} bytes, more are needed")
        out[at : at + len(frame)] = frame
        at += len(frame)
    out[:HEADER_BYTES] = pack_header(len(parts), at, key)
    return at


def read_header(data: Any) -> BlobHeader:
    """Header of the blob that begins `data`. Errors: TruncatedError, BadMagicError, UnsupportedVersionError,
    DigestMismatchError, MalformedError."""
    view = memoryview(data).cast("B")
    if len(view) < HEADER_BYTES:
        raise error("truncated", f"{len(view)} bytes, a header has {HEADER_BYTES}")
    magic, version, n_frames, crc, n_bytes, key_digest, rest = _HEADER.unpack_from(view)
    if magic != MAGIC:
        raise error("bad_magic", "not an entry that Tersor wrote")
    if crc != zlib.crc32(_HEADER.pack(magic, version, n_frames, 0, n_bytes, key_digest, rest)):
        raise error("digest_mismatch", "the entry's header was changed")
    if version != VERSION:
        raise error("unsupported_version", f"entry of version {version}, {VERSION} is known")
    if n_bytes < HEADER_BYTES or any(rest):
        raise error("malformed", f"an entry of {n_bytes} bytes, or with unknown fields")
    return BlobHeader(n_frames, n_bytes, key_digest)


def decode_blob(data: Any, parts: Sequence[Part], key: bytes, context: Any = None) -> int:
    """Decodes the blob that begins `data` into `parts`, and gives the blob's size. Bytes behind it are not read.

    dtype, shape and number must be those of `parts`, the key must be the one it was written under, and every chunk's
    digest is compared on the bytes in their place. If it raises, what `parts` hold is unspecified: do not use it.
    Errors: those of `read_header`, MismatchError (other key, dtype or shape), those of `tersor.decode`.
    """
    view = memoryview(data).cast("B")
    header = read_header(view)
    if header.n_bytes > len(view):
        raise error("truncated", f"{len(view)} bytes of an entry of {header.n_bytes}")
    if header.key_digest != _digest(key):
        raise error("mismatch", "the entry was written under another key")
    if header.n_frames != len(parts):
        raise error("mismatch", f"the entry holds {header.n_frames} tensors, {len(parts)} are expected")
    ctx = context or _context()
    at = HEADER_BYTES
    for p in parts:
        rest = view[at : header.n_bytes]
        info = _core.inspect(rest)
        if info.dtype != p.dtype or tuple(info.shape) != tuple(p.shape):
            found = f"{info.dtype} {list(info.shape)}"
            raise error("mismatch", f"the entry holds {found}, {p.dtype} {list(p.shape)} is expected")
        _core.decode_into(ctx, rest[: info.frame_bytes], p.data)
        at += info.frame_bytes
    if at != header.n_bytes:
        raise error("malformed", f"{header.n_bytes - at} bytes follow the last frame", byte_offset=at)
    return at


def pack_header(n_frames: int, n_bytes: int, key: bytes) -> bytes:
    """The header of a blob of n_bytes, header included."""
    if n_frames > 0xFFFF:
        raise error("invalid_argument", f"{n_frames} tensors in one entry, {0xFFFF} fit")
    fields = (MAGIC, VERSION, n_frames, 0, n_bytes, _digest(key), b"")
    return _HEADER.pack(*fields[:3], zlib.crc32(_HEADER.pack(*fields)), *fields[4:])


def _digest(key: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")


def _context() -> Any:
    from tersor import default_context

    return default_context()
