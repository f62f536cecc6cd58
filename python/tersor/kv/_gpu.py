"""Calls that enqueue work on torch's current stream, and the verdicts that they leave in device memory.

Nothing here waits, except `Verdict.read`.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
from collections.abc import Iterator
from typing import NamedTuple

import torch

from .. import _core
from .._errors import error, from_code

IN_PLACE = 0xFFFFFFFF
NO_CHUNK = 0xFFFFFFFF
BOOK_BYTES = 16

_RESULT = struct.Struct("<iIQQII")


class FrameResult(NamedTuple):
    """What encoding or decoding one frame found out; see tersor::cuda::frame_result."""

    code: int
    chunk: int
    frame_bytes: int
    digest: int
    overflow: int
    reserved: int


def pack_results(results: list[FrameResult]) -> bytes:
    return b"".join(_RESULT.pack(*r) for r in results)


#: codes that can only mean one thing where pages are concerned
PAGE_WORDS = {1: "a page id is outside the pool", 2: "fits neither its slot nor the overflow area"}


def raise_for(result: FrameResult, what: str, words: dict[int, str] | None = None) -> None:
    """Raises the error that belongs to a bad code; `words` explain codes."""
    if result.code == 0:
        return
    place = {} if result.chunk == NO_CHUNK else {"chunk": result.chunk}
    why = (words or {}).get(result.code) or from_code(result.code, "").name.replace("_", " ")
    raise from_code(result.code, f"{what}: {why}", **place)


def host_bytes(x: torch.Tensor) -> bytes:
    """A copy of a contiguous tensor's bytes; waits for a tensor on a GPU."""
    x = x.cpu()
    return ctypes.string_at(x.data_ptr(), x.numel() * x.element_size()) if x.numel() else b""


def is_capturing(device: torch.device) -> bool:
    """Whether the current stream of a GPU is being captured into a CUDA graph."""
    with torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()


@contextlib.contextmanager
def on(device: torch.device) -> Iterator[int]:
    """Makes a GPU the current one; gives its current stream as a number."""
    with torch.cuda.device(device):
        yield torch.cuda.current_stream(device).cuda_stream


class Verdict:
    """Results of work that was just enqueued on the current stream of their device.

    `results`: uint8, 32 bytes a frame. Work that was captured into a CUDA graph is judged anew at every read, after
    waiting for the device; other work once, after waiting for it.
    """

    def __init__(self, results: torch.Tensor) -> None:
        self.results = results
        self.stream = torch.cuda.current_stream(results.device)
        self.captured = is_capturing(results.device)
        self._event = None
        self._seen: list[FrameResult] | None = None
        if not self.captured:
            self._event = torch.cuda.Event()
            self._event.record(self.stream)

    def ready(self) -> bool:
        """Whether reading would not wait; False for captured work."""
        return self._seen is not None or (self._event is not None and self._event.query())

    def join(self, *tensors: torch.Tensor) -> None:
        """Makes the current stream wait for the work, and keeps the tensors until what follows on it is done."""
        stream = torch.cuda.current_stream(self.results.device)
        if stream == self.stream or self._event is None or is_capturing(self.results.device):
            return
        stream.wait_event(self._event)
        for tensor in tensors:
            tensor.record_stream(stream)

    def read(self) -> list[FrameResult]:
        """Waits for the work. Errors: `invalid_argument` while a graph is captured."""
        if self._seen is not None:
            return self._seen
        with torch.cuda.device(self.results.device):
            if is_capturing(self.results.device):
                raise error("invalid_argument", "results cannot be read while a CUDA graph is captured")
            if self._event is None:
                torch.cuda.synchronize(self.results.device)
            else:
                self._event.synchronize()
            seen = [FrameResult(*fields) for fields in _RESULT.iter_unpack(host_bytes(self.results))]
        if self._event is not None:
            self._seen = seen
        return seen


class Workspaces:
    """Zeroed device memory for calls, one piece per stream: calls on one stream take turns."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, int], torch.Tensor] = {}

    def get(self, device: torch.device, n_bytes: int) -> torch.Tensor:
        if is_capturing(device):
            # Owned by the graph, which zeroes it at every replay.
            return torch.zeros(n_bytes, dtype=torch.uint8, device=device)
        key = (device.index, torch.cuda.current_stream(device).cuda_stream)
        held = self._held.get(key)
        if held is None or held.numel() < n_bytes:
            held = self._held[key] = torch.zeros(n_bytes, dtype=torch.uint8, device=device)
        return held


def new_results(device: torch.device, n: int) -> torch.Tensor:
    return torch.empty(n * _core.cuda.FRAME_RESULT_BYTES, dtype=torch.uint8, device=device)


def encode_workspace(codec: str, dtype: str, shape: tuple[int, ...], canonical: bool) -> int:
    """Bytes that an encode call of this tensor and the making of its codebook need."""
    task = (dtype, list(shape), 0, bytes(range(BOOK_BYTES)), 0, 0, 0, 0)
    return max(_core.cuda.encode_workspace_size(codec, canonical, [task]), _core.cuda.codebook_workspace_size())


def encode_frame(
    codec: str,
    dtype: str,
    x: torch.Tensor,
    *,
    shape: tuple[int, ...],
    book: bytes | None,
    frame: torch.Tensor,
    result: torch.Tensor,
    workspace: torch.Tensor,
    canonical: bool,
) -> Verdict:
    """Enqueues the encoding of a contiguous tensor; without a codebook its exact one is made first."""
    with on(x.device) as stream:
        place, size = workspace.data_ptr(), workspace.numel()
        made = None
        if book is None:
            made = torch.empty(BOOK_BYTES, dtype=torch.uint8, device=x.device)
            _core.cuda.make_codebook(codec, dtype, x.data_ptr(), x.numel(), made.data_ptr(), place, size, stream)
        task = (
            dtype,
            list(shape),
            x.data_ptr(),
            book,
            0 if made is None else made.data_ptr(),
            frame.data_ptr(),
            frame.numel(),
            result.data_ptr(),
        )
        _core.cuda.encode(codec, [task], canonical, place, size, stream)
        return Verdict(result)


def decode_frame(
    codec: str, dtype: str, n_values: int, *, frame: torch.Tensor, to: torch.Tensor, workspaces: Workspaces
) -> Verdict:
    """Enqueues the decoding of a frame into a contiguous tensor of its device."""
    with on(frame.device) as stream:
        result = new_results(frame.device, 1)
        task = (dtype, n_values, frame.data_ptr(), frame.numel(), to.data_ptr(), result.data_ptr())
        workspace = workspaces.get(frame.device, _core.cuda.decode_workspace_size([task]))
        _core.cuda.decode(codec, [task], workspace.data_ptr(), workspace.numel(), stream)
        return Verdict(result)


def count_symbols(x: torch.Tensor, dtype: str) -> list[int]:
    """How often each exponent occurs, 256 counts; waits for the result."""
    carrier, shift, mask = {
        "BF16": (torch.int16, 7, 0xFF),
        "F16": (torch.int16, 10, 0x1F),
        "F8_E4M3": (torch.uint8, 3, 0xF),
        "F8_E5M2": (torch.uint8, 2, 0x1F),
    }[dtype]
    flat = x.reshape(-1).view(carrier)
    counts = torch.zeros(256, dtype=torch.int64, device=x.device)
    # In pieces: bincount needs a good multiple of its input.
    for piece in flat.split(1 << 24):
        counts += torch.bincount(((piece >> shift) & mask).to(torch.uint8), minlength=256)
    return counts.tolist()
