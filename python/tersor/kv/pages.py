"""Encoded pages: their frames in host memory or on a GPU, and as one string of bytes."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import _core
from .._errors import error
from ._values import VALUE_BYTES, is_tensor, n_values_of
from .encoded import _bytes_like, _default_context

if TYPE_CHECKING:
    import torch

    from ._gpu import FrameResult, Verdict

KINDS = ("gathered", "slots")

# Bytes of EncodedPages, little endian: this header, u64 size of each frame, zero up to a multiple of 128, the frames
# one after the other (pool by pool, in slots page by page). The checksum is the CRC-32 of header (with 0 in its place)
# and sizes; frames have digests of their own.
_MAGIC = b"\x89TSRPGS\n"
_VERSION = 1
_HEADER = struct.Struct("<8sHBx8sIIIIII")
_ALIGNMENT = 128


@dataclass(frozen=True)
class PagesShape:
    """What the frames hold. `page_shape`: token, head, value."""

    kind: str
    dtype: str
    n_pools: int
    n_pages: int
    page_shape: tuple[int, int, int]

    @property
    def n_frames(self) -> int:
        return self.n_pools * (self.n_pages if self.kind == "slots" else 1)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        return self.page_shape if self.kind == "slots" else (self.n_pages, *self.page_shape)

    @property
    def n_bytes(self) -> int:
        return self.n_pools * self.n_pages * n_values_of(self.page_shape) * VALUE_BYTES[self.dtype]

    def place(self, frame: int) -> str:
        """Names a frame in an error."""
        return f"pool {frame // self.n_pages}, page {frame % self.n_pages}" if self.kind == "slots" else f"pool {frame}"


@dataclass
class DevicePages:
    """Frames in device memory. Frame f is at `frames[f * stride:]`, or at place `result.overflow` of `overflow`."""

    codec: str
    frames: torch.Tensor
    stride: int
    results: torch.Tensor
    overflow: torch.Tensor | None
    overflow_bytes: int
    overflow_used: torch.Tensor | None
    #: workspace and codebooks of PagedCodec.allocate
    own: tuple[torch.Tensor, torch.Tensor] | None = None
    verdict: Verdict | None = None


class EncodedPages:
    """Pages of a paged KV cache: one frame per pool ("gathered"), or per pool and page ("slots").

    Made by `PagedCodec.encode`, `PagedCodec.allocate` and `from_bytes`. On a GPU the frames may still be in the making;
    sizes, `to_bytes`, `check`, `len` and pickling wait for them. `device_pages` has the GPU's buffers, for sending them
    as they are; None for pages in host memory.
    """

    def __init__(self, shape: PagesShape, frames: list[Any] | None, device_pages: DevicePages | None) -> None:
        self._shape = shape
        self._frames = frames
        self.device_pages = device_pages
        #: of PagedCodec.allocate on the CPU: slot size and overflow places
        self._slots: tuple[int | None, int | None] | None = None

    @classmethod
    def from_bytes(cls, data: Any) -> EncodedPages:
        """What `to_bytes` gave; the bytes are copied. Table and frame headers are checked here, values when they are
        decoded. Errors: `bad_magic`, `truncated`, `unsupported_version`, `digest_mismatch`, `malformed`, `mismatch`."""
        if is_tensor(data) and data.is_cuda:
            raise error("invalid_argument", "expected bytes, not a tensor on a GPU")
        view = memoryview(data if isinstance(data, bytes) else _core.Buffer(_bytes_like(data))).cast("B")
        shape, sizes, at = _read_table(view)
        frames = []
        for number, size in enumerate(sizes):
            frame = view[at : at + size]
            _check_frame(shape, number, frame)
            frames.append(frame)
            at += size
        return cls(shape, frames, None)

    kind = property(lambda self: self._shape.kind, doc='"gathered" or "slots".')
    dtype = property(lambda self: self._shape.dtype, doc='Name of the dtype as in safetensors, such as "BF16".')
    n_pools = property(lambda self: self._shape.n_pools, doc="K and V of each layer; one a layer for MLA.")
    n_pages = property(lambda self: self._shape.n_pages, doc="Pages of each pool.")
    page_shape = property(lambda self: self._shape.page_shape, doc="Token, head, value.")

    @property
    def device(self) -> str:
        """Where the frames lie: "cpu" or "cuda:N"."""
        return "cpu" if self.device_pages is None else f"cuda:{self.device_pages.frames.device.index}"

    @property
    def original_bytes(self) -> int:
        """Bytes of the pages' values."""
        return self._shape.n_bytes

    @property
    def frame_bytes(self) -> list[int]:
        """Sizes of the frames: one per pool, or for slots pool by pool one per page."""
        if self._frames is not None:
            return [len(frame) for frame in self.check()._frames]
        return [result.frame_bytes for result in self._good_results()]

    @property
    def compressed_bytes(self) -> int:
        """Sum of the frames' sizes: what has to be sent. Slots occupy more memory, see `device_pages`."""
        return sum(self.frame_bytes)

    @property
    def ratio(self) -> float:
        return self.original_bytes / self.compressed_bytes

    def check(self) -> EncodedPages:
        """Waits for the frames. Errors: `destination_too_small` for a page that fits neither its slot nor the overflow
        area, `invalid_argument` for a page outside the pools; the message names the first."""
        if self.device_pages is not None:
            self._good_results()
        elif not self._frames:
            raise error("invalid_argument", "nothing was encoded into this yet")
        return self

    def to_bytes(self) -> bytes:
        """All frames with a table of their sizes, for another process or host. Waits for the GPU."""
        frames = self.check().host_frames()
        sizes = struct.pack(f"<{len(frames)}Q", *(len(frame) for frame in frames))
        head = _pack_header(self._shape, 0)
        head = _pack_header(self._shape, zlib.crc32(head + sizes))
        table = head + sizes
        return b"".join([table, bytes(-len(table) % _ALIGNMENT), *frames])

    def host_frames(self) -> list[Any]:
        """Each frame's bytes, copied to the host if they lie on a GPU."""
        if self._frames is not None:
            return self._frames
        from . import _gpu

        pages = self.device_pages
        results = self._good_results()
        pages.verdict.join(pages.frames)
        spilled = any(result.overflow != _gpu.IN_PLACE for result in results)
        if self._shape.kind == "gathered":
            places = enumerate(results)
            return [_gpu.host_bytes(pages.frames[i * pages.stride :][: r.frame_bytes]) for i, r in places]
        slots = memoryview(_gpu.host_bytes(pages.frames))
        overflow = memoryview(_gpu.host_bytes(pages.overflow)) if spilled else memoryview(b"")
        found = []
        for i, result in enumerate(results):
            if result.overflow == _gpu.IN_PLACE:
                found.append(slots[i * pages.stride :][: result.frame_bytes])
            else:
                found.append(overflow[result.overflow * pages.overflow_bytes :][: result.frame_bytes])
        return found

    def __bytes__(self) -> bytes:
        return self.to_bytes()

    def __len__(self) -> int:
        return self.compressed_bytes

    def __reduce__(self) -> tuple:
        return EncodedPages.from_bytes, (self.to_bytes(),)

    def __repr__(self) -> str:
        s = self._shape
        return f"EncodedPages({s.kind}, {s.n_pools} pools, {s.n_pages} pages of {s.dtype} {list(s.page_shape)})"

    def _good_results(self) -> list[FrameResult]:
        from . import _gpu

        if self.device_pages.verdict is None:
            raise error("invalid_argument", "nothing was encoded into this yet")
        results = self.device_pages.verdict.read()
        for number, result in enumerate(results):
            _gpu.raise_for(result, f"encoding {self._shape.place(number)}", _gpu.PAGE_WORDS)
            if result.frame_bytes == 0:
                raise error("invalid_argument", "nothing was encoded into this yet: the captured graph has not run")
        return results


def _pack_header(shape: PagesShape, checksum: int) -> bytes:
    dtype = shape.dtype.encode().ljust(8, b"\0")
    kind = KINDS.index(shape.kind)
    return _HEADER.pack(_MAGIC, _VERSION, kind, dtype, shape.n_pools, shape.n_pages, *shape.page_shape, checksum)


def _read_table(view: memoryview) -> tuple[PagesShape, list[int], int]:
    """Shape, frame sizes, and where the frames begin."""
    if len(view) < len(_MAGIC) or bytes(view[: len(_MAGIC)]) != _MAGIC:
        raise error("bad_magic", "not the bytes of encoded pages")
    if len(view) < _HEADER.size:
        raise error("truncated", f"{len(view)} bytes are less than a header")
    _, version, kind, dtype, n_pools, n_pages, *page_shape, checksum = _HEADER.unpack(view[: _HEADER.size])
    if version != _VERSION:
        raise error("unsupported_version", f"version {version} of encoded pages; this library reads {_VERSION}")
    n_frames = n_pools * (n_pages if kind == 1 else 1)
    end = _HEADER.size + 8 * n_frames
    if end > len(view):
        raise error("truncated", f"a table of {n_frames} frames does not fit into {len(view)} bytes")
    zeroed = bytes(view[: _HEADER.size - 4]) + bytes(4)
    if zlib.crc32(view[_HEADER.size : end], zlib.crc32(zeroed)) != checksum:
        raise error("digest_mismatch", "the table of frames was changed")
    name = dtype.rstrip(b"\0").decode("ascii", "replace")
    if kind >= len(KINDS) or name not in VALUE_BYTES or 0 in (n_pools, n_pages, *page_shape):
        raise error("malformed", "the header of encoded pages contradicts itself")
    sizes = list(struct.unpack(f"<{n_frames}Q", view[_HEADER.size : end]))
    first = end + -end % _ALIGNMENT
    have, need = len(view), first + sum(sizes)
    if have != need:
        raise error("truncated" if have < need else "malformed", f"the frames end at byte {need}, the data at {have}")
    if any(view[end:first]):
        raise error("malformed", "the padding behind the table is not zero", byte_offset=end)
    return PagesShape(KINDS[kind], name, n_pools, n_pages, tuple(page_shape)), sizes, first


def _check_frame(shape: PagesShape, number: int, frame: Any) -> None:
    info = _core.inspect(frame)
    if (info.dtype, tuple(info.shape), info.frame_bytes) != (shape.dtype, shape.frame_shape, len(frame)):
        found = f"{info.dtype} {list(info.shape)}"
        raise error("mismatch", f"{shape.place(number)} holds {found}, not {shape.dtype} {list(shape.frame_shape)}")


def coded_frame(frame: Any, codec: str) -> Any:
    """The frame if it is coded with `codec`, else one that is and holds the same values."""
    if _core.inspect(frame).codec == codec:
        return frame
    context = _default_context()
    values, dtype, shape = _core.decode(context, frame)
    return _core.encode(context, values, dtype, shape, codec=codec, raw_fallback=False)
