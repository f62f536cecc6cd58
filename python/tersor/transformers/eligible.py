"""Which weights of a model are kept packed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import nn
from transformers import PreTrainedModel

from tersor.torch.experts import holds_experts
from tersor.torch.modules import LEAST_SIDE, selected
from tersor.transformers.config import TersorConfig

PACKABLE_DTYPES = (torch.bfloat16, torch.float16)
#: Shape and dtype of a model's parameters and buffers.
Expected = Mapping[str, tuple[tuple[int, ...], torch.dtype]]

# Flags that Transformers sets where experts run through its common interface; other classes have layouts and calls of
# their own.
_COMMON_EXPERTS = {"is_transposed": False, "has_bias": False}
_READS_WEIGHT = re.compile(r"\bself(?:\.\w+)*\.(\w+)\.weight\b")


def packable_weights(model: nn.Module, config: TersorConfig, expected: Expected) -> set[str]:
    """Names of the weights of linear layers that are kept packed.

    Plain nn.Linear only: a class derived from it uses its weight in its own way, and so does a model that reads
    ``self.layer.weight``. A weight that another module shares, as a language model's head shares the embedding, stays
    plain, since rows are looked up in it.
    """
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    shared = set(tied) | set(tied.values())
    paths: dict[nn.Module, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if type(module) is nn.Linear:
            paths.setdefault(module, []).append(path)
    names = set()
    for module, found in paths.items():
        path, name = found[0], f"{found[0]}.weight"
        if (
            len(found) > 1
            or name in shared
            or name not in expected
            or not selected(path, config.include, config.exclude)
        ):
            continue
        if min(module.in_features, module.out_features) < LEAST_SIDE or expected[name][1] not in PACKABLE_DTYPES:
            continue
        if not _weight_is_read(model, path):
            names.add(name)
    return names


def packable_experts(model: nn.Module, config: TersorConfig, expected: Expected) -> dict[str, str]:
    """Names of expert parameters that are kept packed, with the name of their module."""
    found: dict[str, str] = {}
    for path, module in model.named_modules():
        if not holds_experts(module) or not selected(path, config.include, config.exclude):
            continue
        if any(getattr(module, flag, None) is not wanted for flag, wanted in _COMMON_EXPERTS.items()):
            continue
        names = [f"{path}.{name}" for name, value in module.named_parameters(recurse=False) if value.dim() == 3]
        if len(names) == 2 and all(_experts_shrink(*expected[name]) for name in names):
            found.update(dict.fromkeys(names, path))
    return found


def _experts_shrink(shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Whether packing pays in spite of the padding to blocks of 16 x 128 (spec/packed.md; without overflow)."""
    _, rows, cols = shape
    block = 2944 if dtype == torch.bfloat16 else 3712
    fits = -(-rows // 16) * -(-cols // 128) * block < 2 * rows * cols
    return dtype in PACKABLE_DTYPES and min(rows, cols) >= LEAST_SIDE and fits


def _weight_is_read(model: nn.Module, path: str) -> bool:
    """Whether a module above the layer has code with ``self....layer.weight``: it would get packed bytes."""
    parts = path.split(".")
    above = (model.get_submodule(".".join(parts[:depth])) for depth in range(len(parts)))
    return any(parts[-1] in _weights_read_by(type(module)) for module in above)


@lru_cache(maxsize=4096)
def _weights_read_by(cls: type) -> frozenset[str]:
    found: set[str] = set()
    for base in cls.__mro__:
        if base in (nn.Module, PreTrainedModel):
            break
        try:
            found.update(_READS_WEIGHT.findall(inspect.getsource(base)))
        except (OSError, TypeError):  # no source: made at run time
            continue
    return frozenset(found)
