"""What ``tersor.numpy`` and ``tersor.torch`` share of reading and writing files: tensors by name, slices, shards.

An "arrays" object stands for a library: it makes empty arrays, names dtypes and flips axes."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import tersor
from tersor import _core
from tersor._errors import error

#: safetensors' names of dtypes that frames do not know, by the name that numpy (ml_dtypes) and torch use.
MORE_DTYPES = {
    "complex64": "C64", "float8_e8m0fnu": "F8_E8M0", "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
}  # fmt: skip
MORE_ARRAYS = {name: array for array, name in MORE_DTYPES.items()}

#: A step over more bytes than this reads its rows one by one.
_SPARSE_STEP_BYTES = 1 << 20


class Arrays(Protocol):
    def empty(self, dtype: str, shape: Sequence[int], n_bytes: int) -> tuple[Any, Any]:
        """A new array on the CPU, and its bytes, writable."""

    def flip(self, array: Any, axes: list[int]) -> Any: ...

    def place(self, array: Any) -> Any:
        """The array where the user wants it."""


def open_file(path: str | os.PathLike, backend: str = "mmap") -> _core.TensorFile:
    if backend not in ("mmap", "pread"):
        raise error("invalid_argument", f"backend is 'mmap' or 'pread', not {backend!r}")
    return _core.TensorFile(path, backend == "mmap")


def shards(path: str | os.PathLike) -> list[str]:
    """The safetensors files of a model directory, those of its index if it has one; a file is its own only shard."""
    if not os.path.isdir(path):
        return [os.fspath(path)]
    index = os.path.join(path, "model.safetensors.index.json")
    if os.path.exists(index):
        try:
            with open(index, encoding="utf-8") as text:
                names = sorted(set(json.load(text)["weight_map"].values()))
            good = all(isinstance(n, str) and os.path.basename(n) == n and n.endswith(".safetensors") for n in names)
        except (ValueError, KeyError, TypeError, AttributeError):
            good = False
        if not good:
            raise error("malformed", "not an index of safetensors files", file=index)
    else:
        names = sorted(n for n in os.listdir(path) if n.endswith(".safetensors"))
    if not names:
        raise error("not_found", "the directory has no safetensors file", file=os.fspath(path))
    return [os.path.join(path, n) for n in names]


def open_shards(path: str | os.PathLike, backend: str = "mmap") -> list[_core.TensorFile]:
    """All of them open. Errors: MalformedError if two have a tensor of the same name."""
    files = [open_file(name, backend) for name in shards(path)]
    seen: set[str] = set()
    for file in files:
        for name in file.names():
            if name in seen:
                raise error("malformed", "the tensor is in another file too", file=file.path, tensor=name)
            seen.add(name)
    return files


def read(file: _core.TensorFile, name: str, arrays: Arrays) -> Any:
    """One tensor on the CPU, every digest compared."""
    info = file.info(name)
    array, raw = arrays.empty(info.dtype, info.shape, info.original_bytes)
    file.read_into(tersor.default_context(), name, raw)
    return array


def load(path: str | os.PathLike, arrays: Arrays, backend: str = "mmap") -> dict[str, Any]:
    return {n: arrays.place(read(f, n, arrays)) for f in open_shards(path, backend) for n in f.names()}


def save(
    tensors: list[tuple[str, str, Sequence[int], Any]],
    path: str | os.PathLike,
    metadata: dict[str, str] | None,
    *,
    codec: str | None,
    packing: str | None,
    include: Sequence[str],
    exclude: Sequence[str],
    overwrite: bool,
    progress: Any,
) -> None:
    """``tensors``: (name, dtype, shape, bytes)."""
    if metadata is not None and not (
        isinstance(metadata, dict) and all(isinstance(x, str) for kv in metadata.items() for x in kv)
    ):
        raise error("invalid_argument", "metadata is a dict of str to str")
    if codec is None:
        if packing is not None:
            raise error("invalid_argument", "codec=None writes a plain file, which holds no packed matrices")
        _core.save_plain(tensors, metadata, path, overwrite)
        return
    _core.save_tensors(
        tersor.default_context(), tensors, metadata, path, codec=codec, packing=packing, include=list(include),
        exclude=list(exclude), overwrite=overwrite, progress=progress,
    )  # fmt: skip


def check_names(tensors: Any, what: str) -> None:
    if not isinstance(tensors, dict) or not all(isinstance(name, str) for name in tensors):
        raise error("invalid_argument", f"expected a dict of str to {what}")


def _expand(index: Any, n_dims: int) -> list[Any]:
    """The index with one slice or integer for each dimension, and None where an axis is added."""
    items = list(index) if isinstance(index, tuple) else [index]
    for i, item in enumerate(items):
        if item is None or item is Ellipsis or isinstance(item, slice):
            continue
        if isinstance(item, bool) or not hasattr(item, "__index__"):
            raise TypeError(f"only integers, slices, ... and None index a tensor of a file, not {type(item).__name__}")
        items[i] = operator.index(item)
    given = sum(item is not None and item is not Ellipsis for item in items)
    if given > n_dims:
        raise IndexError(f"{given} indices for a tensor of {n_dims} dimensions")
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    at = dots[0] if dots else len(items)
    return items[:at] + [slice(None)] * (n_dims - given) + items[at + 1 :]


def _rows_of(item: Any, size: int) -> range:
    """The rows that an integer or a slice of dimension 0 takes."""
    if isinstance(item, slice):
        return range(*item.indices(size))
    return range(item % size, item % size + 1)


class Slice:
    """A tensor of an open file that is read as far as it is indexed: integers, slices of any step, ``...`` and None, as
    numpy takes them. Along dimension 0 only the chunks that hold the rows are decoded."""

    def __init__(self, file: _core.TensorFile, name: str, arrays: Arrays):
        self._file, self._name, self._arrays = file, name, arrays
        self._info = file.info(name)

    def get_shape(self) -> list[int]:
        return list(self._info.shape)

    def get_dtype(self) -> str:
        """safetensors' name, e.g. "BF16"."""
        return self._info.dtype

    def __getitem__(self, index: Any) -> Any:
        shape = self._info.shape
        items = _expand(index, len(shape))
        axes = [i for i, item in enumerate(items) if item is not None]
        for axis, size in zip(axes, shape, strict=True):
            if not isinstance(items[axis], slice) and not -size <= items[axis] < size:
                raise IndexError(f"index {items[axis]} is out of bounds for a dimension of size {size}")
        if not shape:
            array = read(self._file, self._name, self._arrays)
        else:
            rows = _rows_of(items[axes[0]], shape[0])
            array, local = self._read_rows(rows)
            items[axes[0]] = local if isinstance(items[axes[0]], slice) else 0
        return self._arrays.place(self._pick(array, items, axes))

    def _read_rows(self, rows: range) -> tuple[Any, slice]:
        """The rows, with those between them unless these are many, and the slice that takes them from what was read."""
        info, ctx = self._info, tersor.default_context()
        n_rows = info.shape[0]
        row_bytes = info.original_bytes // n_rows if n_rows else 0
        apart = abs(rows.step) > 1 and abs(rows.step) * row_bytes > _SPARSE_STEP_BYTES
        first = min(rows[0], rows[-1]) if rows else 0
        count = len(rows) if apart or not rows else abs(rows[-1] - rows[0]) + 1
        array, raw = self._arrays.empty(info.dtype, (count, *info.shape[1:]), count * row_bytes)
        if apart:
            for i, row in enumerate(rows):
                self._file.read_rows(ctx, self._name, row, 1, raw[i * row_bytes : (i + 1) * row_bytes])
            return array, slice(None)
        self._file.read_rows(ctx, self._name, first, count, raw)
        return array, slice(None, None, rows.step)

    def _pick(self, array: Any, items: list[Any], axes: list[int]) -> Any:
        """Basic indexing; backward slices as forward ones and a flip, since torch has no others."""
        flipped, out_axis = [], 0
        for i, item in enumerate(items):
            if isinstance(item, slice) and (item.step or 1) < 0:
                taken = range(*item.indices(array.shape[axes.index(i)]))
                items[i] = slice(taken[-1], taken[0] + 1, -taken.step) if taken else slice(0, 0)
                flipped.append(out_axis)
            out_axis += not isinstance(item, int)
        array = array[(*items, Ellipsis)]
        return self._arrays.flip(array, flipped) if flipped else array


class SafeOpen:
    """Opens a .safetensors file, plain or compressed, and reads tensors as they are asked for; the calls of
    safetensors' class of this name. May be used by several threads.

    Errors: NotFoundError, IoError, and those of a damaged file (MalformedError, DigestMismatchError, ...)."""

    def __init__(self, filename: str | os.PathLike, arrays: Arrays, backend: str = "mmap"):
        self._arrays = arrays
        self._open: _core.TensorFile | None = open_file(filename, backend)

    @property
    def file(self) -> _core.TensorFile:
        if self._open is None:
            raise error("invalid_argument", "the file is closed")
        return self._open

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: Any) -> None:
        self._open = None

    def keys(self) -> list[str]:
        """Names, sorted."""
        return sorted(self.file.names())

    def offset_keys(self) -> list[str]:
        """Names in the order of the data."""
        return self.file.names()

    def metadata(self) -> dict[str, str] | None:
        """The text that stands in the header; None if there is none."""
        return self.file.metadata() or None

    def info(self, name: str) -> Any:
        """How the tensor is stored: dtype, shape, coding, original_bytes, stored_bytes, file_offset, digest."""
        return self.file.info(name)

    def get_tensor(self, name: str) -> Any:
        """The whole tensor, every digest compared. Errors: NotFoundError."""
        return self._arrays.place(read(self.file, name, self._arrays))

    def get_tensors(self) -> dict[str, Any]:
        return {name: self.get_tensor(name) for name in self.offset_keys()}

    def get_slice(self, name: str) -> Slice:
        """The tensor to be indexed. Errors: NotFoundError."""
        return Slice(self.file, name, self._arrays)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.file)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self.file
