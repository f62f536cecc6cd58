"""Files of torch tensors, held against the safetensors library."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("ml_dtypes")
reference = pytest.importorskip("safetensors.torch")

from files_support import INDICES, OPTIONS  # noqa: E402

import tersor  # noqa: E402
import tersor.torch.files as tt  # noqa: E402
from tersor.torch.packed import PackedWeight  # noqa: E402


def samples():
    g = torch.Generator().manual_seed(0)
    out = {
        "matrix": (torch.randn(200, 320, generator=g) * 0.02).bfloat16(),
        "cube": (torch.randn(31, 9, 101, generator=g) * 0.02).bfloat16(),
        "half": (torch.randn(157, 250, generator=g) * 0.02).half(),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3, dtype=torch.bfloat16),
        "bool": torch.randn(5, 5, generator=g) > 0,
    }
    for name in (
        "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64", "complex64",
        "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu",
    ):  # fmt: skip
        if hasattr(torch, name):
            out[name] = (torch.rand(33, 5, generator=g) * 60).to(getattr(torch, name))
    if hasattr(torch, "float4_e2m1fn_x2"):
        out["f4"] = torch.randint(0, 256, (6, 5), dtype=torch.uint8, generator=g).view(torch.float4_e2m1fn_x2)
    return out


def raw(t):
    return t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if t.numel() else b""


def expect_same(got, want):
    assert set(got) == set(want)
    for name, t in want.items():
        assert got[name].dtype == t.dtype and got[name].shape == t.shape, name
        assert raw(got[name]) == raw(t), name


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_round_trip(tmp_path, options):
    want = samples()
    reference.save_file(want, tmp_path / "reference", {"format": "pt"})
    tt.save_file(want, tmp_path / "ours", {"format": "pt"}, **options)
    expect_same(tt.load_file(tmp_path / "ours"), want)
    expect_same(tt.load_file(tmp_path / "reference", backend="pread"), want)
    if options.get("codec", "") is not None:
        tersor.decompress(tmp_path / "ours", tmp_path / "restored")
    else:
        shutil.copy(tmp_path / "ours", tmp_path / "restored")
    assert (tmp_path / "restored").read_bytes() == (tmp_path / "reference").read_bytes()
    with tt.safe_open(tmp_path / "ours", framework="pt", device="cpu") as f:
        for name in ("matrix", "cube", "half"):
            for index in INDICES:
                expected, got = want[name].float().numpy()[index], f.get_slice(name)[index]
                assert tuple(got.shape) == expected.shape and np.array_equal(got.float().numpy(), expected), index
        expect_same(f.get_tensors(), want)


def test_arguments(tmp_path):
    x = torch.zeros(8)
    path = tmp_path / "x"
    for tensors in (
        {"a": x[::2]}, {"a": x.expand(3, 8)}, {"a": x, "b": x}, {"a": x, "b": x[:2]}, {"a": x.to_sparse()}, [x], {1: x},
        {"a": np.zeros(3)}, {"a": x.to("meta")},
    ):  # fmt: skip
        with pytest.raises(tersor.InvalidArgumentError):
            tt.save_file(tensors, path)
        assert not path.exists()
    with pytest.raises(tersor.UnsupportedError):
        tt.save_file({"a": torch.zeros(3, dtype=torch.complex128)}, path)
    tt.save_file({"a": x[:4], "b": x[4:], "c": torch.nn.Parameter(torch.ones(3))}, path)
    assert torch.equal(tt.load_file(path)["c"], torch.ones(3))
    for device in ("nowhere", object()):
        with pytest.raises(tersor.InvalidArgumentError):
            tt.load_file(path, device=device)
    with pytest.raises(tersor.InvalidArgumentError):
        tt.safe_open(path, framework="np")
    if not torch.cuda.is_available():
        with pytest.raises(tersor.BackendUnavailableError):
            tt.load_file(path, device="cuda")


def test_load_packed(tmp_path):
    want = samples()
    tt.save_file(want, tmp_path / "x", codec="rank", packing="packed")
    got = tt.load_packed(tmp_path / "x")
    assert {name for name, t in got.items() if isinstance(t, PackedWeight)} == {"matrix", "half"}
    assert torch.equal(got["matrix"].unpack(), want["matrix"])
    assert torch.equal(got["cube"], want["cube"])
    assert set(tt.load_packed(tmp_path / "x", names=["matrix", "bool"])) == {"matrix", "bool"}
    with pytest.raises(tersor.NotFoundError):
        tt.load_packed(tmp_path / "x", names=["matrix", "no"])
    data = bytearray((tmp_path / "x").read_bytes())
    with tt.safe_open(tmp_path / "x") as f:
        data[f.info("matrix").file_offset + 300] ^= 4
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(tersor.DigestMismatchError):
        tt.load_packed(tmp_path / "x", names=["matrix"])
