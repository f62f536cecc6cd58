"""Decoding and checking what a container holds, on whichever device it is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tersor import _core, default_context
from tersor._arrays import as_bytes, empty_torch, torch_dtype
from tersor._errors import Error, error, from_code
from tersor.torch import PackedWeight
from tersor.transformers.checkpoint import Entry

_MATRIX_MAGIC = b"TSRM"
_STORED_DOMAIN = 4
_FRAME_MAGIC = b"\x89TERSOR\n"
_HEADER_BYTES = 128
# What kernels decode (spec/frame.md has the numbers); the rest is rare, and decoded on the CPU.
_CUDA_CODECS = {1: "top16", 2: "rank"}
_CUDA_DTYPES = ("BF16", "F16", "F8_E4M3", "F8_E5M2")
_WRONG_FRAME = "the frame is not the one that the file's header lists"


def is_matrix(frame: torch.Tensor) -> bool:
    """Whether the bytes are a matrix frame; reads four of them."""
    return bytes(frame[:4].tolist()) == _MATRIX_MAGIC


def as_packed(frame: torch.Tensor, entry: Entry, name: str) -> PackedWeight:
    """A matrix frame as a weight, on the frame's device. It is the one that the file's header lists, or an error says
    why not."""
    with _located(entry, name):
        packed = PackedWeight.from_bytes(frame)
        _agree(entry, packed.info.dtype, packed.info.rows * packed.info.cols, packed.info.digest)
        return packed


def decode_frame(frame: torch.Tensor, entry: Entry, name: str) -> torch.Tensor:
    """The tensor of a frame of either kind, on the frame's device. Every digest is compared."""
    with _located(entry, name):
        if is_matrix(frame):
            return as_packed(frame, entry, name).unpack().reshape(entry.shape)
        if frame.is_cuda:
            return _decode_cuda(frame, entry)
        return _decode_cpu(frame, entry)


def _decode_cuda(frame: torch.Tensor, entry: Entry) -> torch.Tensor:
    """Decodes where the frame is. The kernel compares all digests below the header's, which has to be the listed
    one."""
    header = bytes(frame[:_HEADER_BYTES].tolist())
    codec = _CUDA_CODECS.get(header[10]) if header[:8] == _FRAME_MAGIC and len(header) == _HEADER_BYTES else None
    if codec is None or entry.dtype not in _CUDA_DTYPES:
        return _decode_cpu(frame.cpu(), entry).to(frame.device)
    if int.from_bytes(header[40:48], "little") != entry.digest:
        raise error("digest_mismatch", _WRONG_FRAME)
    tensor, verdict = torch.ops.tersor.decode(frame, codec, torch_dtype(entry.dtype), list(entry.shape))
    code, chunk = verdict[:8].cpu().view(torch.int32).tolist()
    if code != 0:
        raise from_code(code, "the frame is not good", chunk=chunk if chunk >= 0 else None)
    return tensor


def _decode_cpu(frame: torch.Tensor, entry: Entry) -> torch.Tensor:
    data = as_bytes(frame)[0]
    info = _core.inspect(data)
    _agree(entry, info.dtype, info.n_values, info.digest)
    tensor, raw = empty_torch(info.dtype, entry.shape)
    _core.decode_into(default_context(), data, raw)
    return tensor


def check_packed(packed: PackedWeight, entry: Entry, name: str) -> None:
    """Raises DigestMismatchError if a value of a weight that is used as it is was changed."""
    with _located(entry, name):
        packed.unpack()


def check_stored(tensor: torch.Tensor, entry: Entry, name: str) -> None:
    """Raises DigestMismatchError if the bytes of a tensor that is no frame were changed."""
    if tensor.dtype != torch_dtype(entry.dtype):
        return  # converted on its way from the file
    if _core.digest_bytes(default_context(), _STORED_DOMAIN, as_bytes(tensor.cpu())[0]) != entry.digest:
        raise error(
            "digest_mismatch", "the tensor's bytes are not those that were written", file=entry.file, tensor=name
        )


def _agree(entry: Entry, dtype: str, n_values: int, digest: int) -> None:
    if digest != entry.digest:
        raise error("digest_mismatch", _WRONG_FRAME)
    if dtype != entry.dtype or n_values != math.prod(entry.shape):
        raise error("malformed", "the frame's dtype or shape is not that of the original tensor")


@contextmanager
def _located(entry: Entry, name: str) -> Iterator[None]:
    """Errors from inside say which tensor of which file they are about."""
    try:
        yield
    except Error as why:
        why.file, why.tensor = why.file or entry.file, why.tensor or name
        raise
