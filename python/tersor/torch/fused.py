"""Sibling projections of one input as one product: Q, K and V of an attention, gate and up of an MLP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tersor.torch.layers import Linear

#: Names of siblings that Transformers' models call one after the other with the same input.
SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


class Together(nn.Module):
    """One product for several layers of the same input, handed out in slices.

    The product is made when the first of them is called, and again whenever the input is another tensor. Calls of several
    threads do not disturb each other."""

    def __init__(self, merged: nn.Module, sizes: list[int]):
        super().__init__()
        self.merged = merged
        self.sizes = sizes
        self._held: tuple[torch.Tensor, dict[int, torch.Tensor]] | None = None

    def take(self, index: int, x: torch.Tensor) -> torch.Tensor:
        held = self._held
        if held is None or held[0] is not x or index not in held[1]:
            parts = torch.split(self.merged(x), self.sizes, dim=-1)
            held = (x, dict(enumerate(parts)))
        # What is taken is not kept, so nothing outlives the last of the siblings.
        rest = {i: part for i, part in held[1].items() if i != index}
        self._held = (x, rest) if rest else None
        return held[1][index]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_held": None}


class Part(nn.Module):
    """One of the layers that share a product. The first of them owns it."""

    def __init__(self, together: Together, index: int, in_features: int):
        super().__init__()
        self.index = index
        self.in_features = in_features
        self.out_features = together.sizes[index]
        if index == 0:
            self.together = together
        self._shared = [together]  # in a list, so that it is registered once only

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._shared[0].take(self.index, x)

    def plain_weight(self) -> torch.Tensor:
        """This layer's own rows of the plain matrix, bit for bit."""
        return self._own(self._shared[0].merged.unpacked())

    def plain_bias(self) -> torch.Tensor | None:
        bias = self._shared[0].merged.bias
        return None if bias is None else self._own(bias)

    def _own(self, whole: torch.Tensor) -> torch.Tensor:
        first = sum(self._shared[0].sizes[: self.index])
        return whole[first : first + self.out_features].clone()

    def dequantize(self) -> nn.Linear:
        """A plain layer of its own."""
        plain = nn.Linear(self.in_features, self.out_features, False, device="meta")
        plain.weight = nn.Parameter(self.plain_weight(), requires_grad=False)
        bias = self.plain_bias()
        plain.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        return plain

    @property
    def weight(self) -> torch.Tensor:
        """The shared packed matrix, for code that asks a layer for its device."""
        return self._shared[0].merged.weight

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, part {self.index} of one product"


def siblings_of(parent: nn.Module, kind: type) -> list[tuple[str, ...]]:
    """Groups of children that can be made one product: same input size, dtype and kind of bias."""
    found = []
    for names in SIBLINGS:
        layers = [getattr(parent, name, None) for name in names]
        if any(type(layer) is not kind for layer in layers):
            continue
        first = layers[0]
        if all(
            layer.in_features == first.in_features
            and layer.weight.dtype == first.weight.dtype
            and (layer.bias is None) == (first.bias is None)
            for layer in layers
        ):
            found.append(names)
    return found


def merge(parent: nn.Module, names: tuple[str, ...]) -> nn.Linear:
    """Replaces plain siblings by parts of one plain layer, and returns that."""
    layers = [getattr(parent, name) for name in names]
    sizes = [layer.out_features for layer in layers]
    merged = nn.Linear(layers[0].in_features, sum(sizes), False, device="meta")
    merged.weight = nn.Parameter(torch.cat([layer.weight.data for layer in layers]), requires_grad=False)
    if layers[0].bias is not None:
        merged.bias = nn.Parameter(torch.cat([layer.bias.data for layer in layers]), requires_grad=False)
    together = Together(merged, sizes).train(parent.training)
    for index, name in enumerate(names):
        setattr(parent, name, Part(together, index, layers[0].in_features))
    return merged


def merge_siblings(model: nn.Module, wanted: Callable[[str], bool] = lambda name: True) -> int:
    """Merges the groups of plain siblings whose names are all wanted; their number."""
    groups = [
        (parent, names)
        for path, parent in model.named_modules()
        for names in siblings_of(parent, nn.Linear)
        if all(wanted(f"{path}.{name}" if path else name) for name in names)
    ]
    for parent, names in groups:
        merge(parent, names)
    return len(groups)


def merge_packed_siblings(model: nn.Module) -> int:
    """The same for packed layers, as from_pretrained makes them: each group is unpacked, joined and packed again."""
    groups = [(parent, names) for parent in model.modules() for names in siblings_of(parent, Linear)]
    for parent, names in groups:
        exact = getattr(parent, names[0]).exact
        for name in names:
            setattr(parent, name, getattr(parent, name).dequantize())
        plain = merge(parent, names)
        together = getattr(parent, names[0]).together
        together.merged = Linear.from_linear(plain, exact)
    return len(groups)
