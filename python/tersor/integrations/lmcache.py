"""LMCache serde: `"serde": {"type": "tersor"}` on an L2 adapter compresses what the adapter stores. For LMCache 0.5.6.

LMCache has no entry points for serdes. Three ways to make it known: `TersorFSAdapter` as a plugin adapter, which registers
the serde when it is made; `python -m tersor.integrations.lmcache server ...`, which registers it and takes the arguments of
`lmcache server ...`; `register()` in a program that embeds LMCache, before it makes a StorageManager.

The serde needs an adapter that gives back objects shorter than the buffer. LMCache's "fs" does not (it calls them incomplete
reads, so every load would be a miss); `TersorFSAdapter` is the same adapter, and does.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lmcache.lmcache_native import Bitmap
from lmcache.v1.distributed.l2_adapters.fs_l2_adapter import FSL2Adapter, FSL2AdapterConfig
from lmcache.v1.distributed.serde import AsyncSerdeProcessor, Deserializer, SerdeProcessor, Serializer
from lmcache.v1.distributed.serde.factory import get_registered_serde_types, register_serde_factory

from tersor._arrays import VALUE_BYTES, dtype_of_torch
from tersor._errors import error

from ._blob import Part, blob_bound, check_codec, decode_blob, encode_blob_into

__all__ = [
    "TersorDeserializer",
    "TersorFSAdapter",
    "TersorFSAdapterConfig",
    "TersorSerializer",
    "create_serde",
    "main",
    "register",
]

NAME = "tersor"
logger = logging.getLogger(__name__)


class TersorSerializer(Serializer):
    """Encodes an object's tensors, one frame for each of its groups. Keeps nothing of its arguments. May be shared by
    threads. `codec`: "rank", "top16" or "raw" (digests only). Errors: InvalidArgumentError."""

    def __init__(self, codec: str = "rank") -> None:
        self._codec = check_codec(codec)

    def serialize(self, src: Any, dst: Any, key: Any) -> int:
        """Writes src's blob to dst and gives its size; LMCache narrows dst to it. Errors: UnsupportedError (dtype),
        DestinationTooSmallError (dst is smaller than `estimate_serialized_size` said)."""
        return encode_blob_into(self._codec, _parts(src), key_bytes(key), _bytes(dst))

    def estimate_serialized_size(self, layout_desc: Any) -> int:
        """An upper bound for every content. Errors: UnsupportedError (dtype), SizeOverflowError."""
        layout = zip(layout_desc.dtypes, layout_desc.shapes, strict=True)
        return blob_bound(self._codec, [(dtype_of_torch(dtype), tuple(shape)) for dtype, shape in layout])


class TersorDeserializer(Deserializer):
    """Decodes what `TersorSerializer` wrote with any codec, and verifies it in dst's own memory. May be shared."""

    def deserialize(self, src: Any, dst: Any, key: Any) -> None:
        """Errors: `tersor.Error`, if src is damaged, was written under another key, or holds other dtypes or shapes than
        dst has. dst's content is then unspecified; LMCache reports a miss and releases it."""
        decode_blob(_bytes(src), _parts(dst), key_bytes(key))


def key_bytes(key: Any) -> bytes:
    """All fields of an ObjectKey, unambiguously: an entry read under another key is refused."""
    model, salt = key.model_name.encode(), key.cache_salt.encode()
    fields = (len(key.chunk_hash), len(model), len(salt), key.kv_rank & (2**64 - 1), key.object_group_id)
    return struct.pack("<IIIQQ", *fields) + key.chunk_hash + model + salt


def create_serde(options: Mapping[str, object]) -> SerdeProcessor:
    """The factory. Options: `codec` (default "rank"), `max_workers` (default 1; a call uses all cores by itself).
    Errors: InvalidArgumentError (unknown option or value); it is a ValueError, as LMCache expects."""
    unknown = sorted(set(options) - {"codec", "max_workers"})
    if unknown:
        raise error("invalid_argument", f"unknown options of the serde {NAME}: {', '.join(unknown)}")
    workers = options.get("max_workers", 1)
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise error("invalid_argument", f"max_workers is a number of threads, not {workers!r}")
    serializer = TersorSerializer(check_codec(options.get("codec", "rank")))
    return AsyncSerdeProcessor(serializer, TersorDeserializer(), max_workers=workers)


def register() -> None:
    """Makes the serde known in this process. Calling it again changes nothing."""
    if NAME not in get_registered_serde_types():
        register_serde_factory(NAME, create_serde)


class TersorFSAdapterConfig(FSL2AdapterConfig):
    """The fields of LMCache's "fs" adapter. Errors: ValueError (`use_odirect`: blobs are not multiples of a block)."""

    @classmethod
    def from_dict(cls, d: dict) -> TersorFSAdapterConfig:
        if d.get("use_odirect") or d.get("read_ahead_size"):
            raise error("invalid_argument", "TersorFSAdapter has neither use_odirect nor read_ahead_size")
        config = super().from_dict(d)
        assert isinstance(config, cls)
        return config


class TersorFSAdapter(FSL2Adapter):
    """LMCache's "fs" adapter for objects of any size up to their buffer's: `"type": "plugin"`. With a serde a
    file may be shorter than the buffer; the serde finds out whether it is complete. Without one it must have its size."""

    def __init__(self, config: TersorFSAdapterConfig, **_: Any) -> None:
        register()
        super().__init__(config)

    async def _execute_load(self, keys: list, objects: list, task_id: int) -> None:
        bitmap = Bitmap(len(keys))
        for i, (key, obj) in enumerate(zip(keys, objects, strict=True)):
            try:
                path = self._key_to_path(key)
                if await asyncio.get_running_loop().run_in_executor(None, _read_file, path, obj):
                    bitmap.set(i)
            except FileNotFoundError:
                continue
            except (OSError, ValueError):
                logger.exception("reading %s failed", key)
        found = [keys[i] for i in bitmap.get_indices_list()]
        if found:
            self._notify_keys_accessed(found)
        with self._lock:
            self._completed_load_tasks[task_id] = bitmap
        self._load_efd.notify()


def main(arguments: list[str] | None = None) -> None:
    """LMCache's command line, with the serde registered."""
    register()
    from lmcache.cli.main import main as lmcache_main

    lmcache_main(arguments)


def _read_file(path: Path, obj: Any) -> bool:
    """Whether obj now holds the whole file. A shorter file narrows obj to its size, if obj is a serde's buffer."""
    into = _bytes(obj)
    with open(path, "rb", buffering=0) as file:
        at = 0
        while at < len(into) and (n := file.readinto(into[at:])):
            at += n
        if file.read(1):
            return False
    if at < len(into):
        if at == 0 or obj.get_dtypes() != [torch.uint8]:
            return False
        obj.set_used_size(at)
    return True


def _bytes(obj: Any) -> memoryview:
    # The view's format is "<B", which cannot be assigned to.
    return memoryview(obj.byte_array).cast("B")


def _parts(obj: Any) -> list[Part]:
    """Views of an object's groups. Groups need not begin at a multiple of their dtype's size, so bytes are cut here."""
    data = _bytes(obj)
    parts: list[Part] = []
    at = 0
    for dtype, shape in zip(obj.get_dtypes(), obj.get_shapes(), strict=True):
        name = dtype_of_torch(dtype)
        size = VALUE_BYTES[name]
        for dimension in shape:
            size *= int(dimension)
        parts.append(Part(data[at : at + size], name, tuple(int(dimension) for dimension in shape)))
        at += size
    if at != len(data):
        raise error("mismatch", f"the object has {len(data)} bytes, its layout {at}")
    return parts


if __name__ == "__main__":
    main()
