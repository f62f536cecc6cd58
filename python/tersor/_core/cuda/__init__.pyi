"""NVIDIA GPUs: device memory by address, calls on a stream.

Addresses and streams are integers. Everything acts on the current device and on the given stream, and waits for nothing;
what the GPU finds out about data it writes into results (frame_result, matrix_result). Workspaces are zeroed before their
first use. Errors: BackendUnavailableError (no driver, no device, a build without CUDA), InvalidArgumentError, ...
"""

from collections.abc import Sequence
from typing import TypeAlias, TypedDict

from tersor._core import MatrixInfo
from tersor._core.cuda import kv as kv

class _Device(TypedDict):
    index: int
    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    memory_bytes: int
    l2_bytes: int
    driver: str

# dtype, shape, source, codebook (16 bytes) or None, address of a codebook or 0, frame, its capacity, frame_result
_EncodeTask: TypeAlias = tuple[str, Sequence[int], int, bytes | None, int, int, int, int]
# dtype, n_values, frame, its bytes, destination, frame_result
_DecodeTask: TypeAlias = tuple[str, int, int, int, int, int]

FRAME_RESULT_BYTES: int
"""int32 code, uint32 chunk, uint64 frame_bytes, uint64 digest, uint32 overflow, uint32 reserved."""
MATRIX_RESULT_BYTES: int
"""int32 code, uint32 block, uint64 n_bytes."""
FRAME_ALIGNMENT: int

def devices() -> list[_Device]: ...

# ---- frames ----

def encode_bound(codec: str, dtype: str, n_values: int) -> int: ...
def encode_workspace_size(codec: str, canonical: bool, tasks: Sequence[_EncodeTask]) -> int: ...
def encode(codec: str, tasks: Sequence[_EncodeTask], canonical: bool, ws: int, ws_bytes: int, stream: int) -> None:
    """``canonical``: the bytes that the CPU writes; otherwise the order of tails may differ from run to run."""

def decode_workspace_size(tasks: Sequence[_DecodeTask]) -> int: ...
def decode(codec: str, tasks: Sequence[_DecodeTask], ws: int, ws_bytes: int, stream: int) -> None: ...
def codebook_workspace_size() -> int: ...
def make_codebook(
    codec: str, dtype: str, src: int, n_values: int, codebook: int, ws: int, ws_bytes: int, stream: int
) -> None:
    """Writes the 16 exponents to device memory at ``codebook``."""

# ---- packed matrices ----

def plan_gemm(info: MatrixInfo, n: int, groups: int = 1) -> str:
    """The plan that ``gemm`` takes for ``n`` tokens on this device."""

def gemm_workspace_size(info: MatrixInfo, n: int, plan: str = "") -> int: ...
def gemm(
    info: MatrixInfo,
    data: int,
    x: int,
    ldx: int,
    y: int,
    ldy: int,
    n: int,
    bias: int = 0,
    accumulate: bool = False,
    overlap_previous: bool = False,
    plan: str = "",
    ws: int = 0,
    ws_bytes: int = 0,
    stream: int = 0,
) -> None:
    """Y[n, rows] = X[n, cols] W^T. ``ldx``, ``ldy``: values from row to row, 0 = dense."""

def grouped_gemm(
    info: MatrixInfo,
    n_groups: int,
    weights: int,
    first_token: int,
    max_tokens: int,
    n_tokens: int,
    x: int,
    ldx: int,
    y: int,
    ldy: int,
    bias: int = 0,
    stream: int = 0,
) -> None:
    """``weights``: address of ``n_groups`` addresses; ``first_token``: of ``n_groups + 1`` int32."""

def pack_workspace_size(dtype: str, rows: int, cols: int, inline_escapes: int = 0, layout: str = "packed") -> int: ...
def pack(
    dtype: str,
    rows: int,
    cols: int,
    src: int,
    src_bytes: int,
    column_major: bool,
    stride: int,
    dst: int,
    capacity: int,
    inline_escapes: int,
    layout: str,
    result: int,
    ws: int,
    ws_bytes: int,
    stream: int,
) -> None: ...
def unpack(
    info: MatrixInfo,
    data: int,
    dst: int,
    column_major: bool = False,
    stride: int = 0,
    result: int = 0,
    stream: int = 0,
) -> None:
    """``dst`` 0: only compares the digests. ``result`` 0: no verdict."""
