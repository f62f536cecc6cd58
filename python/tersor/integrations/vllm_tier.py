"""vLLM (0.32, 0.33): a secondary tier of KV cache offloading whose chunks are compressed, in host memory or in a directory.

In kv_connector_extra_config of the OffloadingConnector:

    "secondary_tiers": [{"type": "TersorTier", "module_path": "tersor.integrations.vllm_tier", "max_bytes": 8589934592}]

docs/vllm-kv.md has the whole command.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vllm.v1.kv_offload.base import LookupResult, Medium, RequestOffloadingContext
from vllm.v1.kv_offload.file_mapper import FileMapper
from vllm.v1.kv_offload.tiering.base import JobResult, SecondaryTierManager, TransferJob
from vllm.v1.metrics.cache_hit_source import CacheHitSource

from tersor._arrays import VALUE_BYTES
from tersor._errors import Error, error

from ._blob import Part, check_codec, decode_blob, encode_blob
from ._stores import BlobStore, FolderStore, MemoryStore

__all__ = ["TersorTier"]

logger = logging.getLogger(__name__)
_DTYPES = {
    "bfloat16": "BF16", "float16": "F16", "half": "F16", "float32": "F32", "float": "F32", "fp8": "F8_E4M3",
    "fp8_e4m3": "F8_E4M3", "float8_e4m3fn": "F8_E4M3", "fp8_e5m2": "F8_E5M2", "float8_e5m2": "F8_E5M2",
}  # fmt: skip


class TersorTier(SecondaryTierManager):
    """Compresses chunks of the primary tier. Options: `max_bytes`, host memory for compressed chunks, of which the longest
    unused go first; or `root_dir`, a directory instead, which is never cleaned up, as with vLLM's own "fs". `codec`: "rank",
    "top16" or "raw". `dtype`: as what the chunks' bytes are coded ("BF16", ...; any is lossless), by default the KV
    cache's. `threads`: jobs at a time.

    A chunk that does not verify after it was decoded into its primary slot is reported as not loaded and forgotten: vLLM
    computes it anew. Errors: InvalidArgumentError (options), UnsupportedError (the cache's dtype; give `dtype`)."""

    def __init__(
        self, offloading_spec: Any, primary_kv_view: memoryview, tier_type: str, backpressure_detector: Any = None, *,
        max_bytes: int | None = None, root_dir: str | None = None, codec: str = "rank", dtype: str | None = None,
        threads: int = 2,
    ) -> None:  # fmt: skip
        super().__init__(offloading_spec, primary_kv_view, tier_type, backpressure_detector)
        if (max_bytes is None) == (root_dir is None):
            raise error("invalid_argument", "either max_bytes or root_dir is needed")
        self._codec = check_codec(codec)
        self._dtype = _dtype(dtype, offloading_spec)
        if self.block_size_bytes % VALUE_BYTES[self._dtype]:
            raise error("invalid_argument", f"a chunk of {self.block_size_bytes} bytes is no number of {self._dtype}")
        self._data = primary_kv_view.cast("B")
        self._store = _open_store(max_bytes, root_dir, offloading_spec)
        self.medium = Medium.CPU if max_bytes is not None else Medium.STORAGE  # type: ignore[misc]
        self.cache_hit_source = CacheHitSource.HOST if max_bytes is not None else CacheHitSource.DISK  # type: ignore[misc]
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="tersor-tier")
        self._lock = threading.Condition()
        self._storing: set[bytes] = set()
        self._jobs = 0
        self._finished: list[JobResult] = []

    def lookup(self, key: Any, req_context: Any) -> LookupResult:
        with self._lock:
            if key in self._storing:
                return LookupResult.RETRY
        return LookupResult.HIT if self._store.has(key) else LookupResult.MISS

    def submit_store(self, job_metadata: TransferJob) -> None:
        with self._lock:
            self._storing.update(job_metadata.keys)
        self._submit(self._store_chunks, job_metadata)

    def submit_load(self, job_metadata: TransferJob) -> None:
        self._submit(self._load_chunks, job_metadata)

    def get_finished_jobs(self) -> Iterable[JobResult]:
        with self._lock:
            finished, self._finished = self._finished, []
        return finished

    def has_pending_work(self) -> bool:
        with self._lock:
            return self._jobs > 0 or bool(self._finished)

    def on_new_request(self, req_context: Any) -> RequestOffloadingContext:
        return RequestOffloadingContext()

    def drain_jobs(self) -> None:
        with self._lock:
            self._lock.wait_for(lambda: self._jobs == 0)

    def shutdown(self) -> None:
        self._pool.shutdown(wait=True)
        self._data.release()

    # ---- in the threads ----

    def _submit(self, work: Any, job: TransferJob) -> None:
        with self._lock:
            self._jobs += 1
        self._pool.submit(self._run, work, job)

    def _run(self, work: Any, job: TransferJob) -> None:
        begin = time.monotonic()
        done: list[bytes] = []
        n_bytes = 0
        try:
            n_bytes = work(job, done)
        except Exception:  # a job must end, or vLLM waits for it
            logger.exception("job %d failed", job.job_id)
        success = len(done) == len(job.keys)
        partial = tuple(done) if job.is_promotion and done and not success else None
        result = JobResult(job.job_id, success, partial, time.monotonic() - begin, n_bytes or None)
        with self._lock:
            if not job.is_promotion:
                self._storing.difference_update(job.keys)
            self._finished.append(result)
            self._jobs -= 1
            self._lock.notify_all()

    def _store_chunks(self, job: TransferJob, done: list) -> int:
        n_bytes = 0
        for key, chunk in zip(job.keys, job.chunk_ids, strict=True):
            if not self._store.has(key):
                with self._part(chunk) as part:
                    blob = encode_blob(self._codec, [part], bytes(key))
                self._store.put(key, blob)
                n_bytes += len(blob)
            done.append(key)
        return n_bytes

    def _load_chunks(self, job: TransferJob, done: list) -> int:
        n_bytes = 0
        for key, chunk in zip(job.keys, job.chunk_ids, strict=True):
            try:
                blob = self._store.get(key)
                if blob is None:
                    continue
                with self._part(chunk) as part:
                    decode_blob(blob, [part], bytes(key))
            except (Error, OSError) as failure:
                logger.warning("chunk %s is not used and will be computed again: %s", bytes(key).hex(), failure)
                self._store.forget(key)
                continue
            n_bytes += len(blob)
            done.append(key)
        return n_bytes

    @contextlib.contextmanager
    def _part(self, chunk: Any) -> Iterator[Part]:
        begin = int(chunk) * self.block_size_bytes
        if not 0 <= begin < len(self._data):
            raise error("invalid_argument", f"the primary tier has no chunk {chunk}")
        # Released at once: a view that lives on would keep vLLM from closing the shared memory.
        with self._data[begin : begin + self.block_size_bytes] as data:
            yield Part(data, self._dtype, (self.block_size_bytes // VALUE_BYTES[self._dtype],))


def _open_store(max_bytes: int | None, root_dir: str | None, spec: Any) -> BlobStore:
    if max_bytes is not None:
        return MemoryStore(max_bytes)
    # In a folder of its own: vLLM's "fs" tier has the same names for other contents.
    files = FileMapper.from_offloading_spec(
        f"{root_dir}/tersor", spec, blocks_per_file=spec.blocks_per_chunk, parallel_agnostic=True
    )
    return FolderStore(files.get_file_name)


def _dtype(dtype: str | None, spec: Any) -> str:
    if dtype is None:
        found = str(spec.config.model.dtype).removeprefix("torch.")
        if found not in _DTYPES:
            raise error(
                "unsupported", f"the KV cache's dtype is {found}: give the tier a dtype, {', '.join(VALUE_BYTES)}"
            )
        return _DTYPES[found]
    if dtype not in VALUE_BYTES:
        raise error("invalid_argument", f"no dtype {dtype!r}: {', '.join(VALUE_BYTES)} are known")
    return dtype
