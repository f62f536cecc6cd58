"""The quantization config: which layer is held packed."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from vllm.model_executor.layers.fused_moe import RoutedExperts
from vllm.model_executor.layers.linear import LinearBase, UnquantizedLinearMethod
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig, QuantizeMethodBase
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

from tersor._errors import error

PACKED_DTYPES = (torch.bfloat16, torch.float16)
MIN_SIDE = 64
_CONTAINER = frozenset(["quant_method", "version", "splice", "replaced", "digest"])


@dataclass(frozen=True)
class Options:
    """What a user can set in `quantization_config`; those of tersor.transformers, and `experts`.

    Attributes:
        exact: multiply by unpacking into scratch memory, which gives the very numbers of the model without Tersor.
        experts: hold the experts of mixture-of-experts layers packed too; else they are decoded when they are loaded.
        include, exclude: shell patterns for names of layers (vLLM's: `model.layers.0.mlp.gate_up_proj`): only these are
            packed, never those.
        inline_escapes: how weights are packed that do not come packed (spec/packed.md; 0: the library's choice).
        verify: compare the digests of matrix frames that are used as they come. Other frames are always checked.
    """

    exact: bool = False
    experts: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    inline_escapes: int = 0
    verify: bool = True

    @staticmethod
    def read(config: dict[str, Any]) -> Options:
        """Raises: tersor.InvalidArgumentError, an unknown option."""
        given = {name: value for name, value in config.items() if name not in _CONTAINER}
        unknown = sorted(set(given) - {f.name for f in fields(Options)})
        if unknown:
            raise error("invalid_argument", f"unknown option in quantization_config: {', '.join(unknown)}")
        return Options(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})

    def with_environment(self) -> Options:
        """The options with those of the environment: TERSOR_VLLM_EXACT=1, TERSOR_VLLM_EXPERTS=1."""
        return replace(
            self,
            exact=self.exact or _is_set("TERSOR_VLLM_EXACT"),
            experts=self.experts or _is_set("TERSOR_VLLM_EXPERTS"),
        )

    def select(self, name: str) -> bool:
        """Whether a layer of this name may be packed."""
        included = not self.include or any(fnmatchcase(name, p) for p in self.include)
        return included and not any(fnmatchcase(name, p) for p in self.exclude)


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "0") not in ("", "0")


class TersorConfig(QuantizationConfig):
    """Holds BF16 and FP16 linear layers and LM heads as matrix frames; everything else as vLLM does without quantization."""

    def __init__(self, options: Options | None = None) -> None:
        """`options`: see `Options`; the environment adds to them."""
        super().__init__()
        self.options = (options or Options()).with_environment()

    def __repr__(self) -> str:
        return f"TersorConfig({self.options})"

    @classmethod
    def get_name(cls) -> str:
        return "tersor"

    @classmethod
    def get_supported_act_dtypes(cls) -> list[torch.dtype]:
        return list(PACKED_DTYPES)

    @classmethod
    def get_min_capability(cls) -> int:
        return 80

    @staticmethod
    def get_config_filenames() -> list[str]:
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TersorConfig:
        """Reads the member `quantization_config` of a config.json, as a compressed directory has it or as a user wrote it.

        Raises:
            tersor.Error: a container of another version, a checkpoint that was quantized before it was compressed, an
                unknown option.
        """
        if config.get("version", 1) != 1:
            raise error("unsupported_version", f"container version {config['version']}")
        if config.get("replaced") not in (None, "", "null", "{}"):
            raise error("unsupported", "the checkpoint was quantized before it was compressed: decompress it for vLLM")
        return cls(Options.read(config))

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> QuantizeMethodBase | None:
        """Returns the method for a layer; None means vLLM's own (embeddings, attention, experts without the option)."""
        from .linear import TersorLinearMethod, TersorLMHeadMethod

        if isinstance(layer, LinearBase):
            return TersorLinearMethod(self.options) if self._packs(layer, prefix) else UnquantizedLinearMethod()
        if isinstance(layer, ParallelLMHead) and self._packs(layer, prefix):
            return TersorLMHeadMethod(self.options)
        if self.options.experts and isinstance(layer, RoutedExperts) and self._holds(layer, prefix):
            from .experts import TersorExpertsMethod, packs_experts

            return TersorExpertsMethod(layer.moe_config, self.options) if packs_experts(layer) else None
        return None

    def _packs(self, layer: torch.nn.Module, prefix: str) -> bool:
        return min(layer.input_size, layer.output_size) >= MIN_SIDE and self._holds(layer, prefix)

    def _holds(self, layer: torch.nn.Module, prefix: str) -> bool:
        # An LM head learns its dtype behind this call, but it is the model's then.
        dtype = getattr(layer, "params_dtype", torch.get_default_dtype())
        return dtype in PACKED_DTYPES and self.options.select(prefix)
