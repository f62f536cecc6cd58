"""What both workers share: the model, a cache that says when a layer is ready, and greedy decoding."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

ROOT = Path(__file__).resolve().parents[2]
TINYLM = ROOT / "tests" / "data" / "tinylm-2m"
PROMPT = ROOT / "examples" / "encode_tensor.cpp"
#: Shapes of Llama-3.1-8B with random weights, for measurements where no hub can be reached.
RANDOM_8B = "random-llama-8b"

OnLayer = Callable[[int, torch.Tensor, torch.Tensor], object]


def load(name: str, device: str = "cpu") -> Any:
    """A model directory, or the random one: the same weights in every process of a machine."""
    if name != RANDOM_8B:
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16)
        return model.to(device).eval()
    config = transformers.LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=131072, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(1)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = transformers.AutoModelForCausalLM.from_config(config)
    finally:
        torch.set_default_dtype(before)
    return model.eval()


def read_prompt(path: Path | str, n_tokens: int, device: str = "cpu") -> torch.Tensor:
    """The first bytes of a file as tokens, repeated if it is shorter: a byte is a token of tinylm's."""
    text = Path(path).read_bytes()
    while len(text) < n_tokens:
        text += text
    return torch.tensor([list(text[:n_tokens])], device=device)


class StreamingCache(transformers.DynamicCache):
    """Hands K and V of a layer over as soon as they are computed, before the layer's attention runs."""

    def __init__(self, config: Any, on_layer: OnLayer) -> None:
        super().__init__(config=config)
        self._on_layer = on_layer

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any):
        keys, values = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        self._on_layer(layer_idx, keys, values)
        return keys, values


def filled_cache(config: Any, layers: list[tuple[torch.Tensor, torch.Tensor]]) -> transformers.DynamicCache:
    """A cache that holds what came."""
    cache = transformers.DynamicCache(config=config)
    for index, (keys, values) in enumerate(layers):
        cache.update(keys, values, index)
    return cache


def kv_shape(config: Any, n_tokens: int) -> tuple[int, ...]:
    """Shape of K, and of V, of a layer."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return (1, config.num_key_value_heads, n_tokens, head_dim)


@torch.inference_mode()
def prefill(model: Any, prompt: torch.Tensor, cache: Any) -> int:
    """Fills the cache from the prompt and gives the first token."""
    logits = model(input_ids=prompt, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
    return int(logits[0, -1].argmax())


@torch.inference_mode()
def generate(model: Any, cache: Any, first: int, n_tokens: int) -> tuple[list[int], float]:
    """``n_tokens`` tokens from the first on, and when the second was there: proof that the cache was used."""
    tokens, at = [first], 0.0
    while len(tokens) < n_tokens:
        step = torch.tensor([[tokens[-1]]], device=model.device)
        logits = model(input_ids=step, past_key_values=cache, use_cache=True).logits
        tokens.append(int(logits[0, -1].argmax()))
        at = at or time.monotonic()
    return tokens, at


def warm_up(model: Any) -> None:
    """What only the first forward pass does must not be in the times."""
    prefill(
        model,
        torch.zeros((1, 8), dtype=torch.int64, device=model.device),
        transformers.DynamicCache(config=model.config),
    )


def single_process(model: Any, prompt: torch.Tensor, n_tokens: int) -> tuple[list[int], float]:
    """The same without a transfer: tokens, and seconds to the first."""
    warm_up(model)
    cache = transformers.DynamicCache(config=model.config)
    begun = time.monotonic()
    first = prefill(model, prompt, cache)
    seconds = time.monotonic() - begun
    return generate(model, cache, first, n_tokens)[0], seconds
