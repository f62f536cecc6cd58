"""What a request consists of, and what two ends agree on."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from .. import _arrays
from .._errors import error

KINDS = ("K", "V", "other")
#: A chunk of the frame format: what has a digest of its own, and is coded by itself.
CHUNK_VALUES = 8192

_LAYER = re.compile(r"(?:^|[._/])(?:layers?|blocks?|h)[._/]?(\d+)(?=$|[._/])")
_NUMBER = re.compile(r"(?:^|[._/])(\d+)(?=$|[._/])")
_TOKEN = re.compile(r"[./]")
_KEYS = {"k", "key", "keys", "k_cache", "key_cache"}
_VALUES = {"v", "value", "values", "v_cache", "value_cache"}


class Timeouts(NamedTuple):
    """Seconds. ``message``: for all of a message once it has begun, and for any wait for the peer; ``idle``: between
    messages of a peer that owes nothing."""

    connect: float = 5.0
    handshake: float = 5.0
    message: float = 30.0
    idle: float = 120.0


@dataclass(frozen=True)
class Geometry:
    """What both ends must mean by the bytes. A field that is empty or 0 is not said; a receiver refuses a sender that does
    not say, or says otherwise, what the receiver says, and names the field.

    ``dtype``: safetensors name of K and V. ``codebooks``: 16 bytes each, for K of layer 0, V of layer 0, K of layer 1, ...;
    only their digests travel."""

    model: str = ""
    revision: str = ""
    layout: str = ""
    dtype: str | None = None
    n_layers: int = 0
    block_size: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    codebooks: Sequence[bytes] = ()

    def as_options(self) -> dict[str, Any]:
        return {**asdict(self), "codebooks": list(self.codebooks)}


class Region(NamedTuple):
    """One tensor of a request, e.g. K of a layer: whole pages of ``page_bytes``, the last one possibly shorter. A part is
    whole pages. ``codebook``: 16 exponents for its parts; None lets the sender count its own."""

    name: str
    layer: int
    kind: str
    dtype: str
    shape: tuple[int, ...]
    page_bytes: int = 0
    codebook: bytes | None = None

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * _arrays.VALUE_BYTES.get(self.dtype, 1)


def layer_of(name: str) -> int:
    """The layer that a name like "layers.3.k" or "model.layers.3.self_attn.v" tells; 0 where it tells none."""
    found = _LAYER.search(name) or _NUMBER.search(name)
    return int(found[1]) if found and len(found[1]) < 10 else 0


def kind_of(name: str) -> str:
    """K, V or other, from the last part of a name that tells."""
    for token in reversed(_TOKEN.split(name.lower())):
        if token in _KEYS:
            return "K"
        if token in _VALUES:
            return "V"
    return "other"


class Naming(NamedTuple):
    """How names become regions: what was given comes before what a name tells."""

    page_bytes: int | None = None
    layers: Mapping[str, int] | None = None
    kinds: Mapping[str, str] | None = None
    codebooks: Mapping[str, bytes] | None = None
    #: of the geometry, two a layer
    agreed: Sequence[bytes] = ()

    def region(self, name: str, dtype: str, shape: Iterable[int]) -> Region:
        if not isinstance(name, str):
            raise error("invalid_argument", f"a name is a string, not {type(name).__name__}")
        if dtype not in _arrays.VALUE_BYTES:
            raise error("unsupported", f"no dtype of Tersor for {dtype}", tensor=name)
        value_bytes = _arrays.VALUE_BYTES[dtype]
        page_bytes = CHUNK_VALUES * value_bytes if self.page_bytes is None else self.page_bytes
        layer = (self.layers or {}).get(name)
        kind = (self.kinds or {}).get(name)
        if kind is not None and kind not in KINDS:
            raise error("invalid_argument", f"unknown kind {kind!r}: {', '.join(KINDS)} are known", tensor=name)
        layer = layer_of(name) if layer is None else int(layer)
        kind = kind or kind_of(name)
        book = (self.codebooks or {}).get(name)
        place = 2 * layer + KINDS.index(kind)
        if book is None and kind != "other" and place < len(self.agreed):
            book = self.agreed[place]
        return Region(name, layer, kind, dtype, tuple(int(size) for size in shape), page_bytes, book)


def dtype_name(dtype: Any) -> str:
    """The safetensors name of a name, a torch dtype or a numpy dtype."""
    if isinstance(dtype, str) and dtype in _arrays.VALUE_BYTES:
        return dtype
    if str(dtype).startswith("torch."):
        return _arrays.dtype_of_torch(dtype)
    import numpy

    try:
        return _arrays.dtype_of_numpy(numpy.dtype(dtype))
    except TypeError:
        raise error("unsupported", f"no dtype of Tersor for {dtype!r}") from None


def common_options(
    geometry: Geometry | None,
    psk: bytes | None,
    tenant: str,
    tls: tuple[Any, Any, Any] | None,
    transport: str,
    timeouts: Timeouts | None,
) -> dict[str, Any]:
    """The options that both ends have, as the extension takes them."""
    options: dict[str, Any] = {"tenant": tenant, "transport": transport}
    if geometry is not None:
        options["geometry"] = geometry.as_options()
    if psk is not None:
        options["psk"] = bytes(psk)
    if tls is not None:
        options["tls"] = tuple(str(path) for path in tls)
    if timeouts is not None:
        options["timeouts"] = Timeouts(*timeouts)._asdict()
    return options
