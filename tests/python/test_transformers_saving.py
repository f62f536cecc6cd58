"""save_pretrained, the configuration, and what is refused: damage, contradictions, other quantizers."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import shutil
import weakref
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from hf_models import (  # noqa: E402
    TEXT,
    TINYLM,
    assert_same_weights,
    compress,
    llama,
    load,
    load_by,
    logits,
    packed_layers,
    qwen2,
    qwen3_moe,
    save_plain,
)
from transformers import AutoConfig  # noqa: E402

import tersor  # noqa: E402
from tersor.transformers import TersorConfig, TersorHfQuantizer  # noqa: E402


@pytest.mark.parametrize("how", ["pack", "rank", "fly"])
def test_saved_directory_is_a_container(tmp_path, how):
    model = load_by(how, TINYLM, tmp_path / "first")
    saved, restored = tmp_path / "saved", tmp_path / "restored"
    model.save_pretrained(saved)
    assert json.loads((saved / "config.json").read_text())["quantization_config"]["quant_method"] == "tersor"
    tersor.verify(saved)
    again = load(saved)
    assert packed_layers(again) == packed_layers(model)
    assert torch.equal(logits(again), logits(load(TINYLM)))
    tersor.decompress(saved, restored)
    assert "quantization_config" not in json.loads((restored / "config.json").read_text())
    assert_same_weights(restored, TINYLM)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("make", [llama, qwen2])
def test_fused_model_is_saved_as_its_layers(tmp_path, make):
    source = save_plain(make(), tmp_path / "plain")
    directory = compress(source, tmp_path / "model", "pack")
    plain = load(source)
    model = load(directory, quantization_config=TersorConfig(fuse=True))
    assert any(name.endswith("together.merged") for name, _ in model.named_modules())
    torch.testing.assert_close(logits(model), logits(plain))
    model.save_pretrained(tmp_path / "saved")
    tersor.decompress(tmp_path / "saved", tmp_path / "restored")
    assert_same_weights(tmp_path / "restored", source)
    back = model.dequantize()
    assert back.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in back.state_dict().items())


def test_a_model_that_nobody_holds_is_saved(tmp_path):
    load(compress(TINYLM, tmp_path / "model", "pack")).save_pretrained(tmp_path / "saved")
    tersor.verify(tmp_path / "saved")


def test_saving_over_the_directory_it_came_from(tmp_path):
    directory = compress(save_plain(llama(), tmp_path / "plain", max_shard_size="200KB"), tmp_path / "model", "pack")
    (directory / "notes.txt").write_text("kept")
    model = load(directory)
    before = logits(model)
    model.save_pretrained(directory)
    assert [path.name for path in directory.glob("*.safetensors*")] == ["model.safetensors"]
    assert (directory / "notes.txt").read_text() == "kept"
    assert torch.equal(logits(model), before) and torch.equal(logits(load(directory)), before)
    tersor.verify(directory)


@pytest.mark.parametrize("make", [qwen3_moe, lambda: llama(tie_word_embeddings=True)])
def test_saved_conversions_are_undone(tmp_path, make):
    source = save_plain(make(), tmp_path / "plain")
    model = load(compress(source, tmp_path / "model", "pack"))
    model.save_pretrained(tmp_path / "saved", max_shard_size="300KB")
    tersor.decompress(tmp_path / "saved", tmp_path / "restored")
    assert_same_weights(tmp_path / "restored", source)


def test_dequantize(tmp_path):
    plain = load(TINYLM)
    model = load(compress(TINYLM, tmp_path / "model", "pack")).dequantize()
    assert not packed_layers(model) and not model.is_quantized
    for name, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert torch.equal(logits(model), logits(plain))
    model.save_pretrained(tmp_path / "saved")
    assert_same_weights(tmp_path / "saved", TINYLM)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_save_themselves(tmp_path, duplicate):
    other = duplicate(load(compress(TINYLM, tmp_path / "model", "pack")))
    assert torch.equal(logits(other), logits(load(TINYLM)))
    other.save_pretrained(tmp_path / "saved")
    tersor.verify(tmp_path / "saved")


def test_config_keeps_the_containers_fields():
    fields = {
        "quant_method": "tersor",
        "version": 1,
        "splice": "000000000001+000000000123",
        "replaced": "",
        "digest": "0123456789abcdef",
    }
    config = TersorConfig.from_dict(fields)
    assert (
        fields.items() <= config.to_dict().items()
        and TersorConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()
    )
    assert "version" not in TersorConfig().to_dict() and not TersorConfig().exact
    assert TersorConfig(include="lm_head").include == ["lm_head"]


def test_config_refuses_what_it_does_not_know():
    with pytest.raises(tersor.UnsupportedVersionError):
        TersorConfig.from_dict({"quant_method": "tersor", "version": 2})
    with pytest.raises(tersor.InvalidArgumentError):
        TersorConfig(inline_escapes=7)
    with pytest.raises(TypeError):
        TersorConfig(exakt=True)


def test_registering_twice():
    import tersor.transformers as module

    module._register()
    module._register()
    assert transformers.quantizers.auto.AUTO_QUANTIZER_MAPPING["tersor"] is TersorHfQuantizer


def test_a_model_quantized_by_another_method_is_refused(tmp_path):
    source = tmp_path / "plain"
    shutil.copytree(TINYLM, source, copy_function=shutil.copyfile)
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8"}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(tersor.UnsupportedError):
        load(compress(source, tmp_path / "model", "pack"))


def test_plain_weights_under_a_containers_config(tmp_path):
    directory = compress(TINYLM, tmp_path / "model", "pack")
    shutil.copyfile(TINYLM / "model.safetensors", directory / "model.safetensors")
    with pytest.raises(tersor.WrongKindError):
        load(directory)


def test_compressed_weights_under_a_plain_config(tmp_path):
    directory = compress(TINYLM, tmp_path / "model", "pack")
    with pytest.raises(tersor.WrongKindError):
        load(directory, config=AutoConfig.from_pretrained(TINYLM), quantization_config=TersorConfig())


def _flip(path: Path, name: str, where: float) -> None:
    """Changes one bit of a tensor's bytes, at this fraction of them."""
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    begin, end = json.loads(data[8 : 8 + length])[name]["data_offsets"]
    data[8 + length + begin + int(where * (end - begin - 1))] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["pack", "rank"])
@pytest.mark.parametrize("name", ["model.layers.2.mlp.up_proj.weight", "lm_head.weight", "model.embed_tokens.weight"])
@pytest.mark.parametrize("where", [0.3, 0.9])
def test_damaged_frames_are_not_loaded(tmp_path, how, name, where):
    directory = compress(TINYLM, tmp_path / "model", how)
    _flip(directory / "model.safetensors", name, where)
    with pytest.raises(tersor.Error) as failure:
        load(directory)
    assert failure.value.tensor == name and failure.value.file == str(directory / "model.safetensors")


def test_a_damaged_stored_tensor_is_not_loaded(tmp_path):
    directory = compress(TINYLM, tmp_path / "model", "pack")
    _flip(directory / "model.safetensors", "model.norm.weight", 0.5)
    with pytest.raises(tersor.DigestMismatchError) as failure:
        load(directory)
    assert failure.value.tensor == "model.norm.weight"


def test_without_verify_the_values_of_packed_weights_are_not_read(tmp_path):
    directory = compress(TINYLM, tmp_path / "model", "pack")
    _flip(directory / "model.safetensors", "lm_head.weight", 0.05)
    with pytest.warns(UserWarning):
        load(directory, quantization_config=TersorConfig(verify=False))


def test_a_damaged_expert_is_not_loaded(tmp_path):
    source = save_plain(qwen3_moe(), tmp_path / "plain")
    directory = compress(source, tmp_path / "model", "pack")
    _flip(directory / "model.safetensors", "model.layers.1.mlp.experts.2.up_proj.weight", 0.01)
    with pytest.raises(tersor.DigestMismatchError) as failure:
        load(directory)
    assert failure.value.tensor == "model.layers.1.mlp.experts.2.up_proj.weight"


def test_exchanged_frames_are_not_loaded(tmp_path):
    """Two frames of one shape, each right in itself, in each other's place."""
    directory = compress(TINYLM, tmp_path / "model", "pack")
    path = directory / "model.safetensors"
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    places = [header[f"model.layers.0.mlp.{name}_proj.weight"] for name in ("gate", "up")]
    assert places[0]["shape"] == places[1]["shape"]
    (a, b), (c, d) = (place["data_offsets"] for place in places)
    start = 8 + length
    data[start + a : start + b], data[start + c : start + d] = data[start + c : start + d], data[start + a : start + b]
    path.write_bytes(data)
    with pytest.raises(tersor.DigestMismatchError):
        load(directory)


def test_a_model_of_another_shape_is_refused(tmp_path):
    directory = compress(save_plain(llama(), tmp_path / "plain"), tmp_path / "model", "rank")
    config = AutoConfig.from_pretrained(directory)
    config.intermediate_size = 320
    with pytest.raises(tersor.MismatchError):
        load(directory, config=config)


def test_a_dropped_model_is_freed_at_once(tmp_path):
    model = load(compress(TINYLM, tmp_path / "model", "pack"))
    weight = weakref.ref(model.lm_head.weight)
    gc.disable()
    try:
        del model
        assert weight() is None
    finally:
        gc.enable()


def test_layers_that_accelerate_moves(tmp_path):
    accelerate = pytest.importorskip("accelerate")
    model, plain = load(compress(TINYLM, tmp_path / "model", "pack")), load(TINYLM)
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    assert model.lm_head.weight.is_meta
    assert torch.equal(model(TEXT).logits, plain(TEXT).logits)
    model.hf_device_map = {"": "cpu"}
    with pytest.warns(UserWarning, match="offloaded"):
        model.save_pretrained(tmp_path / "saved")
    assert torch.equal(logits(load(tmp_path / "saved")), logits(plain))


def test_tensor_parallelism_is_refused():
    config = AutoConfig.from_pretrained(TINYLM)
    config.distributed_config = transformers.distributed.DistributedConfig(tp_plan="auto")
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    with pytest.raises(tersor.UnsupportedError):
        TersorHfQuantizer(TersorConfig(), pre_quantized=False).preprocess_model(model, dtype=torch.bfloat16)


def test_push_to_hub_is_refused(tmp_path):
    model = load(TINYLM, quantization_config=TersorConfig())
    with pytest.raises(tersor.UnsupportedError):
        model.save_pretrained(tmp_path / "saved", push_to_hub=True)
    assert not (tmp_path / "saved").exists()
