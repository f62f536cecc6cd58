"""python -m tersor.analyze on the small model of tests/data, against numbers made with numpy alone."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import tersor  # noqa: E402
from tersor import _activations, _tokens, analyze  # noqa: E402
from tersor._report import Counted, analysis_document, codebook_document  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TINYLM = ROOT / "tests/data/tinylm-2m"
N_LAYERS, KV_SHAPE = 4, (2, 32)


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_bytes((ROOT / "README.md").read_bytes() + (ROOT / "spec/codecs.md").read_bytes())
    return path


def run(*arguments: object) -> int:
    return analyze.main([str(a) for a in arguments])


def bf16_bits(tensor: torch.Tensor) -> np.ndarray:
    return tensor.contiguous().view(torch.int16).numpy().view(np.uint16)


def numpy_counts(bits: np.ndarray) -> np.ndarray:
    return np.bincount(((bits >> 7) & 0xFF).ravel(), minlength=256)


@pytest.fixture(scope="session")
def kv_reference(text) -> dict[str, np.ndarray]:
    """The KV cache of 1,500 bytes as bits, `[token, head, width]`, from a plain run: rows of 512, 512 and 476."""
    model = transformers.AutoModelForCausalLM.from_pretrained(TINYLM, dtype=torch.bfloat16)
    ids = np.frombuffer(text.read_bytes()[:1500], np.uint8).astype(np.int64)
    parts: dict[str, list[np.ndarray]] = {}
    for rows in (ids[:1024].reshape(2, 512), ids[1024:].reshape(1, -1)):
        with torch.no_grad():
            cache = model(torch.from_numpy(rows), use_cache=True).past_key_values
        for i, layer in enumerate(cache.layers):
            for letter, states in (("k", layer.keys), ("v", layer.values)):
                bits = bf16_bits(states.transpose(1, 2).contiguous())
                parts.setdefault(f"layers.{i}.{letter}", []).append(bits.reshape(-1, *KV_SHAPE))
    return {name: np.concatenate(pieces) for name, pieces in parts.items()}


@pytest.fixture(scope="session")
def document(text, tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("analysis")
    arguments = ("--model", TINYLM, "--dataset", text, "--tokens", 1500, "--seq-len", 512, "--batch", 2)
    assert run(*arguments, "--weights", "-o", out, "--calibrate", out / "books.json") == 0
    figures = {path.name for path in out.glob("*.png")}
    assert {"kv-exponents.png", "kv-entropy.png", "kv-ratio.png", "weights-bits.png", "weights-types.png"} <= figures
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in figures)
    found = json.loads((out / "analysis.json").read_text())
    return found | {"books": json.loads((out / "books.json").read_text())}


def test_kv_counts_are_those_of_a_plain_run(document, kv_reference):
    rows = {row["name"]: row for row in document["tensors"]}
    assert set(rows) == {f"layers.{i}.{letter}" for i in range(N_LAYERS) for letter in "kv"} == set(kv_reference)
    for name, bits in kv_reference.items():
        row, counts = rows[name], numpy_counts(bits)
        assert dict(row["counts"]) == {int(e): int(counts[e]) for e in np.flatnonzero(counts)}
        assert row["shape"] == [1500, *KV_SHAPE] == list(bits.shape)
        shares = counts[counts > 0] / bits.size
        assert row["entropy"] == pytest.approx(-(shares * np.log2(shares)).sum(), abs=1e-12)
        ranked = np.sort(counts)[::-1]
        assert row["coverage"] == pytest.approx([ranked[:k].sum() / bits.size for k in range(17)], abs=1e-12)
    assert document["run"]["tokens"] == 1500 and document["run"]["text_as"] == "bytes"


def test_layers_table_is_made_of_the_tensors(document):
    rows = {row["name"]: row for row in document["tensors"]}
    assert [layer["layer"] for layer in document["layers"]] == list(range(N_LAYERS))
    for layer in document["layers"]:
        for kind in ("keys", "values"):
            row = rows[f"layers.{layer['layer']}.{kind[0]}"]
            assert layer[kind]["entropy"] == row["entropy"]
            assert layer[kind]["coverage"] == {str(k): row["coverage"][k] for k in (3, 6, 9, 16)}


def as_tensors(bits: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(b.view(np.int16).copy()).view(torch.bfloat16) for name, b in bits.items()}


def assert_same(found: object, wanted: object, where: str = "") -> None:
    if isinstance(wanted, dict):
        assert list(found) == list(wanted), where
        for key, value in wanted.items():
            assert_same(found[key], value, f"{where}/{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for i, value in enumerate(wanted):
            assert_same(found[i], value, f"{where}[{i}]")
    elif isinstance(wanted, float):
        assert math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-12), where
    else:
        assert found == wanted, where


def saved(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    from safetensors.torch import save_file

    save_file(tensors, path)
    return path


def counted_in_order(path: Path, names: list[str]) -> list[Counted]:
    from safetensors.torch import load_file

    tensors, counts = load_file(path), _activations.ExponentCounts()
    for name in names:
        counts.add(name, tensors[name], tuple(tensors[name].shape[1:]), tensors[name].shape[0])
    return counts.tensors()


def test_statistics_are_those_of_the_library(tmp_path, kv_reference):
    """Same JSON as `tersor analyze --json`, same codebooks as `tersor calibrate`; sizes predicted by two programs."""
    generator = torch.Generator().manual_seed(1)
    tensors = as_tensors(kv_reference)
    noise = torch.randn(40, 1000, generator=generator)
    tensors["head.f16"] = (noise * 0.02).half()
    tensors["head.f32"] = noise[:3, :5] * 1e-4
    tensors["head.e4m3"] = noise.to(torch.float8_e4m3fn)
    tensors["head.e5m2"] = noise.to(torch.float8_e5m2)
    tensors["random.bf16"] = torch.randint(-32768, 32767, (5000,), generator=generator).short().view(torch.bfloat16)
    path = saved(tmp_path / "kv.safetensors", tensors)
    library = tersor.analyze_files([path])
    counted = counted_in_order(path, [row["name"] for row in library["tensors"]])
    assert_same(analysis_document(counted, file="kv.safetensors"), library)
    assert codebook_document(counted) == json.loads(tersor.calibrate_files([path]))


def test_weights_are_those_of_the_file(document):
    library = tersor.analyze_files([TINYLM])
    by_name = lambda rows: sorted(({**row, "file": ""} for row in rows), key=lambda row: row["name"])  # noqa: E731
    assert_same(by_name(document["weights"]["tensors"]), by_name(library["tensors"]))
    assert_same(document["weights"]["total"], library["total"] | {"files": 0})


def test_calibrated_codebooks_compress_the_cache(document, kv_reference, tmp_path):
    tensors = as_tensors(kv_reference)
    path = saved(tmp_path / "kv.safetensors", tensors)
    assert document["books"] == json.loads(tersor.calibrate_files([path]))
    report = tersor.compress(path, tmp_path / "out.safetensors", codebooks=json.dumps(document["books"]), verify=True)
    assert report["ratio"] == pytest.approx(document["total"]["rank_ratio"], rel=0.01)


def exponents_by_hand(tensor: torch.Tensor) -> np.ndarray:
    fields = {torch.bfloat16: (8, 7), torch.float16: (5, 10), torch.float32: (8, 23)}
    fields |= {torch.float8_e4m3fn: (4, 3), torch.float8_e5m2: (5, 2)}
    bits, shift = fields[tensor.dtype]
    raw = np.frombuffer(tensor.contiguous().view(torch.uint8).numpy().tobytes(), f"<u{tensor.element_size()}")
    return np.bincount((raw >> shift) & ((1 << bits) - 1), minlength=256)


@pytest.mark.parametrize("slice_values", [1 << 23, 1000])
@pytest.mark.parametrize("dtype", list(_activations.DTYPE_NAMES), ids=str)
def test_count_exponents(dtype, slice_values, monkeypatch):
    monkeypatch.setattr(_activations, "_SLICE_VALUES", slice_values)
    every = torch.randint(0, 256, (64, 512), dtype=torch.uint8, generator=torch.Generator().manual_seed(2)).view(dtype)
    for tensor in (every, every.T[1:, ::2], every[:0]):
        counts = _activations.count_exponents(tensor)
        assert counts.dtype == torch.int64 and counts.tolist() == exponents_by_hand(tensor).tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", list(_activations.DTYPE_NAMES), ids=str)
def test_count_exponents_on_a_gpu(dtype):
    generator = torch.Generator().manual_seed(3)
    values = torch.randint(0, 256, (512, 4096), dtype=torch.uint8, generator=generator).view(dtype)
    counts = _activations.count_exponents(values.cuda())
    assert counts.is_cuda and counts.tolist() == exponents_by_hand(values).tolist()


def test_sliding_windows_do_not_hide_tokens():
    config = transformers.MistralConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=100, sliding_window=16,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    tensors, n_tokens = _activations.count_kv(model, [np.arange(90, dtype=np.int64).reshape(1, 90)])
    assert n_tokens == 90 and {tensor.shape for tensor in tensors} == {(90, 1, 32)}
    assert all(sum(tensor.counts) == 90 * 32 for tensor in tensors)


def pieces(dataset: object, **options) -> np.ndarray:
    return np.concatenate(list(_tokens.token_pieces(str(dataset), **({"vocab_size": 256} | options))))


def test_token_sources(tmp_path):
    np.save(tmp_path / "ids.npy", np.arange(200, dtype=np.uint16).reshape(2, 100))
    assert (pieces(tmp_path / "ids.npy") == np.arange(200)).all()
    (tmp_path / "a.jsonl").write_text('{"text": "ab"}\n\n{"text": "é"}\n', encoding="utf-8")
    assert bytes(pieces(tmp_path / "a.jsonl").astype(np.uint8)) == "ab\n\né".encode()
    random = pieces("random:1000:7", vocab_size=50)
    assert random.size == 1000 and random.max() < 50 and (random == pieces("random:1000:7", vocab_size=50)).all()
    assert (random != pieces("random:1000:8", vocab_size=50)).any()


def test_long_text_is_read_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(_tokens, "_BLOCK", 64)
    text = "".join(f"line {i} ü\n" for i in range(100))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    found = list(_tokens.token_pieces(str(tmp_path / "a.txt"), vocab_size=256))
    assert len(found) > 10 and bytes(np.concatenate(found)) == text.encode()


def test_tokenizer_is_used(tmp_path):
    (tmp_path / "a.txt").write_text("x y", encoding="utf-8")
    tokenizer = lambda text, **_: {"input_ids": [len(word) + 900 for word in text.split()]}  # noqa: E731
    assert pieces(tmp_path / "a.txt", tokenizer=tokenizer, vocab_size=1000).tolist() == [901, 901]


def test_model_with_a_tokenizer(tmp_path, capsys):
    tokenizers = pytest.importorskip("tokenizers")
    for file in TINYLM.iterdir():
        (tmp_path / file.name).symlink_to(file)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "a": 97, "b": 98, "?": 63}, unk_token="?"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>").save_pretrained(tmp_path)
    (tmp_path / "a.txt").write_text("a b a\nb other\n", encoding="utf-8")
    np.save(tmp_path / "ids.npy", np.array([97, 98, 97, 98, 63]))
    found = []
    for dataset in ("a.txt", "ids.npy"):
        assert run("--model", tmp_path, "--dataset", tmp_path / dataset, "--json") == 0
        found.append(json.loads(capsys.readouterr().out))
    assert [document["run"]["text_as"] for document in found] == ["tokenizer", "ids"]
    assert found[0]["run"]["tokens"] == 5 and found[0]["tensors"] == found[1]["tensors"]


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.table({"body": ["ab", "c"]}), tmp_path / "a.parquet")
    assert bytes(pieces(tmp_path / "a.parquet", text_field="body").astype(np.uint8)) == b"ab\n\nc"
    with pytest.raises(tersor.InvalidArgumentError, match="no column 'text', only body"):
        pieces(tmp_path / "a.parquet")


def test_hub_names(monkeypatch):
    asked = []

    def load_dataset(name, config, split, streaming):
        asked.append((name, config, split, streaming))
        return iter([{"text": "ab"}, {"text": "c"}])

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert bytes(pieces("wikitext").astype(np.uint8)) == b"ab\n\nc"
    assert pieces("someone/something", config="x", split="train").size == 5
    assert asked == [
        ("Salesforce/wikitext", "wikitext-2-raw-v1", "test", True),
        ("someone/something", "x", "train", True),
    ]


def test_token_batches():
    ids = [np.arange(0, 7), np.arange(7, 8), np.arange(8, 30)]
    shapes = [batch.shape for batch in _tokens.token_batches(iter(ids), 25, 4, 2)]
    assert shapes == [(2, 4), (2, 4), (2, 4), (1, 1)]
    found = np.concatenate([batch.ravel() for batch in _tokens.token_batches(iter(ids), 23, 4, 3)])
    assert (found == np.arange(23)).all()


ERRORS = {
    "no model": (("--model", "./no-such-model", "--dataset", "random:9"), "no such model directory"),
    "no file": (("--dataset", "nothing.txt"), "there is no such file"),
    "bad random": (("--dataset", "random:x"), "random:N"),
    "no device": (("--dataset", "random:9", "--device", "cuda:99"), "cuda:99"),
    "no such device": (("--dataset", "random:9", "--device", "toaster"), "toaster"),
    "too long": (("--dataset", "random:9", "--seq-len", "5000"), "at most 4096 tokens"),
    "top-k": (("--dataset", "random:9", "--top-k", "0..3"), "1..16"),
    "tokens": (("--dataset", "random:9", "--tokens", "0"), "above 0"),
    "unknown option": (("--dataset", "random:9", "--tokenz", "0"), "--tokenz"),
    "calibrate": (("--dataset", "random:9", "--calibrate", "no-such-dir/x.json"), "existing directory"),
    "no ids": (("--dataset", "{tmp}/floats.npy"), "integers"),
    "ids too large": (("--dataset", "{tmp}/large.npy"), "256 tokens"),
    "no array": (("--dataset", "{tmp}/text.npy"), "not an array"),
    "bad line": (("--dataset", "{tmp}/bad.jsonl"), "line 2 is not JSON"),
    "no field": (("--dataset", "{tmp}/good.jsonl", "--text-field", "body"), "field 'body'"),
    "no tokens": (("--dataset", "{tmp}/empty.txt"), "no tokens"),
    "no text": (("--dataset", "{tmp}/binary.txt"), "UTF-8"),
    "output is a file": (("--dataset", "random:9", "-o", "{tmp}/empty.txt"), "empty.txt"),
}


@pytest.fixture(scope="session")
def wrong_files(tmp_path_factory) -> Path:
    tmp = tmp_path_factory.mktemp("wrong")
    np.save(tmp / "floats.npy", np.ones(4))
    np.save(tmp / "large.npy", np.array([1, 256]))
    (tmp / "text.npy").write_text("hello")
    (tmp / "bad.jsonl").write_text('{"text": "a"}\nnot json\n')
    (tmp / "good.jsonl").write_text('{"text": "a"}\n')
    (tmp / "empty.txt").write_text("")
    (tmp / "binary.txt").write_bytes(b"\xff\xfe\x00")
    return tmp


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_one_line_and_exit_code_2(name, wrong_files, capsys):
    arguments, message = ERRORS[name]
    arguments = [a.replace("{tmp}", str(wrong_files)) for a in arguments]
    if "--model" not in arguments:
        arguments += ["--model", str(TINYLM)]
    for as_json in (False, True):
        try:
            code = run(*arguments, *(["--json"] if as_json else []))
        except SystemExit as e:
            code = e.code
        printed = capsys.readouterr()
        assert code == 2
        assert printed.err.startswith("tersor.analyze: error: ")
        assert printed.err.count("\n") == 1 and message in printed.err
        if as_json:
            assert set(json.loads(printed.out)["error"]) >= {"code", "name", "message", "file"}
        else:
            assert printed.out == ""


def test_as_a_command():
    """In a process of its own: JSON alone on stdout, nothing on stderr, and the functions of the package stay."""
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "tersor.analyze", "--model", str(TINYLM)]
    command += ["--dataset", "random:300", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == ""
    found = json.loads(done.stdout)
    assert found["run"]["tokens"] == 300 and found["run"]["text_as"] == "ids" and found["weights"] is None
    assert isinstance(tersor.analyze, types.ModuleType) and callable(tersor.analyze_files)
