"""Experts of MoE layers: parameters of three dimensions in Transformers, `tersor.torch.Experts` once both of a layer
are loaded."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from tersor.torch import Experts
from tersor.torch.modules import replace


def install_experts(model: nn.Module, path: str, exact: bool, inline_escapes: int) -> dict[str, nn.Parameter]:
    """Packs a module whose parameters are loaded, and puts the packed one in its place; the new parameters by
    name. Nothing, if packing would not make them smaller."""
    packed = Experts.pack(model.get_submodule(path), exact, inline_escapes)
    if packed is None:
        return {}
    # Loading is not over, and Transformers would initialize what it did not load itself.
    for module in packed.modules():
        module._is_hf_initialized = True
    replace(model, path, packed)
    return {f"{path}.{name}": value for name, value in packed.named_parameters()}


def plain_experts(path: str, experts: Experts) -> Iterator[tuple[str, torch.Tensor]]:
    """The plain parameters of packed experts, under the names that Transformers gives them."""
    yield f"{path}.{experts.up_name}", experts.up.unpacked()
    yield f"{path}.down_proj", experts.down.unpacked()


def restore_experts(model: nn.Module, path: str, experts: Experts) -> None:
    """Puts the original module back."""
    for name, value in plain_experts(path, experts):
        setattr(experts.original, name.rpartition(".")[2], nn.Parameter(value, requires_grad=False))
    replace(model, path, experts.original)
