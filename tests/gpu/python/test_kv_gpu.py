"""tersor.kv on an NVIDIA GPU: the CPU's values, bytes and verdicts; damaged frames, bad arguments."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest
from kv_support_gpu import CUDA, DTYPES, SHAPES, bits, normal, same, torch

import tersor
from tersor import kv

# ---- values and bytes ----


@pytest.mark.parametrize("codec", ["rank", "top16"])
@pytest.mark.parametrize("canonical", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_comes_back(shape, dtype, canonical, codec):
    x = normal(shape, dtype)
    one = kv.Codec(codec=codec, canonical=canonical)
    encoded = one.encode(x)
    y = one.decode(encoded)
    assert y.device == x.device and same(x, y)
    assert (encoded.dtype, encoded.shape, encoded.device) == (dtype, tuple(shape), str(CUDA))
    data = encoded.to_bytes()
    assert len(data) == encoded.compressed_bytes == len(encoded)
    assert same(kv.Codec().decode(kv.Encoded.from_bytes(data), kind="torch"), x.cpu())
    if canonical:
        assert data == kv.Codec(codec=codec).encode(x.cpu()).to_bytes()


@pytest.mark.parametrize("codec", ["rank", "top16"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_cpu_frames_decode_here(shape, dtype, codec):
    x = normal(shape, dtype)
    frame = kv.Encoded.from_bytes(kv.Codec(codec=codec).encode(x.cpu()).to_bytes())
    y = kv.Codec(device="cuda").decode(frame)
    assert y.is_cuda and same(x, y)
    out = torch.empty_like(x)
    assert kv.Codec().decode(frame, out=out) is out and same(x, out)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_pattern(dtype):
    size = DTYPES[dtype].itemsize
    ints = torch.arange(1 << (8 * size), device=CUDA).to({1: torch.uint8, 2: torch.int16}[size])
    x = ints.view(DTYPES[dtype])
    assert same(x, kv.Codec().decode(kv.Codec().encode(x)))


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 5, 7])
def test_tensors_that_begin_anywhere(offset):
    x = normal(50_000, "F8_E4M3")[offset:]
    out = torch.empty(50_000, dtype=x.dtype, device=CUDA)[offset:]
    assert same(x, kv.Codec().decode(kv.Codec().encode(x), out))


def test_what_is_not_contiguous_is_copied():
    x = normal((32, 48, 40))
    for view in (x.permute(2, 0, 1), x[::2, :, 3:], x[:, :1, :1].expand(32, 48, 40)):
        y = kv.Codec().decode(kv.Codec().encode(view))
        assert y.is_contiguous() and same(view, y)


def test_noise_is_stored_raw_in_bytes():
    ints = torch.randint(-(1 << 15), 1 << 15, (100_000,), device=CUDA, dtype=torch.int16)
    x = ints.view(torch.bfloat16)
    encoded = kv.Codec(codec="top16").encode(x)
    assert same(x, kv.Codec().decode(encoded))
    again = kv.Encoded.from_bytes(encoded.to_bytes())
    assert again.info.codec == "raw" and len(again) == len(encoded) < 2 * x.numel() * 1.01
    assert same(x, kv.Codec(device="cuda").decode(again))


def test_a_large_tensor():
    if torch.cuda.mem_get_info()[0] < 14 << 30:
        pytest.skip("needs 14 GB of device memory")
    x = normal((1 << 30) + 3)
    y = kv.Codec().decode(kv.Codec().encode(x))
    assert torch.equal(x.view(torch.int16), y.view(torch.int16))


def test_calibration_agrees_with_the_cpu():
    for dtype in DTYPES:
        x = normal((1000, 77), dtype)
        for codec in ("rank", "top16"):
            here, there = kv.Codec(codec=codec), kv.Codec(codec=codec)
            assert here.calibrate(x) == pytest.approx(there.calibrate(x.cpu()))
            assert here.codebooks == there.codebooks
            other = normal(30_000, dtype, seed=8)
            canonical = kv.Codec(codec=codec, canonical=True, codebooks=here.codebooks)
            assert canonical.encode(other).to_bytes() == there.encode(other.cpu()).to_bytes()
            assert same(other, here.decode(here.encode(other)))


def test_another_process_decodes_without_a_gpu(tmp_path):
    x = normal((64, 3, 20))
    (tmp_path / "frame").write_bytes(kv.Codec().encode(x).to_bytes())
    program = (
        "import os, sys; os.environ['CUDA_VISIBLE_DEVICES'] = ''\n"
        "from tersor.kv import Codec, Encoded\n"
        "y = Codec().decode(Encoded.from_bytes(open(sys.argv[1], 'rb').read()), kind='torch')\n"
        "import torch; sys.stdout.buffer.write(y.reshape(-1).view(torch.uint8).numpy().tobytes())"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "frame"], capture_output=True, check=True)
    assert done.stdout == bits(x).numpy().tobytes()


def test_pickles_and_copies():
    x = normal((300, 200))
    one = kv.Codec(canonical=True)
    encoded = one.encode(x)
    assert pickle.loads(pickle.dumps(encoded)).to_bytes() == encoded.to_bytes()
    assert pickle.loads(pickle.dumps(one)).encode(x).to_bytes() == encoded.to_bytes()
    tight = encoded.compact()
    assert tight.tensor().numel() == len(encoded) and same(x, one.decode(tight))
    received = encoded.tensor().clone()
    again = kv.Encoded.from_tensor(received, dtype="BF16", shape=(300, 200))
    assert same(x, one.decode(again)) and again.to_bytes() == encoded.to_bytes()


class Foreign:
    def __init__(self, x):
        self.x = x

    def __dlpack__(self, **how):
        return self.x.__dlpack__(**how)

    def __dlpack_device__(self):
        return self.x.__dlpack_device__()


def test_dlpack_arrays():
    x = normal((31, 17), "F16")
    encoded = kv.Codec().encode(Foreign(x))
    y = torch.from_dlpack(kv.Codec().decode(encoded))
    assert y.is_cuda and same(x, y)
    out = torch.empty_like(x)
    kv.Codec().decode(encoded, out=Foreign(out))
    assert same(x, out)


def test_outputs_elsewhere():
    x = normal((50, 60), "F16")
    encoded = kv.Codec().encode(x)
    out = np.empty((50, 60), np.float16)
    kv.Codec().decode(encoded, out=out)
    assert np.array_equal(out.view(np.int16), x.cpu().numpy().view(np.int16))
    assert same(x.cpu(), kv.Codec(device="cpu").decode(encoded))
    f32 = torch.randn(1000)
    y = kv.Codec(device="cuda").decode(kv.Codec().encode(f32))
    assert y.is_cuda and torch.equal(y.cpu(), f32)


# ---- bad inputs and damage ----


@pytest.mark.parametrize("codec", ["rank", "top16"])
def test_damage_is_found_as_on_the_cpu(codec):
    x = normal(5 * 8192 + 100)
    one = kv.Codec(codec=codec)
    good = one.encode(x).tensor().clone()
    n = good.numel()
    places = [
        *range(0, 128, 5),
        *(int(i) for i in torch.randint(0, n, (300,), generator=torch.Generator().manual_seed(1))),
    ]
    for i, place in enumerate(places):
        frame = good.clone()
        frame[place] ^= 1 << (i % 8)
        encoded = kv.Encoded.from_tensor(frame, dtype="BF16", shape=x.shape, codec=codec)
        with pytest.raises(tersor.Error) as here:
            one.decode(encoded)
        with pytest.raises(tersor.Error) as there:
            tersor.decode(bytes(frame.cpu().numpy()))
        assert type(here.value) is type(there.value), place
        assert here.value.chunk == there.value.chunk, place
    assert same(x, one.decode(kv.Encoded.from_tensor(good, dtype="BF16", shape=x.shape, codec=codec)))


def test_frames_that_hold_something_else():
    one, x = kv.Codec(), normal((64, 64))
    frame = one.encode(x).tensor().clone()
    for dtype, shape, codec in (("F16", (64, 64), "rank"), ("BF16", (64, 63), "rank"), ("BF16", (64, 64), "top16")):
        encoded = kv.Encoded.from_tensor(frame, dtype=dtype, shape=shape, codec=codec)
        with pytest.raises(tersor.Error):
            one.decode(encoded)
    with pytest.raises(tersor.TruncatedError):
        one.decode(kv.Encoded.from_tensor(frame[:-128].clone(), dtype="BF16", shape=(64, 64)))
    for wrong in (frame[1:], frame.cpu(), frame.view(torch.int16), frame[::2], frame[:0], b""):
        with pytest.raises(tersor.InvalidArgumentError):
            kv.Encoded.from_tensor(wrong, dtype="BF16", shape=(64, 64))
    for dtype, codec in (("F32", "rank"), ("BF16", "raw")):
        with pytest.raises(tersor.UnsupportedError):
            kv.Encoded.from_tensor(frame, dtype=dtype, shape=(64, 64), codec=codec)


@pytest.mark.parametrize(
    "make, kind",
    [
        (lambda: torch.zeros(4, device=CUDA), tersor.UnsupportedError),
        (lambda: torch.zeros(4, device=CUDA, dtype=torch.int32), tersor.UnsupportedError),
        (lambda: torch.zeros((1,) * 9, device=CUDA, dtype=torch.float16), tersor.InvalidArgumentError),
    ],
)
def test_what_cannot_be_encoded(make, kind):
    for call in (kv.Codec().encode, kv.Codec().calibrate, kv.Codec().allocate):
        with pytest.raises(kind):
            call(make())


def test_devices():
    x = normal((8, 8))
    with pytest.raises(tersor.MismatchError):
        kv.Codec(device="cpu").encode(x)
    with pytest.raises(tersor.MismatchError):
        kv.Codec(device="cuda").encode(x.cpu())
    with pytest.raises(tersor.MismatchError):
        kv.Codec(device=f"cuda:{CUDA.index + 1}").encode(x)
    with pytest.raises(tersor.BackendUnavailableError):
        kv.Codec(device="cuda:99").decode(kv.Codec().encode(x))
    encoded = kv.Codec(device=CUDA).encode(x)
    for out in (torch.empty(8, 9, dtype=torch.bfloat16, device=CUDA), torch.empty(8, 8, device=CUDA)):
        with pytest.raises(tersor.MismatchError):
            kv.Codec().decode(encoded, out)
    with pytest.raises(tersor.InvalidArgumentError):
        kv.Codec().decode(encoded, torch.empty(8, 8, dtype=torch.bfloat16, device=CUDA).T)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")
def test_a_second_gpu():
    x = normal((500, 600))
    other = torch.device("cuda", 1 - CUDA.index if CUDA.index < 2 else 0)
    y = kv.Codec(device=other).decode(kv.Codec().encode(x))
    assert y.device == other and same(x, y)
    assert same(x, kv.Codec().decode(kv.Codec().encode(x.to(other)), torch.empty_like(x)))
