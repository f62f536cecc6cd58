"""From a checkpoint's tensors to the model's weights: frames are decoded, linear weights packed, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

import torch
from torch import nn

from tersor._arrays import torch_dtype
from tersor._errors import error
from tersor.torch import Linear, PackedWeight
from tersor.torch.modules import replace
from tersor.transformers.checkpoint import Entry
from tersor.transformers.config import TersorConfig
from tersor.transformers.eligible import packable_experts, packable_weights
from tersor.transformers.experts import install_experts
from tersor.transformers.frames import as_packed, check_packed, check_stored, decode_frame, is_matrix

# What a packed weight takes, in parts of the plain one, as long as it is not there (11.53 bits of 16, and some
# overflow).
_EXPECTED_SIZE = 0.73


class Loader:
    """What one call of from_pretrained knows about its model (on the meta device still) and its checkpoint."""

    def __init__(
        self, model: nn.Module, config: TersorConfig, dtype: torch.dtype, entries: Mapping[str, Entry]
    ) -> None:
        self.model = model
        self.config = config
        self.entries = dict(entries)
        plan = model._get_dtype_plan(dtype) if hasattr(model, "_get_dtype_plan") else {}
        self.expected = {
            name: (tuple(value.shape), _planned_dtype(name, value.dtype, plan))
            for name, value in model.state_dict().items()
        }
        self.packable = packable_weights(model, config, self.expected)
        self.experts = packable_experts(model, config, self.expected)
        self._waiting: set[str] = set()

    def element_size(self, name: str, parameter: torch.Tensor) -> float:
        """Bytes a value of this parameter takes once it is loaded."""
        if name not in self.packable and name not in self.experts:
            return parameter.element_size()
        return parameter.element_size() * _EXPECTED_SIZE

    def materialize(self, source: str, target: str | None, future: Future | Callable[[], Any]) -> Any:
        """The checkpoint's tensor `source`: decoded if it is a frame, or a PackedWeight if `target` can use the frame
        as it is.

        `target` is None where the tensor has to be merged or split first. The frame lies on the device on which the
        parameter will be.
        """
        tensor = future.result() if isinstance(future, Future) else future()
        entry = self.entries.get(source)
        if entry is None or tensor is None:
            return tensor
        if not entry.frame_bytes:
            if self.config.verify:
                check_stored(tensor, entry, source)
            return tensor
        if target in self.packable and is_matrix(tensor):
            packed = as_packed(tensor, entry, source)
            if self._usable(packed, target):
                if self.config.verify:
                    check_packed(packed, entry, source)
                return packed
        return decode_frame(tensor, entry, source)

    def finish(self, name: str, value: Any) -> dict[str, torch.Tensor]:
        """The value for parameter `name` in its final form, under its final name: packed, its layer replaced, or
        plain in shape and dtype.

        Experts get there in two steps: the first of their parameters stays plain until the second one comes.
        """
        if isinstance(value, PackedWeight):
            return {name: self._install(name, value)}
        if name not in self.expected:
            return {name: value}
        value = self._plain(name, value)
        if name in self.packable:
            packed = PackedWeight.pack(value, inline_escapes=self.config.inline_escapes)
            if packed.nbytes < value.numel() * value.element_size():
                return {name: self._install(name, packed)}
        if name in self.experts:
            return self._finish_experts(name, value)
        return {name: value}

    def _plain(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """In the model's dtype. Raises MismatchError for another shape: Transformers does not look at it where a
        quantizer is at work."""
        shape, dtype = self.expected[name]
        if tuple(value.shape) != shape:
            raise error("mismatch", f"the checkpoint has shape {tuple(value.shape)}, the model {shape}", tensor=name)
        return value.to(dtype) if value.is_floating_point() and value.dtype != dtype else value

    def _finish_experts(self, name: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
        path = self.experts[name]
        others = {other for other, owner in self.experts.items() if owner == path and other != name}
        self._waiting.add(name)
        if not others <= self._waiting:
            return {name: value}
        self._set(name, value)
        return install_experts(self.model, path, self.config.exact, self.config.inline_escapes) or {name: value}

    def settle(self) -> None:
        """Decodes what reached the model past the converters, as a tensor does whose renamed key the model does not
        have."""
        for name, value in list(self.model.state_dict(keep_vars=True).items()):
            if name not in self.entries or value.dtype != torch.uint8 or value.is_meta:
                continue
            if self.expected.get(name, (None, torch.uint8))[1] == torch.uint8 or isinstance(self._owner(name), Linear):
                continue
            for final in self.finish(name, self.materialize(name, name, lambda value=value: value.detach())).items():
                self._set(*final)

    def close(self) -> None:
        """Lets go of the model: the converters' classes, which hold the loader, live until the next garbage
        collection."""
        del self.model

    def _usable(self, packed: PackedWeight, target: str) -> bool:
        """Whether a layer can take the frame as it is: the parameter's shape and dtype, in the layout that GPUs
        multiply from."""
        shape, dtype = self.expected[target]
        return (
            packed.info.layout == "packed"
            and (packed.info.rows, packed.info.cols) == shape
            and torch_dtype(packed.info.dtype) == dtype
        )

    def _owner(self, name: str) -> nn.Module:
        return self.model.get_submodule(name.rpartition(".")[0])

    def _set(self, name: str, value: torch.Tensor) -> None:
        parameter = value if isinstance(value, nn.Parameter) else nn.Parameter(value, requires_grad=False)
        setattr(self._owner(name), name.rpartition(".")[2], parameter)

    def _install(self, name: str, packed: PackedWeight) -> nn.Parameter:
        """Puts a packed layer in the place of the plain one, and returns its weight."""
        path = name.removesuffix(".weight")
        plain = self.model.get_submodule(path)
        layer = Linear(plain.in_features, plain.out_features, False, "meta", self.expected[name][1], self.config.exact)
        layer.load_packed(packed)
        layer.bias = plain.bias
        layer.train(plain.training)
        replace(self.model, path, layer)
        return layer.weight


def _planned_dtype(name: str, dtype: torch.dtype, plan: Mapping[str, torch.dtype]) -> torch.dtype:
    """Transformers' rule: a parameter whose name holds a key of the plan has the plan's dtype."""
    from transformers.core_model_loading import build_glob_alternation

    if not plan:
        return dtype
    pattern, by_group, _ = build_glob_alternation(list(plan))
    match = pattern.search(name)
    return dtype if match is None else plan[by_group[match.lastgroup]]
