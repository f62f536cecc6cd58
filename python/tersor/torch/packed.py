"""Weight matrices that stay compressed, as torch tensors."""

from __future__ import annotations

import functools
from typing import Any

import torch

import tersor
from tersor import _arrays, _core
from tersor._errors import error, from_code

#: Bytes of a packed matrix's header, which says all about it.
HEADER_BYTES = 128
#: A packed matrix begins at a multiple of this in device memory.
ALIGNMENT = 128


@functools.lru_cache(maxsize=65536)
def info_of(header: str) -> tersor.MatrixInfo:
    """The parsed header of a packed matrix, from its 128 bytes in hex; digest compared."""
    return _core.inspect_packed(bytes.fromhex(header))


def header_of(data: torch.Tensor) -> str:
    """The header of a packed matrix in hex; waits for the device if it is on one. Errors: those of inspect_packed,
    TruncatedError, InvalidArgumentError."""
    if data.dtype != torch.uint8 or data.dim() != 1:
        raise error("invalid_argument", f"a packed matrix is a 1-D uint8 tensor, not {data.dtype} {tuple(data.shape)}")
    header = data[:HEADER_BYTES].cpu().numpy().tobytes().hex()
    if len(header) != 2 * HEADER_BYTES:
        raise error("truncated", f"a packed matrix has at least {HEADER_BYTES} bytes, not {data.numel()}")
    if info_of(header).n_bytes > data.numel():
        raise error("truncated", f"the packed matrix has {info_of(header).n_bytes} bytes, the tensor {data.numel()}")
    return header


#: Infos by (dtype, rows, cols, inline escapes) for the operators, which know no header; see ``any_info``.
_shapes: dict[tuple[str, int, int, int], tersor.MatrixInfo] = {}


def register(info: tersor.MatrixInfo) -> None:
    """Makes matrices of this shape known to the operators."""
    if info.layout == "packed":
        _shapes.setdefault((info.dtype, info.rows, info.cols, info.inline_escapes), info)


@functools.lru_cache(maxsize=65536)
def any_info(dtype: torch.dtype, rows: int, cols: int, escapes: int, capacity: int) -> tersor.MatrixInfo:
    """What can be said of a packed matrix in a buffer of ``capacity`` bytes without its header."""
    key = (_arrays.dtype_of_torch(dtype), rows, cols, escapes)
    if key not in _shapes:
        made = torch.zeros(rows, cols, dtype=dtype)
        register(PackedWeight.pack(made, inline_escapes=escapes).info)
    return _shapes[key].stretched(capacity)


def capacity_of(info: tersor.MatrixInfo) -> int:
    """Bytes of a buffer in which layers keep such a matrix: the same for matrices of one shape unless their escapes differ
    much, so that a compiled graph of one layer serves all of them."""
    least = info.n_bytes - (info.digests_at - info.overflow_at)
    step = -(-least // (256 * ALIGNMENT)) * ALIGNMENT
    return least + -(-(info.n_bytes - least) // step) * step


class _Settled:
    """Buffers that a product has read before.

    A product may fetch its weights while the kernel before it in the stream still runs (programmatic dependent launch),
    unless that kernel is the one that writes them. So the first product with a buffer waits as usual."""

    def __init__(self) -> None:
        self._addresses: set[int] = set()

    def seen_before(self, address: int) -> bool:
        if address in self._addresses:
            return True
        self._addresses.add(address)
        return False

    def forget(self, data: torch.Tensor) -> None:
        """The buffer was written, or is new at this address."""
        self._addresses.discard(data.data_ptr())


settled = _Settled()


def in_room(data: torch.Tensor, capacity: int) -> torch.Tensor:
    """The bytes in a buffer of their own of ``capacity`` bytes at an address that kernels take: ``data`` itself if it is
    one."""
    if data.numel() == capacity and data.is_contiguous() and data.data_ptr() % ALIGNMENT == 0:
        room = data
    else:
        room = torch.zeros(capacity, dtype=torch.uint8, device=data.device)
        room[: data.numel()] = data
    settled.forget(room)
    return room


class PackedWeight:
    """A weight matrix W[rows, cols] that stays compressed: ``data`` (1-D uint8, on any device) and ``info``.

    BF16 and FP16. ``rows`` are the outputs of a linear layer and ``cols`` its inputs."""

    def __init__(self, data: torch.Tensor, header: str | None = None):
        """Takes the bytes of a packed matrix as they are. ``header``: its first 128 bytes in hex, to spare a wait for
        the device."""
        self.header = header if header is not None else header_of(data)
        self.data = in_room(data, data.numel())
        info = self.info
        register(info)
        # Plain attributes, which torch.compile can read.
        self.rows, self.cols, self.escapes = info.rows, info.cols, info.inline_escapes
        self.dtype, self.layout = _arrays.torch_dtype(info.dtype), info.layout

    @staticmethod
    def from_bytes(data: Any, device: torch.device | str | None = None) -> PackedWeight:
        """From what ``pack`` or a container holds: bytes, a Buffer, or a uint8 tensor."""
        tensor = data if isinstance(data, torch.Tensor) else torch.frombuffer(bytearray(data), dtype=torch.uint8)
        header = header_of(tensor)
        return PackedWeight(tensor if device is None else tensor.to(device), header)

    @staticmethod
    def pack(weight: torch.Tensor, layout: str = "packed", inline_escapes: int = 0) -> PackedWeight:
        """Packs a 2-D BF16 or FP16 tensor where it is, on the CPU or on the GPU. Same bytes either way. On the GPU it
        waits for the size. Errors: UnsupportedError (dtype), InvalidArgumentError (not a matrix)."""
        if weight.dim() != 2 or 0 in weight.shape:
            raise error("invalid_argument", f"a matrix of two dimensions is packed, not {tuple(weight.shape)}")
        weight = weight.detach()
        if weight.stride(1) != 1:
            weight = weight.contiguous()
        if weight.device.type == "cuda":
            return _pack_cuda(weight, layout, inline_escapes)
        data, dtype, (rows, cols) = _arrays.as_bytes(weight)
        packed = _core.pack(tersor.default_context(), data, dtype, rows, cols, layout, inline_escapes)
        return PackedWeight(torch.from_dlpack(packed))

    @property
    def info(self) -> tersor.MatrixInfo:
        return info_of(self.header)

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.cols

    @property
    def device(self) -> torch.device:
        return self.data.device

    @property
    def nbytes(self) -> int:
        return self.info.n_bytes

    def unpack(self, check: bool = True) -> torch.Tensor:
        """The matrix, bit for bit, on the same device. ``check``: compare every digest; on the GPU that waits for the
        verdict (without it damaged bytes would come out as wrong values). Errors: DigestMismatchError, ..."""
        return unpack(self.data, self.header, check)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PackedWeight:
        return PackedWeight(self.data.to(device, non_blocking=non_blocking), self.header)

    def to_bytes(self) -> bytes:
        return self.data[: self.nbytes].cpu().numpy().tobytes()

    def __repr__(self) -> str:
        return f"PackedWeight({self.info!r}, device={self.device})"


def unpack(data: torch.Tensor, header: str, check: bool = True) -> torch.Tensor:
    """See PackedWeight.unpack."""
    info = info_of(header)
    if data.device.type == "cuda":
        weight = torch.empty(info.rows, info.cols, dtype=_arrays.torch_dtype(info.dtype), device=data.device)
        unpack_into(data, info, weight, check)
        return weight
    weight, raw = _arrays.empty_torch(info.dtype, (info.rows, info.cols))
    _core.unpack_into(tersor.default_context(), data[: info.n_bytes].numpy(), raw)
    return weight


def unpack_into(data: torch.Tensor, info: tersor.MatrixInfo, weight: torch.Tensor, check: bool = False) -> None:
    """On the GPU: enqueues unpacking into ``weight`` (contiguous) on the current stream."""
    with torch.cuda.device(data.device):
        stream = torch.cuda.current_stream().cuda_stream
        if not check:
            _core.cuda.unpack(info, data.data_ptr(), weight.data_ptr(), stream=stream)
            return
        verdict = torch.zeros(_core.cuda.MATRIX_RESULT_BYTES, dtype=torch.uint8, device=data.device)
        _core.cuda.unpack(info, data.data_ptr(), weight.data_ptr(), result=verdict.data_ptr(), stream=stream)
        raise_verdict(verdict)


def raise_verdict(verdict: torch.Tensor) -> int:
    """Waits for a matrix_result and raises what it says; the packed size."""
    words = verdict.cpu().view(torch.int32)
    if int(words[0]) != 0:
        raise from_code(int(words[0]), "the packed matrix is not good", chunk=int(words[1]) & 0xFFFFFFFF)
    return int(verdict.cpu().view(torch.int64)[1])


def _pack_cuda(weight: torch.Tensor, layout: str, inline_escapes: int) -> PackedWeight:
    dtype = _arrays.dtype_of_torch(weight.dtype)
    rows, cols = weight.shape
    capacity = _core.pack_bound(dtype, rows, cols, layout, inline_escapes)
    if capacity == 0:
        raise error("unsupported", f"{dtype} is not packed as '{layout}'")
    stride = weight.stride(0) if rows > 1 else cols
    with torch.cuda.device(weight.device):
        room = torch.empty(capacity, dtype=torch.uint8, device=weight.device)
        ws_bytes = _core.cuda.pack_workspace_size(dtype, rows, cols, inline_escapes, layout)
        ws = torch.zeros(max(ws_bytes, 16), dtype=torch.uint8, device=weight.device)
        verdict = torch.zeros(_core.cuda.MATRIX_RESULT_BYTES, dtype=torch.uint8, device=weight.device)
        _core.cuda.pack(
            dtype, rows, cols, weight.data_ptr(), ((rows - 1) * stride + cols) * weight.element_size(), False, stride,
            room.data_ptr(), capacity, inline_escapes, layout, verdict.data_ptr(), ws.data_ptr(), ws.numel(),
            torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip
        n_bytes = raise_verdict(verdict)
        # A copy of the size that is needed: the bound is larger than the matrix itself.
        return PackedWeight(room[:n_bytes].clone())
