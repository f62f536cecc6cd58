"""Small models for the tests of tersor.transformers: made, compressed, loaded, compared."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM

import tersor
import tersor.torch
import tersor.transformers

TINYLM = Path(__file__).resolve().parents[1] / "data" / "tinylm-2m"
TEXT = torch.tensor([list(b"The weights of a language model are not random numbers.")])


def llama(**kwargs):
    defaults = dict(
        vocab_size=256,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
    )
    return transformers.LlamaConfig(**(defaults | kwargs))


def qwen2(**kwargs):
    return transformers.Qwen2Config(
        vocab_size=256,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        **kwargs,
    )


def qwen3_moe():
    return transformers.Qwen3MoeConfig(
        vocab_size=256,
        hidden_size=128,
        intermediate_size=256,
        moe_intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        num_experts=4,
        num_experts_per_tok=2,
    )


def mixtral():
    return transformers.MixtralConfig(
        vocab_size=256,
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
    )


def save_plain(config, directory: Path, dtype=torch.bfloat16, **kwargs) -> Path:
    """A model with normally distributed weights, whose exponents are as uneven as trained ones'."""
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(directory, **kwargs)
    return directory


def compress(source: Path, directory: Path, how: str) -> Path:
    if how in ("pack", "tcatbe"):
        tersor.pack_model(source, directory, packing="packed" if how == "pack" else how)
    else:
        tersor.compress(source, directory, codec=how)
    return directory


def load(directory: Path, **kwargs):
    return AutoModelForCausalLM.from_pretrained(directory, **kwargs)


def load_by(how: str, source: Path, where: Path, **kwargs):
    """The model of a plain directory: packed while it is loaded ("fly"), or from a directory compressed in this way."""
    if how == "fly":
        return load(source, quantization_config=tersor.transformers.TersorConfig(), **kwargs)
    return load(compress(source, where, how), **kwargs)


def logits(model):
    with torch.no_grad():
        return model(TEXT.to(model.device)).logits.cpu()


def packed_layers(model) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, tersor.torch.Linear)}


def plain_linears(model) -> set[str]:
    return {name for name, module in model.named_modules() if type(module) is torch.nn.Linear}


def assert_same_weights(left: Path, right: Path):
    """Two plain directories hold the same bits."""
    states = [AutoModelForCausalLM.from_pretrained(each).state_dict() for each in (left, right)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        assert value.dtype == states[1][name].dtype and torch.equal(value, states[1][name]), name
