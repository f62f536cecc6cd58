"""Arrays in and out of the KV codecs: what kind they are, where they lie, and their bytes without a copy."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import _arrays
from .._errors import error

if TYPE_CHECKING:
    import torch

VALUE_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1, "F8_E5M2": 1}
GPU_DTYPES = ("BF16", "F16", "F8_E4M3", "F8_E5M2")
MAX_DIMS = 8

_DLPACK_CPU = (1, 3)  # kDLCPU, kDLCUDAHost
_DLPACK_CUDA = (2, 13)  # kDLCUDA, kDLCUDAManaged


def n_values_of(shape: tuple[int, ...]) -> int:
    """Product of a shape; 1 for a scalar."""
    n = 1
    for size in shape:
        n *= size
    return n


@dataclass(frozen=True)
class Device:
    """Where values lie. `index` None on "cuda" means whichever GPU."""

    type: str
    index: int | None = None

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def accepts(self, other: Device) -> bool:
        return self.type == other.type and (self.index is None or self.index == other.index)

    def torch(self) -> torch.device:
        """The torch device; the current GPU where no index was given. Errors: `backend_unavailable`."""
        if not has_torch():
            raise error("backend_unavailable", f"tensors on {self} need torch, which is not installed")
        import torch

        if self.type == "cpu":
            return torch.device("cpu")
        if (self.index or 0) >= torch.cuda.device_count():
            raise error("backend_unavailable", f"torch finds no GPU {self.index or 0}")
        return torch.device("cuda", torch.cuda.current_device() if self.index is None else self.index)


CPU = Device("cpu")


def parse_device(device: Any) -> Device | None:
    """A device from None, a name like "cuda:1" or a torch.device. Errors: `invalid_argument`."""
    if device is None or isinstance(device, Device):
        return device
    kind = getattr(device, "type", None)
    if isinstance(kind, str):
        index = getattr(device, "index", None)
    elif isinstance(device, str):
        kind, _, number = device.partition(":")
        if number and not number.isdecimal():
            raise error("invalid_argument", f"unknown device {device!r}")
        index = int(number) if number else None
    else:
        raise error("invalid_argument", f"a device is a name or a torch.device, not {type(device).__name__}")
    if kind not in ("cpu", "cuda"):
        raise error("invalid_argument", f"unknown device {device!r}: cpu and cuda are known")
    return Device(kind, index if kind == "cuda" else None)


def has_torch() -> bool:
    """Whether torch is installed."""
    if "torch" in sys.modules:
        return sys.modules["torch"] is not None
    return importlib.util.find_spec("torch") is not None


def is_tensor(x: Any) -> bool:
    """Whether x is a torch tensor; imports nothing."""
    module = sys.modules.get("torch")
    return module is not None and isinstance(x, module.Tensor)


def is_numpy(x: Any) -> bool:
    """Whether x is a numpy array or scalar; imports nothing."""
    module = sys.modules.get("numpy")
    return module is not None and isinstance(x, (module.ndarray, module.generic))


def device_of(x: torch.Tensor) -> Device:
    if x.device.type not in ("cpu", "cuda"):
        raise error("unsupported", f"tensors on {x.device.type} are not supported; cpu and cuda are")
    return Device(x.device.type, x.device.index if x.device.type == "cuda" else None)


@dataclass(frozen=True)
class Source:
    """Values to encode. `data`: on the CPU contiguous bytes, on a GPU a contiguous torch tensor."""

    kind: str
    dtype: str
    shape: tuple[int, ...]
    device: Device
    data: Any

    @property
    def n_values(self) -> int:
        return n_values_of(self.shape)

    @property
    def n_bytes(self) -> int:
        return self.n_values * VALUE_BYTES[self.dtype]


def _check(dtype: str, shape: tuple[int, ...], device: Device) -> None:
    if dtype not in VALUE_BYTES or (device.type == "cuda" and dtype not in GPU_DTYPES):
        known = ", ".join(GPU_DTYPES if device.type == "cuda" else VALUE_BYTES)
        raise error("unsupported", f"dtype {dtype} has no KV codec on {device.type}: {known} have")
    if len(shape) > MAX_DIMS:
        raise error("invalid_argument", f"a frame holds at most {MAX_DIMS} dimensions, not {len(shape)}: reshape")


def _tensor_source(x: torch.Tensor, kind: str) -> Source:
    import torch

    if x.layout != torch.strided:
        raise error("unsupported", f"tensors with layout {x.layout} are not supported; dense ones are")
    device, shape = device_of(x), tuple(x.shape)
    dtype = _arrays.dtype_of_torch(x.dtype)
    _check(dtype, shape, device)
    x = x.detach().contiguous()
    return Source(kind, dtype, shape, device, x if device.type == "cuda" else bytes_of_tensor(x))


def _dlpack_source(x: Any) -> Source:
    namespace = getattr(x, "__array_namespace__", None)
    kind = f"dlpack:{namespace().__name__}" if callable(namespace) else "dlpack"
    device_type = int(x.__dlpack_device__()[0])
    if device_type in _DLPACK_CUDA or (device_type in _DLPACK_CPU and has_torch()):
        if not has_torch():
            raise error("backend_unavailable", "arrays on a GPU need torch, which is not installed")
        import torch

        return _tensor_source(torch.from_dlpack(x), kind)
    if device_type not in _DLPACK_CPU:
        raise error("unsupported", f"DLPack device type {device_type} is not supported; CPU and CUDA are")
    return _host_source(x, kind)


def _host_source(x: Any, kind: str) -> Source:
    if kind == "numpy":
        _check(_arrays.dtype_of_numpy(x.dtype), x.shape, CPU)
    data, dtype, shape = _arrays.as_bytes(x)
    _check(dtype, tuple(shape), CPU)
    return Source(kind, dtype, tuple(shape), CPU, data)


def open_source(x: Any) -> Source:
    """Reads what x is; copies only what is not contiguous.

    Errors: `unsupported` (dtype, device, layout), `invalid_argument` (not an array, too many dimensions).
    """
    if is_tensor(x):
        return _tensor_source(x, "torch")
    if is_numpy(x):
        return _host_source(x, "numpy")
    if hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__"):
        return _dlpack_source(x)
    raise error("invalid_argument", f"expected a numpy array, torch tensor or DLPack array, not {type(x).__name__}")


def bytes_of_tensor(x: torch.Tensor) -> torch.Tensor:
    """The bytes of a contiguous tensor, shared."""
    import torch

    if x.numel() == 0:  # may have strides that torch does not reinterpret
        return torch.empty(0, dtype=torch.uint8)
    return x.detach().reshape(-1).view(torch.uint8)


@dataclass(frozen=True)
class Target:
    """Where decoded values go. `array` is the caller's; `data` as in Source, writable."""

    array: Any
    device: Device
    data: Any


def new_target(kind: str, dtype: str, shape: tuple[int, ...], device: Device) -> Target:
    """An uninitialised array of the wanted kind: "numpy", "torch" or "dlpack:MODULE"."""
    if kind == "numpy" and device.type == "cpu":
        import numpy

        array = numpy.empty(shape, _arrays.numpy_dtype(dtype))
        return Target(array, CPU, array.reshape(-1).view(numpy.uint8))
    if kind not in ("numpy", "torch") and not kind.startswith("dlpack"):
        raise error("invalid_argument", f"unknown kind of array {kind!r}: numpy and torch are known")
    if kind.startswith("dlpack") and device.type == "cpu" and not has_torch():
        return new_target("numpy", dtype, shape, device)
    place = device.torch()
    import torch

    array = torch.empty(shape, dtype=_arrays.torch_dtype(dtype), device=place)
    return Target(array, device_of(array), array if device.type == "cuda" else bytes_of_tensor(array))


def hand_over(array: Any, kind: str | None) -> Any:
    """A decoded array as the library that the encoded one came from knows it; some copy, so only when it is complete.
    Where that library is missing, the array as it is, which other libraries take by DLPack."""
    if kind is None or not kind.startswith("dlpack:") or not is_tensor(array):
        return array
    try:
        consumer = getattr(importlib.import_module(kind.removeprefix("dlpack:")), "from_dlpack", None)
    except ImportError:
        return array
    return array if consumer is None else consumer(array)


def open_target(out: Any, dtype: str, shape: tuple[int, ...]) -> Target:
    """The caller's array as a target. Errors: `mismatch` (dtype, shape), `invalid_argument` (not contiguous, not
    writable, no array), `unsupported`."""
    if is_tensor(out):
        tensor = out
    elif is_numpy(out) and hasattr(out, "flags"):
        return _numpy_target(out, dtype, shape)
    elif hasattr(out, "__dlpack__") and has_torch():
        import torch

        tensor = torch.from_dlpack(out)
    else:
        raise error("invalid_argument", f"cannot decode into {type(out).__name__}")
    _match(_arrays.dtype_of_torch(tensor.dtype), tuple(tensor.shape), dtype, shape)
    if not tensor.is_contiguous():
        raise error("invalid_argument", "the tensor to decode into is not contiguous")
    device = device_of(tensor)
    return Target(out, device, tensor.detach() if device.type == "cuda" else bytes_of_tensor(tensor))


def _numpy_target(out: Any, dtype: str, shape: tuple[int, ...]) -> Target:
    import numpy

    _match(_arrays.dtype_of_numpy(out.dtype), tuple(out.shape), dtype, shape)
    if not out.flags.c_contiguous or not out.flags.writeable:
        raise error("invalid_argument", "the array to decode into is not contiguous or not writable")
    return Target(out, CPU, out.reshape(-1).view(numpy.uint8))


def _match(dtype: str, shape: tuple[int, ...], want_dtype: str, want_shape: tuple[int, ...]) -> None:
    if dtype != want_dtype or shape != want_shape:
        raise error("mismatch", f"encoded are {want_dtype} {list(want_shape)}, the output is {dtype} {list(shape)}")
