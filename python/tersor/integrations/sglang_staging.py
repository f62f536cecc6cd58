"""SGLang (0.5.23), prefill to decode: compresses the staging buffers of the Mooncake backend.

With SGLANG_DISAGG_STAGING_BUFFER=1 and different tensor parallelism on both sides, SGLang gathers a chunk's K and V into a
staging buffer, writes it to the other side's staging ring in one piece, and scatters it from there into the cache. The hooks
of this module encode the buffer where it was gathered, shorten the write to the encoded size, and decode and verify the ring
before the scatter. Nothing that fails reaches the cache: the request fails on both sides.

Both sides need the hooks. They say so in SGLang's handshake as a part of the name of the KV cache's dtype, so that a side
without them refuses to connect. Only `register_hooks` needs SGLang.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import torch

from tersor._arrays import VALUE_BYTES, dtype_of_torch
from tersor._errors import Error, error

from ._blob import (
    HEADER_BYTES,
    blob_bound,
    check_codec,
    decode_blob,
    encode_blob,
    encode_blob_into,
    pack_header,
    read_header,
    tensor_part,
)

__all__ = ["StagingCodec", "StagingHooks", "register_hooks", "room_for"]

logger = logging.getLogger(__name__)
MARK = "+tersor1"
ALIGNMENT = 256
FRAME_HEADER_BYTES, FRAME_CODEC_AT = 128, 10  # spec/frame.md
CODEC_OF_FRAME = {1: "top16", 2: "rank"}
STAGING = "sglang.srt.disaggregation.common.staging_buffer"
HANDLER = "sglang.srt.disaggregation.common.staging_handler"


def room_for(n_bytes: int) -> int:
    """Bytes of a staging region for n_bytes of values, whatever they are: a blob that stores them raw fits."""
    bound = blob_bound("raw", [("U8", (n_bytes,))])
    return math.ceil(bound / ALIGNMENT) * ALIGNMENT


class StagingCodec:
    """Values in a staging region to a blob in the same region, and back, on the CPU or an NVIDIA GPU. Regions are flat
    uint8 tensors of at least `room_for` bytes and stay the caller's. On a GPU both calls wait for the current stream."""

    def __init__(self, codec: str = "rank") -> None:
        self._codec = check_codec(codec)

    def encode(self, region: torch.Tensor, n_bytes: int, dtype: torch.dtype) -> int:
        """Replaces the first n_bytes of region, values of dtype, by their blob, and gives its size.
        Errors: DestinationTooSmallError, UnsupportedError (dtype), MismatchError (n_bytes is no number of values)."""
        values = _values(region[:n_bytes], dtype)
        if not region.is_cuda:
            return encode_blob_into(self._codec, [tensor_part(values.clone())], b"", region.numpy())
        frame = self._frame(values)
        size = HEADER_BYTES + frame.numel()
        if size > region.numel():
            raise error("destination_too_small", f"the staging buffer has {region.numel()} bytes, {size} are needed")
        header = torch.frombuffer(bytearray(pack_header(1, size, b"")), dtype=torch.uint8)
        region[HEADER_BYTES:size].copy_(frame)
        region[:HEADER_BYTES].copy_(header)
        torch.cuda.current_stream(region.device).synchronize()
        return size

    def decode(self, region: torch.Tensor, out: torch.Tensor) -> None:
        """Decodes the blob that begins region into out, a contiguous tensor where region lies, and verifies it there.
        Errors: `tersor.Error` for anything but an intact blob of out's dtype and number of values."""
        flat = _values(out.reshape(-1).view(torch.uint8), out.dtype)
        if not region.is_cuda:
            decode_blob(region.numpy(), [tensor_part(flat)], b"")
            return
        from tersor.kv import Codec, Encoded

        head = region[: HEADER_BYTES + FRAME_HEADER_BYTES].cpu().numpy()
        size = read_header(head).n_bytes
        if not len(head) <= size <= region.numel():
            raise error("malformed", f"an entry of {size} bytes in a staging region of {region.numel()}")
        codec = CODEC_OF_FRAME.get(int(head[HEADER_BYTES + FRAME_CODEC_AT]), "raw")
        if codec == "raw":  # a GPU decodes coded frames only
            host = torch.empty(flat.shape, dtype=flat.dtype)
            decode_blob(region[:size].cpu().numpy(), [tensor_part(host)], b"")
            flat.copy_(host)
            return
        shape = tuple(flat.shape)
        frame = region[HEADER_BYTES:size]
        encoded = Encoded.from_tensor(frame, dtype=dtype_of_torch(flat.dtype), shape=shape, codec=codec)
        Codec(codec=codec).decode(encoded, flat)  # waits, and raises if a chunk is not what was encoded

    def _frame(self, values: torch.Tensor) -> torch.Tensor:
        """One frame, on the GPU; of values that coding would not shrink, a raw one from the host."""
        from tersor.kv import Codec

        if self._codec != "raw":
            encoded = Codec(codec=self._codec).encode(values)
            frame = encoded.tensor()
            if frame.numel() <= encoded.compressed_bytes:
                return frame
        part = tensor_part(values.cpu())
        blob = encode_blob("raw", [part], b"")
        return torch.frombuffer(bytearray(blob[HEADER_BYTES:]), dtype=torch.uint8).to(values.device)


class StagingHooks:
    """The hooks, as SGLang's HookRegistry calls them; `layout` is its compute_staging_layout without hooks. One object
    serves all threads of a process: each prefill worker has a staging buffer of its own."""

    def __init__(self, codec: str, layout: Callable[..., Any]) -> None:
        self.codec = StagingCodec(codec)
        self._layout = layout
        self._encoded: dict[int, tuple[int, int]] = {}  # by address of a staging buffer: bytes of values, bytes of blob

    def enlarge(self, register: Any, kv_args: Any, count: int, chunk: int, **options: Any) -> tuple[tuple, dict]:
        """Before init_staging_buffers: room for values that cannot be compressed."""
        return (register, kv_args, count, chunk + max(kv_args.page_size, chunk // 64)), options

    def inflate(self, result: Any, *_: Any, **__: Any) -> Any:
        """After compute_staging_layout: the same for the ring's regions, on both sides."""
        writers, sizes, _ = result
        sizes = [room_for(size) for size in sizes]
        return writers, sizes, sum(sizes)

    def gather(self, original: Callable[..., int], k: list, v: list, pages: Any, staging: Any, *rest: Any) -> int:
        """Around gather_all_layers_to_staging: what was gathered becomes a blob."""
        n_bytes = original(k, v, pages, staging, *rest)
        self._encoded[staging.get_ptr()] = (n_bytes, self.codec.encode(staging.buffer, n_bytes, k[0].dtype))
        return n_bytes

    def shorten(self, manager: Any, session: str, blocks: list) -> tuple[tuple, dict] | None:
        """Before _transfer_data: writes the blob instead of the buffer. Errors: UnsupportedError (pipeline parallelism,
        which would send the buffer in parts); SGLang then fails the request."""
        if len(blocks) == 1 and (found := self._encoded.pop(blocks[0][0], None)) is not None:
            source, target, n_bytes = blocks[0]
            if n_bytes != found[0]:
                raise error("mismatch", f"{n_bytes} bytes are to be sent, {found[0]} were encoded")
            return (manager, session, [(source, target, found[1])]), {}
        if any(block[0] in self._encoded for block in blocks):
            raise error("unsupported", "an encoded staging buffer cannot be sent in parts (pipeline parallelism)")
        return None

    def scatter(
        self, original: Callable[..., None], region: torch.Tensor, k: list, v: list, pages: torch.Tensor, page_size: int,
        prefill_tp: int, decode_tp: int, rank: int, heads: int,
    ) -> None:  # fmt: skip
        """Around scatter_staging_to_kv: decodes each writer's blob into scratch memory, and scatters from there.
        Errors: `tersor.Error`, before the cache was touched."""
        tokens, head_bytes = pages.shape[0] * page_size, k[0].shape[-1] * k[0].element_size()
        _, sizes, total = self._layout(prefill_tp, decode_tp, rank, heads, tokens, head_bytes, len(k))
        plain = torch.empty(total, dtype=torch.uint8, device=region.device)
        at, out = 0, 0
        for size in sizes:
            room = room_for(size)
            self.codec.decode(region[at : at + room], _values(plain[out : out + size], k[0].dtype))
            at, out = at + room, out + size
        original(plain, k, v, pages, page_size, prefill_tp, decode_tp, rank, heads)

    def guard(
        self, original: Callable[..., bool], handler: Any, at: int, page: int, count: int, req: Any, peer: Any
    ) -> bool:
        """Around DecodeStagingHandler._scatter_region: what does not verify fails its request, not the thread."""
        try:
            return original(handler, at, page, count, req, peer)
        except Error:
            logger.exception("a KV chunk did not verify; its request fails")
            req._staging_failed = True
            return False

    def mark(self, result: Any, manager: Any, *_: Any, **__: Any) -> None:
        """After the manager's constructor: both sides compare this in SGLang's handshake."""
        manager.kv_cache_dtype_str = f"{manager.kv_cache_dtype_str}{MARK}"


def register_hooks(codec: str = "rank") -> StagingHooks:
    """Registers the hooks; SGLang applies them when all its plugins are loaded. Errors: ImportError (no SGLang, or no
    Mooncake backend in it), InvalidArgumentError (codec)."""
    from sglang.srt.disaggregation.common.staging_buffer import compute_staging_layout
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    hooks = StagingHooks(codec, getattr(compute_staging_layout, "__wrapped__", compute_staging_layout))
    for target, hook, kind in (
        (f"{HANDLER}.init_staging_buffers", hooks.enlarge, HookType.BEFORE),
        (f"{STAGING}.compute_staging_layout", hooks.inflate, HookType.AFTER),
        (f"{STAGING}.gather_all_layers_to_staging", hooks.gather, HookType.AROUND),
        ("sglang.srt.disaggregation.mooncake.conn.MooncakeKVManager._transfer_data", hooks.shorten, HookType.BEFORE),
        (f"{STAGING}.scatter_staging_to_kv", hooks.scatter, HookType.AROUND),
        (f"{HANDLER}.DecodeStagingHandler._scatter_region", hooks.guard, HookType.AROUND),
        ("sglang.srt.disaggregation.common.conn.CommonKVManager.__init__", hooks.mark, HookType.AFTER),
    ):
        HookRegistry.register(target, hook, kind)
    return hooks


def _values(data: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Flat bytes as values. Bytes that an engine keeps as uint8 are mostly FP8, and code as such, bit for bit."""
    if dtype == torch.uint8:
        dtype = torch.float8_e4m3fn
    if data.numel() % VALUE_BYTES[dtype_of_torch(dtype)]:
        raise error("mismatch", f"{data.numel()} bytes are no number of values of {dtype}")
    return data.view(dtype)
