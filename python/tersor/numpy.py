"""Files of numpy arrays, as ``safetensors.numpy`` reads and writes them, plain or compressed::

    tersor.numpy.save_file({"w": w}, "w.safetensors")           # a compressed file
    w = tersor.numpy.load_file("w.safetensors")["w"]            # of either kind
    with tersor.numpy.safe_open("w.safetensors") as f:
        part = f.get_slice("w")[100:200]                        # decodes what holds these rows

BF16 and float8 arrays have the dtypes of ml_dtypes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy

import tersor
from tersor import _arrays, _files
from tersor._errors import error

__all__ = ["compress_model", "load_file", "safe_open", "save_file"]


def _dtype_of(name: str) -> numpy.dtype:
    array_name = _files.MORE_ARRAYS.get(name)
    if array_name is None:
        return _arrays.numpy_dtype(name)
    if array_name.startswith("complex"):
        return numpy.dtype(array_name)
    import ml_dtypes

    return numpy.dtype(getattr(ml_dtypes, array_name))


def _name_of(dtype: numpy.dtype) -> str:
    return _files.MORE_DTYPES.get(dtype.name) or _arrays.dtype_of_numpy(dtype)


class _NumpyArrays:
    def empty(self, dtype: str, shape: Sequence[int], n_bytes: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        raw = numpy.empty(n_bytes, numpy.uint8)
        return raw.view(_dtype_of(dtype)).reshape(shape), raw

    def flip(self, array: numpy.ndarray, axes: list[int]) -> numpy.ndarray:
        return numpy.flip(array, axes)

    def place(self, array: numpy.ndarray) -> numpy.ndarray:
        return array


def _flatten(name: str, array: Any) -> tuple[str, str, tuple[int, ...], Any]:
    if not isinstance(array, (numpy.ndarray, numpy.generic)):
        raise error("invalid_argument", f"expected a numpy array, not {type(array).__name__}", tensor=name)
    shape = array.shape
    dtype = _name_of(array.dtype.newbyteorder("="))
    # Elements of a file are little-endian.
    array = numpy.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return name, dtype, shape, array.reshape(-1).view(numpy.uint8)


def save_file(
    tensors: dict[str, numpy.ndarray],
    filename: str | os.PathLike,
    metadata: dict[str, str] | None = None,
    *,
    codec: str | None = "rank",
    packing: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    overwrite: bool = True,
    progress: tersor.Progress | None = None,
) -> None:
    """Writes a compressed file; ``tersor.decompress`` makes of it the file that ``safetensors.numpy.save_file`` would
    have written. The file appears whole or not at all.

    ``codec``: "rank", "top16", "raw", or None for the plain file itself. ``packing``: "packed" or "tcatbe" for 2-D
    weights that a GPU multiplies from. ``include`` and ``exclude``: shell patterns of the names to code. Errors:
    InvalidArgumentError, UnsupportedError (dtype), AlreadyExistsError (``overwrite=False``), IoError."""
    _files.check_names(tensors, "numpy array")
    flat = [_flatten(name, array) for name, array in tensors.items()]
    _files.save(
        flat, filename, metadata, codec=codec, packing=packing, include=include, exclude=exclude, overwrite=overwrite,
        progress=progress,
    )  # fmt: skip


def load_file(filename: str | os.PathLike, *, backend: str = "mmap") -> dict[str, numpy.ndarray]:
    """All tensors of a .safetensors file, plain or compressed, or of all such files of a model directory. Every digest
    is compared. ``backend``: "pread" where a failing network disk would kill a process that maps the file."""
    return _files.load(filename, _NumpyArrays(), backend)


class safe_open(_files.SafeOpen):
    __doc__ = _files.SafeOpen.__doc__

    def __init__(
        self,
        filename: str | os.PathLike,
        framework: str = "np",
        device: str = "cpu",
        *,
        backend: str = "mmap",
    ):
        if framework not in ("np", "numpy"):
            raise error("invalid_argument", f"tersor.numpy gives numpy arrays, not {framework!r}; see tersor.torch")
        if str(device) != "cpu":
            raise error("invalid_argument", f"numpy arrays are on the CPU, not on {device!r}")
        super().__init__(filename, _NumpyArrays(), backend)


def compress_model(src: str | os.PathLike, dst: str | os.PathLike | None = None, **options: Any) -> dict:
    """``tersor.compress``: a file or a model directory, to ``DIR-tersor`` unless ``dst`` is given."""
    return tersor.compress(src, dst, **options)
