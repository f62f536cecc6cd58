"""The quantizer "tersor": hooks of Transformers' loading and saving."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.quantizers.base import HfQuantizer
from transformers.utils import logging

from tersor._errors import error
from tersor.torch import Experts, Linear
from tersor.torch.fused import Part, merge_packed_siblings
from tersor.torch.modules import replace
from tersor.transformers.checkpoint import is_container, read_entries
from tersor.transformers.config import TersorConfig
from tersor.transformers.converters import decoding_converters, used_conversions
from tersor.transformers.eligible import PACKABLE_DTYPES
from tersor.transformers.experts import restore_experts
from tersor.transformers.loading import Loader
from tersor.transformers.saving import mark, plain_state_dict

logger = logging.get_logger(__name__)


class TersorHfQuantizer(HfQuantizer):
    """Loads compressed directories, packs plain ones while they are loaded, and writes models back. Nothing is
    rounded anywhere."""

    quantization_config: TersorConfig
    requires_calibration = False

    def __init__(self, quantization_config: TersorConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self._loader: Loader | None = None
        self._conversions: tuple[list, list] | None = None

    def validate_environment(self, *args: Any, device_map: Any = None, **kwargs: Any) -> None:
        """Raises UnsupportedError where the directory or the device map asks for what the quantizer cannot do."""
        if self.quantization_config.replaced:
            raise error(
                "unsupported",
                "the original model was quantized by another method, which cannot run from frames: decompress it first",
            )
        if isinstance(device_map, dict) and "disk" in device_map.values():
            raise error("unsupported", "weights cannot be left on disk (device_map)")

    def param_element_size(self, model: nn.Module, param_name: str, param: torch.Tensor) -> float:
        return param.element_size() if self._loader is None else self._loader.element_size(param_name, param)

    def _process_model_before_weight_loading(
        self,
        model: nn.Module,
        dtype: torch.dtype | None = None,
        checkpoint_files: list[str] | None = None,
        **kwargs: Any,
    ) -> nn.Module:
        if getattr(model.config, "distributed_config", None) is not None:
            raise error("unsupported", "a frame cannot be sharded over devices (tensor parallelism)")
        files = checkpoint_files or []
        if not self.pre_quantized and any(is_container(file) for file in files):
            raise error(
                "wrong_kind",
                "the weights are compressed, but the config.json given does not say so",
                file=str(files[0]),
            )
        dtype = dtype or model.dtype
        self._loader = Loader(model, self.quantization_config, dtype, read_entries(files) if self.pre_quantized else {})
        if dtype not in PACKABLE_DTYPES:
            logger.warning(
                f"Tersor keeps BF16 and FP16 weights packed; in {dtype} all weights are loaded as plain tensors."
            )
        return model

    def update_weight_conversions(self, weight_conversions: list) -> list:
        # Also called when saving falls back on the model's own conversions, and for adapters: there is nothing to
        # decode then.
        if self._loader is None:
            return weight_conversions
        loading = decoding_converters(weight_conversions, self._loader)
        self._conversions = (weight_conversions, loading)
        return loading

    def _process_model_after_weight_loading(self, model: nn.Module, **kwargs: Any) -> nn.Module:
        if self._loader is not None:
            self._loader.settle()
            self._loader.close()
        if self._conversions is not None:
            model._weight_conversions = used_conversions(*self._conversions)
        self._loader = self._conversions = None
        if self.quantization_config.fuse:
            merge_packed_siblings(model)
        mark(model, packed=True)
        return model

    def get_state_dict_and_metadata(self, model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        return plain_state_dict(model), {}

    def _dequantize(self, model: nn.Module, dtype: torch.dtype | str | None = None) -> nn.Module:
        for path, module in list(model.named_modules()):
            if isinstance(module, Part) or (isinstance(module, Linear) and not path.endswith(".together.merged")):
                replace(model, path, module.dequantize())
            elif isinstance(module, Experts):
                restore_experts(model, path, module)
        mark(model, packed=False)
        if isinstance(dtype, str):  # as the config has it after saving
            dtype = getattr(torch, dtype)
        # Not without need: it would round buffers that are FP32 in a plain model too, such as rotary frequencies.
        return model if dtype in (None, model.dtype) else nn.Module.to(model, dtype)

    def is_serializable(self, safe_serialization: bool | None = None) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False

    @property
    def is_compileable(self) -> bool:
        return True
