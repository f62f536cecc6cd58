"""Arrays of other libraries as bytes with a dtype and a shape, and back. numpy, ml_dtypes and torch are imported
only where an argument comes from them."""

from __future__ import annotations

import math
import sys
from typing import Any

from tersor import _core
from tersor._errors import error

#: safetensors' names, with the bytes of a value.
VALUE_BYTES = {
    "BF16": 2, "F16": 2, "F32": 4, "F64": 8, "F8_E4M3": 1, "F8_E5M2": 1, "BOOL": 1,
    "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8,
}  # fmt: skip

_NUMPY_NAMES = {
    "bfloat16": "BF16", "float16": "F16", "float32": "F32", "float64": "F64", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2", "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16",
    "uint32": "U32", "int32": "I32", "uint64": "U64", "int64": "I64",
}  # fmt: skip
_NAMES_OF_ARRAYS = {name: array for array, name in _NUMPY_NAMES.items()}
_ML_DTYPES = {"bfloat16", "float8_e4m3fn", "float8_e5m2"}


def dtype_of_numpy(dtype: Any) -> str:
    """The safetensors name of a numpy (or ml_dtypes) dtype. Errors: UnsupportedError."""
    if dtype.name not in _NUMPY_NAMES or not dtype.isnative:
        raise error("unsupported", f"no dtype of Tersor for numpy's {dtype}")
    return _NUMPY_NAMES[dtype.name]


def numpy_dtype(name: str) -> Any:
    """The numpy dtype of a safetensors name; BF16 and the float8 types are those of ml_dtypes."""
    import numpy

    array_name = _NAMES_OF_ARRAYS.get(name)
    if array_name is None:
        raise error("unsupported", f"numpy has no dtype for {name}")
    if array_name in _ML_DTYPES:
        import ml_dtypes

        return numpy.dtype(getattr(ml_dtypes, array_name))
    return numpy.dtype(array_name)


def dtype_of_torch(dtype: Any) -> str:
    """The safetensors name of a torch dtype. Errors: UnsupportedError."""
    name = _NUMPY_NAMES.get(str(dtype).removeprefix("torch."))
    if name is None:
        raise error("unsupported", f"no dtype of Tersor for {dtype}")
    return name


def torch_dtype(name: str) -> Any:
    """The torch dtype of a safetensors name."""
    import torch

    array_name = _NAMES_OF_ARRAYS.get(name)
    if array_name is None or not hasattr(torch, array_name):
        raise error("unsupported", f"torch has no dtype for {name}")
    return getattr(torch, array_name)


def is_torch(x: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def is_numpy(x: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(x, (numpy.ndarray, numpy.generic))


def as_bytes(x: Any) -> tuple[Any, str, tuple[int, ...]]:
    """``(bytes view, dtype name, shape)`` of an array on the CPU.

    numpy arrays (ml_dtypes included), torch CPU tensors, other DLPack arrays and anything with the buffer protocol (taken
    as U8 unless its format says otherwise). A contiguous array is viewed, another one copied first; the view keeps its
    memory alive. Errors: InvalidArgumentError (not on the CPU, not an array), UnsupportedError (dtype)."""
    if is_torch(x):
        if x.device.type != "cpu":
            raise error("invalid_argument", f"the tensor is on {x.device}, not on the CPU")
        import torch

        if x.layout != torch.strided:
            raise error("unsupported", f"{x.layout} is no dense layout")
        t = x.detach().resolve_neg().contiguous()
        return t.reshape(-1).view(torch.uint8).numpy() if t.numel() else b"", dtype_of_torch(t.dtype), tuple(t.shape)
    if is_numpy(x):
        import numpy

        dtype = dtype_of_numpy(x.dtype)
        return numpy.ascontiguousarray(x).reshape(-1).view(numpy.uint8), dtype, x.shape
    if isinstance(x, (bytes, bytearray, memoryview, _core.Buffer)):
        view = memoryview(x)
        if view.format not in ("B", "c") or not view.c_contiguous or view.ndim != 1:
            import numpy

            return as_bytes(numpy.asarray(view))
        return view.cast("B"), "U8", (view.nbytes,)
    if hasattr(x, "__dlpack__"):
        return _from_dlpack(x)
    try:
        view = memoryview(x)
    except TypeError:
        raise error("invalid_argument", f"not an array: {type(x).__name__}") from None
    return as_bytes(view)


def _from_dlpack(x: Any) -> tuple[Any, str, tuple[int, ...]]:
    device_type = int(x.__dlpack_device__()[0])
    if device_type not in (1, 3):  # kDLCPU, kDLCUDAHost
        raise error("invalid_argument", "the array is not on the CPU")
    if "torch" in sys.modules:  # knows BF16, which numpy's importer refuses
        import torch

        return as_bytes(torch.from_dlpack(x))
    import numpy

    try:
        return as_bytes(numpy.from_dlpack(x))
    except (TypeError, RuntimeError, BufferError):
        raise error("unsupported", f"numpy cannot take {type(x).__name__} by DLPack; torch would") from None


def empty_numpy(dtype: str, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """A new numpy array, and a writable view of its bytes."""
    import numpy

    raw = numpy.empty(math.prod(shape) * VALUE_BYTES[dtype], numpy.uint8)
    return raw.view(numpy_dtype(dtype)).reshape(shape), raw


def empty_torch(dtype: str, shape: tuple[int, ...], device: Any = "cpu") -> tuple[Any, Any]:
    """A new torch tensor, and a flat uint8 tensor of the same memory (on the CPU: a numpy view)."""
    import torch

    raw = torch.empty(math.prod(shape) * VALUE_BYTES[dtype], dtype=torch.uint8, device=device)
    tensor = raw.view(torch_dtype(dtype)).reshape(shape)
    return tensor, raw.numpy() if raw.device.type == "cpu" else raw
