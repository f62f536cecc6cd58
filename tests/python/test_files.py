"""Files of numpy arrays, held against the safetensors library."""

from __future__ import annotations

import concurrent.futures
import itertools
import json
import os
import pickle
import shutil

import numpy as np
import pytest

import tersor
import tersor.numpy as tn

pytest.importorskip("ml_dtypes")
safetensors = pytest.importorskip("safetensors")
reference = pytest.importorskip("safetensors.numpy")
from files_support import INDICES, OPTIONS, TINYLM, expect_same, raw, samples, weights  # noqa: E402


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_round_trip(tmp_path, options, backend):
    want = samples()
    tn.save_file(want, tmp_path / "x.safetensors", {"format": "np"}, **options)
    expect_same(tn.load_file(tmp_path / "x.safetensors", backend=backend), want)
    with tn.safe_open(tmp_path / "x.safetensors", framework="np", backend=backend) as f:
        assert f.keys() == sorted(want) and list(f) == f.keys() and len(f) == len(want)
        assert f.metadata() == {"format": "np"}
        expect_same({name: f.get_tensor(name) for name in f}, want)
        expect_same(f.get_tensors(), want)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("metadata", [None, {}, {"format": 'pt\n"é'}], ids=str)
def test_restored_file_is_the_librarys_own(tmp_path, options, metadata):
    want = {k: np.ascontiguousarray(v) if v.ndim else v for k, v in samples().items()}
    reference.save_file(want, tmp_path / "reference", metadata)
    tn.save_file(want, tmp_path / "ours", metadata, **options)
    if options.get("codec", "") is not None:
        tersor.decompress(tmp_path / "ours", tmp_path / "restored")
        tersor.verify(tmp_path / "ours", tmp_path / "reference")
    else:
        shutil.copy(tmp_path / "ours", tmp_path / "restored")
    assert (tmp_path / "restored").read_bytes() == (tmp_path / "reference").read_bytes()


def test_no_tensors(tmp_path):
    # Not with empty metadata: of that, safetensors 0.8 writes a header that is no JSON.
    for metadata in (None, {"a": "b"}):
        reference.save_file({}, tmp_path / "reference", metadata)
        tn.save_file({}, tmp_path / "ours", metadata)
        assert tn.load_file(tmp_path / "ours") == {}
        tersor.decompress(tmp_path / "ours", tmp_path / "restored", overwrite=True)
        assert (tmp_path / "restored").read_bytes() == (tmp_path / "reference").read_bytes()


@pytest.mark.parametrize("packing", [None, "packed"])
def test_tinylm(tmp_path, packing):
    tersor.compress(TINYLM, tmp_path / "c.safetensors", packing=packing)
    with safetensors.safe_open(TINYLM, "pt") as f, tn.safe_open(tmp_path / "c.safetensors") as ours:
        assert f.keys() == ours.keys() and f.metadata() == ours.metadata()
        assert f.offset_keys() == ours.offset_keys()
        for name in ours:
            s, t = f.get_slice(name), ours.get_slice(name)
            assert s.get_shape() == t.get_shape() and s.get_dtype() == t.get_dtype()
    # The library's numpy reader has no BF16: the bytes are compared with our plain reader's.
    expect_same(tn.load_file(tmp_path / "c.safetensors"), tn.load_file(TINYLM))
    tn.save_file(tn.load_file(tmp_path / "c.safetensors"), tmp_path / "again", {"format": "pt"}, packing=packing)
    tersor.decompress(tmp_path / "again", tmp_path / "restored")
    restored = (tmp_path / "restored").read_bytes()
    assert restored == TINYLM.read_bytes()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_slices_are_numpys(tmp_path, options):
    want = samples()
    tn.save_file(want, tmp_path / "x", **options)
    with tn.safe_open(tmp_path / "x") as f:
        for name, index in itertools.product(["matrix", "half", "cube", "f32", "uint8", "float8_e4m3fn"], INDICES):
            expected, got = want[name][index], f.get_slice(name)[index]
            assert got.shape == expected.shape and raw(got) == raw(expected), (name, index)
        for name in ("scalar", "scalar16"):
            for index in (np.s_[...], np.s_[()], np.s_[None], np.s_[None, ..., None]):
                got = f.get_slice(name)[index]
                assert got.shape == want[name][index].shape and raw(got) == raw(want[name][index])
        for index in (np.s_[:], np.s_[0:0], np.s_[::-1], np.s_[:, 2]):
            assert f.get_slice("empty")[index].shape == want["empty"][index].shape
        assert f.get_slice("flat")[2:5].shape == (3, 0)


def test_rows_far_apart(tmp_path):
    big = np.arange(64 * 300_000, dtype=np.int32).reshape(64, -1)
    tn.save_file({"big": big}, tmp_path / "x")
    with tn.safe_open(tmp_path / "x") as f:
        for index in (np.s_[::7], np.s_[::-5, :3], np.s_[60::9, None, 1]):
            assert np.array_equal(f.get_slice("big")[index], big[index])


def test_slices_decode_only_their_chunks(tmp_path):
    """Damage behind the rows is not seen, damage in them is."""
    for packing in (None, "packed"):
        tn.save_file({"w": weights((512, 256))}, tmp_path / "x", packing=packing)
        data = bytearray((tmp_path / "x").read_bytes())
        with tn.safe_open(tmp_path / "x") as f:
            at = f.info("w").file_offset + (128 if packing else 128 + 384)
        data[at] ^= 1
        (tmp_path / "bad").write_bytes(data)
        with tn.safe_open(tmp_path / "bad") as f:
            assert raw(f.get_slice("w")[256:]) == raw(weights((512, 256))[256:])
            with pytest.raises(tersor.DigestMismatchError) as caught:
                f.get_slice("w")[3:5]
            assert caught.value.tensor == "w" and caught.value.file == str(tmp_path / "bad")
            with pytest.raises(tersor.DigestMismatchError):
                f.get_tensor("w")
        with pytest.raises(tersor.DigestMismatchError):
            tn.load_file(tmp_path / "bad")


def test_damage_to_stored_tensors_and_headers(tmp_path):
    tn.save_file({"i": np.arange(1000, dtype=np.int32)}, tmp_path / "x")
    good = (tmp_path / "x").read_bytes()
    with tn.safe_open(tmp_path / "x") as f:
        at = f.info("i").file_offset + 77
    for place, expected in ((at, tersor.DigestMismatchError), (60, tersor.Error), (0, tersor.Error)):
        bad = bytearray(good)
        bad[place] ^= 2
        (tmp_path / "bad").write_bytes(bad)
        with pytest.raises(expected):
            tn.load_file(tmp_path / "bad")
    (tmp_path / "bad").write_bytes(good[:-1])
    with pytest.raises(tersor.Error):
        tn.load_file(tmp_path / "bad")
    (tmp_path / "bad").write_bytes(b"")
    with pytest.raises(tersor.TruncatedError):
        tn.load_file(tmp_path / "bad")


def test_wrong_arguments(tmp_path):
    path = tmp_path / "x.safetensors"
    tn.save_file({"w": weights((10, 10)), "s": np.array(1.0)}, path)
    for call in (lambda f: f.get_tensor("no"), lambda f: f.get_slice("no"), lambda f: f.info("no")):
        with tn.safe_open(path) as f, pytest.raises(tersor.NotFoundError) as caught:
            call(f)
        assert caught.value.tensor == "no"
    with tn.safe_open(path) as f:
        part = f.get_slice("w")
        for index in (10, -11, np.s_[0, 10], np.s_[0, 0, 0], np.s_[..., ...], np.s_[:, :, :]):
            with pytest.raises(IndexError):
                part[index]
        for index in ([0, 1], np.array([0]), 1.0, "a", True, np.s_[0, [1]]):
            with pytest.raises(TypeError):
                part[index]
        with pytest.raises(IndexError):
            f.get_slice("s")[0]
        assert "w" in f and "no" not in f and 3 not in f
    with pytest.raises(tersor.InvalidArgumentError):
        f.keys()
    with pytest.raises(tersor.NotFoundError):
        tn.safe_open(tmp_path / "none")
    with pytest.raises(FileNotFoundError):
        tn.load_file(tmp_path / "none")
    for arguments in ({"framework": "pt"}, {"device": "cuda"}, {"backend": "x"}):
        with pytest.raises(tersor.InvalidArgumentError):
            tn.safe_open(path, **arguments)
    with pytest.raises(tersor.AlreadyExistsError):
        tn.save_file({}, path, overwrite=False)
    for tensors, metadata in (
        ([1], None), ({1: weights(3)}, None), ({"a": [1, 2]}, None), ({}, {"a": 1}), ({}, {1: "a"}), ({}, []),
        ({}, {"tersor": "1"}), ({"__metadata__": weights(3)}, None),
    ):  # fmt: skip
        with pytest.raises(tersor.InvalidArgumentError):
            tn.save_file(tensors, path, metadata)
    with pytest.raises(tersor.UnsupportedError):
        tn.save_file({"a": np.array(["x"])}, path)
    with pytest.raises(tersor.InvalidArgumentError):
        tn.save_file({}, path, codec="zip")
    with pytest.raises(tersor.InvalidArgumentError):
        tn.save_file({}, path, codec=None, packing="packed")
    with pytest.raises(tersor.NotFoundError):
        tn.save_file({}, tmp_path / "none" / "x")
    assert sorted(os.listdir(tmp_path)) == ["x.safetensors"]
    assert set(tn.load_file(path)) == {"w", "s"}  # what failed left the file alone
    error = pickle.loads(pickle.dumps(caught.value))
    assert error.tensor == "no" and isinstance(error, tersor.NotFoundError)


def test_arrays_of_every_layout(tmp_path):
    want = {
        "transposed": weights((70, 90)).T,
        "strided": np.arange(100, dtype=np.int16)[::-3],
        "big_endian": np.arange(10, dtype=">f4"),
        "broadcast": np.broadcast_to(np.float32(2), (3, 4)),
        "numpy_scalar": np.float32(3),
    }
    tn.save_file(want, tmp_path / "x")
    got = tn.load_file(tmp_path / "x")
    for name, array in want.items():
        assert np.array_equal(got[name], array) and got[name].shape == array.shape, name


def test_directories(tmp_path):
    tensors = samples()
    a, b = dict(list(tensors.items())[:5]), dict(list(tensors.items())[5:])
    model = tmp_path / "model"
    model.mkdir()
    tn.save_file(a, model / "model-1.safetensors", codec=None)
    tn.save_file(b, model / "model-2.safetensors", codec=None)
    expect_same(tn.load_file(model), tensors)
    index = {n: "model-1.safetensors" for n in a} | {n: "model-2.safetensors" for n in b}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    report = tn.compress_model(model, packing="packed")
    assert report["n_tensors"] == len(tensors)
    expect_same(tn.load_file(tmp_path / "model-tersor"), tensors)
    for text in ("", "{}", '{"weight_map": {"a": "../x.safetensors"}}', '{"weight_map": {"a": 3}}', "[]"):
        (model / "model.safetensors.index.json").write_text(text)
        with pytest.raises(tersor.MalformedError):
            tn.load_file(model)
    (model / "model.safetensors.index.json").unlink()
    tn.save_file(dict(list(b.items())[:1]), model / "model-3.safetensors")
    with pytest.raises(tersor.MalformedError):
        tn.load_file(model)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(tersor.NotFoundError):
        tn.load_file(tmp_path / "nothing")


def test_threads_share_a_file(tmp_path):
    want = samples()
    tn.save_file(want, tmp_path / "x", packing="packed")
    with tn.safe_open(tmp_path / "x") as f, concurrent.futures.ThreadPoolExecutor(8) as pool:
        names = list(want) * 12
        for name, got in zip(names, pool.map(f.get_tensor, names), strict=True):
            assert raw(got) == raw(want[name])


def test_progress_and_its_exceptions(tmp_path):
    calls = []
    tn.save_file(samples(), tmp_path / "x", progress=lambda *p: calls.append(p))
    assert calls[-1][0] == calls[-1][1] and calls[-1][2] == "x"

    def stop(*_):
        raise KeyError("enough")

    with pytest.raises(KeyError):
        tn.save_file(samples(), tmp_path / "y", progress=stop)
    assert os.listdir(tmp_path) == ["x"]
