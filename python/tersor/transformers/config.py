"""What the user may choose, and what a compressed directory's config.json says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers.utils.quantization_config import QuantizationConfigMixin

from tersor._errors import error

CONTAINER_VERSION = 1


class TersorConfig(QuantizationConfigMixin):
    """Settings of the quantizer "tersor".

    exact: layers unpack into scratch memory and call the library's own product, so results are bit-identical to the
        plain model's. Otherwise a GPU multiplies from the packed weights: the same weights, but sums in another order.
    include, exclude: shell patterns of modules' names ("lm_head", "model.layers.*.mlp.*"). With `include`, only these
        are kept packed; what `exclude` names never is. All others are loaded as plain tensors.
    fuse: Q, K and V projections, and gate and up projections, become one product each after loading: faster for few
        tokens (see tersor.torch.compress_module).
    inline_escapes: for weights that do not come packed, see spec/packed.md (0: the library's choice).
    verify: check the digests of packed weights and of stored tensors while loading. Other frames are always checked,
        because decoding does it.

    version, splice, replaced, digest are the container's own fields (spec/container.md); leave them alone.
    """

    def __init__(
        self,
        *,
        exact: bool = False,
        fuse: bool = False,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        inline_escapes: int = 0,
        verify: bool = True,
        version: int | None = None,
        splice: str | None = None,
        replaced: str | None = None,
        digest: str | None = None,
        quant_method: str = "tersor",
    ) -> None:
        if quant_method != "tersor":
            raise error("invalid_argument", f"quant_method is {quant_method!r}, not 'tersor'")
        if inline_escapes not in (0, *range(8, 1025, 8)):
            raise error("invalid_argument", f"inline_escapes is {inline_escapes!r}, not a multiple of 8 up to 1024")
        if version is not None and version != CONTAINER_VERSION:
            raise error(
                "unsupported_version",
                f"the directory is a container of version {version}; this library reads {CONTAINER_VERSION}",
            )
        self.quant_method = quant_method
        self.exact = bool(exact)
        self.fuse = bool(fuse)
        self.include = _patterns(include)
        self.exclude = _patterns(exclude)
        self.inline_escapes = inline_escapes
        self.verify = bool(verify)
        self.version = version
        self.splice = splice
        self.replaced = replaced
        self.digest = digest

    def get_loading_attributes(self) -> dict[str, Any]:
        """The fields that a call of from_pretrained may set for a directory that is already compressed."""
        return {
            name: getattr(self, name) for name in ("exact", "fuse", "include", "exclude", "inline_escapes", "verify")
        }

    def to_dict(self) -> dict[str, Any]:
        """All fields, without those of the container that are not set."""
        return {name: value for name, value in super().to_dict().items() if value is not None}


def _patterns(patterns: Sequence[str]) -> list[str]:
    return [patterns] if isinstance(patterns, str) else list(patterns)
