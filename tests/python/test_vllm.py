"""The vLLM plugin against vLLM itself, on the CPU: its layers with faked tensor parallelism, and whole engines.

An engine runs in a process of its own (this file is also that process's program), with the plugin found through its entry point.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import pytest

pytest.importorskip("vllm")

import torch

TINYLM = Path(__file__).resolve().parents[1] / "data" / "tinylm-2m"
TERSOR = Path(importlib.util.find_spec("tersor").origin).parents[1]
PROMPTS = [b"The history of the city ", b"In 1998, ", b"A", b"the same day, " * 20]

# ---- an engine in its own process ----

# Plain layers that multiply with torch's own product, as the plugin does on the CPU, make results comparable to the bit.
HELPERS = """
import os
import torch
def dtypes_of(model):
    return {name: str(p.dtype).removeprefix("torch.") for name, p in model.named_parameters()}
def register():
    if os.environ.get("TERSOR_TEST_REFERENCE") == "1":
        from vllm.model_executor.layers import utils
        def dispatch(layer, remove_weight):
            layer.cpu_linear = torch.nn.functional.linear
        utils.dispatch_cpu_unquantized_gemm = dispatch
"""


def engine_main() -> None:
    from tersor_test_helpers import dtypes_of
    from vllm import LLM, SamplingParams

    options = json.loads(sys.argv[1])
    llm = LLM(skip_tokenizer_init=True, max_model_len=512, max_num_seqs=4, **options)
    sampling = SamplingParams(max_tokens=32, temperature=0, detokenize=False, ignore_eos=True, logprobs=4)
    outputs = llm.generate([{"prompt_token_ids": list(p)} for p in PROMPTS], sampling, use_tqdm=False)
    found = {
        "tokens": [list(o.outputs[0].token_ids) for o in outputs],
        "logprobs": [
            [sorted((t, p.logprob) for t, p in step.items()) for step in o.outputs[0].logprobs] for o in outputs
        ],
        "dtypes": llm.apply_model(dtypes_of)[0],
    }
    Path(os.environ["TERSOR_TEST_OUT"]).write_text(json.dumps(found))


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """A folder that holds what an installed package has: the entry point."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "tersor_test_helpers.py").write_text(HELPERS)
    info = folder / "tersor_test-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tersor-test\nVersion: 0\n")
    (info / "entry_points.txt").write_text(
        "[vllm.general_plugins]\ntersor = tersor.vllm:register\ntersor_test = tersor_test_helpers:register\n"
    )
    return folder


@pytest.fixture(scope="session")
def run(site, tmp_path_factory):
    def run_engine(model: Path, reference: bool = False, env: dict | None = None, **options) -> dict:
        out = tmp_path_factory.mktemp("engine") / "out.json"
        paths = [str(site), str(TERSOR)]
        environment = os.environ | {
            "OMP_NUM_THREADS": "2",
            "PYTHONPATH": os.pathsep.join(paths + os.environ.get("PYTHONPATH", "").split(os.pathsep)).rstrip(
                os.pathsep
            ),
            "TERSOR_TEST_OUT": str(out),
            "TERSOR_TEST_REFERENCE": str(int(reference)),
            "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "WARNING",
        }
        options = {"model": str(model), "dtype": "bfloat16", "enforce_eager": True} | options
        engine = subprocess.run(
            [sys.executable, __file__, json.dumps(options)],
            env=environment | (env or {}),
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert engine.returncode == 0, engine.stdout[-4000:] + engine.stderr[-4000:]
        return json.loads(out.read_text())

    return run_engine


@pytest.fixture(scope="session")
def plain(run):
    return run(TINYLM, reference=True)


@pytest.fixture(scope="session")
def directories(tmp_path_factory) -> dict[str, Path]:
    """tinylm as `tersor pack`, `tersor compress` and both together write it."""
    import tersor

    folder = tmp_path_factory.mktemp("models")
    tersor.pack_model(TINYLM, folder / "pack")
    tersor.compress(TINYLM, folder / "compress")
    tersor.compress(TINYLM, folder / "both", packing="packed")
    tersor.compress(TINYLM, folder / "tcatbe", packing="tcatbe")
    return {name: folder / name for name in ("pack", "compress", "both", "tcatbe")}


def check_packed(dtypes: dict[str, str], but: tuple[str, ...] = ()) -> None:
    for name, dtype in dtypes.items():
        packed = name.endswith("proj.weight") or (name == "lm_head.weight" and "lm_head" not in but)
        assert dtype == ("uint8" if packed else "bfloat16"), name


def test_on_the_fly(run, plain):
    found = run(TINYLM, quantization="tersor")
    check_packed(found["dtypes"])
    assert set(plain["dtypes"].values()) == {"bfloat16"}
    assert found["tokens"] == plain["tokens"]
    assert found["logprobs"] == plain["logprobs"]


@pytest.mark.parametrize("kind", ["pack", "compress", "both", "tcatbe"])
def test_directory(run, plain, directories, kind):
    found = run(directories[kind])  # The config.json names the method.
    check_packed(found["dtypes"])
    assert found["tokens"] == plain["tokens"]
    assert found["logprobs"] == plain["logprobs"]


def test_compiled_graphs(run, directories):
    plain = run(TINYLM, reference=True, enforce_eager=False)
    found = run(directories["pack"], enforce_eager=False)
    check_packed(found["dtypes"])
    assert found["tokens"] == plain["tokens"]


def test_float16(run):
    """As FP16 only one kind of these matrices gets smaller packed; the others stay as they are."""
    plain = run(TINYLM, reference=True, dtype="float16")
    found = run(TINYLM, reference=True, quantization="tersor", dtype="float16")
    assert found["dtypes"]["model.layers.0.mlp.down_proj.weight"] == "uint8"
    assert found["dtypes"]["lm_head.weight"] == "float16"
    assert found["tokens"] == plain["tokens"]
    assert found["logprobs"] == plain["logprobs"]


def test_options_from_the_config(run, plain, directories):
    overrides = {
        "quantization_config": {"quant_method": "tersor", "exact": True, "exclude": ["lm_head", "model.layers.1.*"]}
    }
    found = run(directories["both"], hf_overrides=overrides, reference=True)
    assert found["dtypes"]["lm_head.weight"] == "bfloat16"
    assert found["dtypes"]["model.layers.1.mlp.down_proj.weight"] == "bfloat16"
    assert found["dtypes"]["model.layers.2.mlp.down_proj.weight"] == "uint8"
    assert found["logprobs"] == plain["logprobs"]


def test_tied_lm_head(run, tmp_path):
    """An LM head that is the embedding stays plain, and one copy."""
    from safetensors.torch import load_file, save_file

    import tersor

    model = tmp_path / "tied"
    model.mkdir()
    config = json.loads((TINYLM / "config.json").read_text()) | {"tie_word_embeddings": True}
    (model / "config.json").write_text(json.dumps(config))
    tensors = load_file(TINYLM / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors.pop("lm_head.weight")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    tersor.compress(model, tmp_path / "packed", packing="packed")
    plain = run(model, reference=True)
    for found in (run(model, quantization="tersor", reference=True), run(tmp_path / "packed", reference=True)):
        check_packed(found["dtypes"], but=("lm_head",))
        assert found["logprobs"] == plain["logprobs"]


def test_experts(run, tmp_path):
    """Experts are decoded when they are loaded, or held packed where that is asked for."""
    transformers = pytest.importorskip("transformers")
    import tersor

    config = transformers.Qwen3MoeConfig(
        vocab_size=256,
        hidden_size=128,
        intermediate_size=256,
        moe_intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        num_experts=8,
        num_experts_per_tok=2,
        tie_word_embeddings=False,
        max_position_embeddings=512,
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data = (torch.randn(parameter.shape) / 20).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "plain")
    tersor.compress(tmp_path / "plain", tmp_path / "packed", packing="packed")
    plain = run(tmp_path / "plain", reference=True)
    found = run(tmp_path / "packed", reference=True)
    assert found["dtypes"]["model.layers.0.mlp.experts.routed_experts.w2_weight"] == "bfloat16"
    assert found["logprobs"] == plain["logprobs"]
    packed = run(tmp_path / "packed", reference=True, env={"TERSOR_VLLM_EXPERTS": "1"})
    assert packed["dtypes"]["model.layers.0.mlp.experts.routed_experts.w13_weight"] == "uint8"
    assert packed["dtypes"]["model.layers.1.mlp.experts.routed_experts.w2_weight"] == "uint8"
    for found, expected in zip(packed["logprobs"], plain["logprobs"], strict=True):
        # Sums in another order than in vLLM's product for experts, so not to the bit, and only as long as tokens agree.
        ours, theirs = dict(found[0]), dict(expected[0])
        assert len(ours.keys() & theirs.keys()) >= 3
        assert all(abs(ours[t] - theirs[t]) < 0.05 for t in ours.keys() & theirs.keys())


def test_damage_names_the_tensor(run, directories, tmp_path):
    model = tmp_path / "damaged"
    shutil.copytree(directories["pack"], model)
    path = model / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[data.index(b"TSRM", len(data) // 2) + 4096] ^= 1
    path.write_bytes(data)
    with pytest.raises(AssertionError, match=r"tensor 'model\.layers\..*proj\.weight'"):
        run(model)


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="needs two cores")
def test_two_processes(run, directories):
    """Tensor parallelism of 2 in two processes."""
    env = {"VLLM_CPU_OMP_THREADS_BIND": "0|1", "OMP_NUM_THREADS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    plain = run(TINYLM, reference=True, env=env, tensor_parallel_size=2)
    for found in (
        run(directories["both"], env=env, tensor_parallel_size=2),
        run(TINYLM, env=env, tensor_parallel_size=2, quantization="tersor"),
    ):
        check_packed(found["dtypes"])
        assert found["tokens"] == plain["tokens"]
        assert found["logprobs"] == plain["logprobs"]


# ---- layers in this process ----

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


if __name__ == "__main__":
    engine_main()
