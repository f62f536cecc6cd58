"""tersor.kv on the CPU: bad arguments and damaged frames raise the right error."""

from __future__ import annotations

import random

import numpy as np
import pytest
from kv_support import bits, normal, torch

import tersor
from tersor import kv

# ---- bad inputs ----


@pytest.mark.parametrize("chunk_size", [0, -1024, 3, 1000, 1 << 17, 1024.0, "1024", None, True])
def test_wrong_chunk_sizes(chunk_size):
    with pytest.raises(tersor.InvalidArgumentError):
        kv.Codec(chunk_size=chunk_size)
    with pytest.raises(ValueError):
        kv.Codec(chunk_size=chunk_size)


def test_chunk_size_changes_nothing():
    x = normal(30_000)
    frames = {kv.Codec(chunk_size=1 << i).encode(x).to_bytes() for i in range(17)}
    assert len(frames) == 1 and kv.Codec(chunk_size=256).chunk_size == 256


@pytest.mark.parametrize(
    "arguments",
    [{"codec": "raw"}, {"codec": "zstd"}, {"device": "tpu"}, {"device": "cuda:x"}, {"device": 1024},
     {"codebooks": {"BF16": b"short"}}, {"codebooks": {"I8": bytes(16)}}],
)  # fmt: skip
def test_wrong_codec_arguments(arguments):
    with pytest.raises(tersor.InvalidArgumentError):
        kv.Codec(**arguments)


@pytest.mark.parametrize(
    "x, kind",
    [
        (None, tersor.InvalidArgumentError),
        ([1.0, 2.0], tersor.InvalidArgumentError),
        (b"bytes", tersor.InvalidArgumentError),
        (np.zeros(4, np.int32), tersor.UnsupportedError),
        (np.zeros(4, np.float64), tersor.UnsupportedError),
        (np.zeros(4, np.complex64), tersor.UnsupportedError),
        (np.zeros(4, ">f4"), tersor.UnsupportedError),
        (np.zeros(4, object), tersor.UnsupportedError),
        (np.zeros((1,) * 9, np.float16), tersor.InvalidArgumentError),
        (torch.zeros(4, dtype=torch.int64), tersor.UnsupportedError),
        (torch.zeros(4, dtype=torch.complex64), tersor.UnsupportedError),
        (torch.zeros((1,) * 9, dtype=torch.float16), tersor.InvalidArgumentError),
        (torch.eye(4).to_sparse(), tersor.UnsupportedError),
        (torch.zeros(4, device="meta", dtype=torch.bfloat16), tersor.UnsupportedError),
    ],
)
def test_what_cannot_be_encoded(x, kind):
    for call in (kv.Codec().encode, kv.Codec().calibrate, kv.Codec().allocate):
        with pytest.raises(kind):
            call(x)


def test_calibrating_nothing():
    with pytest.raises(tersor.InvalidArgumentError):
        kv.Codec().calibrate(normal((0, 5)))


def test_devices():
    x = normal((4, 4))
    assert np.array_equal(bits(kv.Codec("cpu", 1024).decode(kv.Codec().encode(x), kind="numpy")), bits(x))
    with pytest.raises(tersor.MismatchError):
        kv.Codec(device="cuda").encode(x)
    if not torch.cuda.is_available():
        with pytest.raises(tersor.BackendUnavailableError):
            kv.Codec(device="cuda").decode(kv.Codec().encode(x))


# ---- damage ----


@pytest.mark.parametrize("codec", ["rank", "top16"])
def test_flipped_bits_are_found(codec):
    x = normal((100, 100))
    data = kv.Codec(codec=codec).encode(x).to_bytes()
    rng = random.Random(7)
    places = [*range(0, 128), *(rng.randrange(len(data)) for _ in range(400))]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << rng.randrange(8)
        with pytest.raises(tersor.Error) as found:
            kv.Codec().decode(kv.Encoded.from_bytes(damaged))
        wanted = (tersor.DigestMismatchError, tersor.MalformedError, tersor.BadMagicError)
        assert isinstance(found.value, wanted), (place, found.value)


def test_damage_has_a_place():
    data = bytearray(kv.Codec().encode(normal(5 * 8192)).to_bytes())
    info = kv.Encoded.from_bytes(data).info
    assert info.n_chunks == 5
    data[256 + 3 * 8192 + 17] ^= 4  # a rest byte of chunk 3
    encoded = kv.Encoded.from_bytes(data)
    with pytest.raises(tersor.DigestMismatchError) as found:
        kv.Codec().decode(encoded)
    assert found.value.chunk == 3 and found.value.name == "digest_mismatch"


def test_cut_and_extended_bytes():
    data = kv.Codec().encode(normal((40, 40))).to_bytes()
    for n in [*range(0, 300, 13), len(data) - 128, len(data) - 1]:
        with pytest.raises(tersor.TruncatedError):
            kv.Encoded.from_bytes(data[:n])
    for extra in (b"\0", bytes(128), data):
        with pytest.raises(tersor.MalformedError):
            kv.Encoded.from_bytes(data + extra)


def test_other_bytes():
    for junk in (bytes(4096), b"PK\3\4" * 100, b"\x80\5" * 600):
        with pytest.raises(tersor.BadMagicError):
            kv.Encoded.from_bytes(junk)
    with pytest.raises(tersor.UnsupportedError):
        kv.Encoded.from_bytes(bytes(tersor.encode(np.arange(100))))
    for wrong in (None, 12, "text"):
        with pytest.raises(tersor.InvalidArgumentError):
            kv.Encoded.from_bytes(wrong)
