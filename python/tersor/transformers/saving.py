"""save_pretrained for a model that runs from packed weights: plain files by Transformers, made a container by the
library."""

from __future__ import annotations

import functools
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

import tersor
from tersor._errors import error
from tersor.torch import Experts, Linear, PackedWeight
from tersor.torch.fused import Part
from tersor.transformers.experts import plain_experts

_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")


_PACKED = "_tersor_packed"


def mark(model: nn.Module, packed: bool) -> None:
    """Says whether `save_pretrained` of this model writes a compressed directory."""
    if packed:
        setattr(model, _PACKED, True)
    else:
        model.__dict__.pop(_PACKED, None)


def install() -> None:
    """Makes `PreTrainedModel.save_pretrained` write models that run from packed weights as compressed directories.

    Transformers has no hook behind its writing of files, and a container is made from finished ones.
    """
    original = transformers.PreTrainedModel.save_pretrained
    if hasattr(original, "tersor_original"):
        return

    @functools.wraps(original)
    def save(self, save_directory, *args, **kwargs):
        if getattr(self, _PACKED, False):
            return save_pretrained(self, save_directory, *args, **kwargs)
        return original(self, save_directory, *args, **kwargs)

    save.tersor_original = original
    transformers.PreTrainedModel.save_pretrained = save


def plain_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's state dict with every packed weight unpacked, on the CPU. It takes as much host memory as the plain
    model."""
    state = model.state_dict()
    for path, module in model.named_modules():
        if isinstance(module, Part):
            state = {name: value for name, value in state.items() if not name.startswith(f"{path}.together.")}
            state[f"{path}.weight"] = module.plain_weight().cpu()
            if (bias := module.plain_bias()) is not None:
                state[f"{path}.bias"] = bias.cpu()
        elif isinstance(module, Linear) and not path.endswith(".together.merged"):
            name = f"{path}.weight"
            state[name] = PackedWeight.from_bytes(_loaded(model, name, state[name])).unpack().cpu()
        elif isinstance(module, Experts):
            for name in module.state_dict():
                state.pop(f"{path}.{name}")
            state.update((name, value.cpu()) for name, value in plain_experts(path, module))
    return state


def _loaded(model: nn.Module, name: str, weight: torch.Tensor) -> torch.Tensor:
    """The bytes of a weight, from where accelerate keeps them if the layer is offloaded."""
    if not weight.is_meta:
        return weight
    from transformers.integrations.accelerate import load_offloaded_parameter

    return load_offloaded_parameter(model, name)


def save_pretrained(
    model: nn.Module,
    save_directory: str | os.PathLike,
    is_main_process: bool = True,
    push_to_hub: bool = False,
    **kwargs: Any,
) -> None:
    """Writes the model as a compressed directory that from_pretrained, `tersor verify` and `tersor decompress`
    accept.

    Transformers writes plain files into a temporary directory beside `save_directory`, the library packs them, and
    the results replace files of the same names: at the peak the disk holds the plain model and the compressed one,
    and host memory the plain one. Other files in `save_directory` stay. Arguments are those of
    `PreTrainedModel.save_pretrained`. Raises UnsupportedError for `push_to_hub`: upload the finished directory.
    """
    if push_to_hub:
        raise error("unsupported", "save the model first, then upload the directory")
    if not is_main_process:
        return
    target = Path(save_directory)
    if target.exists() and not target.is_dir():
        raise error("already_exists", "the place for the directory is taken by a file", file=str(target))
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.absolute().parent) as work:
        plain, packed = Path(work, "plain"), Path(work, "packed")
        transformers.PreTrainedModel.save_pretrained.tersor_original(model, plain, is_main_process=True, **kwargs)
        _forget_quantizer(plain / "config.json")
        tersor.pack_model(plain, packed)
        _replace(packed, target)


def _forget_quantizer(path: Path) -> None:
    """Takes Tersor's entry out of a plain directory's config.json; packing puts the right one in."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("quantization_config", None)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _replace(source: Path, target: Path) -> None:
    """Moves the files over; weights of an earlier save that have no successor are removed."""
    names = {path.name for path in source.iterdir()}
    for old in target.iterdir():
        if old.is_file() and _WEIGHTS.fullmatch(old.name) and old.name not in names:
            old.unlink()
    for name in sorted(names):
        os.replace(source / name, target / name)
