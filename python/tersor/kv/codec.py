"""calibrate, encode, decode: one tensor at a time, on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .. import _core
from .._errors import error
from .._exponents import codebook_of
from ._values import (
    CPU,
    GPU_DTYPES,
    VALUE_BYTES,
    Source,
    Target,
    hand_over,
    has_torch,
    n_values_of,
    new_target,
    open_source,
    open_target,
    parse_device,
)
from .encoded import BOOK_ENTRIES, DeviceFrame, Encoded, HostFrame

if TYPE_CHECKING:
    from ._gpu import Verdict, Workspaces

MAX_CHUNK_SIZE = 65536


class Decoding:
    """Values that are being decoded on a GPU. `array` must not be used before `check` has returned."""

    def __init__(self, array: Any, verdict: Verdict | None, kind: str | None = None) -> None:
        self.array = array
        self._verdict = verdict
        self._kind = kind

    def ready(self) -> bool:
        """Whether `check` would not wait."""
        return self._verdict is None or self._verdict.ready()

    def check(self) -> Any:
        """Waits for the values, and gives the array if they are right. Work that was captured into a CUDA graph is
        checked anew, for the latest replay. Errors: `digest_mismatch`, `malformed`, `mismatch`, ..."""
        if self._verdict is not None:
            from . import _gpu

            _gpu.raise_for(self._verdict.read()[0], "decoding")
        if self._kind is not None:
            self.array, self._kind = hand_over(self.array, self._kind), None
        return self.array


class Codec:
    """Lossless codec for tensors of a KV cache; decoded values are the encoded ones bit for bit.

    `device`: where values must lie and where decoding puts them ("cpu", "cuda", "cuda:1", torch.device). None: values
    may lie anywhere, and are decoded where their frame lies.
    `chunk_size`: a power of two up to 65,536, as SplitZip demands. It changes nothing: the format fixes that 1,024
    values are a tile, which decodes by itself, and 8,192 values a chunk, which has a digest of its own.
    `codec`: "rank" is the default because transfers wait for links: 1.487x against 1.330x for "top16" on the KV cache
    in docs/performance.md. On that, "top16" encodes 17% and decodes 8% faster; both are far faster than any link.
    `canonical`: frames made on a GPU are byte for byte those of the CPU, for one more small launch each. Without it
    their bytes may differ from run to run, their values never.
    `codebooks`: codebooks of an earlier calibration, as the property of that name gives them.
    `context`: threads of the CPU part; `tersor.default_context()` if None.

    A codec may be shared by threads; `calibrate` must not run beside other calls. It can be pickled.
    """

    def __init__(
        self,
        device: Any = None,
        chunk_size: int = 1024,
        *,
        codec: str = "rank",
        canonical: bool = False,
        codebooks: Mapping[str, bytes] | None = None,
        context: Any = None,
    ) -> None:
        self._device = parse_device(device)
        if isinstance(chunk_size, bool) or not isinstance(chunk_size, int):
            raise error("invalid_argument", f"chunk_size is an int, not {type(chunk_size).__name__}")
        if not 0 < chunk_size <= MAX_CHUNK_SIZE or chunk_size & (chunk_size - 1):
            raise error("invalid_argument", f"chunk_size is a power of two up to {MAX_CHUNK_SIZE}, not {chunk_size}")
        if codec not in BOOK_ENTRIES:
            raise error("invalid_argument", f"unknown codec {codec!r}: rank and top16 are known")
        self.chunk_size = chunk_size
        self.codec = codec
        self.canonical = bool(canonical)
        self._context = context
        self._counts: dict[str, list[int]] = {}
        self._books: dict[str, bytes] = {}
        self._spaces: Workspaces | None = None
        for dtype, book in (codebooks or {}).items():
            if dtype not in VALUE_BYTES or not isinstance(book, bytes) or len(book) != 16:
                raise error("invalid_argument", f"a codebook of {dtype!r} is not 16 bytes, or there is no such dtype")
            self._books[dtype] = book

    @property
    def device(self) -> str | None:
        return None if self._device is None else str(self._device)

    @property
    def codebooks(self) -> dict[str, bytes]:
        """The codebook of each dtype that was calibrated: 16 exponents, most frequent first."""
        return dict(self._books)

    def calibrate(self, x: Any, *, accumulate: bool = False) -> float:
        """Takes the most frequent exponents of x as the codebook of its dtype, and gives the share of x's values that
        they cover (of all values counted, if accumulated). Waits for a GPU.

        A call replaces the codebook of an earlier one, unless `accumulate` adds x to what earlier calls counted.
        Codebooks of other dtypes stay. An unsuitable codebook costs size, never correctness.
        Errors: `invalid_argument` (no values, not an array), `unsupported`, `mismatch` (device).
        """
        source = self._open(x)
        if source.n_values == 0:
            raise error("invalid_argument", "calibrating needs at least one value")
        counts = self._count(source)
        before = self._counts.get(source.dtype)
        if accumulate and before is not None:
            counts = [a + b for a, b in zip(before, counts, strict=True)]
        book = codebook_of(counts)
        self._counts[source.dtype] = counts
        self._books[source.dtype] = bytes(book)
        return sum(counts[symbol] for symbol in book[: BOOK_ENTRIES[self.codec]]) / sum(counts)

    def encode(self, x: Any, out: Encoded | None = None) -> Encoded:
        """Encodes a numpy array, torch tensor or DLPack array; what is not contiguous is copied first.

        On a GPU this only enqueues work on torch's current stream and waits for nothing. Without a calibrated codebook
        for x's dtype, the exact one of x is made. `out`: an `Encoded` of `allocate`, whose content is replaced; with it
        nothing is allocated, so the call can be captured in a CUDA graph.
        Errors: `unsupported` (dtype), `invalid_argument` (more than 8 dimensions), `mismatch` (device, or out holds
        another dtype or shape), `backend_unavailable`.
        """
        source = self._open(x)
        if out is None:
            return self._encode_new(source)
        if not isinstance(out, Encoded) or _memory_of(out._frame) is None:
            raise error("invalid_argument", "out is not an Encoded that Codec.allocate made")
        if (out._dtype, out._shape, out._frame.device) != (source.dtype, source.shape, source.device):
            raise error("mismatch", f"out is {out!r}, x is {source.dtype} {list(source.shape)} on {source.device}")
        if isinstance(out._frame, HostFrame):
            frame = out._frame
            frame.size = 0
            frame.size = self._host_encode_into(source, frame.memory)
            out._info = None
        else:
            if out._frame.codec != self.codec:
                raise error("mismatch", f"out was allocated for {out._frame.codec}, the codec is {self.codec}")
            self._gpu_encode(source, out._frame)
        return out

    def allocate(self, x: Any) -> Encoded:
        """Room for encoding tensors like x (dtype, shape, device), for `encode(..., out=)`. x's values are not read."""
        source = self._open(x)
        if source.device.type == "cpu":
            bound = _core.encode_bound(self.codec, source.dtype, source.n_values)
            frame: HostFrame | DeviceFrame = HostFrame(bytearray(bound), 0)
        else:
            import torch

            from . import _gpu

            frame = self._new_device_frame(source)
            size = _gpu.encode_workspace(self.codec, source.dtype, source.shape, self.canonical)
            device = source.data.device
            frame.own = (
                torch.zeros(_core.cuda.FRAME_RESULT_BYTES, dtype=torch.uint8, device=device),
                torch.zeros(size, dtype=torch.uint8, device=device),
            )
        return Encoded(frame, source.dtype, source.shape, source.kind)

    def decode(self, encoded: Encoded, out: Any = None, *, check: bool = True, kind: str | None = None) -> Any:
        """The values that were encoded: same bits, dtype and shape.

        `out`: a contiguous array or tensor to write them to, on any device; it is returned. Else the result is of the
        kind that was encoded (numpy array, torch tensor, or an array of the library that x came from by DLPack), or
        `kind`, "numpy" or "torch". A frame from bytes gives numpy arrays, or torch tensors if the codec has a device.
        `check`: on a GPU, wait for the verdict on the data and return values that are known to be right. With False
        the call only enqueues work on torch's current stream and returns a `Decoding`, whose `check` waits.
        Errors: `digest_mismatch`, `malformed`, ... for damaged data (`out` is then unspecified), `mismatch` (out has
        another dtype or shape), `invalid_argument` (out is not contiguous), `backend_unavailable`.
        """
        if not isinstance(encoded, Encoded):
            raise error("invalid_argument", f"expected an Encoded, not {type(encoded).__name__}")
        if out is not None:
            target = open_target(out, encoded._dtype, encoded._shape)
            decoding = Decoding(out, self._decode_to(encoded, target))
        else:
            target = self._new_target(encoded, kind)
            decoding = Decoding(target.array, self._decode_to(encoded, target), kind or encoded._kind)
        return decoding.check() if check else decoding

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_spaces": None, "_context": None}

    def __repr__(self) -> str:
        return f"Codec(device={self.device!r}, chunk_size={self.chunk_size}, codec={self.codec!r})"

    # ---- parts ----

    def _open(self, x: Any) -> Source:
        source = open_source(x)
        if self._device is not None and not self._device.accepts(source.device):
            raise error("mismatch", f"the codec is for {self._device}, the values are on {source.device}")
        return source

    def _threads(self) -> Any:
        if self._context is not None:
            return self._context
        from .. import default_context

        return default_context()

    def _workspaces(self) -> Workspaces:
        from . import _gpu

        if self._spaces is None:
            self._spaces = _gpu.Workspaces()
        return self._spaces

    def _count(self, source: Source) -> list[int]:
        if source.device.type == "cpu":
            return list(_core.count_symbols(self._threads(), source.dtype, source.data).counts)
        from . import _gpu

        return _gpu.count_symbols(source.data, source.dtype)

    def _encode_new(self, source: Source) -> Encoded:
        if source.device.type == "cuda":
            frame = self._new_device_frame(source)
            self._gpu_encode(source, frame)
            return Encoded(frame, source.dtype, source.shape, source.kind)
        book = self._books.get(source.dtype)
        made = _core.encode(self._threads(), source.data, source.dtype, list(source.shape), self.codec, book)
        return Encoded(HostFrame(made, len(made)), source.dtype, source.shape, source.kind)

    def _host_encode_into(self, source: Source, memory: bytearray) -> int:
        book = self._books.get(source.dtype)
        shape = list(source.shape)
        return _core.encode_into(self._threads(), source.data, source.dtype, shape, memory, self.codec, book)

    def _new_device_frame(self, source: Source) -> DeviceFrame:
        import torch

        bound = _core.cuda.encode_bound(self.codec, source.dtype, source.n_values)
        memory = torch.empty(bound, dtype=torch.uint8, device=source.data.device)
        return DeviceFrame(self.codec, source.dtype, source.n_values, memory)

    def _gpu_encode(self, source: Source, frame: DeviceFrame) -> None:
        from . import _gpu

        device = source.data.device
        if frame.own is not None:
            result, workspace = frame.own
        else:
            size = _gpu.encode_workspace(frame.codec, source.dtype, source.shape, self.canonical)
            result = _gpu.new_results(device, 1)
            workspace = self._workspaces().get(device, size)
        frame.verdict = _gpu.encode_frame(
            frame.codec,
            source.dtype,
            source.data,
            shape=source.shape,
            book=self._books.get(source.dtype),
            frame=frame.frame,
            result=result,
            workspace=workspace,
            canonical=self.canonical,
        )
        # Another library may give an array's memory to someone else as soon as it is let go.
        frame.source = source.data if source.kind.startswith("dlpack") else None

    def _new_target(self, encoded: Encoded, kind: str | None) -> Target:
        device = self._device or encoded._frame.device
        kind = kind or encoded._kind or ("torch" if self._device is not None and has_torch() else "numpy")
        if device.type == "cuda" and kind == "numpy":
            kind = "torch"
        return new_target(kind, encoded._dtype, encoded._shape, device)

    def _decode_to(self, encoded: Encoded, target: Target) -> Verdict | None:
        frame = encoded._frame
        if target.device.type == "cpu":
            data = frame.view() if isinstance(frame, HostFrame) else encoded.to_bytes()
            _core.decode_into(self._threads(), data, target.data)
            return None
        if isinstance(frame, HostFrame):
            self._refuse_capture(target)
            if encoded.info.codec == "raw" or encoded._dtype not in GPU_DTYPES:
                self._copy_decoded(encoded, frame, target)
                return None
            return self._gpu_decode(encoded.info.codec, encoded, _upload(frame.view(), target.data.device), target)
        if frame.verdict is None and not frame.given:
            raise error("invalid_argument", "nothing was encoded into this yet")
        encoded._join()
        moved = frame.frame.to(target.data.device, non_blocking=True)
        return self._gpu_decode(frame.codec, encoded, moved, target)

    def _refuse_capture(self, target: Target) -> None:
        from . import _gpu

        if _gpu.is_capturing(target.data.device):
            raise error("invalid_argument", "a frame in host memory cannot be decoded while a CUDA graph is captured")

    def _gpu_decode(self, codec: str, encoded: Encoded, frame: Any, target: Target) -> Verdict:
        from . import _gpu

        n_values = n_values_of(encoded._shape)
        spaces = self._workspaces()
        return _gpu.decode_frame(codec, encoded._dtype, n_values, frame=frame, to=target.data, workspaces=spaces)

    def _copy_decoded(self, encoded: Encoded, frame: HostFrame, target: Target) -> None:
        """What a GPU does not decode, raw frames for one, goes there decoded."""
        here = new_target("torch", encoded._dtype, encoded._shape, CPU)
        _core.decode_into(self._threads(), frame.view(), here.data)
        target.data.copy_(here.array)


def _memory_of(frame: HostFrame | DeviceFrame) -> Any:
    """The preallocated memory of an Encoded, None if it has none."""
    if isinstance(frame, DeviceFrame):
        return frame.own
    return frame.memory if isinstance(frame.memory, bytearray) else None


def _upload(frame: memoryview, device: Any) -> Any:
    import torch

    if frame.readonly:
        frame = memoryview(bytearray(frame))
    return torch.frombuffer(frame, dtype=torch.uint8).to(device)
