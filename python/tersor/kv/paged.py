"""Pages of a paged KV cache, gathered out of the serving engine's tensors and put back into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .. import _core
from .._errors import error
from .._exponents import codebook_of
from . import _gpu, _pages_gpu
from ._pools import open_pools, page_numbers, page_numbers_on
from ._values import bytes_of_tensor
from .codec import Codec
from .encoded import BOOK_ENTRIES
from .pages import KINDS, EncodedPages, PagesShape


class PageDecoding:
    """Pages that are being decoded on a GPU; they must not be used before `check` has returned."""

    def __init__(self, shape: PagesShape, verdict: _gpu.Verdict | None) -> None:
        self._shape = shape
        self._verdict = verdict

    def ready(self) -> bool:
        """Whether `check` would not wait."""
        return self._verdict is None or self._verdict.ready()

    def check(self) -> None:
        """Waits for the pages. Work that was captured into a CUDA graph is checked anew, for the latest replay.
        Errors: `digest_mismatch`, `malformed`, `mismatch`, ...; the message names the first bad frame."""
        if self._verdict is not None:
            for number, result in enumerate(self._verdict.read()):
                _gpu.raise_for(result, f"decoding {self._shape.place(number)}", _gpu.PAGE_WORDS)


class PagedCodec:
    """Encodes pages of the KV cache of all layers of a model, and decodes them into pages.

    `layers`: one cache tensor per layer, all of the same shape, contiguous, on one device. They are used in place; the
    codec keeps them alive. On a GPU pages are gathered and scattered inside the kernels; on the CPU by indexing. numpy
    arrays will do on the CPU.
    `order`: how a layer's tensor is stored:

    - "kv_blocks_nhd" [2, blocks, block_size, heads, dim] (vLLM with FlashAttention)
    - "blocks_kv_nhd" [blocks, 2, block_size, heads, dim] (vLLM with FlashInfer, FlashInfer NHD)
    - "kv_blocks_hnd" [2, blocks, heads, block_size, dim]
    - "blocks_kv_hnd" [blocks, 2, heads, block_size, dim] (FlashInfer HND)
    - "mla"           [blocks, block_size, latent]

    Frames hold values as (token, head, i) in every order, so pages encoded out of one order decode into another.
    `codec`: "rank" or "top16", or a `Codec` whose codec, context and `canonical` are taken; its codebooks are not,
    since each pool (K or V of a layer) has one of its own.
    Errors: `invalid_argument` (order, shape, not contiguous), `mismatch` (layers differ), `unsupported` (dtype).
    """

    def __init__(
        self,
        layers: Sequence[Any],
        order: str = "kv_blocks_nhd",
        codec: str | Codec = "rank",
        *,
        canonical: bool = False,
    ) -> None:
        chosen = codec if isinstance(codec, Codec) else Codec(codec=codec, canonical=canonical)
        self.codec = chosen.codec
        self.canonical = chosen.canonical or bool(canonical)
        self._threads = chosen._threads
        self._pools = open_pools(layers, order)
        self._counts: list[list[int]] | None = None
        self._books: list[bytes] | None = None
        self._gpu = None
        if self._pools.device.type == "cuda":
            self._gpu = _pages_gpu.GpuPages(self._pools, self.codec, self.canonical)

    order = property(lambda self: self._pools.order, doc="How a layer's tensor is stored.")
    n_pools = property(lambda self: self._pools.n_pools, doc="K and V of each layer; one a layer for MLA.")
    n_blocks = property(lambda self: self._pools.n_blocks, doc="Pages of a pool.")
    page_bytes = property(lambda self: self._pools.page_bytes, doc="Bytes of a page of one pool.")
    device = property(lambda self: str(self._pools.device), doc='"cpu" or "cuda:N".')

    @property
    def codebooks(self) -> list[bytes] | None:
        """The calibrated codebook of each pool, None before `calibrate`. Can be set, to those of another process."""
        return None if self._books is None else list(self._books)

    @codebooks.setter
    def codebooks(self, books: Sequence[bytes] | None) -> None:
        if books is not None:
            if len(books) != self.n_pools or any(not isinstance(b, bytes) or len(b) != 16 for b in books):
                raise error("invalid_argument", f"expected {self.n_pools} codebooks of 16 bytes")
            books = list(books)
        self._counts, self._books = None, books
        if self._gpu is not None:
            self._gpu.set_books(books)

    def calibrate(self, page_ids: Any, *, accumulate: bool = False) -> float:
        """Takes the most frequent exponents of the pages as codebooks, one per pool; gives the share of all their
        values that the codebooks cover. Waits for a GPU. A call replaces what earlier ones found, unless `accumulate`
        adds to it. Errors: `invalid_argument` (page ids)."""
        ids = page_numbers(page_ids, self.n_blocks, distinct=False)
        counts = [self._count(view, ids) for view in self._pools.views()]
        if accumulate and self._counts is not None:
            counts = [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(self._counts, counts, strict=True)]
        books = [codebook_of(pool) for pool in counts]
        self.codebooks = [bytes(book) for book in books]
        self._counts = counts
        entries = BOOK_ENTRIES[self.codec]
        covered = sum(pool[symbol] for pool, book in zip(counts, books, strict=True) for symbol in book[:entries])
        return covered / sum(map(sum, counts))

    def encode(
        self,
        page_ids: Any,
        kind: str = "gathered",
        *,
        slot_bytes: int | None = None,
        overflow_places: int | None = None,
        out: EncodedPages | None = None,
    ) -> EncodedPages:
        """Encodes pages: their numbers are the same for all pools.

        On a GPU this only enqueues work on torch's current stream. Page ids in a list are checked and sent there; ids
        in a GPU tensor are used as they are, and a page outside the pools is found by `EncodedPages.check`. Without
        calibration the exact codebook of each pool is made first.
        `kind`: "gathered", one frame per pool, or "slots", one frame per pool and page at a fixed place.
        `slot_bytes`: size of a slot, a multiple of 128 (see `suggest_slot_bytes`); if None, the worst case.
        `overflow_places`: how many pages that do not fit their slots are kept, raw; if None, all of them.
        `out`: of `allocate`, whose content is replaced; with it nothing is allocated, so the call can be captured in a
        CUDA graph, if the page ids are int32 on the GPU. kind and sizes are then those of `out`.
        Errors: `invalid_argument`, `mismatch` (out), `destination_too_small` (a slot that no page fits; CPU: a page
        that finds no place).
        """
        if self._gpu is not None:
            return self._encode_on_gpu(page_ids, kind, slot_bytes, overflow_places, out)
        ids = page_numbers(page_ids, self.n_blocks, distinct=False)
        if out is not None:
            shape = self._check_out(out, len(ids))
            slot_bytes, overflow_places = out._slots
        else:
            shape = self._shape_of(kind, len(ids))
        frames = self._encode_here(shape, ids, self._check_slot(shape, slot_bytes), overflow_places)
        if out is None:
            return EncodedPages(shape, frames, None)
        out._frames = frames
        return out

    def allocate(
        self,
        n_pages: int,
        kind: str = "gathered",
        *,
        slot_bytes: int | None = None,
        overflow_places: int | None = None,
    ) -> EncodedPages:
        """Room for `n_pages` pages of each pool, for `encode(..., out=)`. Arguments as for `encode`."""
        shape = self._shape_of(kind, n_pages)
        slot_bytes = self._check_slot(shape, slot_bytes)
        if self._gpu is not None:
            return EncodedPages(shape, None, self._gpu.allocate(shape, slot_bytes, overflow_places, own=True))
        made = EncodedPages(shape, [], None)
        made._slots = (slot_bytes, overflow_places)
        return made

    def decode(self, encoded: EncodedPages, page_ids: Any, *, check: bool = True) -> PageDecoding:
        """Writes the encoded pages to the pages `page_ids` of these pools, in the order of encoding.

        On a GPU, `check=True` waits for the verdict on the data; False only enqueues work on torch's current stream,
        and the `check` of what is returned waits. Pages in host memory are first copied to the GPU.
        Errors: `mismatch` (dtype, page shape, numbers of pools or pages), `invalid_argument` (page ids),
        `digest_mismatch`, `malformed`, ... (damaged data: the pages `page_ids` are then unspecified, others untouched).
        """
        if not isinstance(encoded, EncodedPages):
            raise error("invalid_argument", f"expected EncodedPages, not {type(encoded).__name__}")
        shape = encoded._shape
        wanted = (self._pools.dtype, self.n_pools, self._pools.page_shape)
        if (shape.dtype, shape.n_pools, shape.page_shape) != wanted:
            raise error("mismatch", f"{encoded!r} does not fit {self!r}")
        if self._gpu is not None:
            ids = self._ids_on_gpu(page_ids, distinct=True)
            self._check_count(shape, ids.numel())
            decoding = PageDecoding(shape, self._gpu.decode(encoded, ids))
            if check:
                decoding.check()
            return decoding
        ids = page_numbers(page_ids, self.n_blocks, distinct=True)
        self._check_count(shape, len(ids))
        self._decode_here(encoded, ids)
        return PageDecoding(shape, None)

    def suggest_slot_bytes(self, page_ids: Any, coverage: float = 0.9) -> int:
        """The smallest slot size that the given share of these pages fit, found by encoding them. Waits for a GPU."""
        if not 0 < coverage <= 1:
            raise error("invalid_argument", f"coverage is above 0 and at most 1, not {coverage}")
        return _core.cuda.kv.suggest_slot_bytes(self.encode(page_ids, "slots").frame_bytes, coverage)

    def __repr__(self) -> str:
        p = self._pools
        pages = f"{p.n_pools} pools of {p.n_blocks} pages of {p.dtype} {list(p.page_shape)}"
        return f"PagedCodec({pages}, order={p.order!r}, codec={self.codec!r} on {p.device})"

    # ---- arguments ----

    def _shape_of(self, kind: str, n_pages: int) -> PagesShape:
        if kind not in KINDS:
            raise error("invalid_argument", f"unknown kind of page frames {kind!r}: gathered and slots are known")
        if isinstance(n_pages, bool) or not isinstance(n_pages, int) or n_pages < 1:
            raise error("invalid_argument", f"the number of pages is a positive int, not {n_pages!r}")
        return PagesShape(kind, self._pools.dtype, self.n_pools, n_pages, self._pools.page_shape)

    def _check_slot(self, shape: PagesShape, slot_bytes: int | None) -> int | None:
        if slot_bytes is None:
            return None
        if shape.kind != "slots":
            raise error("invalid_argument", "only slots have a size")
        if slot_bytes < 128 or slot_bytes % 128 != 0:
            raise error("invalid_argument", f"a slot is a multiple of 128 bytes, not {slot_bytes}")
        return slot_bytes

    def _check_out(self, out: EncodedPages, n_pages: int) -> PagesShape:
        allocated = isinstance(out, EncodedPages) and (out._slots is not None or _has_memory(out))
        if not allocated:
            raise error("invalid_argument", "out is not an EncodedPages that PagedCodec.allocate made")
        if out._shape != self._shape_of(out.kind, n_pages) or out.device != self.device:
            raise error("mismatch", f"{out!r} is not for {n_pages} pages of {self!r}")
        return out._shape

    def _check_count(self, shape: PagesShape, n_ids: int) -> None:
        if n_ids != shape.n_pages:
            raise error("mismatch", f"{shape.n_pages} pages were encoded, {n_ids} page ids were given")

    def _ids_on_gpu(self, page_ids: Any, *, distinct: bool) -> torch.Tensor:
        device = self._pools.layers[0].device
        with _gpu.on(device):
            return page_numbers_on(device, page_ids, self.n_blocks, distinct=distinct, fixed=_gpu.is_capturing(device))

    def _encode_on_gpu(
        self, page_ids: Any, kind: str, slot_bytes: int | None, overflow_places: int | None, out: EncodedPages | None
    ) -> EncodedPages:
        ids = self._ids_on_gpu(page_ids, distinct=False)
        if out is None:
            shape = self._shape_of(kind, ids.numel())
            slot_bytes = self._check_slot(shape, slot_bytes)
            out = EncodedPages(shape, None, self._gpu.allocate(shape, slot_bytes, overflow_places, own=False))
        else:
            self._check_out(out, ids.numel())
        self._gpu.encode(out._shape, out.device_pages, ids)
        return out

    # ---- on the CPU ----

    def _count(self, view: torch.Tensor, ids: list[int]) -> list[int]:
        pages = view[torch.tensor(ids, device=view.device)].contiguous()
        if view.is_cuda:
            return _gpu.count_symbols(pages, self._pools.dtype)
        return list(_core.count_symbols(self._threads(), self._pools.dtype, bytes_of_tensor(pages)).counts)

    def _encode_here(
        self, shape: PagesShape, ids: list[int], slot_bytes: int | None, overflow_places: int | None
    ) -> list[Any]:
        index, frames, spilled = torch.tensor(ids), [], 0
        for number, view in enumerate(self._pools.views()):
            pages = view[index].contiguous()
            book = None if self._books is None else self._books[number]
            if book is None:
                counts = _core.count_symbols(self._threads(), shape.dtype, bytes_of_tensor(pages)).counts
                book = bytes(codebook_of(counts))
            for piece in pages if shape.kind == "slots" else [pages]:
                frame = self._encode_piece(shape, piece, book, self.codec)
                if slot_bytes is not None and len(frame) > slot_bytes:
                    spilled += 1
                    frame = self._encode_piece(shape, piece, book, "raw")
                frames.append(frame)
        if overflow_places is not None and spilled > overflow_places:
            raise error("destination_too_small", f"{spilled} pages overflow, {overflow_places} places were given")
        return frames

    def _encode_piece(self, shape: PagesShape, piece: torch.Tensor, book: bytes, codec: str) -> Any:
        data = bytes_of_tensor(piece)
        sizes = list(shape.frame_shape)
        # As on a GPU: only pages that overflow are raw.
        return _core.encode(self._threads(), data, shape.dtype, sizes, codec, book, raw_fallback=False)

    def _decode_here(self, encoded: EncodedPages, ids: list[int]) -> None:
        index, frames = torch.tensor(ids), encoded.check().host_frames()
        per_pool = len(frames) // self.n_pools
        for number, view in enumerate(self._pools.views()):
            pages = torch.empty((len(ids), *view.shape[1:]), dtype=view.dtype)
            pieces = pages if per_pool > 1 else [pages]
            for piece, frame in zip(pieces, frames[number * per_pool :], strict=False):
                _core.decode_into(self._threads(), frame, bytes_of_tensor(piece))
            view[index] = pages


def _has_memory(out: EncodedPages) -> bool:
    return out.device_pages is not None and out.device_pages.own is not None
