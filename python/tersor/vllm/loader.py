"""Frames in vLLM's checkpoint reader.

vLLM has no hook between reading a tensor and `model.load_weights` that holds for all models, so the one method through
which `DefaultModelLoader` (load formats auto, hf, safetensors, fastsafetensors, ...) passes every tensor is wrapped. A
tensor that is no frame goes through untouched, so other models load as before.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

from .coded import open_tensor


def read_frames() -> None:
    """Wraps the checkpoint reader; calling it again changes nothing."""
    original = DefaultModelLoader._get_weights_iterator
    if getattr(original, "reads_tersor_frames", False):
        return

    @functools.wraps(original)
    def iterate(self: DefaultModelLoader, source: DefaultModelLoader.Source) -> Iterator[tuple[str, torch.Tensor]]:
        return ((name, open_tensor(name, tensor)) for name, tensor in original(self, source))

    iterate.reads_tersor_frames = True
    DefaultModelLoader._get_weights_iterator = iterate
