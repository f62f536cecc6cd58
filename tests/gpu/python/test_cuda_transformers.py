"""from_pretrained onto a GPU: exact logits, memory while loading, damage, experts, generate, save_pretrained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

from transformers import AutoModelForCausalLM  # noqa: E402

import tersor  # noqa: E402
import tersor.torch  # noqa: E402
from tersor.transformers import TersorConfig  # noqa: E402

TINYLM = Path(__file__).resolve().parents[2] / "data" / "tinylm-2m"
TEXT = torch.tensor([list(b"The weights of a language model are not random numbers.")])
HOW = ["pack", "rank", "fly"]


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    """Plain directories: a Llama of 88 MB, tied and untied, and a small Qwen3-MoE."""
    sizes = dict(
        vocab_size=1024,
        hidden_size=1024,
        intermediate_size=2816,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=128,
    )
    moe = dict(vocab_size=256, hidden_size=256, moe_intermediate_size=128, num_experts=8, num_experts_per_tok=2)
    configs = {
        "llama": transformers.LlamaConfig(**sizes, num_hidden_layers=4),
        "tied": transformers.LlamaConfig(**sizes, num_hidden_layers=1, tie_word_embeddings=True),
        "moe": transformers.Qwen3MoeConfig(
            **moe, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=64
        ),
    }
    made = {"tinylm": TINYLM}
    for name, config in configs.items():
        torch.manual_seed(11)
        made[name] = tmp_path_factory.mktemp(name) / "plain"
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(
            made[name], max_shard_size="40MB"
        )
    return made


def load(directory: Path, **kwargs):
    return AutoModelForCausalLM.from_pretrained(directory, device_map="cuda", **kwargs)


def compressed(source: Path, where: Path, how: str) -> Path:
    if how == "pack":
        tersor.pack_model(source, where / "model")
    elif how == "rank":
        tersor.compress(source, where / "model")
    return source if how == "fly" else where / "model"


def logits(model, text=TEXT):
    with torch.no_grad():
        return model(text.to(model.device)).logits


def packed_modules(model) -> list:
    return [
        module for module in model.modules() if isinstance(module, (tersor.torch.Linear, tersor.torch.PackedExperts))
    ]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", ["tinylm", "llama", "tied", "moe"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_exact_logits(sources, tmp_path, name, how):
    model = load(compressed(sources[name], tmp_path, how), quantization_config=TersorConfig(exact=True))
    plain = load(sources[name])
    assert packed_modules(model) and all(module.weight.is_cuda for module in packed_modules(model))
    for text in (TEXT, TEXT[:, :1], TEXT.repeat(8, 1)):
        assert torch.equal(logits(model, text), logits(plain, text))


@pytest.mark.parametrize("name", ["tinylm", "llama", "tied"])
def test_default_logits_differ_by_the_order_of_sums_only(sources, tmp_path, name):
    model, plain = load(compressed(sources[name], tmp_path, "pack")), load(sources[name])
    reference = load(sources[name], dtype=torch.float32)
    for text in (TEXT, TEXT[:, :1]):
        exact = logits(reference, text)
        error = (logits(model, text).float() - exact).abs().max()
        assert error <= 1.5 * (logits(plain, text).float() - exact).abs().max() + 1e-3


@pytest.mark.parametrize("how", HOW)
def test_memory_while_loading(sources, tmp_path, how):
    directory = compressed(sources["llama"], tmp_path, how)
    plain = sum(
        value.numel() * 2
        for value in AutoModelForCausalLM.from_pretrained(sources["llama"], device_map="meta").parameters()
    )
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    model = load(directory, **({"quantization_config": TersorConfig()} if how == "fly" else {}))
    peak, after = torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated() - before
    assert after < 0.78 * plain and peak < plain, (after / plain, peak / plain)
    del model
    assert torch.cuda.memory_allocated() - before < 0.01 * plain


def _flip(path: Path, name: str, where: float) -> None:
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    begin, end = json.loads(data[8 : 8 + length])[name]["data_offsets"]
    data[8 + length + begin + int(where * (end - begin - 1))] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["pack", "rank"])
@pytest.mark.parametrize(
    "name", ["model.layers.2.mlp.up_proj.weight", "model.embed_tokens.weight", "model.norm.weight"]
)
@pytest.mark.parametrize("where", [0.001, 0.3, 0.9])
def test_damage_is_found(tmp_path, how, name, where):
    directory = compressed(TINYLM, tmp_path, how)
    _flip(directory / "model.safetensors", name, where)
    with pytest.raises(tersor.Error) as failure:
        load(directory)
    assert failure.value.tensor == name


GENERATION = dict(max_new_tokens=48, do_sample=False, cache_implementation="static", eos_token_id=None, pad_token_id=0)


@pytest.mark.parametrize("name", ["tinylm", "moe"])
def test_exact_tokens_with_a_static_cache(sources, tmp_path, name):
    model, plain = load(compressed(sources[name], tmp_path, "pack")), load(sources[name])
    for module in model.modules():
        if isinstance(module, (tersor.torch.Linear, tersor.torch.Experts)):
            module.exact = True
    tokens = [each.generate(TEXT.cuda(), disable_compile=True, **GENERATION) for each in (model, plain)]
    assert torch.equal(*tokens)


def test_compiled_generation(tmp_path):
    """Transformers compiles the model's forward for static caches; fused norms may round otherwise later in the text."""
    model = load(compressed(TINYLM, tmp_path, "pack"))
    compiled = model.generate(TEXT.cuda(), **GENERATION)
    eager = model.generate(TEXT.cuda(), disable_compile=True, **GENERATION)
    assert compiled.shape == eager.shape and torch.equal(
        compiled[:, : TEXT.shape[1] + 8], eager[:, : TEXT.shape[1] + 8]
    )


@pytest.mark.parametrize("name", ["llama", "tied", "moe"])
def test_saving_from_the_gpu(sources, tmp_path, name):
    load(compressed(sources[name], tmp_path, "pack")).save_pretrained(tmp_path / "saved", max_shard_size="40MB")
    tersor.verify(tmp_path / "saved")
    tersor.decompress(tmp_path / "saved", tmp_path / "restored")
    restored, source = (
        AutoModelForCausalLM.from_pretrained(each).state_dict() for each in (tmp_path / "restored", sources[name])
    )
    assert restored.keys() == source.keys() and all(torch.equal(restored[key], source[key]) for key in source)
