"""Transformers' from_pretrained and generate with compressed directories, on the CPU, against the plain model."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from hf_models import (  # noqa: E402
    TEXT,
    TINYLM,
    compress,
    llama,
    load,
    load_by,
    logits,
    mixtral,
    packed_layers,
    plain_linears,
    qwen2,
    qwen3_moe,
    save_plain,
)

import tersor  # noqa: E402
import tersor.torch  # noqa: E402
from tersor.transformers import TersorConfig, TersorHfQuantizer  # noqa: E402


@pytest.mark.parametrize("how", ["pack", "tcatbe", "rank", "top16"])
def test_compressed_directory_gives_the_same_logits(tmp_path, how):
    plain = load(TINYLM)
    model = load(compress(TINYLM, tmp_path / "model", how))
    assert packed_layers(model) == plain_linears(plain)
    assert torch.equal(logits(model), logits(plain))
    for name, value in plain.state_dict().items():
        if name.removesuffix(".weight") not in packed_layers(model):
            loaded = model.state_dict()[name]
            assert loaded.dtype == value.dtype and torch.equal(loaded, value), name
    assert model.get_memory_footprint() < 0.95 * plain.get_memory_footprint()
    assert model.is_quantized and isinstance(model.hf_quantizer, TersorHfQuantizer)


def test_packed_frames_are_taken_as_they_are(tmp_path):
    from safetensors.torch import load_file

    directory = compress(TINYLM, tmp_path / "model", "pack")
    frames = load_file(directory / "model.safetensors")
    model = load(directory)
    for name in packed_layers(model):
        frame = frames[f"{name}.weight"]
        assert torch.equal(model.get_submodule(name).weight[: len(frame)], frame), name


@pytest.mark.parametrize("exact", [False, True])
def test_packing_on_the_fly(exact):
    plain = load(TINYLM)
    model = load(TINYLM, quantization_config=TersorConfig(exact=exact))
    assert packed_layers(model) == plain_linears(plain)
    assert all(model.get_submodule(name).exact is exact for name in packed_layers(model))
    assert torch.equal(logits(model), logits(plain))


def test_exact_for_a_compressed_directory(tmp_path):
    directory = compress(TINYLM, tmp_path / "model", "pack")
    with pytest.warns(UserWarning, match="loading attributes"):
        model = load(directory, quantization_config=TersorConfig(exact=True))
    assert packed_layers(model) and all(model.get_submodule(name).exact for name in packed_layers(model))
    assert model.config.quantization_config.version == 1
    assert torch.equal(logits(model), logits(load(TINYLM)))


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
@pytest.mark.parametrize("how", ["pack", "rank"])
def test_device_maps(tmp_path, how, device_map):
    model = load(compress(TINYLM, tmp_path / "model", how), device_map=device_map)
    assert torch.equal(logits(model), logits(load(TINYLM)))


def test_a_device_map_to_disk_is_refused(tmp_path):
    directory = compress(TINYLM, tmp_path / "model", "pack")
    with pytest.raises(tersor.UnsupportedError):
        load(directory, device_map={"model": "cpu", "lm_head": "disk"}, offload_folder=str(tmp_path / "offload"))


@pytest.mark.parametrize("how", ["pack", "rank"])
def test_the_base_model_of_a_checkpoint(tmp_path, how):
    model = transformers.AutoModel.from_pretrained(compress(TINYLM, tmp_path / "model", how))
    plain = transformers.AutoModel.from_pretrained(TINYLM)
    assert packed_layers(model) == plain_linears(plain)
    with torch.no_grad():
        assert torch.equal(model(TEXT).last_hidden_state, plain(TEXT).last_hidden_state)


@pytest.mark.parametrize("how", ["pack", "rank"])
def test_a_head_that_the_checkpoint_lacks(tmp_path, how):
    directory = compress(TINYLM, tmp_path / "model", how)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(directory, num_labels=64)
    assert type(model.score) is torch.nn.Linear and model.score.weight.std() > 0
    assert len(packed_layers(model)) == 28


@pytest.mark.parametrize("how", ["pack", "fly"])
def test_weights_that_a_model_reads_itself_stay_plain(tmp_path, how):
    """T5 looks at the dtype of `self.wo.weight`."""
    torch.manual_seed(3)
    sizes = dict(vocab_size=256, d_model=128, d_kv=32, d_ff=256, num_layers=2, num_heads=4)
    source = tmp_path / "plain"
    transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes)).bfloat16().save_pretrained(source)
    auto = transformers.AutoModelForSeq2SeqLM
    plain = auto.from_pretrained(source)
    if how == "fly":
        model = auto.from_pretrained(source, quantization_config=TersorConfig())
    else:
        model = auto.from_pretrained(compress(source, tmp_path / "model", how))
    assert plain_linears(plain) - packed_layers(model) == {
        n for n in plain_linears(plain) if n.endswith(("wo", "lm_head"))
    }
    with torch.no_grad():
        outputs = [each(input_ids=TEXT, decoder_input_ids=TEXT[:, :4]).logits for each in (model, plain)]
    assert torch.equal(*outputs)


@pytest.mark.parametrize("how", ["pack", "rank"])
def test_shards(tmp_path, how):
    source = save_plain(llama(), tmp_path / "plain", max_shard_size="200KB")
    assert len(list(source.glob("*.safetensors"))) > 2
    model = load(compress(source, tmp_path / "model", how))
    assert packed_layers(model) and torch.equal(logits(model), logits(load(source)))


@pytest.mark.parametrize("how", ["pack", "rank", "fly"])
def test_tied_head_shares_the_embedding(tmp_path, how):
    source = save_plain(llama(tie_word_embeddings=True), tmp_path / "plain")
    model = load_by(how, source, tmp_path / "model")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert "lm_head" not in packed_layers(model) and len(packed_layers(model)) == 14
    assert torch.equal(logits(model), logits(load(source)))


@pytest.mark.parametrize("how", ["pack", "rank", "fly"])
def test_biases(tmp_path, how):
    source = save_plain(qwen2(), tmp_path / "plain")
    model = load_by(how, source, tmp_path / "model")
    assert model.model.layers[0].self_attn.q_proj.bias.abs().sum() > 0
    assert torch.equal(logits(model), logits(load(source)))


@pytest.mark.parametrize("how", ["pack", "rank", "fly"])
@pytest.mark.parametrize("make", [qwen3_moe, mixtral])
def test_experts_are_decoded_before_they_are_merged(tmp_path, make, how):
    source = save_plain(make(), tmp_path / "plain")
    plain = load(source)
    model = load_by(how, source, tmp_path / "model")
    assert packed_layers(model) == plain_linears(plain)
    packed = {name: module for name, module in model.named_modules() if isinstance(module, tersor.torch.Experts)}
    assert len(packed) == 2
    for name, module in packed.items():
        original = plain.get_submodule(name)
        assert torch.equal(module.up.unpacked(), original.gate_up_proj) and torch.equal(
            module.down.unpacked(), original.down_proj
        )
    assert torch.equal(logits(model), logits(plain))
    assert model.get_memory_footprint() < 0.78 * plain.get_memory_footprint()
    restored = model.dequantize()
    assert restored.state_dict().keys() == plain.state_dict().keys() and torch.equal(logits(restored), logits(plain))


@pytest.mark.parametrize("how", ["pack", "rank"])
def test_excluded_experts_are_decoded(tmp_path, how):
    source = save_plain(qwen3_moe(), tmp_path / "plain")
    with pytest.warns(UserWarning):
        model = load(compress(source, tmp_path / "model", how), quantization_config=TersorConfig(exclude=["*.experts"]))
    plain = load(source)
    experts = [name for name, value in plain.named_parameters() if value.dim() == 3]
    assert len(experts) == 4 and all(
        torch.equal(model.get_parameter(name), plain.get_parameter(name)) for name in experts
    )
    assert torch.equal(logits(model), logits(plain))


def test_include_and_exclude():
    model = load(TINYLM, quantization_config=TersorConfig(include=["*.mlp.*"], exclude=["model.layers.0.*"]))
    assert packed_layers(model) == {f"model.layers.{i}.mlp.{p}_proj" for i in (1, 2, 3) for p in ("gate", "up", "down")}
    assert torch.equal(logits(model), logits(load(TINYLM)))


def test_excluded_layers_of_a_compressed_directory_are_decoded(tmp_path):
    directory = compress(TINYLM, tmp_path / "model", "pack")
    with pytest.warns(UserWarning):
        model = load(directory, quantization_config=TersorConfig(exclude=["lm_head"]))
    assert type(model.lm_head) is torch.nn.Linear and packed_layers(model)
    assert torch.equal(logits(model), logits(load(TINYLM)))


def test_small_layers_stay_plain(tmp_path):
    source = save_plain(llama(num_key_value_heads=1), tmp_path / "plain")
    model = load(compress(source, tmp_path / "model", "pack"))
    assert type(model.model.layers[0].self_attn.k_proj) is torch.nn.Linear
    assert torch.equal(logits(model), logits(load(source)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("how", ["pack", "rank", "fly"])
def test_another_dtype(tmp_path, how, dtype):
    source = save_plain(llama(), tmp_path / "plain")
    plain = load(source, dtype=dtype)
    model = load_by(how, source, tmp_path / "model", dtype=dtype)
    assert packed_layers(model) == (plain_linears(plain) if dtype == torch.float16 else set())
    assert model.dtype == dtype and torch.equal(logits(model), logits(plain))


def test_fp16_checkpoint(tmp_path):
    source = save_plain(llama(), tmp_path / "plain", dtype=torch.float16)
    model = load(compress(source, tmp_path / "model", "pack"))
    assert packed_layers(model) and model.dtype == torch.float16
    assert torch.equal(logits(model), logits(load(source)))


@pytest.mark.parametrize("exact", [False, True])
def test_generate_with_a_static_cache(tmp_path, exact):
    plain = load(TINYLM)
    model = load(compress(TINYLM, tmp_path / "model", "pack"))
    for name in packed_layers(model):
        model.get_submodule(name).exact = exact
    options = dict(
        max_new_tokens=24, do_sample=False, cache_implementation="static", eos_token_id=None, disable_compile=True
    )
    assert torch.equal(model.generate(TEXT, **options), plain.generate(TEXT, **options))
