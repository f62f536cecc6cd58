"""One encoded tensor: a frame in host memory or on a GPU."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from .. import _core
from .._errors import error
from ._values import CPU, VALUE_BYTES, Device, is_tensor, n_values_of

if TYPE_CHECKING:
    import torch

    from ._gpu import Verdict

BOOK_ENTRIES = {"rank": 16, "top16": 15}


class HostFrame:
    """A frame's bytes in host memory; `memory` may be longer than the frame."""

    device = CPU

    def __init__(self, memory: Any, size: int) -> None:
        self.memory = memory
        self.size = size

    def view(self) -> memoryview:
        if self.size == 0:
            raise error("invalid_argument", "nothing was encoded into this yet")
        return memoryview(self.memory).cast("B")[: self.size]


class DeviceFrame:
    """A frame in device memory that was, or will be, written by work on a stream."""

    def __init__(self, codec: str, dtype: str, n_values: int, frame: torch.Tensor) -> None:
        self.codec = codec
        self.dtype = dtype
        self.n_values = n_values
        self.frame = frame
        #: memory of `Codec.allocate`: (result, workspace)
        self.own: tuple[torch.Tensor, torch.Tensor] | None = None
        self.verdict: Verdict | None = None
        #: values that another library owns, kept until they are encoded
        self.source: torch.Tensor | None = None
        #: of `Encoded.from_tensor`: a frame is there without a verdict; its size, once it is known
        self.given = False
        self.given_bytes = 0

    @property
    def device(self) -> Device:
        return Device("cuda", self.frame.device.index)

    def coded_bytes(self) -> int:
        """Size of the frame as it lies in device memory; waits."""
        from . import _gpu

        if self.verdict is None:
            if not self.given:
                raise error("invalid_argument", "nothing was encoded into this yet")
            if self.given_bytes == 0:
                self.given_bytes = _core.inspect(_gpu.host_bytes(self.frame)).frame_bytes
            return self.given_bytes
        result = self.verdict.read()[0]
        if not self.verdict.captured:
            self.source = None
        _gpu.raise_for(result, "encoding")
        if result.frame_bytes == 0:
            raise error("invalid_argument", "nothing was encoded into this yet: the captured graph has not run")
        return result.frame_bytes


class Encoded:
    """A tensor as one self-describing frame (spec/frame.md): dtype, shape, codebook and digest are in it.

    Made by `Codec.encode`, `Codec.allocate`, `from_bytes` and `from_tensor`. After encoding on a GPU the frame lies on
    that GPU and may still be in the making: `compressed_bytes`, `ratio`, `len`, `to_bytes`, `tensor`, `n_esc`, pickling
    and `wait` wait for it; nothing else does. An object may be shared by threads that read it.
    """

    def __init__(self, frame: HostFrame | DeviceFrame, dtype: str, shape: tuple[int, ...], kind: str | None) -> None:
        self._frame = frame
        self._dtype = dtype
        self._shape = tuple(shape)
        self._kind = kind
        self._info: Any = None
        self._lock = threading.Lock()

    @classmethod
    def from_bytes(cls, data: Any, kind: str | None = None) -> Encoded:
        """The tensor in a frame's bytes, which are copied unless they are `bytes`.

        Header and index are checked here, the values when they are decoded. `kind`: "numpy" or "torch", what decoding
        gives unless it is told otherwise. Errors: `bad_magic`, `truncated`, `digest_mismatch`, `malformed` (also for
        bytes behind the frame), `unsupported`, `unsupported_version`, `size_overflow`.
        """
        if is_tensor(data) and data.is_cuda:
            raise error("invalid_argument", "a frame in device memory needs Encoded.from_tensor")
        if kind not in (None, "numpy", "torch"):
            raise error("invalid_argument", f"unknown kind of array {kind!r}: numpy and torch are known")
        memory = data if isinstance(data, bytes | _core.Buffer) else _core.Buffer(_bytes_like(data))
        info = _core.inspect(memory)
        if info.frame_bytes != len(memory):
            extra = len(memory) - info.frame_bytes
            raise error("malformed", f"{extra} bytes follow the frame", byte_offset=info.frame_bytes)
        if info.dtype not in VALUE_BYTES:
            raise error("unsupported", f"dtype {info.dtype} has no KV codec: {', '.join(VALUE_BYTES)} have")
        made = cls(HostFrame(memory, info.frame_bytes), info.dtype, tuple(info.shape), kind)
        made._info = info
        return made

    @classmethod
    def from_tensor(cls, data: torch.Tensor, *, dtype: str, shape: tuple[int, ...], codec: str = "rank") -> Encoded:
        """A frame that lies in device memory, e.g. received from another GPU; shared, not copied, nothing waits.

        `data`: contiguous uint8 on a GPU, at a multiple of 16 bytes; it may be longer than the frame. What the frame
        must hold is not read from it but given; a frame that holds something else is a `mismatch` when it is decoded.
        Asking for its size copies it to the host.
        """
        import torch

        if not is_tensor(data) or not data.is_cuda or data.dtype != torch.uint8 or not data.is_contiguous():
            raise error("invalid_argument", "expected a contiguous uint8 tensor on a GPU")
        if data.data_ptr() % _core.cuda.FRAME_ALIGNMENT != 0 or data.numel() == 0:
            raise error("invalid_argument", f"a frame begins at a multiple of {_core.cuda.FRAME_ALIGNMENT} bytes")
        shape = tuple(int(size) for size in shape)
        frame = DeviceFrame(codec, dtype, n_values_of(shape), data.reshape(-1))
        frame.given = True
        if _core.cuda.encode_bound(codec, dtype, frame.n_values) == 0:
            raise error("unsupported", f"a GPU does not decode {codec} frames of {dtype}")
        return cls(frame, dtype, shape, "torch")

    @property
    def dtype(self) -> str:
        """Name of the dtype as in safetensors: "BF16", "F16", "F32", "F8_E4M3" or "F8_E5M2"."""
        return self._dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def device(self) -> str:
        """Where the frame lies: "cpu" or "cuda:N"."""
        return str(self._frame.device)

    @property
    def original_bytes(self) -> int:
        """Bytes of the values."""
        return n_values_of(self._shape) * VALUE_BYTES[self._dtype]

    @property
    def compressed_bytes(self) -> int:
        """Bytes of the frame, everything included: what `to_bytes` gives. Waits for the GPU."""
        if isinstance(self._frame, HostFrame):
            return len(self._frame.view())
        return min(self._frame.coded_bytes(), self._raw_bytes())

    @property
    def ratio(self) -> float:
        """original_bytes / compressed_bytes. Waits for the GPU."""
        return self.original_bytes / self.compressed_bytes

    @property
    def n_esc(self) -> int:
        """How many values have an exponent that the frame's codebook does not hold; decodes the frame to count them.
        0 for a frame that is stored raw."""
        data = self.to_bytes()
        info = _core.inspect(data)
        entries = BOOK_ENTRIES.get(info.codec)
        if entries is None:
            return 0
        context = _default_context()
        values, dtype, _ = _core.decode(context, data)
        counts = _core.count_symbols(context, dtype, values).counts
        return sum(counts) - sum(counts[symbol] for symbol in set(info.codebook[:entries]))

    @property
    def info(self) -> Any:
        """The frame's header and index, as `tersor.inspect` of a frame gives them. Waits for the GPU and copies a
        frame that lies there."""
        if isinstance(self._frame, DeviceFrame):
            return _core.inspect(self.to_bytes())
        with self._lock:
            if self._info is None:
                self._info = _core.inspect(self._frame.view())
            return self._info

    def wait(self) -> Encoded:
        """Waits until the frame is complete. Errors: what encoding found wrong."""
        if isinstance(self._frame, DeviceFrame):
            self._frame.coded_bytes()
        else:
            self._frame.view()
        return self

    def to_bytes(self) -> bytes:
        """The frame. Stored raw if coding did not make it smaller. Waits for the GPU."""
        if isinstance(self._frame, HostFrame):
            view = self._frame.view()
            return self._frame.memory if isinstance(self._frame.memory, bytes) else bytes(view)
        from . import _gpu

        size = self._frame.coded_bytes()
        self._join()
        coded = _gpu.host_bytes(self._frame.frame[:size])
        return coded if size < self._raw_bytes() else _stored_raw(coded)

    def tensor(self) -> torch.Tensor:
        """The frame as a uint8 tensor where it lies, sharing its memory: what to send to another GPU. Waits for the
        size. A frame on a GPU is always coded here, never raw."""
        import torch

        if isinstance(self._frame, HostFrame):
            return torch.frombuffer(bytearray(self._frame.view()), dtype=torch.uint8)
        size = self._frame.coded_bytes()
        self._join()
        return self._frame.frame[:size]

    def compact(self) -> Encoded:
        """A copy that holds no more memory than its frame. On a GPU a fresh `Encoded` holds as much as the worst case
        needs, about the size of the values. Waits for the size."""
        if isinstance(self._frame, HostFrame):
            return Encoded.from_bytes(self.to_bytes(), self._kind if self._kind in ("numpy", "torch") else None)
        tight = Encoded.from_tensor(
            self.tensor().clone(), dtype=self._dtype, shape=self._shape, codec=self._frame.codec
        )
        tight._kind = self._kind
        tight._frame.given_bytes = tight._frame.frame.numel()
        return tight

    def __bytes__(self) -> bytes:
        return self.to_bytes()

    def __len__(self) -> int:
        return self.compressed_bytes

    def __reduce__(self) -> tuple:
        return _rebuild, (self.to_bytes(), self._kind)

    def __repr__(self) -> str:
        return f"Encoded({self._dtype} {list(self._shape)} on {self._frame.device})"

    def _raw_bytes(self) -> int:
        return _core.encode_bound("raw", self._dtype, n_values_of(self._shape))

    def _join(self) -> None:
        """Lets the current stream wait for the frame."""
        if isinstance(self._frame, DeviceFrame) and self._frame.verdict is not None:
            self._frame.verdict.join(self._frame.frame)


def _rebuild(data: bytes, kind: str | None) -> Encoded:
    made = Encoded.from_bytes(data)
    made._kind = kind
    return made


def _bytes_like(data: Any) -> Any:
    """What the extension reads: uint8 with the buffer protocol or DLPack."""
    if is_tensor(data) or hasattr(data, "__dlpack__"):
        return data
    try:
        return memoryview(data).cast("B")
    except TypeError:
        raise error("invalid_argument", f"expected bytes, not {type(data).__name__}") from None


def _default_context() -> Any:
    from .. import default_context

    return default_context()


def _stored_raw(coded: bytes) -> bytes:
    context = _default_context()
    values, dtype, shape = _core.decode(context, coded)
    return bytes(_core.encode(context, values, dtype, shape, codec="raw"))
