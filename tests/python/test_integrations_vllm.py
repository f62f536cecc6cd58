"""The secondary tier and the KV connector in vLLM's own classes, on the CPU."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")
pytest.importorskip("vllm", reason="vLLM is not installed: scripts/test_vllm.sh")
pytest.importorskip("vllm.v1.kv_offload.tiering.base", reason="this vLLM has no secondary tiers (0.32 has)")

import numpy as np
import torch
from vllm.v1.kv_offload.base import LookupResult, ReqContext, ScheduleEndContext, make_offload_key
from vllm.v1.kv_offload.config import (
    OffloadingCacheConfig,
    OffloadingConfig,
    OffloadingGroupConfig,
    OffloadingModelConfig,
    OffloadingParallelConfig,
)
from vllm.v1.kv_offload.tiering.base import TransferJob
from vllm.v1.kv_offload.tiering.spec import TieringOffloadingSpec

import tersor

CHUNK = 64 << 10
TIER = {"type": "TersorTier", "module_path": "tersor.integrations.vllm_tier"}


def chunk(seed: int) -> np.ndarray:
    values = torch.randn(CHUNK // 2, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)
    return values.view(torch.uint8).numpy()


def keys_of(first: int, count: int) -> list:
    return [make_offload_key(i.to_bytes(32, "big"), 0) for i in range(first, first + count)]


def rows_of(spec):
    return spec.chunk_ids if hasattr(spec, "chunk_ids") else spec.block_ids


class Offloading:
    """vLLM's spec and manager, made from a configuration as an engine does, with a primary tier of four chunks."""

    def __init__(self, **tier) -> None:
        config = OffloadingConfig(
            groups=(OffloadingGroupConfig(tokens_per_block=16, layer_names=("a", "b"), group_id=0),),
            worker_kv_bytes_per_block=CHUNK, enable_kv_cache_events=False,
            extra_config={"cpu_bytes_to_use": 4 * CHUNK, "secondary_tiers": [{**TIER, **tier}]},
            engine_id=f"tersor-{uuid.uuid4().hex}", model=OffloadingModelConfig("org/model", "bfloat16"),
            cache=OffloadingCacheConfig(tokens_per_hash=16, blocks_per_chunk=1),
            parallel=OffloadingParallelConfig(
                rank=0, world_size=1, tp_size=1, pp_size=1, pcp_size=1, dcp_size=1, data_parallel_index=0,
                data_parallel_size=1, data_parallel_rank_local=None, is_parallelism_agnostic=True,
            ),
        )  # fmt: skip
        self.manager = TieringOffloadingSpec(config).get_manager()
        (self.tier,) = self.manager.secondary_tiers
        self.rows = np.asarray(self.manager.primary_tier.get_kv_memoryview()).view(np.uint8)

    def step(self) -> None:
        self.manager.on_schedule_end(ScheduleEndContext((), ()))

    def settle(self) -> None:
        for _ in range(3):
            self.tier.drain_jobs()
            self.step()

    def store(self, first: int, count: int) -> None:
        context, keys = ReqContext(f"store-{first}"), keys_of(first, count)
        self.manager.on_new_request(context)
        prepared = self.manager.prepare_store(keys, context)
        for i, row in enumerate(rows_of(prepared.store_spec)):
            self.rows[row] = chunk(first + i)
        self.manager.complete_store(keys, context)
        self.manager.on_request_finished(context)
        self.settle()

    def load(self, first: int, count: int) -> list[np.ndarray | None]:
        """Asks for chunks as the scheduler does, and gives what the primary tier then holds."""
        context = ReqContext(f"load-{time.monotonic_ns()}")
        self.manager.on_new_request(context)
        found: list[np.ndarray | None] = []
        for key in keys_of(first, count):
            for _ in range(20):
                result = self.manager.lookup(key, context)
                if result in (LookupResult.HIT, LookupResult.MISS):
                    break
                self.settle()
            if result is LookupResult.HIT:
                spec = self.manager.prepare_load([key], context)
                found.append(self.rows[rows_of(spec)[0]].copy())
                self.manager.complete_load([key], context)
            else:
                found.append(None)
        self.manager.on_request_finished(context)
        self.settle()
        return found

    def close(self) -> None:
        self.rows = None
        self.manager.shutdown()


@pytest.fixture
def offloading():
    made = []

    def make(**tier) -> Offloading:
        made.append(Offloading(**tier))
        return made[-1]

    yield make
    for o in made:
        o.close()


def right(found: list, first: int) -> bool:
    return all(f is not None and (f == chunk(first + i)).all() for i, f in enumerate(found))


@pytest.mark.parametrize("where", ["memory", "folder"])
@pytest.mark.parametrize("codec", ["rank", "top16", "raw"])
def test_chunks_come_back_bit_for_bit_and_small(offloading, tmp_path: Path, where: str, codec: str) -> None:
    o = offloading(codec=codec, **({"max_bytes": 1 << 20} if where == "memory" else {"root_dir": str(tmp_path)}))
    o.store(0, 4)
    o.store(4, 4)  # the first four leave the primary tier
    for first in (0, 4, 0):
        assert right(o.load(first, 4), first)
    assert o.load(100, 1) == [None]
    if where == "memory":
        stored = (1 << 20) - o.tier._store._left
    else:
        stored = sum(f.stat().st_size for f in tmp_path.rglob("*.bin"))
        assert not list(tmp_path.rglob("*.tmp"))
    assert stored < 8 * CHUNK / {"rank": 1.45, "top16": 1.3, "raw": 0.99}[codec]


def test_another_engine_finds_the_folder(offloading, tmp_path: Path) -> None:
    first = offloading(root_dir=str(tmp_path))
    first.store(0, 4)
    second = offloading(root_dir=str(tmp_path))
    assert right(second.load(0, 4), 0)


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "swap"])
def test_a_damaged_chunk_is_a_miss_and_the_others_are_kept(offloading, tmp_path: Path, harm: str) -> None:
    o = offloading(root_dir=str(tmp_path))
    o.store(0, 4)
    o.store(4, 4)
    path = Path(o.tier._store._path_of(keys_of(1, 1)[0]))
    data = bytearray(path.read_bytes())
    if harm == "flip":
        data[len(data) // 2] ^= 1
    elif harm == "cut":
        del data[-1:]
    elif harm == "empty":
        data.clear()
    else:
        data = Path(o.tier._store._path_of(keys_of(2, 1)[0])).read_bytes()
    path.write_bytes(data)
    found = o.load(0, 4)
    assert found[1] is None
    assert right(found[:1], 0) and right(found[2:], 2)
    assert not path.exists()
    o.store(1, 1)
    o.store(4, 4)
    assert right(o.load(1, 1), 1)


def test_no_flipped_bit_gives_other_values(offloading, tmp_path: Path) -> None:
    o = offloading(root_dir=str(tmp_path))
    o.store(0, 4)
    key, rng = keys_of(0, 1)[0], np.random.default_rng(0)
    data = o.tier._store.get(key)
    context = ReqContext("r")
    wrong = 0
    for job in range(200):
        bit = int(rng.integers(len(data) * 8))
        harmed = bytearray(data)
        harmed[bit // 8] ^= 1 << bit % 8
        o.tier._store.put(key, bytes(harmed))
        o.tier.submit_load(TransferJob(1000 + job, [key], np.array([3]), True, context))
        o.tier.drain_jobs()
        (result,) = o.tier.get_finished_jobs()
        wrong += result.success and not (o.rows[3] == chunk(0)).all()
    assert wrong == 0


def test_memory_is_bounded_and_the_longest_unused_go(offloading) -> None:
    o = offloading(max_bytes=3 * CHUNK)  # room for four compressed chunks
    o.store(0, 4)
    o.store(4, 4)
    assert 0 <= o.tier._store._left < CHUNK
    assert o.load(0, 4) == [None] * 4
    assert right(o.load(4, 4), 4)


def test_jobs_end_whatever_happens(offloading, monkeypatch) -> None:
    o = offloading(max_bytes=1 << 20)
    monkeypatch.setattr(o.tier._store, "put", lambda key, blob: (_ for _ in ()).throw(OSError("no space")))
    context = ReqContext("r")
    o.tier.submit_store(TransferJob(1, keys_of(0, 2), np.array([0, 1]), False, context))
    assert o.tier.lookup(keys_of(0, 1)[0], context) in (LookupResult.RETRY, LookupResult.MISS)
    o.tier.submit_load(TransferJob(2, keys_of(0, 1), np.array([99]), True, context))
    o.tier.drain_jobs()
    assert {(r.job_id, r.success) for r in o.tier.get_finished_jobs()} == {(1, False), (2, False)}
    assert o.tier.lookup(keys_of(0, 1)[0], context) is LookupResult.MISS
    assert not o.tier.has_pending_work()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_bytes": 1, "root_dir": "x"},
        {"max_bytes": 0},
        {"max_bytes": 1, "codec": "lz4"},
        {"max_bytes": 1, "dtype": "B"},
    ],
)
def test_wrong_options_are_refused(offloading, options: dict) -> None:
    with pytest.raises(ValueError):
        offloading(**options)


# ---- the connector, without an engine ----

LAYERS, N_BLOCKS, BLOCK = ("model.layers.0.attn", "model.layers.1.attn"), 16, 4


class Link:
    """In one process: what is sent can be waited for."""

    address = ("here", 0)

    def __init__(self) -> None:
        self.sent: dict[int, dict] = {}

    def send(self, to, request, tensors):
        self.sent[request] = dict(tensors)
        return {}

    def wait(self, request, timeout):
        end = time.monotonic() + timeout
        while request not in self.sent:
            if time.monotonic() > end:
                raise tersor.NotFoundError("not in time")
            time.sleep(0.001)
        return self.sent[request]

    def close(self) -> None: ...


@pytest.fixture
def connector(monkeypatch):
    from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole

    from tersor.integrations import _link
    from tersor.integrations.vllm_connector import TersorConnector

    link, made = Link(), []
    monkeypatch.setattr(_link, "open_sender", lambda options, geometry: link)
    monkeypatch.setattr(_link, "open_receiver", lambda options, geometry, add: link)

    def make(role: str, dtype=torch.bfloat16, dim: int = 0, groups: int = 1, **extra):
        parallel = SimpleNamespace(
            pipeline_parallel_size=1, tensor_parallel_size=1, rank=0, decode_context_parallel_size=1
        )
        config = SimpleNamespace(
            kv_transfer_config=SimpleNamespace(
                kv_role=role, kv_connector_extra_config={"timeout": 0.3, **extra}, is_kv_producer=role == "kv_producer"
            ),
            parallel_config=parallel, model_config=SimpleNamespace(model="org/model", revision=None),
        )  # fmt: skip
        spec = SimpleNamespace(kv_cache_spec=SimpleNamespace(block_size=BLOCK))
        cache_config = SimpleNamespace(kv_cache_groups=[spec] * groups, num_blocks=N_BLOCKS)
        c = TersorConnector(config, KVConnectorRole.WORKER, cache_config)
        shape = (N_BLOCKS, 2, BLOCK, 8) if dim == 0 else (2, N_BLOCKS, BLOCK, 8)
        kind = torch.float8_e4m3fn if dtype == torch.uint8 else dtype
        caches = {name: torch.randn(shape).to(kind).view(dtype) for name in LAYERS}
        c.register_kv_caches(caches)
        made.append(c)
        return c, caches, link

    yield make
    for c in made:
        c.shutdown()


def request(name: str, number, n_tokens: int, **more):
    return SimpleNamespace(
        request_id=name, num_prompt_tokens=n_tokens, num_tokens=n_tokens,
        kv_transfer_params=None if number is None else {"tersor_id": number, **more},
    )  # fmt: skip


def scheduled(tokens: dict, new=(), cached=()):
    """A SchedulerOutput's fields that are read. new: (name, computed, blocks), cached: (name, computed, blocks, resumed)."""
    return SimpleNamespace(
        num_scheduled_tokens=tokens,
        scheduled_new_reqs=[SimpleNamespace(req_id=n, num_computed_tokens=c, block_ids=(b,)) for n, c, b in new],
        scheduled_cached_reqs=SimpleNamespace(
            req_ids=[x[0] for x in cached], num_computed_tokens=[x[1] for x in cached],
            new_block_ids=[None if x[2] is None else (x[2],) for x in cached],
            resumed_req_ids={x[0] for x in cached if x[3]},
        ),
    )  # fmt: skip


def step(c, output) -> object:
    work = c.build_connector_meta(output)
    c.bind_connector_metadata(work)
    c.start_load_kv(None)
    c.wait_for_save()
    return work


def blocks_of(ids):
    return SimpleNamespace(get_block_ids=lambda: (ids,))


def finish(c) -> tuple[set, set]:
    end = time.monotonic() + 10
    while not (found := c.get_finished(set())[1]):
        assert time.monotonic() < end
        time.sleep(0.002)
    return found, c.get_block_ids_with_load_errors()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2, torch.uint8])
@pytest.mark.parametrize("dim", [0, 1])
def test_blocks_go_from_one_cache_to_the_other(connector, dtype, dim: int) -> None:
    prefill, source, _ = connector("kv_producer", dtype, dim)
    decode, target, _ = connector("kv_consumer", dtype, dim)
    # 10 tokens in steps of 6 and 4, preempted in between once
    assert prefill.get_num_new_matched_tokens(request("p", 77, 10), 0) == (0, False)
    assert not step(prefill, scheduled({"p": 6}, new=[("p", 0, [3, 9])])).sends
    assert not step(prefill, scheduled({"p": 4}, cached=[("p", 0, [5, 1], True)])).sends
    (sent,) = step(prefill, scheduled({"p": 6}, cached=[("p", 4, [8], False)])).sends
    assert sent.block_ids == [5, 1, 8]
    assert not step(prefill, scheduled({"p": 1}, cached=[("p", 10, None, False)])).sends
    # the other side has the first block in its own prefix cache
    ask = request("d", 77, 10)
    assert decode.get_num_new_matched_tokens(ask, 4) == (6, True)
    decode.update_state_after_alloc(ask, blocks_of([2, 7, 11]), 6)
    before = {name: cache.clone() for name, cache in target.items()}
    step(decode, scheduled({}))
    assert finish(decode) == ({"d"}, set())
    at = (lambda t, b: t[b]) if dim == 0 else (lambda t, b: t[:, b])
    for name in LAYERS:
        for mine, theirs in ((7, 1), (11, 8)):
            assert torch.equal(at(target[name], mine).view(torch.uint8), at(source[name], theirs).view(torch.uint8))
        for other in set(range(N_BLOCKS)) - {7, 11}:
            assert torch.equal(at(target[name], other).view(torch.uint8), at(before[name], other).view(torch.uint8))
    decode.update_state_after_alloc(ask, blocks_of([2, 7, 11]), 0)
    assert not decode.build_connector_meta(scheduled({})).loads


@pytest.mark.parametrize("fault", ["never", "raises", "layers", "shape", "dtype"])
def test_what_cannot_be_used_is_reported_and_not_written(connector, fault: str) -> None:
    _, source, link = connector("kv_producer")
    decode, target, _ = connector("kv_consumer")
    good = {name: cache[:3].clone() for name, cache in source.items()}
    if fault == "layers":
        link.sent[5] = {LAYERS[0]: good[LAYERS[0]]}
    elif fault == "shape":
        link.sent[5] = {**good, LAYERS[1]: good[LAYERS[1]][:2]}
    elif fault == "dtype":
        link.sent[5] = {**good, LAYERS[1]: good[LAYERS[1]].to(torch.float16)}
    elif fault == "raises":
        link.wait = lambda number, timeout: (_ for _ in ()).throw(tersor.DigestMismatchError("damaged"))
    ask = request("d", 5, 12)
    assert decode.get_num_new_matched_tokens(ask, 0) == (12, True)
    decode.update_state_after_alloc(ask, blocks_of([2, 7, 11]), 12)
    before = {name: cache.clone() for name, cache in target.items()}
    step(decode, scheduled({}))
    assert finish(decode) == ({"d"}, {2, 7, 11})
    assert decode.get_block_ids_with_load_errors() == set()
    assert all(torch.equal(target[name], before[name]) for name in LAYERS)
    assert decode.get_num_new_matched_tokens(ask, 0) == (0, False)  # asked for once


def test_a_failing_link_does_not_stop_the_prefill_side(connector) -> None:
    prefill, _, link = connector("kv_producer")
    link.send = lambda *_: (_ for _ in ()).throw(tersor.IoError("no connection"))
    prefill.get_num_new_matched_tokens(request("p", 1, 4), 0)
    assert step(prefill, scheduled({"p": 4}, new=[("p", 0, [3])])).sends
    assert prefill.request_finished(request("p", 1, 4), [3]) == (False, None)


def test_what_takes_no_part_and_what_is_refused(connector) -> None:
    decode, _, _ = connector("kv_consumer")
    for number in (None, -1, 1 << 64, "7", True):
        assert decode.get_num_new_matched_tokens(request("d", number, 10), 0) == (0, False)
    assert decode.get_num_new_matched_tokens(request("d", 7, 8), 8) == (0, False)
    for role, groups in (("kv_both", 1), ("kv_consumer", 2)):
        with pytest.raises(tersor.Error):
            connector(role, groups=groups)
