"""KV caches: `Codec` for tensors, `PagedCodec` for the paged caches of serving engines.

    codec = tersor.kv.Codec()
    coverage = codec.calibrate(sample)
    encoded = codec.encode(x)              # numpy, torch on the CPU or a GPU, any DLPack array
    same = codec.decode(encoded)           # same bits, dtype, shape and kind of array

`Codec` takes the calls of SplitZip's; docs/from-splitzip.md says what differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .codec import Codec, Decoding
from .encoded import Encoded
from .pages import EncodedPages

if TYPE_CHECKING:
    from .paged import PagedCodec, PageDecoding

__all__ = ["Codec", "Decoding", "Encoded", "EncodedPages", "PageDecoding", "PagedCodec"]


def __getattr__(name: str) -> Any:
    # PagedCodec needs torch; Codec does not.
    if name in ("PagedCodec", "PageDecoding"):
        from . import paged

        return getattr(paged, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
