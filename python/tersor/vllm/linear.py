"""Linear layers and LM heads that hold a matrix frame in place of BF16.

vLLM's layer-wise processing (made for online quantization) creates the weight without memory, collects what the
checkpoint has for the layer, and as soon as all of it has arrived allocates the layer, runs its weight loaders and calls
`process_weights_after_loading`, which packs and frees the BF16. So one layer at a time is held unpacked, never the model.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from vllm.model_executor.layers.linear import LinearMethodBase, UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod
from vllm.model_executor.model_loader.reload.layerwise import get_layerwise_info, initialize_online_processing
from vllm.model_executor.parameter import ModelWeightParameter
from vllm.model_executor.utils import replace_parameter

from tersor.torch import PackedWeight
from tersor.torch.packed import capacity_of, in_room

from .coded import CodedTensor
from .config import Options

_DONE = "_already_called_process_weights_after_loading"  # vLLM clears this attribute before it loads a layer again.


def _load(layer: torch.nn.Module, param: torch.Tensor, loaded_weight: torch.Tensor, *shard: Any, **kwargs: Any) -> Any:
    """The layer's own weight loader, but a matrix frame that is the whole weight is kept instead of decoded."""
    whole = (
        isinstance(loaded_weight, CodedTensor)
        and isinstance(layer.quant_method, TersorLinearMethod)
        and loaded_weight.frame.layout == "packed"
        and not loaded_weight.views
        and loaded_weight.shape == param.shape
        and loaded_weight.dtype == param.dtype
        and all(s is None for s in (*shard, *kwargs.values()))
    )
    if not whole:
        return layer.tersor_loader(param, loaded_weight, *shard, **kwargs)
    if param.is_meta:
        param.data.copy_(loaded_weight)  # Counted by vLLM, decoded by nobody.
    else:
        layer.tersor_frame = loaded_weight.frame
    return None


class TersorLinearMethod(LinearMethodBase):
    """Keeps the weight of a linear layer packed."""

    uses_meta_device = True

    def __init__(self, options: Options) -> None:
        self.options = options

    def create_weights(
        self,
        layer: torch.nn.Module,
        input_size_per_partition: int,
        output_partition_sizes: list[int],
        input_size: int,
        output_size: int,
        params_dtype: torch.dtype,
        **extra_weight_attrs: Any,
    ) -> None:
        """Registers `weight` of [sum(output_partition_sizes), input_size_per_partition] without memory."""
        rows = sum(output_partition_sizes)
        layer.tersor_loader = extra_weight_attrs["weight_loader"]
        weight = ModelWeightParameter(
            data=torch.empty(rows, input_size_per_partition, dtype=params_dtype, device="meta"),
            input_dim=1,
            output_dim=0,
            # A bound method, because vLLM cuts its reference to the layer where it stores the parameter's description.
            weight_loader=MethodType(_load, layer),
        )
        layer.register_parameter("weight", weight)
        initialize_online_processing(layer)

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """Packs the loaded weight on the device it is on; a weight that packing does not make smaller stays as it is."""
        if getattr(layer, _DONE, False):
            return
        frame = layer.__dict__.pop("tersor_frame", None)
        weight = layer.weight.data
        if frame is not None:
            packed = frame.packed(weight.device, self.options.verify)
        elif weight.dim() == 2:
            packed = PackedWeight.pack(weight, inline_escapes=self.options.inline_escapes)
        else:
            packed = None
        # Equal layers have buffers of equal size, so that they share compiled graphs.
        capacity = weight.nbytes if packed is None else capacity_of(packed.info)
        if capacity >= weight.nbytes:
            if frame is not None:
                weight.copy_(frame.decode(weight.device))
            layer.quant_method = self.unpacked_method()
            return
        layer.tersor_dtype = packed.dtype
        layer.tersor_matrix = (packed.rows, packed.cols, packed.escapes)
        replace_parameter(layer, "weight", in_room(packed.data, capacity))
        setattr(layer, _DONE, True)

    def apply(self, layer: torch.nn.Module, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """`x` of [..., input size of this rank] -> [..., output size of this rank], in the dtype of `x`."""
        rows, cols, escapes = layer.tersor_matrix
        y = torch.ops.tersor.linear(
            x.to(layer.tersor_dtype), layer.weight, rows, cols, escapes, bias, self.options.exact
        )
        return y.to(x.dtype)

    def unpacked_method(self) -> Any:
        """The method of a layer that stays unpacked."""
        return UnquantizedLinearMethod()


class TersorLMHeadMethod(TersorLinearMethod):
    """Keeps an LM head packed, unless it shares its weight with the embedding, which needs plain rows."""

    def create_weights(self, layer: torch.nn.Module, *args: Any, **kwargs: Any) -> None:
        super().create_weights(layer, *args, **kwargs)
        # Rows behind the vocabulary are zeros that no checkpoint has: without them the layer is complete.
        layer.weight.weight_loader_numel = layer.shard_indices.num_org_elements * layer.weight.shape[1]

    def tie_weights(self, layer: torch.nn.Module, embed_tokens: torch.nn.Module) -> torch.nn.Module:
        """Uses the embedding's weight as it is."""
        layer.quant_method = self.unpacked_method()
        get_layerwise_info(layer).reset()
        return layer.quant_method.tie_weights(layer, embed_tokens)

    def unpacked_method(self) -> Any:
        return UnquantizedEmbeddingMethod()
