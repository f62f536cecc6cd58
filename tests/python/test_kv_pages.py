"""PagedCodec on the CPU: what it puts into pages equals plain indexing, in every storage order."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest

import tersor
from tersor import kv

torch = pytest.importorskip("torch")

ORDERS = ["kv_blocks_nhd", "blocks_kv_nhd", "kv_blocks_hnd", "blocks_kv_hnd", "mla"]
DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float8_e4m3fn, torch.float8_e5m2]
BLOCKS, TOKENS, HEADS, DIM, LAYERS = 23, 16, 3, 40, 3
IDS, PLACES = [4, 0, 22, 7, 8], [1, 21, 3, 20, 2]
CARRIERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}


def layer_shape(order: str) -> tuple[int, ...]:
    return {
        "kv_blocks_nhd": (2, BLOCKS, TOKENS, HEADS, DIM),
        "blocks_kv_nhd": (BLOCKS, 2, TOKENS, HEADS, DIM),
        "kv_blocks_hnd": (2, BLOCKS, HEADS, TOKENS, DIM),
        "blocks_kv_hnd": (BLOCKS, 2, HEADS, TOKENS, DIM),
        "mla": (BLOCKS, TOKENS, DIM),
    }[order]


def cache(order: str, dtype=torch.bfloat16, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.randn(layer_shape(order), generator=generator) * (layer + 1) for layer in range(LAYERS)]
    return [layer.to(dtype) for layer in layers]


def zeros(order: str, dtype=torch.bfloat16) -> list[torch.Tensor]:
    return [torch.zeros(layer_shape(order)).to(dtype) for _ in range(LAYERS)]


def pages_of(layers: list[torch.Tensor], order: str, ids: list[int]) -> list[torch.Tensor]:
    """By pool, the pages' bits as [pages, token, head, value]; written out once more, by plain indexing."""
    found = []
    for layer in layers:
        ints = layer.view(CARRIERS[layer.element_size()])
        if order == "mla":
            found.append(torch.stack([ints[page][:, None, :] for page in ids]))
            continue
        for part in (0, 1):
            pages = [ints[part, page] if order.startswith("kv_") else ints[page, part] for page in ids]
            found.append(torch.stack([page if order.endswith("nhd") else page.permute(1, 0, 2) for page in pages]))
    return found


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("kind", ["gathered", "slots"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pages_come_back(order, dtype, kind):
    source, target = cache(order, dtype), zeros(order, dtype)
    kv.PagedCodec(target, order).decode(kv.PagedCodec(source, order).encode(IDS, kind), PLACES)
    assert same(pages_of(source, order, IDS), pages_of(target, order, PLACES))
    others = [page for page in range(BLOCKS) if page not in PLACES]
    assert all(not pool.any() for pool in pages_of(target, order, others))


@pytest.mark.parametrize("kind", ["gathered", "slots"])
@pytest.mark.parametrize("to", ORDERS[:4])
@pytest.mark.parametrize("order", ORDERS[:4])
def test_one_order_decodes_into_another(order, to, kind):
    source, target = cache(order), zeros(to)
    sent = kv.PagedCodec(source, order, codec="top16").encode(IDS, kind).to_bytes()
    kv.PagedCodec(target, to).decode(kv.EncodedPages.from_bytes(sent), PLACES)
    assert same(pages_of(source, order, IDS), pages_of(target, to, PLACES))


@pytest.mark.parametrize("kind", ["gathered", "slots"])
def test_frames_hold_token_head_value(kind):
    source = cache("blocks_kv_hnd")
    encoded = kv.PagedCodec(source, "blocks_kv_hnd").encode(IDS, kind)
    frames = [
        kv.Codec().decode(kv.Encoded.from_bytes(f), kind="torch").view(torch.int16) for f in encoded.host_frames()
    ]
    wanted = pages_of(source, "blocks_kv_hnd", IDS)
    assert same(frames, wanted if kind == "gathered" else [page for pool in wanted for page in pool])


@pytest.mark.parametrize("codec", ["rank", "top16"])
def test_pages_are_coded_even_where_raw_is_smaller(codec):
    frames = kv.PagedCodec(cache("mla"), "mla", codec).encode(IDS, "slots").host_frames()
    assert {kv.Encoded.from_bytes(frame).info.codec for frame in frames} == {codec}


def test_numpy_layers():
    layers = [np.asarray(layer.view(torch.int16)).view("float16") for layer in cache("kv_blocks_nhd", torch.float16)]
    target = [np.zeros_like(layer) for layer in layers]
    kv.PagedCodec(target).decode(kv.PagedCodec(layers).encode(np.array(IDS)), torch.tensor(PLACES))
    assert all(np.array_equal(a[:, IDS], b[:, PLACES]) for a, b in zip(layers, target, strict=True))


def test_sizes():
    source = cache("kv_blocks_nhd")
    codec = kv.PagedCodec(source)
    assert (codec.n_pools, codec.n_blocks, codec.device) == (6, BLOCKS, "cpu")
    assert codec.page_bytes == TOKENS * HEADS * DIM * 2
    for kind, n_frames in (("gathered", 6), ("slots", 30)):
        encoded = codec.encode(IDS, kind)
        assert len(encoded.frame_bytes) == n_frames and encoded.kind == kind and encoded.n_pages == 5
        assert encoded.compressed_bytes == sum(encoded.frame_bytes) == len(encoded)
        assert encoded.original_bytes == 6 * 5 * codec.page_bytes and encoded.ratio > 1.2
        assert 0 < len(encoded.to_bytes()) - len(encoded) <= 48 + 8 * n_frames + 128


def test_calibration():
    source = cache("kv_blocks_nhd")
    codec = kv.PagedCodec(source)
    assert codec.codebooks is None
    coverage = codec.calibrate(range_ids := list(range(BLOCKS)))
    assert 0.99 < coverage <= 1 and len(codec.codebooks) == 6 and len(set(codec.codebooks)) > 1
    flat = [pool.view(torch.bfloat16) for pool in pages_of(source, "kv_blocks_nhd", range_ids)]
    for book, pool in zip(codec.codebooks, flat, strict=True):
        one = kv.Codec()
        one.calibrate(pool)
        assert one.codebooks["BF16"] == book
    codec.calibrate([0, 1, 2])
    codec.calibrate(list(range(3, BLOCKS)), accumulate=True)
    again = kv.PagedCodec(source)
    again.calibrate(range_ids)
    assert codec.codebooks == again.codebooks
    other = kv.PagedCodec(source)
    other.codebooks = codec.codebooks
    assert other.encode(IDS).to_bytes() == codec.encode(IDS).to_bytes()
    with pytest.raises(tersor.InvalidArgumentError):
        other.codebooks = [bytes(16)]


def test_slots_and_overflow():
    source, target = cache("kv_blocks_nhd"), zeros("kv_blocks_nhd")
    noise = torch.randint(-(1 << 15), 1 << 15, source[1][0, 7].shape, dtype=torch.int16)
    source[1][0, 7] = noise.view(torch.bfloat16)
    codec = kv.PagedCodec(source)
    slot = codec.suggest_slot_bytes(IDS, 0.9)
    assert slot % 128 == 0 and slot < codec.page_bytes
    encoded = codec.encode(IDS, "slots", slot_bytes=slot)
    assert sum(size > slot for size in encoded.frame_bytes) == 1
    kv.PagedCodec(target).decode(encoded, PLACES)
    assert same(pages_of(source, "kv_blocks_nhd", IDS), pages_of(target, "kv_blocks_nhd", PLACES))
    with pytest.raises(tersor.DestinationTooSmallError):
        codec.encode(IDS, "slots", slot_bytes=slot, overflow_places=0)


@pytest.mark.parametrize("kind", ["gathered", "slots"])
def test_bytes_pickles_and_given_memory(kind):
    source = cache("mla")
    codec = kv.PagedCodec(source, "mla")
    encoded = codec.encode(IDS, kind)
    assert kv.EncodedPages.from_bytes(encoded.to_bytes()).to_bytes() == encoded.to_bytes()
    assert pickle.loads(pickle.dumps(encoded)).to_bytes() == encoded.to_bytes()
    room = codec.allocate(5, kind)
    with pytest.raises(tersor.InvalidArgumentError):
        room.check()
    with pytest.raises(tersor.InvalidArgumentError):
        codec.decode(room, PLACES)
    assert codec.encode(IDS, out=room) is room and room.to_bytes() == encoded.to_bytes()
    with pytest.raises(tersor.MismatchError):
        codec.encode(IDS[:4], out=room)
    with pytest.raises(tersor.InvalidArgumentError):
        codec.encode(IDS, out=encoded)


def test_damaged_bytes():
    codec = kv.PagedCodec(cache("kv_blocks_nhd"))
    data = codec.encode(IDS, "slots").to_bytes()
    rng = random.Random(3)
    wanted = (tersor.DigestMismatchError, tersor.MalformedError, tersor.BadMagicError, tersor.UnsupportedVersionError,
              tersor.TruncatedError)  # fmt: skip
    for place in [*range(320), *(rng.randrange(len(data)) for _ in range(200))]:
        damaged = bytearray(data)
        damaged[place] ^= 1 << rng.randrange(8)
        with pytest.raises(wanted):
            codec.decode(kv.EncodedPages.from_bytes(damaged), PLACES)
    for n in [*range(0, 400, 7), len(data) - 128, len(data) - 1]:
        with pytest.raises((tersor.TruncatedError, tersor.BadMagicError)):
            kv.EncodedPages.from_bytes(data[:n])
    with pytest.raises(tersor.MalformedError):
        kv.EncodedPages.from_bytes(data + bytes(128))
    for junk in (b"", bytes(500), None, 3):
        with pytest.raises((tersor.BadMagicError, tersor.InvalidArgumentError)):
            kv.EncodedPages.from_bytes(junk)


@pytest.mark.parametrize("ids", [[], None, 3, "12", [BLOCKS], [-1], [1.5], [True], [[1, 2]], ["1"]])
def test_wrong_page_ids(ids):
    codec = kv.PagedCodec(cache("kv_blocks_nhd"))
    for call in (codec.encode, codec.calibrate, lambda ids: codec.decode(codec.encode([1]), ids)):
        with pytest.raises(tersor.InvalidArgumentError):
            call(ids)


def test_wrong_pages():
    codec = kv.PagedCodec(cache("kv_blocks_nhd"))
    encoded = codec.encode(IDS)
    with pytest.raises(tersor.InvalidArgumentError):
        codec.decode(encoded, [1, 2, 3, 4, 4])
    with pytest.raises(tersor.MismatchError):
        codec.decode(encoded, PLACES[:4])
    for other in (
        kv.PagedCodec(cache("kv_blocks_nhd", torch.float16)),
        kv.PagedCodec(cache("kv_blocks_nhd")[:2]),
        kv.PagedCodec(cache("mla"), "mla"),
    ):
        with pytest.raises(tersor.MismatchError):
            other.decode(encoded, PLACES)
    with pytest.raises(tersor.InvalidArgumentError):
        codec.decode(encoded.to_bytes(), PLACES)
    for arguments in (
        {"kind": "scattered"},
        {"kind": "gathered", "slot_bytes": 1280},
        {"kind": "slots", "slot_bytes": 100},
        {"kind": "slots", "slot_bytes": 0},
    ):
        with pytest.raises(tersor.InvalidArgumentError):
            codec.encode(IDS, **arguments)
    for coverage in (0, 1.1, -1):
        with pytest.raises(tersor.InvalidArgumentError):
            codec.suggest_slot_bytes(IDS, coverage)


@pytest.mark.parametrize(
    "layers, order, kind",
    [
        ([], "mla", tersor.InvalidArgumentError),
        (torch.zeros(4, 2, 8), "mla", tersor.InvalidArgumentError),
        ([None], "mla", tersor.InvalidArgumentError),
        ([torch.zeros(4, 2, 8)], "nhd", tersor.InvalidArgumentError),
        ([torch.zeros(4, 2, 8)], "kv_blocks_nhd", tersor.InvalidArgumentError),
        ([torch.zeros(4, 0, 8)], "mla", tersor.InvalidArgumentError),
        ([torch.zeros(3, 4, 2, 2, 8)], "kv_blocks_nhd", tersor.InvalidArgumentError),
        ([torch.zeros(2, 4, 2, 2, 8)], "blocks_kv_nhd", tersor.InvalidArgumentError),
        ([torch.zeros(4, 8, 2).transpose(1, 2)], "mla", tersor.InvalidArgumentError),
        ([torch.zeros(4, 2, 8), torch.zeros(4, 2, 9)], "mla", tersor.MismatchError),
        ([torch.zeros(4, 2, 8), torch.zeros(4, 2, 8).half()], "mla", tersor.MismatchError),
        ([torch.zeros(4, 2, 8, dtype=torch.int8)], "mla", tersor.UnsupportedError),
    ],
)
def test_wrong_pools(layers, order, kind):
    with pytest.raises(kind):
        kv.PagedCodec(layers, order)


def test_numpy_layers_are_used_in_place_or_refused():
    layer = np.zeros((4, 2, 8), np.float16)
    read_only = layer.copy()
    read_only.flags.writeable = False
    for wrong in (layer[:, :, ::2], layer[:0], read_only):
        with pytest.raises(tersor.InvalidArgumentError):
            kv.PagedCodec([wrong], "mla")
