"""Errors by the names that the library's stable codes have."""

DATA_ERRORS = ("truncated", "bad_magic", "unsupported_version", "malformed", "digest_mismatch",
               "unsupported", "size_overflow", "mismatch", "wrong_kind")


class TersorError(Exception):
    """`code` is a stable name, e.g. "digest_mismatch"."""

    def __init__(self, code, message, chunk=None):
        super().__init__(message)
        self.code = code
        self.chunk = chunk

    def __str__(self):
        place = "" if self.chunk is None else f"chunk {self.chunk}: "
        return f"{self.code}: {place}{self.args[0]}"


def require(condition, message, code="malformed", chunk=None):
    if not condition:
        raise TersorError(code, message, chunk)
