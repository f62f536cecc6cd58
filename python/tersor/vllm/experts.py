"""Experts of mixture-of-experts layers as matrix frames; an option, see docs/vllm.md.

Few tokens an expert: a grouped product with the packed matrices. Many, or `exact`: the layer's matrices are unpacked into
scratch memory and vLLM's Triton kernel runs on them.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.model_executor.layers.fused_moe import FusedMoEMethodBase, RoutedExperts, fused_experts
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig, FusedMoEQuantConfig
from vllm.model_executor.layers.fused_moe.unquantized_fused_moe_method import UnquantizedFusedMoEMethod
from vllm.model_executor.model_loader.reload.layerwise import initialize_online_processing
from vllm.model_executor.utils import replace_parameter

from tersor.torch import PackedExperts
from tersor.torch.packed import settled

from .config import Options

#: Tokens an expert, on average, beyond which unpacking pays.
MOST_FUSED_TOKENS = 64


def packs_experts(layer: RoutedExperts) -> bool:
    """True for gated SiLU experts without biases, in BF16 or FP16, of at least 64 on each side."""
    moe: FusedMoEConfig = layer.moe_config
    plain = moe.activation == MoEActivation.SILU and moe.is_act_and_mul and not moe.has_bias
    limits = (layer.swiglu_limit, layer.swiglu_alpha, layer.swiglu_beta)
    sides = (moe.hidden_dim, moe.intermediate_size_per_partition)
    eplb = moe.moe_parallel_config.enable_eplb
    return plain and all(v is None for v in limits) and min(sides) >= 64 and not eplb


class TersorExpertsMethod(FusedMoEMethodBase):
    """Keeps the weights of all experts of a layer packed: `w13_weight` and `w2_weight` of [experts, bytes].

    Args:
        moe: the layer's `moe_config`.
        options: see `Options`; `inline_escapes` is not used.
    """

    uses_meta_device = True

    def __init__(self, moe: FusedMoEConfig, options: Options) -> None:
        super().__init__(moe)
        self.exact = options.exact

    def create_weights(self, layer: RoutedExperts, *args: Any, **kwargs: Any) -> None:
        """Registers the weights as vLLM does without quantization, but without memory."""
        with torch.device("meta"):
            UnquantizedFusedMoEMethod.create_weights(self, layer, *args, **kwargs)
        initialize_online_processing(layer)

    def process_weights_after_loading(self, layer: RoutedExperts) -> None:
        """Packs expert after expert on the device they are on."""
        if getattr(layer, "_already_called_process_weights_after_loading", False):
            return
        for name in ("w13_weight", "w2_weight"):
            packed = PackedExperts(getattr(layer, name).data)
            replace_parameter(layer, name, packed.weight.data)
            settled.forget(getattr(layer, name))
            packed.weight = None
            # Behind a tuple, so that the module does not become a child of the layer.
            setattr(layer, f"tersor_{name}", (packed,))
        layer._already_called_process_weights_after_loading = True

    def get_fused_moe_quant_config(self, layer: RoutedExperts) -> FusedMoEQuantConfig:
        return FusedMoEQuantConfig.make()

    def apply(
        self,
        layer: RoutedExperts,
        x: torch.Tensor,
        topk_weights: torch.Tensor,
        topk_ids: torch.Tensor,
        shared_experts: Any,
        shared_experts_input: torch.Tensor | None,
    ) -> torch.Tensor:
        """`x` of [tokens, hidden], `topk_weights` and `topk_ids` of [tokens, k] -> [tokens, hidden]."""
        few = topk_ids.numel() <= MOST_FUSED_TOKENS * layer.local_num_experts
        if x.device.type == "cuda" and (self.exact or not few):
            return fused_experts(
                x,
                torch.ops.tersor.unpack_experts(layer.w13_weight, layer.tersor_w13_weight[0].headers),
                torch.ops.tersor.unpack_experts(layer.w2_weight, layer.tersor_w2_weight[0].headers),
                topk_weights,
                topk_ids,
                activation=layer.activation,
                apply_router_weight_on_input=layer.apply_router_weight_on_input,
                global_num_experts=layer.global_num_experts,
                expert_map=layer.expert_map,
            )
        return self._grouped(layer, x, topk_weights, topk_ids)

    def _grouped(
        self, layer: RoutedExperts, x: torch.Tensor, topk_weights: torch.Tensor, topk_ids: torch.Tensor
    ) -> torch.Tensor:
        n_experts, k = layer.local_num_experts, topk_ids.shape[1]
        expert = topk_ids.reshape(-1).long()
        if layer.expert_map is not None:
            expert = layer.expert_map[expert].long()
        # Tokens of other ranks' experts (-1) come last, behind the last group.
        expert = torch.where(expert < 0, n_experts, expert)
        expert, order = torch.sort(expert, stable=True)
        first_token = torch.searchsorted(expert, torch.arange(n_experts + 1, device=x.device)).to(torch.int32)
        weights = topk_weights.reshape(-1)[order].unsqueeze(-1)
        tokens = x[order // k]
        if layer.apply_router_weight_on_input:
            tokens = (tokens * weights).to(x.dtype)
        gate, up = _product(layer, "w13_weight", tokens, first_token).chunk(2, dim=-1)
        y = _product(layer, "w2_weight", torch.nn.functional.silu(gate) * up, first_token).float()
        if not layer.apply_router_weight_on_input:
            y = y * weights
        y = torch.where((expert < n_experts).unsqueeze(-1), y, 0.0)
        back = torch.empty_like(y)
        back[order] = y
        return back.view(x.shape[0], k, -1).sum(dim=1).to(x.dtype)


def _product(layer: RoutedExperts, name: str, x: torch.Tensor, first_token: torch.Tensor) -> torch.Tensor:
    shape = getattr(layer, f"tersor_{name}")[0]
    return torch.ops.tersor.grouped_linear(x, getattr(layer, name), shape.rows, shape.cols, shape.escapes, first_token)
