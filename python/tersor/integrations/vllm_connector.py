"""vLLM (0.32, 0.33): `TersorConnector` carries the KV cache of a prompt from a prefill to a decode instance, compressed.

The prefill instance copies a request's blocks at the end of the step that completes its prompt, and sends the copy while it
goes on; the decode instance waits for them while other
requests run, and puts them into its cache when all have been verified. Whatever goes wrong, timeouts included, is reported
to vLLM as blocks that were not loaded: they are computed again with kv_load_failure_policy "recompute", and the request fails
with "fail". docs/vllm-kv.md has commands and options.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    SupportsHMA,
)

from tersor._arrays import dtype_of_torch
from tersor._errors import error

from . import _link

__all__ = ["TersorConnector"]

logger = logging.getLogger(__name__)


class Blocks(NamedTuple):
    """A request, its number between both instances, where it goes, and the blocks with which KV blocks `first`... lie."""

    request: str
    number: int
    to: str
    first: int
    block_ids: list[int]


@dataclass
class Prompt:
    number: int
    to: str
    n_tokens: int
    block_ids: list[int] = field(default_factory=list)


@dataclass
class Work(KVConnectorMetadata):
    """From the scheduler to the workers."""

    sends: list[Blocks] = field(default_factory=list)
    loads: list[Blocks] = field(default_factory=list)


class TersorConnector(KVConnectorBase_V1, SupportsHMA):
    """The connector, in the scheduler and in each worker. Requests take part that have `tersor_id`, a number below 2^64 and
    never used before, in their kv_transfer_params; both instances get the same one.

    Errors: UnsupportedError (several KV cache groups, pipeline or context parallelism, kv_both), and where it is made in a
    worker those of `tersor.transfer`."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        config, parallel = self._kv_transfer_config, vllm_config.parallel_config
        if config.kv_role not in ("kv_producer", "kv_consumer"):
            raise error("unsupported", f"TersorConnector is kv_producer or kv_consumer, not {config.kv_role}")
        if len(kv_cache_config.kv_cache_groups) != 1:
            found = len(kv_cache_config.kv_cache_groups)
            raise error("unsupported", f"{found} KV cache groups; start with --disable-hybrid-kv-cache-manager")
        if parallel.pipeline_parallel_size > 1 or getattr(parallel, "decode_context_parallel_size", 1) > 1:
            raise error("unsupported", "pipeline and context parallelism")
        self._options: Mapping[str, Any] = config.kv_connector_extra_config
        self._timeout = float(self._options.get("timeout", 30.0))
        self._producer = config.kv_role == "kv_producer"
        self._block_size = kv_cache_config.kv_cache_groups[0].kv_cache_spec.block_size
        self._work = Work()
        self._computed: dict[str, int] = {}  # scheduler: tokens that need no loading, by request
        self._asked: set[str] = set()  # scheduler: requests whose blocks were once asked for, or sent
        self._prompts: dict[str, Prompt] = {}  # scheduler, producer: prompts that are not computed yet
        self._caches: dict[str, tuple[torch.Tensor, int]] = {}  # worker: layers, and which dimension counts blocks
        self._wire: dict[str, torch.dtype] = {}  # worker: what layers are sent as
        self._loads: dict[str, tuple[Future, Blocks]] = {}
        self._failed: set[int] = set()
        self._link: Any = None
        self._pool = ThreadPoolExecutor(int(self._options.get("threads", 32)), thread_name_prefix="tersor-kv")

    @classmethod
    def supports_sleep_mode(cls, kv_transfer_config: Any) -> bool:
        """No: the workers keep views of the cache."""
        return False

    # ---- scheduler ----

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        number = self._number(request)
        if number is None or request.request_id in self._asked:
            return 0, False
        if self._producer:
            to = (request.kv_transfer_params or {}).get("tersor_to") or self._options.get("remote", "127.0.0.1:14579")
            self._prompts.setdefault(request.request_id, Prompt(number, str(to), request.num_prompt_tokens))
            return 0, False
        missing = request.num_prompt_tokens - num_computed_tokens
        if missing <= 0:
            return 0, False
        self._computed[request.request_id] = num_computed_tokens
        return missing, True

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        number = self._number(request)
        if num_external_tokens <= 0 or number is None or request.request_id in self._asked:
            return
        # Asked for once: what could not be loaded is computed, not waited for again.
        self._asked.add(request.request_id)
        first = self._computed.pop(request.request_id, 0) // self._block_size
        ids = list(blocks.get_block_ids()[0])[first : -(-request.num_prompt_tokens // self._block_size)]
        self._work.loads.append(Blocks(request.request_id, number, "", first, ids))

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        for new in scheduler_output.scheduled_new_reqs:
            self._schedule(scheduler_output, new.req_id, new.num_computed_tokens, list(new.block_ids[0]), True)
        cached = scheduler_output.scheduled_cached_reqs
        for i, name in enumerate(cached.req_ids):
            more = cached.new_block_ids[i]
            resumed = name in cached.resumed_req_ids
            ids = list(more[0]) if more is not None else []
            self._schedule(scheduler_output, name, cached.num_computed_tokens[i], ids, resumed)
        work, self._work = self._work, Work()
        return work

    def _schedule(self, output: Any, name: str, n_computed: int, block_ids: list[int], replace: bool) -> None:
        """Notes a prompt's blocks, and has them sent with the step that completes it."""
        prompt = self._prompts.get(name)
        if prompt is None:
            return
        prompt.block_ids = block_ids if replace else prompt.block_ids + block_ids
        if n_computed + output.num_scheduled_tokens[name] >= prompt.n_tokens:
            ids = prompt.block_ids[: -(-prompt.n_tokens // self._block_size)]
            self._work.sends.append(Blocks(name, prompt.number, prompt.to, 0, ids))
            del self._prompts[name]
            self._asked.add(name)  # once, even if it is preempted later

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        self._asked.discard(request.request_id)
        self._computed.pop(request.request_id, None)
        self._prompts.pop(request.request_id, None)
        return False, None

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        return self.request_finished(request, block_ids[0])

    @staticmethod
    def _number(request: Any) -> int | None:
        number = (request.kv_transfer_params or {}).get("tersor_id")
        if number is None:
            return None
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 1 << 64:
            logger.error("request %s: tersor_id %r is no number below 2^64; ignored", request.request_id, number)
            return None
        return number

    # ---- worker ----

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        n_blocks = self._kv_cache_config.num_blocks
        for name, cache in kv_caches.items():
            places = [d for d in range(min(2, cache.ndim)) if cache.shape[d] == n_blocks]
            if not places:
                raise error(
                    "unsupported", f"layer {name}: no dimension of {list(cache.shape)} counts {n_blocks} blocks"
                )
            # Blocks of FP8 are copied as bytes, which torch can on every device, and sent as FP8, which is compressed; an
            # engine that keeps FP8 as uint8 does not say which, and any is lossless.
            self._wire[name] = torch.float8_e4m3fn if cache.dtype == torch.uint8 else cache.dtype
            self._caches[name] = (cache.view(torch.uint8) if cache.element_size() == 1 else cache, places[0])
        self._link = self._open_link()

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        for load in self._bound().loads:
            self._loads[load.request] = (self._pool.submit(self._link.wait, load.number, self._timeout), load)

    def wait_for_save(self) -> None:
        for send in self._bound().sends:
            try:
                tensors = {name: self._take(name, send.block_ids) for name in self._caches}
                self._pool.submit(self._send, send, tensors)
            except Exception as failure:  # the other side computes the prompt; this side's request is complete
                logger.error("request %s was not sent, its receiver will compute it: %s", send.request, failure)

    def _send(self, send: Blocks, tensors: Mapping[str, torch.Tensor]) -> None:
        try:
            report = self._link.send(self._address(send.to), send.number, tensors)
            logger.debug("request %s was sent: %s", send.request, report)
        except Exception as failure:
            logger.error("request %s was not sent, its receiver will compute it: %s", send.request, failure)

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        got = {name for name, (loading, _) in self._loads.items() if loading.done()}
        for name in got:
            loading, load = self._loads.pop(name)
            try:
                self._put(load, loading.result())
            except Exception as failure:
                logger.error("request %s was not received, vLLM is told so: %s", name, failure)
                self._failed.update(load.block_ids)
        return None, got or None

    def get_block_ids_with_load_errors(self) -> set[int]:
        failed, self._failed = self._failed, set()
        return failed

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Blocks are complete before a request is scheduled."""

    def save_kv_layer(self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **kwargs: Any) -> None:
        """All layers are copied when the prompt is complete."""

    def shutdown(self) -> None:
        """Waits until everything was sent, or has failed; ends what is waited for."""
        if self._producer:
            self._pool.shutdown(wait=True)
        if self._link is not None:
            self._link.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _bound(self) -> Work:
        work = self._get_connector_metadata()
        assert isinstance(work, Work)
        return work

    def _open_link(self) -> Any:
        parallel, model = self._vllm_config.parallel_config, self._vllm_config.model_config
        name, (cache, dim) = next(iter(self._caches.items()))
        block = [size for d, size in enumerate(cache.shape) if d != dim]
        geometry = {
            "model": str(self._options.get("model", model.model)), "revision": str(model.revision or ""),
            "layout": f"vllm block {'x'.join(map(str, block))} tp {parallel.tensor_parallel_size}",
            "dtype": dtype_of_torch(self._wire[name]), "n_layers": len(self._caches), "block_size": self._block_size,
        }  # fmt: skip
        if self._producer:
            return _link.open_sender(self._options, geometry)
        link = _link.open_receiver(self._options, geometry, parallel.rank % parallel.tensor_parallel_size)
        logger.info("TersorConnector listens on %s:%d", *link.address)
        return link

    def _address(self, to: str) -> str:
        host, port = _link.split_address(to)
        parallel = self._vllm_config.parallel_config
        return f"[{host}]:{port + parallel.rank % parallel.tensor_parallel_size}"

    def _take(self, name: str, block_ids: list[int]) -> torch.Tensor:
        """A copy of blocks, on the CPU, blocks first."""
        cache, dim = self._caches[name]
        found = cache.index_select(dim, torch.tensor(block_ids, dtype=torch.long, device=cache.device))
        return found.movedim(dim, 0).contiguous().cpu().view(self._wire[name])

    def _put(self, load: Blocks, tensors: Mapping[str, Any]) -> None:
        """Puts what arrived into the cache. Everything is compared with the cache before anything is written."""
        if set(tensors) != set(self._caches):
            raise error("mismatch", f"{len(tensors)} layers arrived, the cache has {len(self._caches)} others")
        count = load.first + len(load.block_ids)
        for name, (cache, dim) in self._caches.items():
            wanted = (count, *(size for d, size in enumerate(cache.shape) if d != dim))
            if tuple(tensors[name].shape) != wanted or tensors[name].dtype != self._wire[name]:
                found = f"{tensors[name].dtype} {list(tensors[name].shape)}"
                raise error("mismatch", f"layer {name}: {found} arrived, {self._wire[name]} {list(wanted)} is needed")
        for name, (cache, dim) in self._caches.items():
            places = torch.tensor(load.block_ids, dtype=torch.long, device=cache.device)
            blocks = tensors[name][load.first :].view(cache.dtype).to(cache.device).movedim(0, dim)
            cache.index_copy_(dim, places, blocks)
