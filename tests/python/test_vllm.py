"""The vLLM plugin in whole engines, on the CPU, against vLLM without it.

An engine runs in a process of its own (this file is also that process's program), with the plugin found through its entry point.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

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


if __name__ == "__main__":
    engine_main()
