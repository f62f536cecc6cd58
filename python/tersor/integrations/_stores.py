"""Where compressed chunks lie: in memory or in a directory."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from tersor._errors import error


class BlobStore(Protocol):
    """Blobs by key. Calls come from several threads."""

    def has(self, key: bytes) -> bool: ...
    def get(self, key: bytes) -> bytes | None: ...
    def put(self, key: bytes, blob: bytes) -> None: ...
    def forget(self, key: bytes) -> None: ...


class MemoryStore:
    """Up to max_bytes in memory; the longest unused blobs go first. Errors: InvalidArgumentError."""

    def __init__(self, max_bytes: int) -> None:
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes <= 0:
            raise error("invalid_argument", f"max_bytes is a number of bytes, not {max_bytes!r}")
        self._left = max_bytes
        self._blobs: OrderedDict[bytes, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def has(self, key: bytes) -> bool:
        with self._lock:
            return key in self._blobs

    def get(self, key: bytes) -> bytes | None:
        with self._lock:
            if key in self._blobs:
                self._blobs.move_to_end(key)
            return self._blobs.get(key)

    def put(self, key: bytes, blob: bytes) -> None:
        with self._lock:
            self._left += len(self._blobs.pop(key, b""))
            self._blobs[key] = blob
            self._left -= len(blob)
            while self._left < 0:
                self._left += len(self._blobs.popitem(last=False)[1])

    def forget(self, key: bytes) -> None:
        with self._lock:
            self._left += len(self._blobs.pop(key, b""))


class FolderStore:
    """A file for each blob, complete or not there. `path_of`: its path, by key. Nothing is ever removed to make room."""

    def __init__(self, path_of: Callable[[Any], str]) -> None:
        self._path_of = path_of

    def has(self, key: bytes) -> bool:
        return os.path.isfile(self._path_of(key))

    def get(self, key: bytes) -> bytes | None:
        try:
            with open(self._path_of(key), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def put(self, key: bytes, blob: bytes) -> None:
        path = self._path_of(key)
        part = f"{path}.{os.getpid()}.{threading.get_ident()}.tmp"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            with open(part, "wb") as file:
                file.write(blob)
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise

    def forget(self, key: bytes) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._path_of(key))
