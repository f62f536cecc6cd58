"""Transformers runs models from Tersor's compressed weights.

Importing this module registers the quantizer ``"tersor"``. Then

    # a directory that `tersor pack` or `tersor compress` made
    AutoModelForCausalLM.from_pretrained("MODEL-tersor")
    # a plain one, packed as it is loaded
    AutoModelForCausalLM.from_pretrained("MODEL", quantization_config=TersorConfig())

give models whose linear layers are `tersor.torch.Linear`. Nothing is quantized: every weight keeps all its bits.
docs/transformers.md has the rest.
"""

from __future__ import annotations

import transformers.quantizers.auto as _auto

from tersor.transformers.config import TersorConfig
from tersor.transformers.quantizer import TersorHfQuantizer
from tersor.transformers.saving import install as install_saving

__all__ = ["TersorConfig", "TersorHfQuantizer"]


def _register() -> None:
    if "tersor" not in _auto.AUTO_QUANTIZATION_CONFIG_MAPPING:
        _auto.register_quantization_config("tersor")(TersorConfig)
    if "tersor" not in _auto.AUTO_QUANTIZER_MAPPING:
        _auto.register_quantizer("tersor")(TersorHfQuantizer)
    install_saving()
    # There is no call for it, and without it a TersorConfig(exact=True) would be ignored for a directory that is
    # already compressed.
    loading = getattr(_auto, "LOADING_ATTRIBUTES_CONFIG_TYPES", ())
    if not any(issubclass(TersorConfig, known) for known in loading):
        _auto.LOADING_ATTRIBUTES_CONFIG_TYPES = (*loading, TersorConfig)


_register()
