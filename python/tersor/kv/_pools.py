"""Where the pages of a paged KV cache lie in the tensors of serving engines, and page numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .. import _arrays
from .._errors import error
from ._values import GPU_DTYPES, VALUE_BYTES, Device, device_of, is_numpy, is_tensor

#: name of an order -> shape of a layer's tensor
ORDERS = {
    "kv_blocks_nhd": "[2, blocks, block_size, heads, dim]",
    "blocks_kv_nhd": "[blocks, 2, block_size, heads, dim]",
    "kv_blocks_hnd": "[2, blocks, heads, block_size, dim]",
    "blocks_kv_hnd": "[blocks, 2, heads, block_size, dim]",
    "mla": "[blocks, block_size, latent]",
}


@dataclass(frozen=True)
class Pools:
    """The K and V pools of all layers. `layers` keeps the caller's tensors alive and shares their memory."""

    order: str
    dtype: str
    device: Device
    layers: tuple[torch.Tensor, ...]
    n_blocks: int
    block_size: int
    kv_heads: int
    head_dim: int

    @property
    def n_pools(self) -> int:
        """K of layer 0, V of layer 0, K of layer 1, ...; MLA has one pool a layer."""
        return len(self.layers) * (1 if self.order == "mla" else 2)

    @property
    def page_shape(self) -> tuple[int, int, int]:
        """Of a page in a frame: token, head, value."""
        return self.block_size, self.kv_heads, self.head_dim

    @property
    def page_bytes(self) -> int:
        return math.prod(self.page_shape) * VALUE_BYTES[self.dtype]

    def views(self) -> list[torch.Tensor]:
        """The pools as integers, each [blocks, block_size, heads, dim] in place."""
        carrier = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[VALUE_BYTES[self.dtype]]
        found = []
        for layer in self.layers:
            whole = layer.view(carrier)
            if self.order == "mla":
                found.append(whole.unsqueeze(2))
                continue
            for part in (0, 1):
                pool = whole[part] if self.order.startswith("kv_") else whole[:, part]
                found.append(pool.transpose(1, 2) if self.order.endswith("_hnd") else pool)
        return found


def _as_tensor(layer: Any) -> torch.Tensor:
    if is_tensor(layer):
        return layer.detach()
    if not is_numpy(layer):
        raise error("invalid_argument", f"a layer is a torch tensor or numpy array, not {type(layer).__name__}")
    if not (layer.flags.c_contiguous and layer.flags.writeable) or layer.size == 0:
        raise error("invalid_argument", "a layer is empty, not contiguous or not writable")
    data, dtype, shape = _arrays.as_bytes(layer)
    return torch.frombuffer(data, dtype=torch.uint8).view(_arrays.torch_dtype(dtype)).reshape(shape)


def open_pools(layers: Sequence[Any], order: str) -> Pools:
    """Reads the sizes off the layers' shapes. Errors: `invalid_argument` (order, shape, not contiguous), `unsupported`
    (dtype), `mismatch` (layers differ)."""
    if order not in ORDERS:
        raise error("invalid_argument", f"unknown pool order {order!r}: {', '.join(ORDERS)} are known")
    if is_tensor(layers) or not isinstance(layers, Sequence) or not layers:
        raise error("invalid_argument", "the layers are a list with one cache tensor per layer")
    tensors = tuple(_as_tensor(layer) for layer in layers)
    first = tensors[0]
    dtype, device = _arrays.dtype_of_torch(first.dtype), device_of(first)
    if dtype not in VALUE_BYTES or (device.type == "cuda" and dtype not in GPU_DTYPES):
        raise error("unsupported", f"dtype {dtype} has no KV codec on {device.type}")
    for tensor in tensors:
        if (tensor.dtype, tensor.shape, tensor.device) != (first.dtype, first.shape, first.device):
            raise error("mismatch", "the layers differ in dtype, shape or device")
        if not tensor.is_contiguous():
            raise error("invalid_argument", "a layer is not contiguous; pass it in the order in which it is stored")
    return Pools(order, dtype, device, tensors, *_sizes(order, tuple(first.shape)))


def _sizes(order: str, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Blocks, block size, heads, dim."""
    wrong = error("invalid_argument", f"a layer of order {order} has the shape {ORDERS[order]}, not {list(shape)}")
    if len(shape) != (3 if order == "mla" else 5) or 0 in shape:
        raise wrong
    if order == "mla":
        return shape[0], shape[1], 1, shape[2]
    both, blocks = (shape[0], shape[1]) if order.startswith("kv_") else (shape[1], shape[0])
    if both != 2:
        raise wrong
    tokens, heads = (shape[2], shape[3]) if order.endswith("_nhd") else (shape[3], shape[2])
    return blocks, tokens, heads, shape[4]


def page_numbers(page_ids: Any, n_blocks: int, *, distinct: bool) -> list[int]:
    """Page numbers as Python ints. Errors: `invalid_argument` (none, not whole numbers, outside the pool; the same
    page twice if they must be distinct)."""
    values = page_ids.tolist() if hasattr(page_ids, "tolist") else page_ids
    if not isinstance(values, Sequence) or isinstance(values, str | bytes) or not values:
        raise error("invalid_argument", "page ids are a non-empty list, array or tensor of whole numbers")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int):
            raise error("invalid_argument", f"a page id is a whole number, not {value!r}")
        if not 0 <= value < n_blocks:
            raise error("invalid_argument", f"page {value} is outside the pool of {n_blocks} pages")
    if distinct and len(set(values)) != len(values):
        raise error("invalid_argument", "a page is named twice")
    return list(values)


def page_numbers_on(device: torch.device, page_ids: Any, n_blocks: int, *, distinct: bool, fixed: bool) -> torch.Tensor:
    """Page numbers in device memory. Ids that lie there already are not looked at: the kernels refuse what is outside
    the pool. `fixed`: a graph is being captured, so only such ids will do."""
    if is_tensor(page_ids) and page_ids.is_cuda:
        if page_ids.dim() != 1 or page_ids.numel() == 0 or page_ids.dtype not in (torch.int32, torch.int64):
            raise error("invalid_argument", "page ids on a GPU are a non-empty 1-D tensor of int32 or int64")
        if page_ids.device != device:
            raise error("mismatch", f"the page ids are on {page_ids.device}, the pools on {device}")
        # What 32 bits do not hold must stay outside the pool.
        wide = page_ids.clamp(-1, n_blocks) if page_ids.dtype == torch.int64 else page_ids
        return wide.to(torch.int32).contiguous()
    if fixed:
        raise error("invalid_argument", "while a CUDA graph is captured, page ids must be a tensor on the GPU")
    return torch.tensor(page_numbers(page_ids, n_blocks, distinct=distinct), dtype=torch.int32).to(device)
