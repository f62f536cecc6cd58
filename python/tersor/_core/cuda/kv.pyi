"""Paged KV caches. ``kind`` of page frames is "gathered" or "slots"."""

from collections.abc import Sequence

class PagePools:
    """Addresses of the K and V pools of all layers, and how their values lie."""

    def __init__(
        self,
        order: str,
        dtype: str,
        layers: Sequence[int],
        n_blocks: int,
        block_size: int,
        kv_heads: int,
        head_dim: int,
    ) -> None:
        """``order``: kv_blocks_nhd, blocks_kv_nhd, kv_blocks_hnd, blocks_kv_hnd or mla; K and V of a layer lie in one
        tensor."""

    @staticmethod
    def separate(
        hnd: bool,
        dtype: str,
        pools: Sequence[int],
        n_blocks: int,
        block_size: int,
        kv_heads: int,
        head_dim: int,
    ) -> PagePools:
        """K and V in tensors of their own."""

    @property
    def n_pools(self) -> int: ...
    @property
    def page_values(self) -> int: ...
    @property
    def raw_frame_bytes(self) -> int: ...

class PageStore:
    """Where frames of pages lie in device memory."""

    def __init__(
        self,
        kind: str,
        frames: int,
        frame_stride: int,
        overflow: int = 0,
        overflow_places: int = 0,
        overflow_used: int = 0,
    ) -> None: ...

def page_frame_bound(codec: str, pools: PagePools, kind: str, n_pages: int) -> int: ...
def suggest_slot_bytes(frame_bytes: Sequence[int], coverage: float) -> int:
    """The smallest slot size (a multiple of 128) that holds at least ``coverage`` (0..1] of the frame sizes."""

def pages_workspace_size(codec: str, pools: PagePools, kind: str, n_pages: int, canonical: bool) -> int: ...
def codebooks_workspace_size(pools: PagePools) -> int: ...
def worth_it(n_bytes: int, link_gb_s: float, codec: str, device_name: str) -> bool:
    """True if sending ``n_bytes`` coded is expected to take less time than sending them plain."""

def encode_pages(
    codec: str,
    pools: PagePools,
    page_ids: int,
    n_pages: int,
    codebooks: int,
    store: PageStore,
    results: int,
    canonical: bool,
    ws: int,
    ws_bytes: int,
    stream: int,
) -> None: ...
def decode_pages(
    codec: str,
    pools: PagePools,
    page_ids: int,
    n_pages: int,
    store: PageStore,
    where: int,
    results: int,
    ws: int,
    ws_bytes: int,
    stream: int,
) -> None: ...
def make_codebooks(
    codec: str,
    pools: PagePools,
    page_ids: int,
    n_pages: int,
    codebooks: int,
    ws: int,
    ws_bytes: int,
    stream: int,
) -> None: ...
