"""The paged calls of the GPU: buffers, workspaces, launches."""

from __future__ import annotations

from typing import Any

import torch

from .. import _core
from .._errors import error
from . import _gpu
from ._pools import Pools
from .pages import DevicePages, EncodedPages, PagesShape, coded_frame


class GpuPages:
    """Pools on one GPU and what their calls need."""

    def __init__(self, pools: Pools, codec: str, canonical: bool) -> None:
        self._layers = pools.layers
        self._device = pools.layers[0].device
        self._codec = codec
        self._canonical = canonical
        self._books: torch.Tensor | None = None
        self._spaces = _gpu.Workspaces()
        addresses = [layer.data_ptr() for layer in pools.layers]
        sizes = (pools.n_blocks, pools.block_size, pools.kv_heads, pools.head_dim)
        self._pools = _core.cuda.kv.PagePools(pools.order, pools.dtype, addresses, *sizes)

    def set_books(self, books: list[bytes] | None) -> None:
        if books is None:
            self._books = None
        else:
            flat = torch.frombuffer(bytearray(b"".join(books)), dtype=torch.uint8)
            self._books = flat.to(self._device)

    def allocate(
        self, shape: PagesShape, slot_bytes: int | None, overflow_places: int | None, *, own: bool
    ) -> DevicePages:
        bound = _core.cuda.kv.page_frame_bound(self._codec, self._pools, shape.kind, shape.n_pages)
        stride = slot_bytes if slot_bytes is not None else bound
        overflow = used = None
        overflow_bytes = self._pools.raw_frame_bytes
        if shape.kind == "slots" and stride < bound:
            places = shape.n_frames if overflow_places is None else min(overflow_places, shape.n_frames)
            if places > 0:
                overflow = self._bytes(places * overflow_bytes)
                used = torch.zeros(1, dtype=torch.int32, device=self._device)
        pages = DevicePages(
            self._codec,
            self._bytes(shape.n_frames * stride),
            stride,
            _gpu.new_results(self._device, shape.n_frames),
            overflow,
            overflow_bytes,
            used,
        )
        if own:
            pages.results.zero_()
            room = torch.zeros(self._encode_room(shape), dtype=torch.uint8, device=self._device)
            pages.own = (room, self._bytes(_gpu.BOOK_BYTES * shape.n_pools))
        return pages

    def encode(self, shape: PagesShape, pages: DevicePages, ids: torch.Tensor) -> None:
        """Enqueues the encoding of the pages `ids`; makes their codebooks first, if none were calibrated."""
        with _gpu.on(self._device) as stream:
            room = pages.own[0] if pages.own else self._spaces.get(self._device, self._encode_room(shape))
            place = (room.data_ptr(), room.numel())
            books = self._books
            if books is None:
                books = pages.own[1] if pages.own else self._bytes(_gpu.BOOK_BYTES * shape.n_pools)
                target = (ids.data_ptr(), shape.n_pages, books.data_ptr())
                _core.cuda.kv.make_codebooks(self._codec, self._pools, *target, *place, stream)
            if pages.overflow_used is not None:
                pages.overflow_used.zero_()
            _core.cuda.kv.encode_pages(
                self._codec,
                self._pools,
                ids.data_ptr(),
                shape.n_pages,
                books.data_ptr(),
                _store_of(shape, pages),
                pages.results.data_ptr(),
                self._canonical,
                *place,
                stream,
            )
            pages.codec = self._codec
            pages.verdict = _gpu.Verdict(pages.results)

    def decode(self, encoded: EncodedPages, ids: torch.Tensor) -> _gpu.Verdict:
        """Enqueues the decoding into the pages `ids`; brings the frames to this GPU first, if they are elsewhere."""
        shape, pages = encoded._shape, encoded.device_pages
        with _gpu.on(self._device) as stream:
            if pages is None or pages.frames.device != self._device:
                pages = self._upload(encoded)
            elif pages.verdict is None:
                raise error("invalid_argument", "nothing was encoded into this yet")
            else:
                buffers = (pages.frames, pages.results, pages.overflow)
                pages.verdict.join(*(buffer for buffer in buffers if buffer is not None))
            results = _gpu.new_results(self._device, shape.n_frames)
            size = _core.cuda.kv.pages_workspace_size(pages.codec, self._pools, shape.kind, shape.n_pages, False)
            room = self._spaces.get(self._device, size)
            where = pages.results.data_ptr() if pages.overflow is not None else 0
            _core.cuda.kv.decode_pages(
                pages.codec,
                self._pools,
                ids.data_ptr(),
                shape.n_pages,
                _store_of(shape, pages),
                where,
                results.data_ptr(),
                room.data_ptr(),
                room.numel(),
                stream,
            )
            return _gpu.Verdict(results)

    def _encode_room(self, shape: PagesShape) -> int:
        kv = _core.cuda.kv
        encoding = kv.pages_workspace_size(self._codec, self._pools, shape.kind, shape.n_pages, self._canonical)
        if encoding == 0:
            raise error("unsupported", f"{shape.n_pages} pages of {self._codec} are more than a GPU call takes")
        return max(encoding, kv.codebooks_workspace_size(self._pools))

    def _upload(self, encoded: EncodedPages) -> DevicePages:
        """Frames from the host, each at a place that fits the largest; raw ones are coded again, for the kernels."""
        shape = encoded._shape
        if _gpu.is_capturing(self._device):
            raise error("invalid_argument", "pages in host memory cannot be decoded while a CUDA graph is captured")
        frames = encoded.check().host_frames()
        codecs = [_core.inspect(frame).codec for frame in frames]
        codec = next((name for name in codecs if name != "raw"), self._codec)
        stride = _core.cuda.kv.page_frame_bound(codec, self._pools, shape.kind, shape.n_pages)
        staging = torch.zeros(shape.n_frames * stride, dtype=torch.uint8)
        for number, frame in enumerate(frames):
            data = _host_tensor(coded_frame(frame, codec))
            staging[number * stride : number * stride + data.numel()] = data
        return DevicePages(codec, staging.to(self._device), stride, _gpu.new_results(self._device, 0), None, 0, None)

    def _bytes(self, n: int) -> torch.Tensor:
        return torch.empty(n, dtype=torch.uint8, device=self._device)


def _host_tensor(frame: Any) -> torch.Tensor:
    return torch.frombuffer(bytearray(frame), dtype=torch.uint8)


def _store_of(shape: PagesShape, pages: DevicePages) -> Any:
    if pages.overflow is None:
        return _core.cuda.kv.PageStore(shape.kind, pages.frames.data_ptr(), pages.stride)
    places = pages.overflow.numel() // pages.overflow_bytes
    return _core.cuda.kv.PageStore(
        shape.kind,
        pages.frames.data_ptr(),
        pages.stride,
        pages.overflow.data_ptr(),
        places,
        pages.overflow_used.data_ptr(),
    )
