"""Bindings of the C++ library; use the package tersor.

All calls release the GIL while they work. What fails raises :class:`tersor.Error` or one of its subclasses; arguments of a
wrong type raise TypeError. ``dtype`` is a safetensors name ("BF16", "F16", "F8_E4M3", "U8", ...), ``codec`` is "rank",
"top16" or "raw", ``layout`` is "packed" or "tcatbe".
"""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypedDict

from typing_extensions import Buffer as _BufferProtocol

from tersor._core import cuda as cuda
from tersor._core import transfer as transfer

class _SupportsDLPack(Protocol):
    def __dlpack__(self) -> object: ...
    def __dlpack_device__(self) -> tuple[Any, int]: ...

# Contiguous bytes on the CPU: uint8 elements, by the buffer protocol or DLPack.
_BytesLike: TypeAlias = _BufferProtocol | _SupportsDLPack
# The same, writable.
_WritableBytes: TypeAlias = _BytesLike
_Path: TypeAlias = str | PathLike[str]
_Progress: TypeAlias = Callable[[int, int, str], object]
# Name, dtype, shape and bytes of a tensor to save.
_NamedTensor: TypeAlias = tuple[str, str, Sequence[int], _BytesLike]

class _Backend(TypedDict):
    name: str
    supported: bool
    chosen: bool
    reason: str

VERSION: str
FRAME_FORMAT_VERSION: int
CONTAINER_FORMAT_VERSION: int
DEFAULT_INLINE_ESCAPES: int
"""Places for escapes in a block of a packed matrix unless told otherwise."""

class Buffer:
    """Bytes that a call made. Views share them: memoryview(b), numpy.asarray(b), torch.from_dlpack(b); bytes(b) copies."""

    def __init__(self, arg: _BytesLike, /) -> None:
        """Copies the bytes."""

    def __buffer__(self, flags: int, /) -> memoryview: ...
    def __len__(self) -> int: ...
    def __repr__(self) -> str: ...
    def __eq__(self, arg: object, /) -> bool:
        """Compares with any contiguous bytes."""

    def __reduce__(self) -> tuple[Any, ...]: ...
    def __dlpack__(self, **how: Any) -> object:
        """Shares the bytes, as uint8. Errors: BufferError for ``copy=True``."""

    def __dlpack_device__(self) -> tuple[int, int]: ...

class Context:
    """Threads and instruction set of a series of calls; may be shared by threads."""

    def __init__(self, threads: int = 0, backend: str = "") -> None:
        """``threads``: 0 takes the cores this process may use. ``backend``: a name of ``backends()``; "" takes the
        environment variable TERSOR_BACKEND or, without it, the fastest. Errors: BackendUnavailableError."""

    @property
    def threads(self) -> int: ...
    @property
    def backend(self) -> str: ...
    def __repr__(self) -> str: ...

def backends() -> list[_Backend]:
    """The CPU backends of this build, and why each is chosen or not."""

# ---- codebooks ----

class Histogram:
    """How often each exponent occurs."""

    def __init__(self) -> None: ...
    @property
    def counts(self) -> list[int]:
        """256 counts."""

    def total(self) -> int: ...
    def entropy(self) -> float:
        """Bits a value."""

    def coverage(self, k: int) -> float:
        """Share of the values whose exponent is among the ``k`` most frequent."""

    def __iadd__(self, arg: Histogram, /) -> Histogram: ...
    def __getstate__(self) -> list[int]: ...
    def __setstate__(self, arg: Sequence[int], /) -> None: ...

def count_symbols(ctx: Context, dtype: str, data: _BytesLike) -> Histogram:
    """Counts the exponents of values. Errors: UnsupportedError (a dtype without a coded exponent)."""

def make_codebook(dtype: str, histogram: Histogram) -> bytes:
    """16 exponents, most frequent first."""

def expected_bits(codec: str, dtype: str, histogram: Histogram, codebook: bytes) -> float:
    """Bits a value that a codec is expected to take."""

# ---- frames ----

class FrameInfo:
    """What a frame's header and index say."""

    @property
    def codec(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def n_values(self) -> int: ...
    @property
    def decoded_bytes(self) -> int: ...
    @property
    def frame_bytes(self) -> int: ...
    @property
    def digest(self) -> int:
        """Covers header, index and, through them, the decoded bytes."""

    @property
    def codebook(self) -> bytes: ...
    @property
    def n_chunks(self) -> int: ...
    @property
    def tail_words(self) -> int: ...
    @property
    def raw_tiles(self) -> int: ...
    @property
    def escape_tiles(self) -> int: ...

def encode_bound(codec: str, dtype: str, n_values: int) -> int:
    """Upper bound of a frame's bytes; 0 if it leaves 64 bits."""

def encode(
    ctx: Context,
    data: _BytesLike,
    dtype: str,
    shape: Sequence[int],
    codec: str = "rank",
    codebook: bytes | None = None,
    raw_fallback: bool = True,
) -> Buffer: ...
def encode_into(
    ctx: Context,
    data: _BytesLike,
    dtype: str,
    shape: Sequence[int],
    dst: _WritableBytes,
    codec: str = "rank",
    codebook: bytes | None = None,
    raw_fallback: bool = True,
) -> int:
    """The frame's size. ``dst`` has at least ``encode_bound`` bytes. Errors: DestinationTooSmallError, ..."""

def inspect(frame: _BytesLike) -> FrameInfo:
    """Of the frame that begins ``frame``; more bytes may follow it."""

def decode(ctx: Context, frame: _BytesLike) -> tuple[Buffer, str, tuple[int, ...]]:
    """Bytes, dtype and shape of the frame that fills ``frame``."""

def decode_into(ctx: Context, frame: _BytesLike, dst: _WritableBytes) -> int:
    """The decoded size."""

def decode_chunks(ctx: Context, frame: _BytesLike, first: int, count: int, dst: _WritableBytes) -> int:
    """Decodes chunks [first, first + count) only, into the start of ``dst``; the bytes written. A chunk is 8,192 values
    (16,384 bytes of a raw frame)."""

def digest_bytes(ctx: Context, domain: int, data: _BytesLike) -> int:
    """The position-keyed 64-bit digest in a domain; no authentication tag."""

# ---- packed matrices ----

class MatrixInfo:
    """What the header of a packed matrix says."""

    @property
    def layout(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...
    @property
    def n_bytes(self) -> int:
        """Header included."""

    @property
    def block_bytes(self) -> int: ...
    @property
    def inline_escapes(self) -> int: ...
    @property
    def n_overflow(self) -> int: ...
    @property
    def blocks_at(self) -> int: ...
    @property
    def overflow_at(self) -> int: ...
    @property
    def digests_at(self) -> int: ...
    @property
    def digest(self) -> int: ...
    @property
    def bits_per_weight(self) -> float: ...
    def stretched(self, capacity: int) -> MatrixInfo:
        """The description of any matrix of this shape, layout and number of inline escapes in a buffer of ``capacity``
        bytes: its overflow section counts as the largest that fits. Good for products and for unpacking without a
        verdict."""

    def __repr__(self) -> str: ...

def inspect_packed(header: _BytesLike) -> MatrixInfo:
    """Reads and checks a header, the first 128 bytes; more may follow."""

def pack_bound(dtype: str, rows: int, cols: int, layout: str = "packed", inline_escapes: int = 0) -> int:
    """Upper bound of a packed matrix in bytes; 0 if it leaves 64 bits or the layout does not take the dtype."""

def pack(
    ctx: Context,
    data: _BytesLike,
    dtype: str,
    rows: int,
    cols: int,
    layout: str = "packed",
    inline_escapes: int = 0,
    column_major: bool = False,
    stride: int = 0,
) -> Buffer:
    """``stride``: values from one row (or column) to the next, 0 = dense."""

def unpack_into(
    ctx: Context, packed: _BytesLike, dst: _WritableBytes, column_major: bool = False, stride: int = 0
) -> None: ...

# ---- files and model directories ----
# The options are those of tersor.compress and its siblings, and ``use_mmap`` and ``remove_source``.

def compress(ctx: Context, src: _Path, dst: _Path, **options: Any) -> dict[str, Any]: ...
def decompress(ctx: Context, src: _Path, dst: _Path, **options: Any) -> dict[str, Any]: ...
def verify(ctx: Context, src: _Path, against: _Path | None, **options: Any) -> dict[str, Any]: ...
def inspect_model(src: _Path, **options: Any) -> dict[str, Any]: ...
def default_compressed_path(src: _Path) -> Path: ...
def default_decompressed_path(src: _Path) -> Path: ...

class Analysis:
    """Exponent statistics of model files."""

    def to_json(self) -> str: ...
    def to_html(self, title: str) -> str: ...
    def codebooks_json(self) -> str: ...

def analyze(ctx: Context, sources: Sequence[_Path], **options: Any) -> Analysis: ...
def tensor_type(name: str) -> str:
    """A tensor's name with every run of digits between dots replaced by ``*``."""

def glob_match(pattern: str, name: str) -> bool: ...

# ---- one file ----

class TensorInfo:
    """A tensor of a file: what it is, and where its bytes lie."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def original_bytes(self) -> int: ...
    @property
    def file_offset(self) -> int: ...
    @property
    def stored_bytes(self) -> int: ...
    @property
    def is_stored(self) -> bool:
        """Its bytes stand in the file as they are."""

    @property
    def is_matrix(self) -> bool: ...
    @property
    def coding(self) -> str: ...
    @property
    def digest(self) -> int: ...
    def __repr__(self) -> str: ...

class TensorFile:
    """A safetensors file, plain or compressed, open for reading; for all threads."""

    STORED_STEP: int
    """Pieces of ``read_stored`` begin at multiples of this."""

    def __init__(self, path: _Path, use_mmap: bool = True) -> None: ...
    @property
    def path(self) -> str: ...
    @property
    def is_container(self) -> bool: ...
    @property
    def original_bytes(self) -> int: ...
    def metadata(self) -> dict[str, str]: ...
    def names(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def __contains__(self, name: str) -> bool: ...
    def info(self, name: str) -> TensorInfo: ...
    def read_into(self, ctx: Context, name: str, dst: _WritableBytes) -> None: ...
    def read_rows(self, ctx: Context, name: str, first: int, count: int, dst: _WritableBytes) -> None: ...
    def read_raw(self, name: str, offset: int, dst: _WritableBytes) -> None: ...
    def read_stored(self, ctx: Context, name: str, offset: int, dst: _WritableBytes) -> int:
        """A piece of a stored tensor; its share of the tensor's digest, of which the shares are the sum."""

def save_tensors(
    ctx: Context, tensors: Sequence[_NamedTensor], metadata: Mapping[str, str] | None, dst: _Path, **options: Any
) -> dict[str, int]:
    """Compresses tensors from memory into a file."""

def save_plain(
    tensors: Sequence[_NamedTensor], metadata: Mapping[str, str] | None, dst: _Path, overwrite: bool = False
) -> None:
    """Writes a plain safetensors file."""
