"""SGLang (0.5.23): a HiCache storage backend whose pages are compressed.

`TersorHiCache` is SGLang's file backend with compressed, verified pages, for `--hicache-storage-backend dynamic`;
docs/sglang.md has the command. `compress_backend` does the same to another backend's class. The entry point for SGLang's
plugins is in `sglang_plugin`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import Any

import torch
from sglang.srt.mem_cache.hicache_storage import HiCacheFile, HiCacheStorage, HiCacheStorageConfig

from tersor._errors import DigestMismatchError, Error, MalformedError, TruncatedError, error

from ._blob import HEADER_BYTES, check_codec, decode_blob, encode_blob, read_header, tensor_part

__all__ = ["CompressedPages", "TersorHiCache", "compress_backend"]

logger = logging.getLogger(__name__)
DAMAGE = (DigestMismatchError, MalformedError, TruncatedError)


class CompressedPages:
    """`get` and `set` of a storage backend with blobs below them; to be mixed in before the backend's class.

    That class must store flat uint8 tensors of any size, give back the beginning of an entry when it is asked for fewer
    bytes than the entry has, as HiCacheFile does, and do everything else through `get` and `set`. Pages and targets are
    contiguous tensors on the CPU; none is kept. Thread-safe if the backend is.
    """

    codec = "rank"

    def entry_name(self, key: str) -> str:
        """What a page is bound to: read under another name it is refused."""
        return key

    def forget(self, key: str) -> None:
        """Removes a damaged page, if the backend can. HiCacheStorage has no call for that."""

    def get(self, key: str, target_location: Any = None, target_sizes: Any = None) -> Any:
        """The page, in target_location, whose chunks were all verified there; or None: there is no such page, or it is
        damaged, was stored under another name, or has another dtype or shape. What target_location holds is then
        unspecified, and SGLang computes the page anew. Errors: InvalidArgumentError (no contiguous target on the CPU)."""
        if target_location is None:
            raise error("invalid_argument", "target_location is needed: it says the page's dtype and shape")
        part = tensor_part(target_location)
        backend: Any = super()
        try:
            head = torch.empty(HEADER_BYTES, dtype=torch.uint8)
            if not backend.exists(key) or backend.get(key, head) is None:
                return None
            size = read_header(head.numpy()).n_bytes
            if size > 2 * part.n_bytes + (1 << 16):  # nothing is allocated because a file says so
                raise error("mismatch", f"an entry of {size} bytes for a page of {part.n_bytes}")
            blob = torch.empty(size, dtype=torch.uint8)
            if backend.get(key, blob) is None:
                return None
            decode_blob(blob.numpy(), [part], self.entry_name(key).encode())
        except (Error, OSError) as failure:
            logger.warning("HiCache page %s is not used and will be computed again: %s", key, failure)
            if isinstance(failure, (*DAMAGE, OSError)):
                self.forget(key)
            return None
        return target_location

    def set(self, key: str, value: Any = None, target_location: Any = None, target_sizes: Any = None) -> bool:
        """Stores a tensor's values; whether they are stored now. The tensor may be changed afterwards."""
        backend: Any = super()
        if value is None:
            return False
        try:
            if backend.exists(key):  # reading it marks it as used
                return backend.get(key, torch.empty(HEADER_BYTES, dtype=torch.uint8)) is not None
            blob = encode_blob(self.codec, [tensor_part(value.contiguous())], self.entry_name(key).encode())
        except OSError:
            self.forget(key)
            return False
        except Error:
            logger.exception("HiCache page %s is not stored", key)
            return False
        return bool(backend.set(key, torch.frombuffer(bytearray(blob), dtype=torch.uint8)))


class TersorHiCache(CompressedPages, HiCacheFile):  # type: ignore[misc]
    """SGLang's file backend with compressed pages, all its options included (`file_storage_path`, `max_size`, ...). One
    more in extra_config: `tersor_codec`, "rank" (default), "top16" or "raw". The directory must not hold pages of the plain
    backend: they are taken for strangers and never used. Errors: InvalidArgumentError (unknown codec)."""

    def __init__(self, storage_config: HiCacheStorageConfig, kwargs: Any = None) -> None:
        self.codec = check_codec((storage_config.extra_config or {}).get("tersor_codec", "rank"))
        super().__init__(storage_config)

    def entry_name(self, key: str) -> str:
        return self._get_suffixed_key(key)  # the model and the rank are in it

    def forget(self, key: str) -> None:
        name = self._get_suffixed_key(key)
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(self.file_path, f"{name}.bin"))
        if self.metadata_cache is not None:
            self.metadata_cache.remove(name)
        self._evictor.abort(name)


def compress_backend(base: type[HiCacheStorage], codec: str = "rank") -> type[HiCacheStorage]:
    """A subclass of a storage backend that stores compressed pages; `CompressedPages` says what the backend must do.
    Errors: InvalidArgumentError (unknown codec, not a backend's class)."""
    if not isinstance(base, type) or not issubclass(base, HiCacheStorage):
        raise error("invalid_argument", f"{base!r} is no class of a HiCacheStorage")
    return type(f"Tersor{base.__name__}", (CompressedPages, base), {"codec": check_codec(codec)})
