"""PagedCodec on an NVIDIA GPU: every storage order against plain indexing, CUDA graphs, slots, damage."""

from __future__ import annotations

import pytest

import tersor
from tersor import kv

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no GPU", allow_module_level=True)

CUDA = torch.device("cuda", torch.cuda.current_device())
ORDERS = ["kv_blocks_nhd", "blocks_kv_nhd", "kv_blocks_hnd", "blocks_kv_hnd", "mla"]
DTYPES = [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2]
BLOCKS, TOKENS, HEADS, DIM, LAYERS = 37, 16, 3, 40, 3
IDS, PLACES = [4, 0, 36, 7, 8], [1, 35, 3, 20, 2]
CARRIERS = {1: torch.uint8, 2: torch.int16}


def layer_shape(order: str) -> tuple[int, ...]:
    return {
        "kv_blocks_nhd": (2, BLOCKS, TOKENS, HEADS, DIM),
        "blocks_kv_nhd": (BLOCKS, 2, TOKENS, HEADS, DIM),
        "kv_blocks_hnd": (2, BLOCKS, HEADS, TOKENS, DIM),
        "blocks_kv_hnd": (BLOCKS, 2, HEADS, TOKENS, DIM),
        "mla": (BLOCKS, TOKENS, DIM),
    }[order]


def cache(order: str, dtype=torch.bfloat16, seed: int = 0, device=CUDA) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    layers = [torch.randn(layer_shape(order), generator=generator) * (layer + 1) for layer in range(LAYERS)]
    return [layer.to(dtype).to(device) for layer in layers]


def zeros(order: str, dtype=torch.bfloat16, device=CUDA) -> list[torch.Tensor]:
    return [torch.zeros(layer_shape(order)).to(dtype).to(device) for _ in range(LAYERS)]


def pages_of(layers: list[torch.Tensor], order: str, ids: list[int]) -> list[torch.Tensor]:
    """By pool, the pages' bits as [pages, token, head, value], by plain indexing."""
    found = []
    for layer in layers:
        ints = layer.view(CARRIERS[layer.element_size()]).cpu()
        if order == "mla":
            found.append(torch.stack([ints[page][:, None, :] for page in ids]))
            continue
        for part in (0, 1):
            pages = [ints[part, page] if order.startswith("kv_") else ints[page, part] for page in ids]
            found.append(torch.stack([page if order.endswith("nhd") else page.permute(1, 0, 2) for page in pages]))
    return found


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def on_gpu(ids: list[int]) -> torch.Tensor:
    return torch.tensor(ids, dtype=torch.int32, device=CUDA)


@pytest.mark.parametrize("codec", ["rank", "top16"])
@pytest.mark.parametrize("kind", ["gathered", "slots"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_pages_come_back(order, dtype, kind, codec):
    source, target = cache(order, dtype), zeros(order, dtype)
    encoded = kv.PagedCodec(source, order, codec).encode(IDS, kind)
    kv.PagedCodec(target, order, codec).decode(encoded, PLACES)
    assert same(pages_of(source, order, IDS), pages_of(target, order, PLACES))
    others = [page for page in range(BLOCKS) if page not in PLACES]
    assert all(not pool.any() for pool in pages_of(target, order, others))
    assert len(encoded.frame_bytes) == encoded.n_pools * (5 if kind == "slots" else 1)


@pytest.mark.parametrize("kind", ["gathered", "slots"])
@pytest.mark.parametrize("to", ORDERS[:4])
@pytest.mark.parametrize("order", ORDERS[:4])
def test_one_order_decodes_into_another(order, to, kind):
    source, target = cache(order), zeros(to)
    kv.PagedCodec(target, to).decode(kv.PagedCodec(source, order).encode(on_gpu(IDS), kind), on_gpu(PLACES))
    assert same(pages_of(source, order, IDS), pages_of(target, to, PLACES))


@pytest.mark.parametrize("kind", ["gathered", "slots"])
@pytest.mark.parametrize("codec", ["rank", "top16"])
@pytest.mark.parametrize("order", ORDERS)
def test_cpu_and_gpu_read_each_other(order, codec, kind):
    gpu, cpu = cache(order), cache(order, device="cpu")
    here, there = kv.PagedCodec(gpu, order, codec, canonical=True), kv.PagedCodec(cpu, order, codec)
    for calibrated in (False, True):
        if calibrated:
            assert here.calibrate(list(range(9))) == pytest.approx(there.calibrate(list(range(9))))
            assert here.codebooks == there.codebooks
        sent = here.encode(IDS, kind).to_bytes()
        assert sent == there.encode(IDS, kind).to_bytes()
        target = zeros(order, device="cpu")
        kv.PagedCodec(target, order).decode(kv.EncodedPages.from_bytes(sent), PLACES)
        assert same(pages_of(gpu, order, IDS), pages_of(target, order, PLACES))
        target = zeros(order)
        # a receiver with the other codec: frames say which one they need
        kv.PagedCodec(target, order, "rank").decode(kv.EncodedPages.from_bytes(sent), PLACES)
        assert same(pages_of(gpu, order, IDS), pages_of(target, order, PLACES))


def test_many_layers_and_pages():
    order = "blocks_kv_nhd"
    layers = [torch.randn(200, 2, 16, 8, 128, device=CUDA).bfloat16() for _ in range(40)]
    target = [torch.zeros_like(layer) for layer in layers]
    ids, places = torch.randperm(200)[:150].tolist(), torch.randperm(200)[:150].tolist()
    for kind in ("gathered", "slots"):
        encoded = kv.PagedCodec(layers, order).encode(ids, kind)
        assert encoded.ratio > 1.4
        kv.PagedCodec(target, order).decode(encoded, places)
        assert all(
            torch.equal(a[ids].view(torch.int16), b[places].view(torch.int16))
            for a, b in zip(layers, target, strict=True)
        )
        for layer in target:
            layer.zero_()


def test_slots_and_overflow():
    order = "kv_blocks_nhd"
    source = cache(order)
    for layer in source[:2]:
        noise = torch.randint(-(1 << 15), 1 << 15, layer[0, 7].shape, dtype=torch.int16, device=CUDA)
        layer[0, 7] = noise.view(torch.bfloat16)
    codec = kv.PagedCodec(source, order)
    slot = codec.suggest_slot_bytes(IDS, 0.9)
    assert slot % 128 == 0 and slot < codec.page_bytes
    encoded = codec.encode(IDS, "slots", slot_bytes=slot)
    assert sum(size > slot for size in encoded.frame_bytes) == 2
    for again in (encoded, kv.EncodedPages.from_bytes(encoded.to_bytes())):
        target = zeros(order)
        kv.PagedCodec(target, order).decode(again, PLACES)
        assert same(pages_of(source, order, IDS), pages_of(target, order, PLACES))
    codec.encode(IDS, "slots", slot_bytes=slot, overflow_places=2).check()
    for places in (0, 1):
        with pytest.raises(tersor.DestinationTooSmallError, match="page 3"):
            codec.encode(IDS, "slots", slot_bytes=slot, overflow_places=places).check()


@pytest.mark.parametrize("kind", ["gathered", "slots"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_a_graph_replays_with_other_pages(kind, calibrated):
    order = "kv_blocks_hnd"
    source, target = cache(order), zeros(order)
    sender, receiver = kv.PagedCodec(source, order), kv.PagedCodec(target, order)
    slot = {}
    if calibrated:
        sender.calibrate(list(range(BLOCKS)))
    if kind == "slots":
        slot = {"slot_bytes": sender.suggest_slot_bytes(list(range(BLOCKS)), 0.5)}
    ids, places = on_gpu(IDS), on_gpu(PLACES)
    room = sender.allocate(5, kind, **slot)
    receiver.decode(sender.encode(ids, out=room), places)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        sender.encode(ids, out=room)
        decoding = receiver.decode(room, places, check=False)
        with pytest.raises(tersor.InvalidArgumentError):
            sender.encode(IDS, out=room)
        with pytest.raises(tersor.InvalidArgumentError):
            _ = room.compressed_bytes
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        now = torch.randperm(BLOCKS, generator=generator)[:5].tolist()
        to = torch.randperm(BLOCKS, generator=generator)[:5].tolist()
        for layer, fresh in zip(source, cache(order, seed=seed), strict=True):
            layer.copy_(fresh)
        ids.copy_(on_gpu(now))
        places.copy_(on_gpu(to))
        for layer in target:
            layer.zero_()
        graph.replay()
        decoding.check()
        assert same(pages_of(source, order, now), pages_of(target, order, to))
        assert room.check().compressed_bytes < room.original_bytes


def test_encoding_does_not_wait():
    source, target = cache("mla"), zeros("mla")
    sender, receiver = kv.PagedCodec(source, "mla"), kv.PagedCodec(target, "mla")
    ids, places = on_gpu(IDS), on_gpu(PLACES)
    receiver.decode(sender.encode(ids), places)
    torch.cuda._sleep(50_000_000)
    torch.cuda.set_sync_debug_mode("error")
    try:
        encoded = sender.encode(ids)
        decoding = receiver.decode(encoded, places, check=False)
        assert not decoding.ready()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    decoding.check()
    assert same(pages_of(source, "mla", IDS), pages_of(target, "mla", PLACES))


def test_pages_outside_the_pools():
    source = cache("kv_blocks_nhd")
    codec = kv.PagedCodec(source)
    for ids in ([0, BLOCKS], [-1, 2]):
        with pytest.raises(tersor.InvalidArgumentError):
            codec.encode(ids)
        encoded = codec.encode(on_gpu(ids))
        with pytest.raises(tersor.InvalidArgumentError, match="outside the pool"):
            encoded.check()
    wide = torch.tensor([(1 << 32) + 3, 1], device=CUDA)
    with pytest.raises(tersor.InvalidArgumentError):
        codec.encode(wide).check()
    before = [layer.clone() for layer in source]
    with pytest.raises(tersor.InvalidArgumentError):
        codec.decode(codec.encode([1, 2]), on_gpu([3, BLOCKS]))
    untouched = [page for page in range(BLOCKS) if page != 3]
    assert same(pages_of(before, "kv_blocks_nhd", untouched), pages_of(source, "kv_blocks_nhd", untouched))


def test_wrong_ids_on_the_gpu():
    codec = kv.PagedCodec(cache("kv_blocks_nhd"))
    for ids in (on_gpu([]), on_gpu([1]).float(), on_gpu([1, 2]).reshape(1, 2)):
        with pytest.raises(tersor.InvalidArgumentError):
            codec.encode(ids)
    encoded = codec.encode(IDS)
    with pytest.raises(tersor.MismatchError):
        codec.decode(encoded, on_gpu([1, 2]))
    with pytest.raises(tersor.InvalidArgumentError):
        codec.decode(encoded, [1, 1, 2, 3, 4])
    with pytest.raises(tersor.InvalidArgumentError):
        codec.decode(codec.allocate(5), PLACES)
    with pytest.raises(tersor.MismatchError):
        kv.PagedCodec(cache("mla"), "mla").decode(encoded, PLACES)


def test_page_damage_is_found():
    codec = kv.PagedCodec(cache("kv_blocks_nhd"))
    for kind in ("gathered", "slots"):
        encoded = codec.encode(IDS, kind)
        sizes, stride = encoded.frame_bytes, encoded.device_pages.stride
        frames = encoded.device_pages.frames
        for number in (0, len(sizes) - 1):
            for at in (9, 40, 130, sizes[number] // 2):
                frames[number * stride + at] ^= 4
                place = f"pool {number}" if kind == "gathered" else f"pool {number // 5}, page {number % 5}"
                with pytest.raises((tersor.DigestMismatchError, tersor.MalformedError), match=place):
                    codec.decode(encoded, PLACES)
                frames[number * stride + at] ^= 4
        codec.decode(encoded, PLACES)
        data = bytearray(encoded.to_bytes())
        data[-5000] ^= 1
        with pytest.raises((tersor.DigestMismatchError, tersor.MalformedError)):
            codec.decode(kv.EncodedPages.from_bytes(data), PLACES)


def test_float32_pools_are_refused():
    with pytest.raises(tersor.UnsupportedError):
        kv.PagedCodec([torch.zeros(4, 2, 8, device=CUDA)], "mla")
