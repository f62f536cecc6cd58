"""Runs a Transformers model over text and counts the exponents of its KV cache on the device, layer by layer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
import transformers

from ._errors import error
from ._exponents import FORMATS
from ._report import Counted

DTYPE_NAMES = {
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
_INTEGERS = {8: torch.uint8, 16: torch.int16, 32: torch.int32}
# Values whose exponents are held as integers at a time: bounds the memory beside the tensor to some 100 MiB.
_SLICE_VALUES = 1 << 23


def count_exponents(tensor: torch.Tensor) -> torch.Tensor:
    """Exact counts of the exponent field: int64 `[256]` on the tensor's device.

    `tensor` is BF16, F16, F32 or FP8 of any shape and strides; it is not changed.
    """
    fmt = FORMATS[DTYPE_NAMES[tensor.dtype]]
    counts = torch.zeros(256, dtype=torch.int64, device=tensor.device)
    flat = tensor.detach().contiguous().view(_INTEGERS[fmt.value_bits]).reshape(-1)
    mask = (1 << fmt.exponent_bits) - 1
    for piece in flat.split(_SLICE_VALUES):
        # The shift copies the sign into high bits, which the mask drops.
        counts += torch.bincount((piece >> fmt.mantissa_bits) & mask, minlength=256)
    return counts


class ExponentCounts:
    """Counts by tensor name, added up on the device where each tensor lives."""

    def __init__(self) -> None:
        self._counts: dict[str, torch.Tensor] = {}
        self._kinds: dict[str, tuple[str, tuple[int, ...], int]] = {}

    def add(self, name: str, tensor: torch.Tensor, shape: tuple[int, ...], rows: int) -> None:
        """Adds the values of `tensor`; over all calls the tensor `name` is `[sum of rows, *shape]`."""
        if tensor.dtype not in DTYPE_NAMES:
            raise error("unsupported", f"values of {tensor.dtype} have no exponent that Tersor codes", tensor=name)
        kind = (DTYPE_NAMES[tensor.dtype], shape)
        dtype, known, n_rows = self._kinds.get(name, (*kind, 0))
        if (dtype, known) != kind:
            raise error("unsupported", f"changes from {dtype} {known} to {kind[0]} {shape}", tensor=name)
        counts = count_exponents(tensor)
        self._counts[name] = counts if name not in self._counts else self._counts[name] + counts
        self._kinds[name] = (*kind, n_rows + rows)

    def tensors(self) -> list[Counted]:
        """What was counted, in order of first appearance; moves the counts to the CPU."""
        return [
            Counted(name, self._kinds[name][0], (self._kinds[name][2], *self._kinds[name][1]), counts.tolist())
            for name, counts in self._counts.items()
        ]


class CountingCache(transformers.DynamicCache):
    """A KV cache that also counts every key and value that a layer adds, as `layers.N.k` and `layers.N.v`.

    Counting what is added, not what the cache holds, covers layers with a sliding window too.
    """

    def __init__(self, config: transformers.PreTrainedConfig, counts: ExponentCounts) -> None:
        super().__init__(config=config)
        self._exponents = counts

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args, **kwargs):
        for letter, states in (("k", key_states), ("v", value_states)):
            batch, heads, length, width = states.shape
            self._exponents.add(f"layers.{layer_idx}.{letter}", states, (heads, width), batch * length)
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)


def _one_line(e: BaseException) -> str:
    text = " ".join(str(e).split())
    return text if len(text) <= 300 else text[:297] + "..."


def _is_tersor_model(directory: Path) -> bool:
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        return config["quantization_config"]["quant_method"] == "tersor"
    except (OSError, ValueError, KeyError, TypeError):
        return False


def check_device(device: str) -> None:
    """Raises unless `device` is `auto` or a torch device of this machine."""
    if device == "auto":
        return
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as e:
        raise error("backend_unavailable", f"device '{device}': {_one_line(e)}") from None


def load_config(name: str, revision: str | None = None) -> transformers.PreTrainedConfig:
    """The configuration of the model's text part."""
    if not Path(name).is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise error("not_found", "there is no such model directory", file=name)
    if _is_tersor_model(Path(name)):
        from . import transformers as _quantizer  # noqa: F401  (registers itself)
    try:
        config = transformers.AutoConfig.from_pretrained(name, revision=revision or "main")
    except (OSError, ValueError, KeyError, ImportError) as e:
        raise error("not_found" if isinstance(e, OSError) else "unsupported", f"model '{name}': {_one_line(e)}") from e
    return config.get_text_config(decoder=True)


def load_model(name: str, *, dtype: str, device: str, revision: str | None = None) -> transformers.PreTrainedModel:
    """A causal language model for inference; `dtype` is a torch name or `auto`, `device` a torch device or `auto`."""
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, revision=revision or "main", device_map="auto" if device == "auto" else None
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as e:
        raise error("not_found" if isinstance(e, OSError) else "unsupported", f"model '{name}': {_one_line(e)}") from e
    model.eval()
    return model if device == "auto" else model.to(device)


def load_tokenizer(name: str, revision: str | None = None) -> object | None:
    """The model's tokenizer, or None if it has none."""
    files = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
    if Path(name).is_dir() and not any((Path(name) / file).is_file() for file in files):
        return None
    try:
        return transformers.AutoTokenizer.from_pretrained(name, revision=revision or "main")
    except (OSError, ValueError, KeyError, ImportError) as e:
        raise error("unsupported", f"tokenizer of '{name}': {_one_line(e)}") from e


@torch.inference_mode()
def count_kv(
    model: transformers.PreTrainedModel,
    batches: Iterable[np.ndarray],
    on_batch: Callable[[int], None] | None = None,
) -> tuple[list[Counted], int]:
    """Runs `model` over int64 id arrays `[rows, length]`; returns the counts of its KV cache and the tokens run.

    Each batch has a fresh cache, so memory is that of one batch. Keys are counted as they are cached, after RoPE.
    """
    counts, n_tokens = ExponentCounts(), 0
    body = model.base_model  # without the head: logits are not needed
    for ids in batches:
        cache = CountingCache(model.config, counts)
        try:
            body(input_ids=torch.from_numpy(ids).to(model.device), past_key_values=cache, use_cache=True)
        except torch.OutOfMemoryError:
            raise error("out_of_memory", f"no memory for {ids.shape[0]} x {ids.shape[1]} tokens at a time") from None
        n_tokens += ids.size
        if on_batch is not None:
            on_batch(n_tokens)
    if n_tokens == 0:
        raise error("invalid_argument", "the data set holds no tokens")
    tensors = counts.tensors()
    if not tensors:
        raise error("unsupported", f"{type(model).__name__} adds nothing to a KV cache")
    return tensors, n_tokens


@torch.inference_mode()
def count_weights(model: transformers.PreTrainedModel) -> tuple[list[Counted], int, int]:
    """Counts of every parameter (a tied one once); then the number and bytes of those without a coded exponent."""
    counts, others, other_bytes = ExponentCounts(), 0, 0
    for name, weight in model.named_parameters():
        if weight.dtype not in DTYPE_NAMES:
            others += 1
            other_bytes += weight.numel() * weight.element_size()
            continue
        shape = tuple(weight.shape) or (1,)
        counts.add(name, weight, shape[1:], shape[0])
    return counts.tensors(), others, other_bytes
