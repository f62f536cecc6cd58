"""The vLLM plugin's layers against vLLM's own, on the CPU, with faked tensor parallelism."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from unittest import mock

import pytest

pytest.importorskip("vllm")

import torch

CPU = torch.device("cpu")


@contextmanager
def tensor_parallel(rank: int, size: int):
    """vLLM's layers as rank `rank` of `size` builds them, without processes."""
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor import parameter
    from vllm.model_executor.layers import linear, vocab_parallel_embedding
    from vllm.utils.torch_utils import set_default_torch_dtype

    with ExitStack() as stack:
        stack.enter_context(set_current_vllm_config(VllmConfig()))
        stack.enter_context(set_default_torch_dtype(torch.bfloat16))
        for module in (linear, parameter, vocab_parallel_embedding):
            stack.enter_context(mock.patch.object(module, "get_tensor_model_parallel_rank", lambda: rank))
            stack.enter_context(mock.patch.object(module, "get_tensor_model_parallel_world_size", lambda: size))
        yield


def coded(weight: torch.Tensor, form: str) -> torch.Tensor:
    """What the checkpoint reader hands on for a tensor that is stored in a form."""
    import tersor
    from tersor.torch import PackedWeight
    from tersor.vllm.coded import open_tensor

    if form == "plain":
        return weight
    if form == "frame":
        data = torch.frombuffer(bytearray(tersor.encode(weight)), dtype=torch.uint8)
    else:
        data = PackedWeight.pack(weight, inline_escapes=64).data
    return open_tensor("t", data)


def make_layer(kind: str, quantized: bool):
    from vllm.model_executor.layers import linear
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    from tersor.vllm.config import TersorConfig

    common = {"quant_config": TersorConfig() if quantized else None, "prefix": f"model.{kind}"}
    make = {
        "replicated": lambda: linear.ReplicatedLinear(192, 256, bias=False, **common),
        "column": lambda: linear.ColumnParallelLinear(192, 512, bias=True, **common),
        "row": lambda: linear.RowParallelLinear(512, 192, bias=True, **common),
        "gate_up": lambda: linear.MergedColumnParallelLinear(192, [512, 512], bias=False, **common),
        "qkv": lambda: linear.QKVParallelLinear(192, 32, 8, 2, bias=True, **common),
        "lm_head": lambda: ParallelLMHead(250, 192, bias=False, **common),
    }
    return make[kind]()


SHARDS = {
    "replicated": {None: 256}, "column": {None: 512}, "row": {None: 192}, "gate_up": {0: 512, 1: 512},
    "qkv": {"q": 256, "k": 64, "v": 64}, "lm_head": {None: 250},
}  # fmt: skip


def load(layer, kind: str, form: str) -> None:
    generator = torch.Generator().manual_seed(7)
    columns = 512 if kind == "row" else 192
    for shard, rows in SHARDS[kind].items():
        weight = (torch.randn(rows, columns, generator=generator) / 16).to(torch.bfloat16)
        loaded = coded(weight, form)
        layer.weight.weight_loader(layer.weight, loaded, *([] if shard is None else [shard]))
        if getattr(layer, "bias", None) is not None:
            bias = torch.randn(rows, generator=generator).to(torch.bfloat16)
            layer.bias.weight_loader(layer.bias, bias, *([] if shard is None else [shard]))


def unpacked(layer) -> torch.Tensor:
    from tersor.torch import PackedWeight

    return PackedWeight.from_bytes(layer.weight.data).unpack()


@pytest.mark.parametrize("form", ["plain", "frame", "matrix"])
@pytest.mark.parametrize("rank, size", [(0, 1), (0, 2), (1, 2), (3, 4)])
@pytest.mark.parametrize("kind", list(SHARDS))
def test_shards(kind, rank, size, form):
    """The packed weight is that of vLLM's plain layer for every rank, layer and form of the checkpoint."""
    with tensor_parallel(rank, size):
        reference, layer = make_layer(kind, False), make_layer(kind, True)
        load(reference, kind, "plain")
        assert layer.weight.is_meta
        load(layer, kind, form)
        assert layer.weight.dtype == torch.uint8  # Packed when its last shard came, not later.
        assert layer.weight.numel() < reference.weight.nbytes
        assert torch.equal(unpacked(layer).view(torch.int16), reference.weight.data.view(torch.int16))
        bias = reference.bias if kind in ("column", "row", "qkv") else None
        if bias is not None:
            assert torch.equal(layer.bias, bias)
        layer.quant_method.process_weights_after_loading(layer)  # vLLM calls it for all layers at the end.
        x = torch.randn(3, reference.weight.shape[1]).to(torch.bfloat16)
        assert torch.equal(
            layer.quant_method.apply(layer, x, bias), torch.nn.functional.linear(x, reference.weight, bias)
        )
        assert layer.quant_method.apply(layer, x.float()).dtype == torch.float32


@pytest.mark.parametrize("kind", ["replicated", "column", "row"])
def test_a_whole_matrix_frame_is_kept(kind):
    """64 inline places, where the plugin's own packing has 56, show that the bytes are the checkpoint's."""
    with tensor_parallel(0, 1):
        layer = make_layer(kind, True)
        load(layer, kind, "matrix")
        assert layer.tersor_matrix[2] == 64
    with tensor_parallel(1, 2):
        if kind != "replicated":
            layer = make_layer(kind, True)
            load(layer, kind, "matrix")
            assert layer.tersor_matrix[2] == 56


def test_what_does_not_shrink_stays_plain():
    with tensor_parallel(0, 1):
        layer = make_layer("column", True)
        noise = torch.randint(-(2**15), 2**15, (512, 192), dtype=torch.int16).view(torch.bfloat16)
        layer.weight.weight_loader(layer.weight, noise)
        layer.bias.weight_loader(layer.bias, torch.zeros(512))
        assert layer.weight.dtype == torch.bfloat16
        assert torch.equal(layer.weight.view(torch.int16), noise.view(torch.int16))
        assert type(layer.quant_method).__name__ == "UnquantizedLinearMethod"


def test_layers_that_are_not_packed():
    from vllm.model_executor.layers import linear
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding

    from tersor.vllm.config import Options, TersorConfig

    with tensor_parallel(0, 1):
        config = TersorConfig(Options(include=("model.*", "a"), exclude=("model.layers.3.*",)))
        for layer in (
            linear.ReplicatedLinear(192, 8, bias=False, quant_config=config, prefix="model.layers.0.gate"),
            linear.ReplicatedLinear(192, 192, bias=False, quant_config=config, prefix="model.layers.3.o_proj"),
            linear.ReplicatedLinear(192, 192, bias=False, quant_config=config, prefix="vision.layers.0.o_proj"),
            linear.ReplicatedLinear(192, 192, bias=False, params_dtype=torch.float32, quant_config=config, prefix="a"),
            VocabParallelEmbedding(256, 192, quant_config=config, prefix="model.embed_tokens"),
        ):
            assert type(layer.quant_method).__name__.startswith("Unquantized")
        layer = linear.ReplicatedLinear(192, 192, bias=False, quant_config=config, prefix="model.layers.30.o_proj")
        assert type(layer.quant_method).__name__ == "TersorLinearMethod"


def test_loading_again():
    """New weights into a loaded layer, as `reload_weights` does it: the parameter's address stays."""
    from vllm.model_executor.model_loader.reload import layerwise

    with tensor_parallel(0, 1), torch.no_grad():
        layer, reference = make_layer("gate_up", True), make_layer("gate_up", False)
        layerwise.record_metadata_for_reloading(layer)
        load(layer, "gate_up", "plain")
        address = layer.weight.data_ptr()
        layerwise.initialize_layerwise_reload(layer)
        generator = torch.Generator().manual_seed(8)
        for shard in (0, 1):
            weight = (torch.randn(512, 192, generator=generator) / 16).to(torch.bfloat16)
            layer.weight.weight_loader(layer.weight, weight, shard)
            reference.weight.weight_loader(reference.weight, weight, shard)
        assert layer.weight.data_ptr() == address
        assert torch.equal(unpacked(layer).view(torch.int16), reference.weight.data.view(torch.int16))


@pytest.mark.parametrize("form", ["frame", "matrix"])
def test_coded_tensor(form):
    """What model code does with a checkpoint's tensors on the way to the loaders."""
    from tersor.vllm.coded import CodedTensor

    weight = torch.randn(96, 128).to(torch.bfloat16)
    tensor = coded(weight, form)
    assert isinstance(tensor, CodedTensor) and isinstance(tensor.narrow(0, 32, 32), CodedTensor)
    assert (tensor.shape, tensor.dtype, tensor.device, tensor.ndim) == (weight.shape, weight.dtype, CPU, 2)
    same = {
        "narrow": lambda t: t.narrow(0, 32, 32).narrow(1, 64, 64),
        "index": lambda t: t[5:60, ::2][3],
        "transpose": lambda t: t.t().contiguous(),
        "heads": lambda t: t.view(3, 32, 128).transpose(1, 2).reshape(-1, 32),
        "chunk": lambda t: t.chunk(2, dim=0)[1],
        "split": lambda t: t.split([32, 64], dim=0)[1],
        "unbind": lambda t: t.view(2, 48, 128).unbind(0)[1],
        "cast": lambda t: t.to(torch.float32),
        "cat": lambda t: torch.cat([t, weight]),
        "sum": lambda t: (t + 1) * t,
        "flatten": lambda t: t.flatten()[7:900],
        "copy": lambda t: torch.empty(32, 128, dtype=torch.bfloat16).copy_(t[64:]),
        "clone": lambda t: t.clone(),
        "unsqueeze": lambda t: t.unsqueeze(1).squeeze(1),
        "permute": lambda t: t.view(3, 32, 128).permute(2, 0, 1),
    }
    for name, act in same.items():
        found = act(tensor)
        found = found.decode() if isinstance(found, CodedTensor) else found
        assert torch.equal(found, act(weight)), name
    assert tensor.frame.decoded is None
    tensor[3:5].fill_(2.0)  # Some models scale what they load in place.
    tensor.mul_(2)
    expected = weight.clone()
    expected[3:5] = 2.0
    assert torch.equal(tensor.decode(), expected * 2)


def test_tensors_that_are_no_frames():
    from tersor.vllm.coded import open_tensor

    for tensor in (
        torch.zeros(4096, dtype=torch.uint8),
        torch.zeros(16, 256, dtype=torch.uint8),
        torch.zeros(128),
        torch.zeros(0, dtype=torch.uint8),
    ):
        assert open_tensor("t", tensor) is tensor
    norm = torch.randn(192).to(torch.bfloat16)
    assert torch.equal(coded(norm, "frame"), norm)


def test_config():
    import tersor
    from tersor.vllm.config import Options, TersorConfig

    container = {"quant_method": "tersor", "version": 1, "splice": "0+0", "replaced": "", "digest": "0"}
    assert TersorConfig.from_config(container).options == Options()
    given = {
        "exact": True,
        "include": ["a"],
        "exclude": [],
        "inline_escapes": 64,
        "verify": False,
    }  # What save_pretrained writes.
    assert TersorConfig.from_config({"quant_method": "tersor"} | given).options == Options(
        True, False, ("a",), (), 64, False
    )
    with mock.patch.dict(os.environ, {"TERSOR_VLLM_EXACT": "1"}):
        assert TersorConfig().options == Options(exact=True)
    with pytest.raises(tersor.UnsupportedVersionError):
        TersorConfig.from_config(container | {"version": 2})
    with pytest.raises(tersor.UnsupportedError):
        TersorConfig.from_config(container | {"replaced": '{"quant_method": "fp8"}'})
    with pytest.raises(tersor.InvalidArgumentError, match="exakt"):
        TersorConfig.from_config({"quant_method": "tersor", "exakt": True})


def test_register_twice():
    from vllm.model_executor.layers.quantization import get_quantization_config
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    import tersor.vllm

    tersor.vllm.register()
    wrapped = DefaultModelLoader._get_weights_iterator
    tersor.vllm.register()
    assert DefaultModelLoader._get_weights_iterator is wrapped
    assert get_quantization_config("tersor").get_name() == "tersor"
    with mock.patch("vllm.__version__", "0.31.9"), pytest.raises(ImportError):
        tersor.vllm.register()
