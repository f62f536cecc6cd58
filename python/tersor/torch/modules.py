"""Compresses the weights of a model in place."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from tersor.torch.fused import merge_siblings
from tersor.torch.layers import Linear
from tersor.torch.packed import PackedWeight

#: Matrices with a shorter side are not worth a product of their own (kMinPackedSide of the library).
LEAST_SIDE = 64


@dataclass
class LayerReport:
    """What became of one layer: ``action`` is "packed", or "kept" with the reason."""

    name: str
    shape: tuple[int, ...]
    plain_bytes: int
    stored_bytes: int
    action: str
    reason: str = ""


@dataclass
class ModuleReport:
    """What compress_module did. Bytes are those of weights of linear layers and experts."""

    layers: list[LayerReport] = field(default_factory=list)

    @property
    def plain_bytes(self) -> int:
        return sum(layer.plain_bytes for layer in self.layers)

    @property
    def stored_bytes(self) -> int:
        return sum(layer.stored_bytes for layer in self.layers)

    @property
    def ratio(self) -> float:
        return self.plain_bytes / self.stored_bytes if self.stored_bytes else 1.0


def selected(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """True if a name passes the globs; an empty ``include`` takes all, ``exclude`` wins."""
    takes, leaves = ([globs] if isinstance(globs, str) else globs for globs in (include, exclude))
    if takes and not any(fnmatch.fnmatchcase(name, pattern) for pattern in takes):
        return False
    return not any(fnmatch.fnmatchcase(name, pattern) for pattern in leaves)


def shared_parameters(model: nn.Module) -> set[int]:
    """ids of parameters that more than one module holds: tied embeddings."""
    holders: dict[int, set[int]] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            holders.setdefault(id(parameter), set()).add(id(module))
    return {parameter for parameter, modules in holders.items() if len(modules) > 1}


def why_not(weight: torch.Tensor, shared: set[int], pack_tied: bool) -> str:
    """Why a linear layer's weight stays plain; empty if it can be packed."""
    if weight.dtype not in (torch.bfloat16, torch.float16):
        return f"{weight.dtype} is not packed"
    if weight.dim() != 2 or min(weight.shape) < LEAST_SIDE:
        return "too small"
    if id(weight) in shared and not pack_tied:
        return "tied to another module that needs the plain rows"
    return ""


def compress_module(
    model: nn.Module,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    *,
    exact: bool = False,
    fuse: bool = False,
    pack_tied: bool = False,
    inline_escapes: int = 0,
) -> ModuleReport:
    """Replaces the linear layers of a model by packed ones, in place, and returns what was done.

    It finds the layers itself, fused QKV and gate-up projections, LM head and, where Transformers keeps experts as 3-D
    parameters, the experts of MoE layers among them. Globs over module names choose some. A layer stays plain where packing
    would not make it smaller. A head that is tied to the embedding stays plain, because the embedding needs its rows anyway;
    ``pack_tied`` packs it in addition, which costs memory and makes the head faster. One layer's plain weight is freed
    before the next is packed.

    ``fuse``: Q, K and V projections, and gate and up projections, that take the same input become one product each, which
    is faster for few tokens. It knows them by Transformers' names (fused.SIBLINGS), joins what no glob leaves out, and needs
    a model that does not change the input in place between its projections."""
    from tersor.torch.experts import compress_experts, holds_experts

    if fuse:
        merge_siblings(model, lambda name: selected(name, include, exclude))
    report = ModuleReport()
    shared = shared_parameters(model)
    for name, module in list(model.named_modules()):
        if not selected(name, include, exclude):
            continue
        if holds_experts(module):
            report.layers += compress_experts(model, name, module, exact, inline_escapes)
        elif isinstance(module, nn.Linear):
            report.layers.append(_compress_linear(model, name, module, shared, exact, pack_tied, inline_escapes))
    return report


def replace(model: nn.Module, name: str, made: nn.Module) -> None:
    """Puts a module in the place of another one of this name."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, made)


def _compress_linear(model, name, module, shared, exact, pack_tied, inline_escapes) -> LayerReport:
    weight = module.weight
    plain_bytes = weight.numel() * weight.element_size()
    shape = tuple(weight.shape)
    reason = why_not(weight, shared, pack_tied)
    if not reason:
        packed = PackedWeight.pack(weight, inline_escapes=inline_escapes)
        if packed.nbytes < plain_bytes:
            made = Linear(module.in_features, module.out_features, False, "meta", weight.dtype, exact)
            made.load_packed(packed)
            made.bias = module.bias
            made.train(module.training)
            replace(model, name, made)
            return LayerReport(name, shape, plain_bytes, packed.nbytes, "packed")
        reason = "packing does not make it smaller"
    return LayerReport(name, shape, plain_bytes, plain_bytes, "kept", reason)
