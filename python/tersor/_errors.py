"""One exception class for each error code of the library, all under :class:`Error`.

Codes and names are those of ``include/tersor/error.hpp``; they never change meaning.
"""

from __future__ import annotations


class Error(Exception):
    """A failure of Tersor: what went wrong (``code``, ``name``, ``message``) and where, as far as it is known
    (``file``, ``tensor``, ``byte_offset``, ``chunk``)."""

    code = 0
    name = "error"

    def __init__(
        self,
        message: str,
        file: str | None = None,
        tensor: str | None = None,
        byte_offset: int | None = None,
        chunk: int | None = None,
    ):
        super().__init__(message)
        self.message = message
        self.file = file
        self.tensor = tensor
        self.byte_offset = byte_offset
        self.chunk = chunk

    def __str__(self) -> str:
        place = [self.file or "", f"tensor '{self.tensor}'" if self.tensor else ""]
        place += [f"byte {self.byte_offset}" if self.byte_offset is not None else ""]
        place += [f"chunk {self.chunk}" if self.chunk is not None else ""]
        return ": ".join([*filter(None, place), self.message])

    def __reduce__(self):
        return type(self), (self.message, self.file, self.tensor, self.byte_offset, self.chunk)


class InvalidArgumentError(Error, ValueError):
    """The arguments contradict each other or the documented limits."""


class DestinationTooSmallError(Error, ValueError):
    """The output buffer is smaller than the call needs; nothing was written past it."""


class TruncatedError(Error):
    """The data ends before what it declares."""


class BadMagicError(Error):
    """Not a Tersor frame."""


class UnsupportedVersionError(Error):
    """Intact, but of a format version that this library does not read."""


class MalformedError(Error):
    """A field or section contradicts the format."""


class DigestMismatchError(Error):
    """The data was changed after it was written."""


class UnsupportedError(Error):
    """This build does not know the dtype, codec or level widths."""


class SizeOverflowError(Error, OverflowError):
    """A product of sizes leaves 64 bits."""


class OutOfMemoryError(Error, MemoryError):
    """Memory ran out."""


class IoError(Error, OSError):
    """The operating system refused; the message holds its reason."""


class NotFoundError(Error, FileNotFoundError):
    """There is no such file, directory or tensor."""


class AlreadyExistsError(Error, FileExistsError):
    """The destination exists and overwriting was not asked for."""


class BackendUnavailableError(Error):
    """The named backend is not in this build or not on this machine."""


class CancelledError(Error):
    """The call was cancelled."""


class MismatchError(Error):
    """Two inputs that should be equal differ."""


class WrongKindError(Error):
    """For instance compress of a compressed file, or decompress of a plain one."""


class InternalError(Error):
    """A bug in Tersor."""


_CODES: dict[int, tuple[str, type[Error]]] = {
    1: ("invalid_argument", InvalidArgumentError),
    2: ("destination_too_small", DestinationTooSmallError),
    3: ("truncated", TruncatedError),
    4: ("bad_magic", BadMagicError),
    5: ("unsupported_version", UnsupportedVersionError),
    6: ("malformed", MalformedError),
    7: ("digest_mismatch", DigestMismatchError),
    8: ("unsupported", UnsupportedError),
    9: ("size_overflow", SizeOverflowError),
    10: ("out_of_memory", OutOfMemoryError),
    11: ("io_error", IoError),
    12: ("not_found", NotFoundError),
    13: ("already_exists", AlreadyExistsError),
    14: ("backend_unavailable", BackendUnavailableError),
    15: ("cancelled", CancelledError),
    16: ("mismatch", MismatchError),
    17: ("wrong_kind", WrongKindError),
    18: ("internal", InternalError),
}
for _code, (_name, _class) in _CODES.items():
    _class.code, _class.name = _code, _name
_BY_NAME = {name: cls for name, cls in _CODES.values()}


def from_code(code: int, message: str, **place) -> Error:
    """The exception of a numbered verdict, such as a GPU call writes into its result."""
    return _CODES.get(code, _CODES[18])[1](message, **place)


def error(name: str, message: str, **place) -> Error:
    """The exception of a code's name, to raise from Python."""
    return _BY_NAME[name](message, **place)


def from_core(code, name, message, file, tensor, byte_offset, chunk) -> Error:
    """What the extension module raises."""
    del name
    return from_code(code, message, file=file or None, tensor=tensor or None, byte_offset=byte_offset, chunk=chunk)
