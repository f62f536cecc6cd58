"""Models of published shapes with weights drawn like trained ones, for measurements where no hub can be reached."""

from __future__ import annotations

import torch
import transformers

_COMMON = {"dtype": "bfloat16", "attention_dropout": 0.0, "tie_word_embeddings": False}

#: Shapes from the models' public configurations. "70b-8-layers" is the layer of Llama-3.1-70B, eight times.
CONFIGS = {
    "llama-3.1-8b": lambda: transformers.LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=131072, rms_norm_eps=1e-5, **_COMMON,
    ),
    "qwen3-8b": lambda: transformers.Qwen3Config(
        vocab_size=151936, hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=40960, rms_norm_eps=1e-6, **_COMMON,
    ),
    "llama-3.1-70b-8-layers": lambda: transformers.LlamaConfig(
        vocab_size=128256, hidden_size=8192, intermediate_size=28672, num_hidden_layers=8, num_attention_heads=64,
        num_key_value_heads=8, max_position_embeddings=131072, rms_norm_eps=1e-5, **_COMMON,
    ),
    "tiny": lambda: transformers.LlamaConfig(
        vocab_size=512, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, **_COMMON,
    ),
}  # fmt: skip


def build(name: str, layers: int = 0, device: str = "cuda", seed: int = 1) -> torch.nn.Module:
    """A model in BF16 on ``device``. Every matrix is normal with a scale of its layer and one of each row, log-normal, as in
    trained models, where the exponents of a matrix carry about 2.6 bits; embeddings and norms likewise."""
    config = CONFIGS[name]()
    if layers:
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layers]
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = transformers.AutoModelForCausalLM.from_config(config)
    finally:
        torch.set_default_dtype(before)
    model = model.to(device=device, dtype=torch.bfloat16).eval().requires_grad_(False)
    for module_name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            _draw(module.weight, spread=0.25 if "layers" in module_name else 0.15)
    return model


def _draw(weight: torch.Tensor, spread: float) -> None:
    rows, cols = weight.shape
    layer_scale = cols**-0.5 * float(torch.exp(0.2 * torch.randn(())))
    scale = layer_scale * torch.exp(spread * torch.randn(rows, 1, device=weight.device))
    step = 8192  # rows at a time: fp32 temporaries stay small
    for first in range(0, rows, step):
        part = weight[first : first + step]
        part.copy_(torch.randn(part.shape, device=weight.device) * scale[first : first + step])
