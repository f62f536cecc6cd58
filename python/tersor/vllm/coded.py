"""Tensors of a compressed checkpoint, decoded when they are used.

vLLM's weight loaders take slices of the tensors they are given: a rank's part, the part of a merged projection. A
`CodedTensor` looks like the original tensor to them and remembers the slices; only a copy into a parameter decodes. So a layer
whose tensors have not all arrived holds compressed bytes, and a layer that is one whole matrix frame takes the frame as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._pytree import tree_map

from tersor import BadMagicError, Error, _core, default_context, inspect, kind
from tersor._arrays import empty_torch, torch_dtype
from tersor._errors import error
from tersor.torch import PackedWeight

_HEADER_BYTES = 128

_aten = torch.ops.aten
_VIEWS = frozenset(
    [
        _aten.alias.default,
        _aten.detach.default,
        _aten.permute.default,
        _aten.select.int,
        _aten.slice.Tensor,
        _aten.squeeze.dim,
        _aten.t.default,
        _aten.transpose.int,
        _aten.unsqueeze.default,
        _aten.view.default,
    ]
)


class Frame:
    """The bytes of one coded tensor and what their header says.

    Attributes:
        name: the tensor's name in the checkpoint.
        data: its bytes, uint8, one dimension; a view of the checkpoint file where vLLM maps it.
        kind: "frame" or "matrix"; layout: that of a matrix, else empty.
        shape, dtype: those of the original tensor.
    """

    __slots__ = ("data", "decoded", "dtype", "dtype_name", "kind", "layout", "name", "shape")

    def __init__(self, name: str, data: torch.Tensor) -> None:
        self.name = name
        self.data = data
        host = data.cpu().numpy()
        self.kind = kind(host)
        with self.named():
            info = inspect(host)
        if self.kind == "matrix":
            self.shape, self.layout = torch.Size((info.rows, info.cols)), info.layout
            if info.n_bytes != data.numel():
                raise error("malformed", "matrix frame and tensor differ in size", tensor=name)
        else:
            self.shape, self.layout = torch.Size(info.shape), ""
        self.dtype_name = info.dtype
        self.dtype = torch_dtype(info.dtype)
        self.decoded: torch.Tensor | None = None

    def decode(self, device: torch.device) -> torch.Tensor:
        """Returns the original tensor on `device` or, where only the CPU decodes, on the CPU; digests are checked."""
        if self.decoded is not None:
            return self.decoded
        if self.kind == "matrix" and device.type == "cuda":
            packed = PackedWeight.from_bytes(self.data.to(device))
            with self.named():
                return packed.unpack()
        host = self.data.cpu().numpy()
        out, raw = empty_torch(self.dtype_name, self.shape)
        decode = _core.unpack_into if self.kind == "matrix" else _core.decode_into
        with self.named():
            decode(default_context(), host, raw)
        return out

    def packed(self, device: torch.device, verify: bool = True) -> PackedWeight:
        """Returns the matrix frame as it is, in memory of its own on `device`; `verify`: after all its digests were compared."""
        packed = PackedWeight.from_bytes(self.data.clone(), device)
        if verify:
            with self.named():
                packed.unpack()
        return packed

    @contextmanager
    def named(self) -> Iterator[None]:
        """Puts the tensor's name into the errors of a damaged frame."""
        try:
            yield
        except Error as fault:
            fault.tensor = fault.tensor or self.name
            raise


class CodedTensor(torch.Tensor):
    """A tensor that is decoded when it is read; views of it stay coded."""

    frame: Frame
    like: torch.Tensor
    views: tuple[tuple[Any, tuple, dict], ...]

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, frame: Frame, like: torch.Tensor, views: tuple = ()) -> CodedTensor:
        self = torch.Tensor._make_wrapper_subclass(
            cls, like.shape, strides=like.stride(), storage_offset=like.storage_offset(), dtype=like.dtype, device="cpu"
        )
        self.frame, self.like, self.views = frame, like, views
        return self

    def __repr__(self) -> str:
        return f"CodedTensor({self.frame.name!r}, shape={tuple(self.shape)}, dtype={self.dtype})"

    def decode(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """Returns the values; on `device` if that is no detour, else on the CPU."""
        tensor = self.frame.decode(torch.device(device))
        for func, args, kwargs in self.views:
            tensor = func(tensor, *args, **kwargs)
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        first = args[0] if args else None
        if func in _VIEWS and isinstance(first, CodedTensor):
            like = func(first.like, *args[1:], **kwargs)
            return CodedTensor(first.frame, like, (*first.views, (func, args[1:], kwargs)))
        if func is _aten.copy_.default and not isinstance(first, CodedTensor) and first.is_meta:
            return first  # vLLM counts the elements that a loader would copy.
        if func._schema.is_mutable and isinstance(first, CodedTensor):
            # What is written must be there at the next read.
            first.frame.decoded = first.frame.decode(torch.device("cpu"))
            func(*tree_map(_decoder("cpu"), args), **tree_map(_decoder("cpu"), kwargs))
            return first
        device = first.device if isinstance(first, torch.Tensor) else kwargs.get("device") or "cpu"
        device = kwargs.get("device") or device
        return func(*tree_map(_decoder(device), args), **tree_map(_decoder(device), kwargs))


def _decoder(device: torch.device | str) -> Any:
    return lambda x: x.decode(device) if isinstance(x, CodedTensor) else x


def open_tensor(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Returns `tensor`, or the original tensor if it holds a frame.

    Matrices are decoded later, in the form of a `CodedTensor`; norms, biases and other small ones at once.

    Raises:
        tersor.Error: a frame that is damaged or of an unknown version; `tensor` of the error is `name`.
    """
    if tensor.dtype != torch.uint8 or tensor.dim() != 1 or tensor.numel() < _HEADER_BYTES:
        return tensor
    try:
        kind(tensor[:_HEADER_BYTES].cpu().numpy())
    except BadMagicError:
        return tensor
    frame = Frame(name, tensor)
    if len(frame.shape) < 2:
        return frame.decode(torch.device("cpu"))
    return CodedTensor(frame, torch.empty(frame.shape, dtype=frame.dtype, device="meta"))
