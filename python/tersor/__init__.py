"""Tersor: lossless compression of LLM weights and KV caches.

One tensor::

    frame = tersor.encode(array)            # numpy, torch (CPU), DLPack, bytes
    same = tersor.decode(frame)             # a Buffer with its dtype and shape; tersor.numpy and tersor.torch give arrays

Whole files and model directories::

    tersor.compress("llama-8b", "llama-8b-tersor")
    tersor.verify("llama-8b-tersor", against="llama-8b")
    tersor.decompress("llama-8b-tersor", "again")

``tersor.numpy`` and ``tersor.torch`` read and write tensors of files as the safetensors package does, ``tersor.kv`` codes
KV caches, ``tersor.torch`` has operators and modules that multiply from packed weights, ``tersor.transformers`` and
``tersor.vllm`` plug into these. Every failure is a :class:`tersor.Error`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tersor import _interpreter  # noqa: F401  (first of all: it may refuse)

# isort: split
from tersor import _core
from tersor._core import Buffer, Context, FrameInfo, Histogram, MatrixInfo, backends
from tersor._errors import (
    AlreadyExistsError,
    BackendUnavailableError,
    BadMagicError,
    CancelledError,
    DestinationTooSmallError,
    DigestMismatchError,
    Error,
    InternalError,
    InvalidArgumentError,
    IoError,
    MalformedError,
    MismatchError,
    NotFoundError,
    OutOfMemoryError,
    SizeOverflowError,
    TruncatedError,
    UnsupportedError,
    UnsupportedVersionError,
    WrongKindError,
)

__version__ = _core.VERSION

__all__ = [
    "AlreadyExistsError", "BackendUnavailableError", "BadMagicError", "Buffer", "CancelledError", "Context", "Decoded",
    "DestinationTooSmallError", "DigestMismatchError", "Error", "FrameInfo", "Histogram", "InternalError",
    "InvalidArgumentError", "IoError", "MalformedError", "MatrixInfo", "MismatchError", "NotFoundError",
    "OutOfMemoryError", "SizeOverflowError", "TruncatedError", "UnsupportedError", "UnsupportedVersionError",
    "WrongKindError", "analyze_files", "backends", "calibrate_files", "compress", "decode", "decompress",
    "default_context", "encode", "inspect", "inspect_files", "kind", "pack_model", "verify",
]  # fmt: skip

Progress = Callable[[int, int, str], Any]

_lock = threading.Lock()
_context: tuple[int, Context] | None = None


def default_context() -> Context:
    """The process's context: all cores it may use, the fastest instruction set. A child of fork gets a new one, since
    threads do not survive a fork."""
    global _context
    with _lock:
        if _context is None or _context[0] != os.getpid():
            if _context is not None:
                _abandoned.append(_context)  # its threads are gone: destroying it would wait for them
            _context = (os.getpid(), Context())
        return _context[1]


_abandoned: list[tuple[int, Context]] = []


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


class Decoded(NamedTuple):
    """A decoded tensor: its bytes, row-major, and what they mean (safetensors' dtype name)."""

    data: Buffer
    dtype: str
    shape: tuple[int, ...]


def encode(
    x: Any,
    *,
    codec: str = "rank",
    codebook: bytes | None = None,
    dtype: str | None = None,
    shape: Sequence[int] | None = None,
    raw_fallback: bool = True,
    context: Context | None = None,
) -> Buffer:
    """Encodes an array on the CPU into one frame, which holds its dtype and shape.

    ``dtype`` and ``shape`` are for plain bytes. ``codebook``: 16 exponents, else the tensor's own. Errors: UnsupportedError
    (dtype; with ``raw_fallback`` off also one without a coded exponent), InvalidArgumentError."""
    from tersor import _arrays

    data, found, sizes = _arrays.as_bytes(x)
    if dtype is not None:
        size = _arrays.VALUE_BYTES.get(dtype, 1)
        if shape is None and len(data) % size:
            raise InvalidArgumentError(f"{len(data)} bytes are not whole values of {dtype}")
        found, sizes = dtype, (len(data) // size,)
    return _core.encode(
        context or default_context(), data, found, sizes if shape is None else shape, codec, codebook, raw_fallback
    )


def decode(frame: Any, *, context: Context | None = None) -> Decoded:
    """Decodes one frame; every digest is compared. Errors: BadMagicError, TruncatedError, MalformedError,
    DigestMismatchError (with the chunk), UnsupportedVersionError, UnsupportedError."""
    return Decoded(*_core.decode(context or default_context(), frame))


def inspect(frame: Any) -> FrameInfo | MatrixInfo:
    """What the header of a frame or of a packed matrix says, after its digests were checked."""
    return _core.inspect_packed(frame) if kind(frame) == "matrix" else _core.inspect(frame)


def kind(data: Any) -> str:
    """``"frame"`` or ``"matrix"``, told by the magic. Errors: BadMagicError."""
    from tersor import _arrays

    magic = bytes(_arrays.as_bytes(data)[0][:8])
    if magic == b"\x89TERSOR\n":
        return "frame"
    if magic[:4] == b"TSRM":
        return "matrix"
    raise BadMagicError("neither a frame nor a packed matrix")


def _globs(given: Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def compress(
    src: str | os.PathLike,
    dst: str | os.PathLike | None = None,
    *,
    codec: str = "rank",
    packing: str | None = None,
    inline_escapes: int = 0,
    codebooks: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    overwrite: bool = False,
    verify: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
    context: Context | None = None,
) -> dict:
    """Compresses a .safetensors file or a model directory; returns the report (docs/json.md).

    ``dst``: ``DIR-tersor`` or ``NAME.tersor.safetensors`` if it is not given. ``packing``: "packed" or "tcatbe" puts
    2-D weights into the layout that a GPU multiplies from. ``codebooks``: JSON text of ``calibrate_files``. ``progress``
    is called with (bytes done, bytes in all, file); an exception in it, or Ctrl-C, stops the call and leaves nothing behind.
    Errors: NotFoundError, AlreadyExistsError, WrongKindError, IoError, MalformedError (not a safetensors file)."""
    return _core.compress(
        context or default_context(), src, dst or _core.default_compressed_path(src), codec=codec, packing=packing,
        inline_escapes=inline_escapes, codebooks=codebooks, include=_globs(include), exclude=_globs(exclude),
        overwrite=overwrite, verify=verify, dry_run=dry_run, progress=progress,
    )  # fmt: skip


def pack_model(src: str | os.PathLike, dst: str | os.PathLike | None = None, **options: Any) -> dict:
    """``compress`` into what engines load: packed matrices, all other tensors as they are (``codec="raw"``)."""
    return compress(src, dst, **{"codec": "raw", "packing": "packed", **options})


def decompress(
    src: str | os.PathLike,
    dst: str | os.PathLike | None = None,
    *,
    overwrite: bool = False,
    verify: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
    context: Context | None = None,
) -> dict:
    """The inverse of ``compress``, byte for byte; every digest is compared before the output gets its name."""
    return _core.decompress(
        context or default_context(), src, dst or _core.default_decompressed_path(src), overwrite=overwrite,
        verify=verify, dry_run=dry_run, progress=progress,
    )  # fmt: skip


def verify(
    src: str | os.PathLike,
    against: str | os.PathLike | None = None,
    *,
    progress: Progress | None = None,
    context: Context | None = None,
) -> dict:
    """Decodes everything in memory and compares every digest, and with ``against`` every byte of that original.
    Returns the report. Errors: DigestMismatchError, MismatchError, ... with file and tensor."""
    return _core.verify(context or default_context(), src, against, progress=progress)


def inspect_files(src: str | os.PathLike, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> dict:
    """The tensors of a plain or compressed file or directory; reads headers and indexes only. Globs choose the tensors that
    are listed; the sizes are those of whole files."""
    takes, leaves = _globs(include), _globs(exclude)

    def listed(name: str) -> bool:
        taken = not takes or any(_core.glob_match(glob, name) for glob in takes)
        return taken and not any(_core.glob_match(glob, name) for glob in leaves)

    report = _core.inspect_model(src)
    for file in report["files"]:
        file["tensors"] = [tensor for tensor in file["tensors"] if listed(tensor["name"])]
    return report


def _analysis(sources: Any, include: Sequence[str], exclude: Sequence[str], context: Context | None):
    paths = [sources] if isinstance(sources, (str, os.PathLike)) else list(sources)
    return _core.analyze(context or default_context(), paths, include=_globs(include), exclude=_globs(exclude))


def analyze_files(
    sources: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    html: str | os.PathLike | None = None,
    context: Context | None = None,
) -> dict:
    """Counts the exponents of files or directories, plain or compressed; returns the document of docs/json.md
    ("analyze"). ``html``: also writes the report page there."""
    import json

    found = _analysis(sources, include, exclude, context)
    if html is not None:
        with open(html, "w", encoding="utf-8") as page:
            page.write(found.to_html(str(sources if isinstance(sources, (str, os.PathLike)) else sources[0])))
    return json.loads(found.to_json())


def calibrate_files(
    sources: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    context: Context | None = None,
) -> str:
    """Codebooks by tensor, tensor type and dtype, as JSON text for ``compress(codebooks=...)``."""
    return _analysis(sources, include, exclude, context).codebooks_json()
