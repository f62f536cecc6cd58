"""What all engine integrations store and send, without an engine: blobs, stores, staging regions."""

from __future__ import annotations

import random
import threading

import ml_dtypes
import numpy as np
import pytest

import tersor
from tersor.integrations._blob import (
    HEADER_BYTES,
    Part,
    blob_bound,
    check_codec,
    decode_blob,
    encode_blob,
    encode_blob_into,
    pack_header,
    read_header,
)
from tersor.integrations._stores import FolderStore, MemoryStore


def part(shape=(3, 500), dtype: str = "BF16", seed: int = 0, noise: bool = False) -> Part:
    size = {"BF16": 2, "F16": 2, "F32": 4, "U8": 1}[dtype]
    rng = np.random.default_rng(seed)
    n = int(np.prod(shape))
    if noise or dtype == "U8":
        return Part(rng.integers(0, 256, n * size, np.uint8), dtype, shape)
    kind = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}[dtype]
    return Part(rng.standard_normal(n).astype(kind).view(np.uint8), dtype, shape)


def room(like: Part) -> Part:
    return like._replace(data=np.full(like.n_bytes, 0xA5, np.uint8))


@pytest.mark.parametrize("codec", ["rank", "top16", "raw"])
@pytest.mark.parametrize("noise", [False, True])
def test_round_trip_within_the_bound(codec: str, noise: bool) -> None:
    parts = [part((2, 3000), "BF16", 1, noise), part((7,), "U8"), part((0, 4), "F16"), part((), "F32", 2, noise)]
    blob = encode_blob(codec, parts, b"key")
    bound = blob_bound(codec, [(p.dtype, p.shape) for p in parts])
    assert len(blob) <= bound
    dst = bytearray(bound)
    assert encode_blob_into(codec, parts, b"key", dst) == len(blob)
    assert bytes(dst[: len(blob)]) == blob
    out = [room(p) for p in parts]
    assert decode_blob(blob + b"tail", out, b"key") == len(blob)
    assert all((o.data == p.data).all() for o, p in zip(out, parts, strict=True))
    assert read_header(blob)[:2] == (4, len(blob))


def test_every_flipped_bit_is_found_or_harmless() -> None:
    p = part((700,))
    blob = encode_blob("rank", [p], b"key")
    for bit in range(len(blob) * 8):
        harmed = bytearray(blob)
        harmed[bit // 8] ^= 1 << bit % 8
        out = room(p)
        try:
            decode_blob(harmed, [out], b"key")
        except tersor.Error:
            continue
        assert (out.data == p.data).all(), bit


def test_cut_blobs_other_keys_and_other_tensors_are_refused() -> None:
    p = part()
    blob = encode_blob("rank", [p, p], b"key")
    for size in [*range(0, HEADER_BYTES + 2), *range(HEADER_BYTES, len(blob), 97), len(blob) - 1]:
        with pytest.raises(tersor.Error):
            decode_blob(blob[:size], [room(p), room(p)], b"key")
    for wanted, key in (
        ([p, p], b"other"), ([p], b"key"), ([p, p, p], b"key"), ([p, p._replace(dtype="F16")], b"key"),
        ([p, p._replace(shape=(500, 3))], b"key"),
    ):  # fmt: skip
        with pytest.raises(tersor.MismatchError):
            decode_blob(blob, [room(w) for w in wanted], key)
    with pytest.raises(tersor.MalformedError):  # says it is longer than its frames
        decode_blob(pack_header(2, len(blob) + 8, b"key") + blob[HEADER_BYTES:] + bytes(8), [room(p), room(p)], b"key")
    with pytest.raises(tersor.DestinationTooSmallError):
        encode_blob_into("rank", [p], b"key", bytearray(HEADER_BYTES + 100))
    with pytest.raises(tersor.InvalidArgumentError):
        check_codec("zstd")


def test_memory_store_is_bounded_and_shared_by_threads() -> None:
    store = MemoryStore(10_000)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(2000):
            key = bytes([rng.randrange(20)])
            store.put(key, key * rng.randrange(1, 3000))
            found = store.get(key)
            assert found is None or set(found) == set(key)
            if rng.random() < 0.1:
                store.forget(key)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = sum(len(store.get(bytes([k])) or b"") for k in range(20))
    assert kept <= 10_000 and store._left == 10_000 - kept
    store.put(b"big", bytes(20_000))
    assert not store.has(b"big")
    with pytest.raises(tersor.InvalidArgumentError):
        MemoryStore(0)


def test_folder_store_leaves_whole_files_or_none(tmp_path) -> None:
    store = FolderStore(lambda key: str(tmp_path / key.hex()[:2] / key.hex()))
    assert store.get(b"k") is None and not store.has(b"k")
    store.put(b"k", b"blob")
    assert store.get(b"k") == b"blob" and store.has(b"k")
    with pytest.raises(TypeError):
        store.put(b"k2", "no bytes")
    assert not store.has(b"k2")
    assert [f.name for f in tmp_path.rglob("*") if f.is_file()] == [b"k".hex()]
    store.forget(b"k")
    store.forget(b"k")
    assert not store.has(b"k")


@pytest.mark.parametrize("codec", ["rank", "top16", "raw"])
@pytest.mark.parametrize("noise", [False, True])
def test_staging_regions(codec: str, noise: bool) -> None:
    torch = pytest.importorskip("torch")
    from tersor.integrations.sglang_staging import StagingCodec, room_for

    for name in ("bfloat16", "float16", "uint8"):
        dtype = getattr(torch, name)
        values = torch.randn(5000, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16).view(torch.uint8)
        if noise:
            values = torch.empty_like(values).random_(0, 256)
        region = torch.zeros(room_for(values.numel()), dtype=torch.uint8)
        region[: values.numel()] = values
        size = StagingCodec(codec).encode(region, values.numel(), dtype)
        assert size <= region.numel()
        out = torch.empty(values.numel() // dtype.itemsize, dtype=dtype)
        StagingCodec().decode(region, out)
        assert torch.equal(out.view(torch.uint8), values)
        region[size // 2] ^= 2
        with pytest.raises(tersor.Error):
            StagingCodec().decode(region, out)
    with pytest.raises(tersor.Error):
        StagingCodec().encode(region, 333, torch.bfloat16)
