"""tersor.kv on the CPU: values come back bit for bit, sizes are right, memory can be given."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest
from kv_support import DTYPES, SHAPES, bits, exponents, normal, tensor_bits, to_torch, torch

import tersor
from tersor import kv

# ---- round trips ----


@pytest.mark.parametrize("codec", ["rank", "top16"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_numpy_comes_back(dtype, shape, codec):
    x = normal(shape, dtype)
    encoded = kv.Codec(codec=codec).encode(x)
    y = kv.Codec().decode(encoded)
    assert isinstance(y, np.ndarray) and y.dtype == x.dtype and y.shape == x.shape
    assert np.array_equal(bits(x), bits(y))
    assert (encoded.dtype, encoded.shape, encoded.device) == (dtype, shape, "cpu")
    assert encoded.original_bytes == x.nbytes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_torch_comes_back(dtype, shape):
    x = to_torch(normal(shape, dtype), dtype)
    y = kv.Codec().decode(kv.Codec().encode(x))
    assert isinstance(y, torch.Tensor) and y.dtype == x.dtype and y.shape == x.shape
    assert np.array_equal(tensor_bits(x), tensor_bits(y))


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F8_E4M3", "F8_E5M2"])
def test_every_bit_pattern_comes_back(dtype):
    size = DTYPES[dtype][0].itemsize
    x = np.arange(1 << (8 * size), dtype=f"u{size}").view(DTYPES[dtype][0])
    assert np.array_equal(bits(kv.Codec().decode(kv.Codec().encode(x))), bits(x))


@pytest.mark.parametrize("codec", ["rank", "top16"])
def test_an_unsuitable_codebook_costs_size_only(codec):
    one = kv.Codec(codec=codec)
    one.calibrate(np.full(5000, 1e30).astype(ml_dtypes.bfloat16))
    x = normal((300, 40))
    encoded = one.encode(x)
    assert np.array_equal(bits(one.decode(encoded)), bits(x))
    assert encoded.compressed_bytes >= kv.Codec(codec=codec).encode(x).compressed_bytes


def test_what_is_not_contiguous_is_copied():
    x = normal((16, 24, 40))
    for view in (x.transpose(2, 0, 1), x[::2, ::-1, 3:], np.broadcast_to(x[:, :1, :1], (16, 24, 40))):
        y = kv.Codec().decode(kv.Codec().encode(view))
        assert y.shape == view.shape and np.array_equal(bits(y), bits(view))
    t = to_torch(x, "BF16")
    for view in (t.permute(2, 0, 1), t[::2, :, 3:], t[:, :1, :1].expand(16, 24, 40)):
        y = kv.Codec().decode(kv.Codec().encode(view))
        assert y.shape == view.shape and y.is_contiguous() and np.array_equal(tensor_bits(y), tensor_bits(view))


def test_an_empty_tensor_with_odd_strides():
    x = torch.from_numpy(np.empty((0,), np.float16))
    assert kv.Codec().decode(kv.Codec().encode(x)).shape == (0,)


def test_tensors_with_gradients():
    x = torch.nn.Parameter(to_torch(normal((64, 64)), "BF16"))
    y = kv.Codec().decode(kv.Codec().encode(x))
    assert not y.requires_grad and np.array_equal(tensor_bits(y), tensor_bits(x))


class Foreign:
    """An array of a library that Tersor does not know."""

    def __init__(self, x: torch.Tensor):
        self.x = x

    def __dlpack__(self, **how):
        return self.x.__dlpack__(**how)

    def __dlpack_device__(self):
        return self.x.__dlpack_device__()


class Namespaced(Foreign):
    def __array_namespace__(self, api_version=None):
        return np


def test_dlpack_arrays():
    x = to_torch(normal((31, 17), "F16"), "F16")
    y = kv.Codec().decode(kv.Codec().encode(Foreign(x)))
    assert hasattr(y, "__dlpack__") and np.array_equal(tensor_bits(torch.from_dlpack(y)), tensor_bits(x))
    z = kv.Codec().decode(kv.Codec().encode(Namespaced(x)))
    assert isinstance(z, np.ndarray) and np.array_equal(z.view(np.uint8).reshape(-1), tensor_bits(x))


class Copied(Foreign):
    def __array_namespace__(self, api_version=None):
        return sys.modules["copying_arrays"]


def test_a_library_that_copies_gets_decoded_values(monkeypatch):
    module = ModuleType("copying_arrays")
    module.from_dlpack = lambda t: np.from_dlpack(t).copy()
    monkeypatch.setitem(sys.modules, "copying_arrays", module)
    x = to_torch(normal((31, 17), "F16"), "F16")
    encoded = kv.Codec().encode(Copied(x))
    for y in (kv.Codec().decode(encoded), kv.Codec().decode(encoded, check=False).check()):
        assert isinstance(y, np.ndarray) and np.array_equal(y.view(np.uint8).reshape(-1), tensor_bits(x))
    monkeypatch.delitem(sys.modules, "copying_arrays")
    assert isinstance(kv.Codec().decode(encoded), torch.Tensor)


# ---- sizes ----


def test_sizes_agree():
    x = normal((256, 1024))
    encoded = kv.Codec().encode(x)
    data = encoded.to_bytes()
    assert len(data) == len(encoded) == encoded.compressed_bytes == len(bytes(encoded)) == encoded.info.frame_bytes
    assert encoded.ratio == pytest.approx(x.nbytes / len(data))
    assert encoded.ratio > 1.48 and kv.Codec(codec="top16").encode(x).ratio > 1.32


def test_noise_is_stored_raw():
    x = np.random.default_rng(1).integers(0, 1 << 16, 50_000, dtype=np.uint16).view(ml_dtypes.bfloat16)
    encoded = kv.Codec(codec="top16").encode(x)
    assert encoded.info.codec == "raw" and encoded.n_esc == 0
    assert encoded.compressed_bytes < x.nbytes * 1.01
    assert np.array_equal(bits(kv.Codec().decode(encoded)), bits(x))


@pytest.mark.parametrize("codec, entries", [("rank", 16), ("top16", 15)])
def test_escapes_are_counted(codec, entries):
    x = normal(200_000)
    one = kv.Codec(codec=codec)
    one.calibrate(normal(3000, seed=5))
    covered = np.isin(exponents(x, "BF16"), list(one.codebooks["BF16"][:entries]))
    assert one.encode(x).n_esc == np.count_nonzero(~covered)


# ---- calibration ----


@pytest.mark.parametrize("codec, entries", [("rank", 16), ("top16", 15)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_coverage_is_the_share_of_the_most_frequent(dtype, codec, entries):
    x = normal(20_000, dtype) * normal(20_000, dtype, 3)
    counts = np.bincount(exponents(x, dtype), minlength=256)
    share = np.sort(counts)[::-1][:entries].sum() / x.size
    one = kv.Codec(codec=codec)
    assert one.calibrate(x) == pytest.approx(share)
    assert one.calibrate(to_torch(x, dtype)) == pytest.approx(share)


def test_the_calibrated_codebook_is_the_exact_one():
    x = normal(70_000)
    one = kv.Codec()
    one.calibrate(x)
    assert one.encode(x).to_bytes() == kv.Codec().encode(x).to_bytes()
    assert one.encode(x).info.codebook == one.codebooks["BF16"]
    assert kv.Codec(codebooks=one.codebooks).encode(x).to_bytes() == one.encode(x).to_bytes()


def test_calibrating_replaces_or_accumulates():
    a, b = normal(10_000), normal(30_000, seed=2) * np.float32(1024).astype(ml_dtypes.bfloat16)
    one = kv.Codec()
    one.calibrate(a)
    of_a = one.codebooks["BF16"]
    one.calibrate(b)
    assert one.codebooks["BF16"] != of_a
    one.calibrate(a)
    assert one.codebooks["BF16"] == of_a
    one.calibrate(b, accumulate=True)
    both = kv.Codec()
    both.calibrate(np.concatenate([a, b]))
    assert one.codebooks == both.codebooks


def test_codebooks_belong_to_dtypes():
    one = kv.Codec()
    one.calibrate(normal(5000, "F16"))
    x = normal(5000)
    assert one.encode(x).to_bytes() == kv.Codec().encode(x).to_bytes()
    assert set(one.codebooks) == {"F16"}


# ---- bytes, pickles, processes, threads ----


@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_come_back(dtype):
    x = normal((40, 50), dtype)
    data = kv.Codec().encode(x).to_bytes()
    for again in (data, bytearray(data), memoryview(data), np.frombuffer(data, np.uint8)):
        encoded = kv.Encoded.from_bytes(again)
        assert encoded.to_bytes() == data and encoded.shape == x.shape and encoded.dtype == dtype
        y = kv.Codec().decode(encoded)
        assert isinstance(y, np.ndarray) and np.array_equal(bits(y), bits(x))
    assert isinstance(kv.Codec(device="cpu").decode(kv.Encoded.from_bytes(data)), torch.Tensor)
    assert isinstance(kv.Codec().decode(kv.Encoded.from_bytes(data), kind="torch"), torch.Tensor)
    assert isinstance(kv.Codec().decode(kv.Encoded.from_bytes(data, "torch")), torch.Tensor)


def test_bytes_are_a_frame():
    x = normal((40, 50))
    found = tersor.decode(kv.Codec().encode(x).to_bytes())
    assert (found.dtype, tuple(found.shape)) == ("BF16", (40, 50)) and bytes(found.data) == x.tobytes()


def test_later_changes_of_the_bytes_do_not_matter():
    x = normal((40, 50))
    data = bytearray(kv.Codec().encode(x).to_bytes())
    encoded = kv.Encoded.from_bytes(data)
    data[:] = bytes(len(data))
    assert np.array_equal(bits(kv.Codec().decode(encoded)), bits(x))


def test_another_process_decodes(tmp_path):
    x = normal((64, 3, 20))
    one = kv.Codec()
    one.calibrate(normal(100, seed=9))
    (tmp_path / "frame").write_bytes(one.encode(x).to_bytes())
    program = (
        "import sys; from tersor.kv import Codec, Encoded\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "y = Codec().decode(Encoded.from_bytes(data))\n"
        "assert 'torch' not in sys.modules and y.shape == (64, 3, 20) and y.dtype.name == 'bfloat16'\n"
        "sys.stdout.buffer.write(y.tobytes())"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "frame"], capture_output=True, check=True)
    assert done.stdout == x.tobytes()


@pytest.mark.parametrize(
    "make", [lambda x: x, lambda x: to_torch(x, "BF16"), lambda x: Namespaced(to_torch(x, "BF16"))]
)
def test_pickles(make):
    encoded = kv.Codec().encode(make(normal((20, 30))))
    again = pickle.loads(pickle.dumps(encoded))
    assert again.to_bytes() == encoded.to_bytes() and again._kind == encoded._kind
    one = kv.Codec(chunk_size=512, codec="top16")
    one.calibrate(normal(1000))
    same = pickle.loads(pickle.dumps(one))
    assert repr(same) == repr(one) and same.codebooks == one.codebooks
    x = normal(3000, seed=4)
    assert same.encode(x).to_bytes() == one.encode(x).to_bytes()


def test_threads_share_a_codec():
    one = kv.Codec()
    one.calibrate(normal(10_000))
    arrays = [normal((50 + i, 100), seed=i) for i in range(40)]

    def there_and_back(x):
        return np.array_equal(bits(one.decode(one.encode(x))), bits(x))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, arrays))


# ---- given memory ----


def test_encoding_into_given_memory():
    one = kv.Codec()
    a, b = normal((30, 100)), normal((30, 100), seed=1)
    room = one.allocate(a)
    with pytest.raises(tersor.InvalidArgumentError):
        _ = room.compressed_bytes
    for x in (a, b, a):
        assert one.encode(x, out=room) is room
        assert room.to_bytes() == one.encode(x).to_bytes()
        assert room.info.digest == one.encode(x).info.digest
        assert np.array_equal(bits(one.decode(room)), bits(x))
    for wrong in (normal((30, 101)), normal((30, 100), "F16")):
        with pytest.raises(tersor.MismatchError):
            one.encode(wrong, out=room)
    for wrong in (one.encode(a), b"", object()):
        with pytest.raises(tersor.InvalidArgumentError):
            one.encode(a, out=wrong)


def test_decoding_into_given_arrays():
    x = normal((30, 100))
    encoded = kv.Codec().encode(x)
    out = np.zeros_like(x)
    assert kv.Codec().decode(encoded, out=out) is out and np.array_equal(bits(out), bits(x))
    tensor = torch.zeros(30, 100, dtype=torch.bfloat16)
    assert kv.Codec().decode(encoded, tensor) is tensor
    assert np.array_equal(tensor_bits(tensor), tensor_bits(to_torch(x, "BF16")))
    later = kv.Codec().decode(encoded, check=False)
    assert later.ready() and np.array_equal(bits(later.check()), bits(x)) and later.array is later.check()


def test_wrong_outputs():
    encoded = kv.Codec().encode(normal((30, 100)))
    read_only = np.zeros((30, 100), ml_dtypes.bfloat16)
    read_only.flags.writeable = False
    for out, kind in [
        (np.zeros((100, 30), ml_dtypes.bfloat16), tersor.MismatchError),
        (np.zeros((30, 100), np.float16), tersor.MismatchError),
        (torch.zeros(3000, dtype=torch.bfloat16), tersor.MismatchError),
        (torch.zeros(30, 100, dtype=torch.float16), tersor.MismatchError),
        (np.zeros((100, 30), ml_dtypes.bfloat16).T, tersor.InvalidArgumentError),
        (torch.zeros(100, 30, dtype=torch.bfloat16).T, tersor.InvalidArgumentError),
        (read_only, tersor.InvalidArgumentError),
        ([0.0] * 3000, tersor.InvalidArgumentError),
    ]:
        with pytest.raises(kind):
            kv.Codec().decode(encoded, out=out)
    with pytest.raises(tersor.InvalidArgumentError):
        kv.Codec().decode(encoded, kind="tensorflow")
    with pytest.raises(tersor.InvalidArgumentError):
        kv.Codec().decode(encoded.to_bytes())


# ---- documentation ----


def test_the_examples_of_the_documentation_run(capsys):
    text = (Path(__file__).parents[2] / "docs" / "from-splitzip.md").read_text(encoding="utf-8")
    blocks = [block.partition("```")[0] for block in text.split("```python\n")[1:]]
    assert len(blocks) == 5
    on_gpu = torch.cuda.is_available()
    names: dict = {}
    for block in blocks:
        if not on_gpu and ("CUDAGraph" in block or ".tensor()" in block):
            continue
        exec(block if on_gpu else block.replace('"cuda"', '"cpu"'), names)
    coverage, size = capsys.readouterr().out.split()
    assert 0.999 < float(coverage) <= 1 and int(size) < 2 * 1024 * 4096 / 1.48


def test_numpy_needs_no_torch():
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy as np, tersor\n"
        "from tersor.kv import Codec, Encoded\n"
        "x = np.arange(5000).astype(np.float16).reshape(50, 100)\n"
        "codec = Codec(device='cpu'); codec.calibrate(x)\n"
        "y = codec.decode(Encoded.from_bytes(codec.encode(x).to_bytes()))\n"
        "assert np.array_equal(x, y)\n"
        "try: Codec(device='cuda').decode(codec.encode(x))\n"
        "except tersor.BackendUnavailableError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout == "refused\n"
