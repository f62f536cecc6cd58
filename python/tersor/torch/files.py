"""Files of torch tensors, as ``safetensors.torch`` reads and writes them, plain or compressed::

tersor.torch.save_file(model.state_dict(), "m.safetensors")
tensors = tersor.torch.load_file("m.safetensors", device="cuda")     # decoded on the GPU
weights = tersor.torch.load_packed("m-tersor", device="cuda")        # packed matrices stay packed
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Sequence
from typing import Any

import torch

import tersor
from tersor import _arrays, _core, _files
from tersor._errors import error
from tersor.torch.packed import HEADER_BYTES, PackedWeight

__all__ = ["compress_model", "load_file", "load_packed", "safe_open", "save_file"]

_F4 = getattr(torch, "float4_e2m1fn_x2", None)


def dtype_of(name: str) -> torch.dtype:
    """The torch dtype of a safetensors name. Errors: UnsupportedError."""
    if name == "F4" and _F4 is not None:
        return _F4
    found = getattr(torch, _files.MORE_ARRAYS.get(name, ""), None)
    return found if found is not None else _arrays.torch_dtype(name)


def shape_of(dtype: str, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape in torch: two F4 values are one element."""
    return (*shape[:-1], shape[-1] // 2) if dtype == "F4" and shape else tuple(shape)


class _TorchArrays:
    def __init__(self, device: Any = "cpu"):
        self.device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)

    def empty(self, dtype: str, shape: Sequence[int], n_bytes: int) -> tuple[torch.Tensor, Any]:
        raw = torch.empty(n_bytes, dtype=torch.uint8)
        return raw.view(dtype_of(dtype)).reshape(shape_of(dtype, shape)), raw.numpy()

    def flip(self, array: torch.Tensor, axes: list[int]) -> torch.Tensor:
        return torch.flip(array, axes)

    def place(self, array: torch.Tensor) -> torch.Tensor:
        return array.to(self.device)


def _arrays_on(device: Any) -> _TorchArrays:
    try:
        return _TorchArrays(device)
    except (RuntimeError, TypeError) as wrong:
        raise error("invalid_argument", f"no device {device!r}: {wrong}") from None


def _flatten(name: str, tensor: Any) -> tuple[str, str, tuple[int, ...], Any]:
    if not isinstance(tensor, torch.Tensor):
        raise error("invalid_argument", f"expected a torch tensor, not {type(tensor).__name__}", tensor=name)
    if tensor.layout != torch.strided or tensor.device.type == "meta" or tensor.is_quantized:
        raise error("invalid_argument", "a sparse, meta or quantized tensor cannot be saved", tensor=name)
    if not tensor.is_contiguous():
        raise error("invalid_argument", "the tensor is not contiguous: save x.contiguous()", tensor=name)
    array_name = str(tensor.dtype).removeprefix("torch.")
    shape = tuple(tensor.shape)
    if tensor.dtype == _F4 and shape:
        dtype, shape = "F4", (*shape[:-1], shape[-1] * 2)
    else:
        dtype = _files.MORE_DTYPES.get(array_name) or _arrays.dtype_of_torch(tensor.dtype)
    # Not reshape(-1).view(): a tensor may be a view with a conjugate or negative bit.
    flat = tensor.detach().resolve_conj().resolve_neg().cpu().reshape(-1)
    return name, dtype, shape, flat.view(torch.uint8).numpy() if flat.numel() else b""


def _check_shared(tensors: dict[str, torch.Tensor]) -> None:
    """Two names of one memory would come back as two tensors."""
    spans: dict[torch.device, list[tuple[int, int, str]]] = {}
    for name, t in tensors.items():
        if t.numel() and t.layout == torch.strided and t.device.type != "meta":
            spans.setdefault(t.device, []).append((t.data_ptr(), t.data_ptr() + t.numel() * t.element_size(), name))
    for found in spans.values():
        found.sort()
        for (_, end, a), (begin, _, b) in itertools.pairwise(found):
            if begin < end:
                raise error(
                    "invalid_argument", f"tensors '{a}' and '{b}' share memory: save one of them, or a clone", tensor=b
                )


def save_file(
    tensors: dict[str, torch.Tensor],
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
    """Writes a compressed file; ``tersor.decompress`` makes of it the file that ``safetensors.torch.save_file`` would
    have written. Tensors on a GPU are copied to the CPU first. The file appears whole or not at all.

    ``codec``: "rank", "top16", "raw", or None for the plain file itself. ``packing``: "packed" or "tcatbe" for 2-D
    weights that a GPU multiplies from. ``include`` and ``exclude``: shell patterns of the names to code. Errors:
    InvalidArgumentError (not contiguous, sparse, tensors that share memory), UnsupportedError (dtype),
    AlreadyExistsError (``overwrite=False``), IoError."""
    _files.check_names(tensors, "torch.Tensor")
    flat = [_flatten(name, tensor) for name, tensor in tensors.items()]
    _check_shared(tensors)
    _files.save(
        flat, filename, metadata, codec=codec, packing=packing, include=include, exclude=exclude, overwrite=overwrite,
        progress=progress,
    )  # fmt: skip


def load_file(
    filename: str | os.PathLike, device: Any = "cpu", *, backend: str = "mmap", threads: int = 0
) -> dict[str, torch.Tensor]:
    """All tensors of a .safetensors file, plain or compressed, or of all such files of a model directory.

    On a CUDA device frames travel compressed and are decoded there, while the next ones are read by ``threads`` threads
    (0: up to 8) into pinned memory. Every digest is compared before the call returns: on the GPU those of chunks and
    blocks and the frame's against the file's list, on the CPU also those of stored tensors. Device memory beyond the
    tensors: the frames on their way. Errors: NotFoundError, DigestMismatchError, ... with file and tensor."""
    arrays = _arrays_on(device)
    if arrays.device.type != "cuda":
        return _files.load(filename, arrays, backend)
    from tersor.torch._gpu_load import load

    return load(_files.open_shards(filename, backend), arrays.device, threads=threads)


def _packed_on_cpu(file: _core.TensorFile, name: str) -> PackedWeight:
    info = file.info(name)
    data = torch.empty(info.stored_bytes, dtype=torch.uint8)
    file.read_raw(name, 0, data.numpy())
    packed = PackedWeight(data, data[:HEADER_BYTES].numpy().tobytes().hex())
    if packed.info.digest != info.digest:
        raise error("digest_mismatch", "the frame is not the one in the digest list", file=file.path, tensor=name)
    packed.unpack()  # compares the digests
    return packed


def load_packed(
    filename: str | os.PathLike,
    device: Any = "cpu",
    names: Collection[str] | None = None,
    *,
    backend: str = "mmap",
    threads: int = 0,
) -> dict[str, torch.Tensor | PackedWeight]:
    """Like load_file, but matrix frames (``packing=...``) stay what they are: PackedWeight on the device, their digests
    compared. ``names``: only these tensors. Errors: NotFoundError (a name that no file has), as load_file."""
    files = _files.open_shards(filename, backend)
    wanted = None if names is None else set(names)
    missing = set() if wanted is None else wanted - {name for file in files for name in file.names()}
    if missing:
        raise error("not_found", "no such tensor", file=os.fspath(filename), tensor=min(missing))
    arrays = _arrays_on(device)
    if arrays.device.type == "cuda":
        from tersor.torch._gpu_load import load

        return load(files, arrays.device, names=wanted, packed=True, threads=threads)
    out: dict[str, torch.Tensor | PackedWeight] = {}
    for file in files:
        for name in file.names():
            if wanted is not None and name not in wanted:
                continue
            if file.info(name).is_matrix:
                out[name] = _packed_on_cpu(file, name).to(arrays.device)
            else:
                out[name] = arrays.place(_files.read(file, name, arrays))
    return out


class safe_open(_files.SafeOpen):
    __doc__ = _files.SafeOpen.__doc__

    def __init__(
        self,
        filename: str | os.PathLike,
        framework: str = "pt",
        device: Any = "cpu",
        *,
        backend: str = "mmap",
    ):
        if framework not in ("pt", "torch", "pytorch"):
            raise error("invalid_argument", f"tersor.torch gives torch tensors, not {framework!r}; see tersor.numpy")
        self._on = _arrays_on(device)
        super().__init__(filename, self._on, backend)

    def get_tensor(self, name: str) -> torch.Tensor:
        if self._on.device.type != "cuda":
            return super().get_tensor(name)
        from tersor.torch._gpu_load import load

        self.file.info(name)  # says if there is none
        return load([self.file], self._on.device, names={name})[name]

    def get_tensors(self) -> dict[str, torch.Tensor]:
        if self._on.device.type != "cuda":
            return super().get_tensors()
        from tersor.torch._gpu_load import load

        return load([self.file], self._on.device)


def compress_model(src: str | os.PathLike, dst: str | os.PathLike | None = None, **options: Any) -> dict:
    """``tersor.compress``: a file or a model directory, to ``DIR-tersor`` unless ``dst`` is given."""
    return tersor.compress(src, dst, **options)
