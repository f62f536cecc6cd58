"""HiCache storage and the prefill-decode staging hooks in SGLang's own classes, on the CPU. No engine runs."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import os
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

os.environ.setdefault("SGLANG_STAGING_USE_TORCH", "1")  # SGLang's Triton kernels need a GPU; read when it is imported
pytest.importorskip("torch")
pytest.importorskip("sglang", reason="SGLang is not installed: scripts/test_integrations.sh")
pytest.importorskip("sglang.srt.mem_cache.hicache_storage", reason="this SGLang does not import on a CPU")

import numpy as np
import torch
from sglang.srt.mem_cache import hicache_storage as hicache
from sglang.srt.mem_cache.storage.backend_factory import StorageBackendFactory

import tersor
from tersor.integrations import sglang as integration
from tersor.integrations import sglang_plugin, sglang_staging

PAGE = (2 * 4 * 64 * 8 * 64,)  # K and V, layers, tokens, heads, values a head


def config(folder: Path, **extra) -> hicache.HiCacheStorageConfig:
    return hicache.HiCacheStorageConfig(
        tp_rank=0, tp_size=1, pp_rank=0, pp_size=1, attn_cp_rank=0, attn_cp_size=1, is_mla_model=False,
        enable_storage_metrics=False, is_page_first_layout=False, model_name="org/model",
        extra_config={"file_storage_path": str(folder), **extra},
    )  # fmt: skip


def dynamic(folder: Path, **extra):
    names = {"backend_name": "tersor", "module_path": "tersor.integrations.sglang", "class_name": "TersorHiCache"}
    return StorageBackendFactory.create_backend("dynamic", config(folder, **names, **extra), None)


def page(seed: int = 0, dtype=torch.bfloat16, shape=PAGE):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return values.to(torch.float8_e4m3fn).view(dtype) if dtype == torch.uint8 else values.to(dtype)


def same(a, b) -> bool:
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def the_file(folder: Path) -> Path:
    (file,) = folder.glob("*.bin")
    return file


@pytest.mark.parametrize("codec", ["rank", "top16", "raw"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.uint8, torch.float32])
def test_pages_come_back_bit_for_bit_and_small(tmp_path: Path, codec: str, dtype) -> None:
    storage = dynamic(tmp_path, tersor_codec=codec)
    assert isinstance(storage, hicache.HiCacheFile)
    pages = [page(i).view(torch.uint8) if dtype == torch.uint8 else page(i, dtype) for i in range(3)]
    keys = [f"{i:064x}" for i in range(3)]
    assert storage.batch_set(keys, pages)
    assert storage.batch_exists([*keys, "f" * 64]) == 3
    found = storage.batch_get([*keys, "f" * 64], [torch.empty_like(pages[0]) for _ in range(4)])
    assert all(same(f, p) for f, p in zip(found[:3], pages, strict=True))
    assert found[3] is None
    if dtype == torch.bfloat16 and codec != "raw":
        stored = sum(f.stat().st_size for f in tmp_path.glob("*.bin"))
        assert stored < sum(p.nbytes for p in pages) / (1.45 if codec == "rank" else 1.3)
    assert storage.set(keys[0], pages[1])  # is there already
    assert same(storage.get(keys[0], torch.empty_like(pages[0])), pages[0])


@pytest.mark.parametrize("harm", ["flip", "flip header", "cut", "cut header", "empty"])
@pytest.mark.parametrize("metadata_cache", [False, True])
def test_a_damaged_page_is_a_miss_and_is_stored_anew(tmp_path: Path, harm: str, metadata_cache: bool) -> None:
    storage = dynamic(tmp_path, enable_metadata_cache=metadata_cache, max_size="1G")
    value = page()
    assert storage.set("a" * 64, value)
    data = bytearray(the_file(tmp_path).read_bytes())
    if harm == "flip":
        data[len(data) // 2] ^= 1
    elif harm == "flip header":
        data[17] ^= 8
    elif harm == "empty":
        data.clear()
    else:
        del data[-1 if harm == "cut" else 60 :]
    the_file(tmp_path).write_bytes(data)
    assert storage.get("a" * 64, torch.empty_like(value)) is None
    assert not storage.exists("a" * 64)
    assert storage.set("a" * 64, value)
    assert same(storage.get("a" * 64, torch.empty_like(value)), value)


def test_other_keys_dtypes_and_sizes_are_misses_and_stay(tmp_path: Path) -> None:
    storage = dynamic(tmp_path)
    value = page()
    assert storage.set("a" * 64, value)
    for other in (value[:-8], value.view(torch.float16), torch.cat([value, value])):
        assert storage.get("a" * 64, torch.empty_like(other)) is None
    file = the_file(tmp_path)
    moved = file.with_name(file.name.replace("a" * 64, "b" * 64))
    moved.write_bytes(file.read_bytes())
    assert storage.get("b" * 64, torch.empty_like(value)) is None
    plain = hicache.HiCacheFile(config(tmp_path))
    plain.set("c" * 64, value)
    assert storage.get("c" * 64, torch.empty_like(value)) is None  # a page of the plain backend
    assert len(list(tmp_path.glob("*.bin"))) == 3
    assert same(storage.get("a" * 64, torch.empty_like(value)), value)


def test_no_flipped_bit_gives_other_values(tmp_path: Path) -> None:
    storage = dynamic(tmp_path)
    value = page(shape=(1500,))
    storage.set("a" * 64, value)
    file = the_file(tmp_path)
    data = file.read_bytes()
    rng = random.Random(0)
    for _ in range(400):
        bit = rng.randrange(len(data) * 8)
        harmed = bytearray(data)
        harmed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(harmed)
        found = storage.get("a" * 64, torch.empty_like(value))
        assert found is None or same(found, value)


class Pool:
    """What the second interface asks of a host pool."""

    page_size = 4

    def __init__(self, dtype) -> None:
        self.data = torch.zeros(8, 512, dtype=dtype)

    def get_dummy_flat_data_page(self):
        return torch.zeros(512, dtype=self.data.dtype)

    def get_data_page(self, index: int, flat: bool = True):
        return self.data[index // self.page_size]

    def set_from_flat_data_page(self, index: int, data_page) -> None:
        self.data[index // self.page_size] = data_page


def test_pools_of_the_second_interface(tmp_path: Path) -> None:
    storage = dynamic(tmp_path)
    names = [hicache.PoolName.KV, hicache.PoolName.MAMBA]
    pools = {names[0]: Pool(torch.bfloat16), names[1]: Pool(torch.float32)}
    for name, pool in pools.items():
        storage.register_mem_host_pool_v2(pool, name)
        pool.data.copy_(page(len(name), pool.data.dtype, pool.data.shape))
    before = {name: pool.data.clone() for name, pool in pools.items()}
    keys = [f"{i:064x}" for i in range(8)]
    transfers = [hicache.PoolTransfer(name=n, host_indices=torch.arange(32), keys=keys) for n in names]
    assert all(all(done) for done in storage.batch_set_v2(transfers).values())
    assert storage.batch_exists_v2(keys, transfers[1:]).kv_hit_pages == 8
    for pool in pools.values():
        pool.data.zero_()
    assert all(all(done) for done in storage.batch_get_v2(transfers).values())
    assert all(same(pools[n].data, before[n]) for n in names)


def test_unknown_codecs_and_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown codec"):
        dynamic(tmp_path, tersor_codec="zstd")
    with pytest.raises(ValueError):
        integration.compress_backend(dict)
    storage = integration.compress_backend(hicache.HiCacheFile, "top16")(config(tmp_path))
    assert storage.set("a", page()) and same(storage.get("a", torch.empty_like(page())), page())


# ---- the plugin ----


@pytest.fixture(scope="module")
def hooks():
    """Everything as SGLang does it: entry points are loaded and called, then hooks are applied."""
    from sglang.srt import plugins

    pytest.importorskip("sglang.srt.disaggregation.mooncake.conn", reason="this SGLang has no Mooncake backend")
    point = importlib.metadata.EntryPoint("tersor", "tersor.integrations.sglang_plugin:register", "sglang.srt.plugins")
    made = []
    with pytest.MonkeyPatch.context() as patch:
        register = sglang_staging.register_hooks
        patch.setattr(sglang_staging, "register_hooks", lambda codec: made.append(register(codec)))
        patch.setattr(plugins, "entry_points", lambda group: [point] if group == "sglang.srt.plugins" else [])
        patch.setattr(plugins, "_plugins_loaded", False)
        patch.setenv(sglang_plugin.STAGING_VARIABLE, "rank")
        plugins.load_plugins()
        from sglang.srt.plugins.hook_registry import HookRegistry

        assert len(HookRegistry._patched) == 8, HookRegistry._patched
    return made[0]


def test_the_factory_makes_the_backend_by_its_name(hooks, tmp_path: Path) -> None:
    storage = StorageBackendFactory.create_backend("tersor", config(tmp_path), None)
    assert type(storage) is integration.TersorHiCache
    plain = StorageBackendFactory.create_backend("file", config(tmp_path), None)
    assert type(plain) is hicache.HiCacheFile


class Stream:
    def wait_stream(self, other) -> None: ...

    def synchronize(self) -> None: ...


class Wire:
    """Stands for the transfer engine: copies between addresses of this process, and can do harm on the way."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.harm = None

    def batch_transfer_sync(self, session, sources, targets, lengths) -> int:
        for source, target, length in zip(sources, targets, lengths, strict=True):
            data = bytearray(ctypes.string_at(source, length))
            if self.harm is not None:
                self.harm(data)
            ctypes.memmove(target, bytes(data), len(data))
            self.sent.append(length)
        return 0


LAYERS, HEADS, DIM, PAGE_SIZE, PAGES = 3, 8, 64, 16, 12


class Side:
    """One tensor-parallel rank: its cache and SGLang's objects around it, made without their constructors."""

    def __init__(self, role: str, rank: int, tp: int, dtype, wire: Wire, monkeypatch) -> None:
        from sglang.srt.disaggregation.common import staging_buffer, staging_handler
        from sglang.srt.disaggregation.mooncake.conn import MooncakeKVManager

        monkeypatch.setattr(staging_buffer, "device_stream_context", lambda stream: contextlib.nullcontext())
        monkeypatch.setattr(staging_handler, "device_stream_context", lambda stream: contextlib.nullcontext())
        self.k, self.v = (
            [page(rank * 100 + i + add, dtype, (PAGES * PAGE_SIZE, HEADS // tp, DIM)) for i in range(LAYERS)]
            for add in (0, 50)
        )
        self.tensors = {"k_buffers": self.k, "v_buffers": self.v, "page_size": PAGE_SIZE}
        item = PAGE_SIZE * (HEADS // tp) * DIM * dtype.itemsize
        self.args = SimpleNamespace(
            engine_rank=rank, total_kv_head_num=HEADS, page_size=PAGE_SIZE, kv_item_lens=[item] * LAYERS * 2, gpu_id=0,
            kv_layer_ids=[],
        )  # fmt: skip
        monkeypatch.setattr(staging_handler, "_get_custom_mem_pool", lambda device: (None, None))

        real = getattr(staging_buffer.StagingBuffer, "real", staging_buffer.StagingBuffer)

        def buffer(size, device, gpu_id, custom_mem_pool=None):
            made = object.__new__(real)
            made.size_bytes, made.device = size, torch.device("cpu")
            made.buffer = torch.zeros(size, dtype=torch.uint8)
            made.data_ptr, made._gather_stream = made.buffer.data_ptr(), Stream()
            made.device_module = SimpleNamespace(set_device=lambda index: None, current_stream=lambda device: Stream())
            return made

        buffer.real = real
        monkeypatch.setattr(staging_buffer, "StagingBuffer", buffer)
        self.manager = object.__new__(MooncakeKVManager)
        self.manager.kv_buffer_tensors, self.manager.kv_args = self.tensors, self.args
        self.manager.attn_tp_size, self.manager.pp_size, self.manager.engine = tp, 1, wire
        if role == "prefill":
            (self.staging,) = staging_handler.init_staging_buffers(
                lambda ptr, size: None, self.args, 1, PAGES * PAGE_SIZE, device_type="cuda"
            )
        else:
            self.ring = torch.zeros(8 << 20, dtype=torch.uint8)
            self.handler = object.__new__(staging_handler.DecodeStagingHandler)
            self.handler.__dict__.update(
                kv_buffer_info=self.tensors, kv_manager=self.manager, decode_tp=tp, total_kv_heads=HEADS, gpu_id=0,
                device=torch.device("cpu"), device_module=SimpleNamespace(set_device=lambda index: None),
                staging_allocator=SimpleNamespace(buffer=SimpleNamespace(buffer=self.ring), _scatter_stream=Stream()),
                scheduler=SimpleNamespace(
                    req_to_token_pool=SimpleNamespace(req_to_token=torch.arange(PAGES * PAGE_SIZE).reshape(1, -1))
                ),
            )  # fmt: skip


def send(prefill_tp: int, decode_tp: int, dtype, monkeypatch, wire: Wire, pages=(2, 7, 5, 9)):
    """All prefill ranks send some pages to decode rank 0, which scatters them to its first pages. Real code of SGLang:
    the staging layout, gather, send_kvcache_staged, _scatter_region, scatter."""
    prefill = [Side("prefill", rank, prefill_tp, dtype, wire, monkeypatch) for rank in range(prefill_tp)]
    decode = Side("decode", 0, decode_tp, dtype, wire, monkeypatch)
    writers = prefill[: max(1, prefill_tp // decode_tp)]
    for side in writers:
        done = side.manager.send_kvcache_staged(
            "session", np.array(pages, dtype=np.int32), decode.ring.data_ptr(), decode.ring.numel(), 0, decode_tp,
            side.args.kv_item_lens[0], [], staging_buffer=side.staging,
        )  # fmt: skip
        assert done == 0
    request = SimpleNamespace(
        req=SimpleNamespace(kv=SimpleNamespace(req_pool_idx=0, cache_protected_len=0)),
        _req_to_token_ready=None, _staging_failed=False,
    )  # fmt: skip
    peer = SimpleNamespace(prefill_info=SimpleNamespace(attn_tp_size=prefill_tp))
    before = [t.clone() for t in decode.k + decode.v]
    ok = decode.handler._scatter_region(0, 0, len(pages), request, peer)
    heads = HEADS // decode_tp
    expected = []
    for kind in ("k", "v"):
        for layer in range(LAYERS):
            whole = torch.cat([getattr(side, kind)[layer] for side in writers], dim=1)[:, :heads]
            rows = torch.cat([torch.arange(PAGE_SIZE) + p * PAGE_SIZE for p in pages])
            expected.append(whole[rows])
    return ok, request, decode, expected, before


@pytest.mark.parametrize(("prefill_tp", "decode_tp"), [(4, 1), (4, 2), (2, 1), (1, 2)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.uint8])  # FP8 is kept as uint8
def test_staged_pages_arrive_bit_for_bit_with_fewer_bytes(hooks, monkeypatch, prefill_tp, decode_tp, dtype) -> None:
    wire = Wire()
    ok, request, decode, expected, _ = send(prefill_tp, decode_tp, dtype, monkeypatch, wire)
    assert ok and not request._staging_failed
    n = 4 * PAGE_SIZE
    assert all(same(got[:n], want) for got, want in zip(decode.k + decode.v, expected, strict=True))
    if dtype == torch.bfloat16:
        assert sum(wire.sent) < sum(want.nbytes for want in expected) / 1.45


def test_staged_values_that_do_not_compress_still_fit(hooks, monkeypatch) -> None:
    def noise(seed=0, dtype=torch.bfloat16, shape=PAGE):
        made = torch.empty(shape, dtype=dtype)
        made.view(torch.uint8).random_(0, 256, generator=torch.Generator().manual_seed(seed))
        return made

    monkeypatch.setitem(globals(), "page", noise)
    ok, _, decode, expected, _ = send(2, 1, torch.bfloat16, monkeypatch, Wire(), pages=range(PAGES))
    assert ok and all(same(got, want) for got, want in zip(decode.k + decode.v, expected, strict=True))


def flip(data: bytearray) -> None:
    data[len(data) // 2] ^= 0x20


@pytest.mark.parametrize(
    "harm", [flip, lambda d: d.__setitem__(slice(0, 8), bytes(8)), lambda d: d.__delitem__(slice(-256, None))]
)
def test_damaged_staging_fails_the_request_and_leaves_the_cache_alone(hooks, monkeypatch, harm) -> None:
    wire = Wire()
    wire.harm = harm
    ok, request, decode, _, before = send(2, 1, torch.bfloat16, monkeypatch, wire)
    assert ok is False and request._staging_failed
    assert decode.handler.is_failed(request)
    assert all(same(now, was) for now, was in zip(decode.k + decode.v, before, strict=True))


def test_sending_an_encoded_buffer_in_parts_is_refused(hooks) -> None:
    hooks._encoded[4096] = (100, 50)
    with pytest.raises(tersor.Error, match="pipeline"):
        hooks.shorten(None, "session", [(4096, 0, 50), (4146, 0, 50)])
    with pytest.raises(tersor.Error):
        hooks.shorten(None, "session", [(4096, 0, 99)])
    assert hooks.shorten(None, "session", [(1, 2, 3)]) is None


def test_the_handshake_tells_sides_without_hooks_apart(hooks) -> None:
    from sglang.srt.disaggregation.common.conn import CommonKVManager

    assert hasattr(CommonKVManager.__init__, "__wrapped__")
    manager = SimpleNamespace(kv_cache_dtype_str="bfloat16")
    assert hooks.mark(None, manager) is None
    assert manager.kv_cache_dtype_str == "bfloat16+tersor1"
