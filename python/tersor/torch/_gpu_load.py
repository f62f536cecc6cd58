"""Tensors of files to a GPU: threads read pieces into pinned memory, one stream copies them, another one decodes.

A frame travels as it stands in the file and is decoded when its last piece has been copied; a stored tensor is copied
to where it stays, and hashed on the way. What the GPU finds out about frames is looked at once, at the end."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Collection, Iterator
from typing import Any

import torch

import tersor
from tersor import _arrays, _core
from tersor._errors import error, from_code
from tersor.torch.packed import HEADER_BYTES, PackedWeight, info_of

#: Bytes read and copied at a time; a multiple of TensorFile.STORED_STEP.
PIECE_BYTES = 8 << 20
MAX_THREADS = 8
#: Of the verdicts: a frame_result, or a matrix_result at its start.
_VERDICT_BYTES = _core.cuda.FRAME_RESULT_BYTES
#: dtypes of frames that the GPU decodes; those of others are decoded on the CPU.
_GPU_DTYPES = ("BF16", "F16", "F8_E4M3", "F8_E5M2")
_MASK = (1 << 64) - 1


class _Job:
    """One tensor on its way."""

    def __init__(self, file: _core.TensorFile, name: str, packed: bool):
        self.file, self.name, self.info = file, name, file.info(name)
        info = self.info
        self.kind = (
            "stored" if info.is_stored
            else ("packed" if packed else "matrix") if info.is_matrix
            else "frame" if info.dtype in _GPU_DTYPES and info.coding != "raw"
            else "host"
        )  # fmt: skip
        # A tensor that the CPU decodes is one piece, as is one of no bytes.
        self.piece_bytes = max(1, info.stored_bytes) if self.kind == "host" else PIECE_BYTES
        self.pieces_left = max(1, math.ceil(info.stored_bytes / self.piece_bytes))
        self.raw: torch.Tensor | None = None
        self.out: torch.Tensor | None = None
        self.header = ""
        self.digest = 0
        self.verdict = -1

    def pieces(self) -> Iterator[tuple[_Job, int, int]]:
        for i in range(self.pieces_left):
            at = i * self.piece_bytes
            yield self, at, min(self.piece_bytes, self.info.stored_bytes - at)

    def fail(self, code: int, message: str, chunk: int | None = None) -> Exception:
        return from_code(code, message, file=self.file.path, tensor=self.name, chunk=chunk)

    def shaped(self, raw: torch.Tensor) -> torch.Tensor:
        from tersor.torch.files import dtype_of, shape_of

        return raw.view(dtype_of(self.info.dtype)).reshape(shape_of(self.info.dtype, self.info.shape))


class _Slot:
    """Pinned memory that is filled again when its copy is done."""

    def __init__(self, n_bytes: int):
        self.tensor = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True)
        self.bytes = self.tensor.numpy()
        self.copied = torch.cuda.Event()


class _Loader:
    def __init__(self, jobs: list[_Job], device: torch.device):
        self.jobs, self.device = jobs, device
        self.caller = torch.cuda.current_stream(device)
        self.copies, self.work = torch.cuda.Stream(device), torch.cuda.Stream(device)
        self.lock = threading.Lock()
        self.todo = (piece for job in jobs for piece in job.pieces())
        self.failure: BaseException | None = None
        judged = [job for job in jobs if job.kind not in ("stored", "host")]
        for i, job in enumerate(judged):
            job.verdict = i
        # Never read as good unless the GPU wrote it.
        self.verdicts = torch.full((max(1, len(judged)), _VERDICT_BYTES), 255, dtype=torch.uint8, device=device)
        needs = [_core.cuda.decode_workspace_size([self.task(job, 0, 0)]) for job in jobs if job.kind == "frame"]
        self.workspace = torch.zeros(max([16, *needs]), dtype=torch.uint8, device=device)
        self.copies.wait_stream(self.caller)
        self.work.wait_stream(self.caller)

    def task(self, job: _Job, frame: int, dst: int) -> tuple:
        n_values = job.info.original_bytes // _arrays.VALUE_BYTES[job.info.dtype]
        result = self.verdicts[job.verdict].data_ptr() if job.verdict >= 0 else 0
        return job.info.dtype, n_values, frame, job.info.stored_bytes, dst, result

    def run(self, n_threads: int) -> None:
        threads = [threading.Thread(target=self.thread, name=f"tersor-load-{i}") for i in range(n_threads)]
        try:
            for t in threads:
                t.start()
        except BaseException as wrong:
            self.stop(wrong)
        for t in threads:
            while t.is_alive():
                try:
                    t.join()
                except BaseException as wrong:  # Ctrl-C
                    self.stop(wrong)
        # Also after a failure: the memory is given back only when nothing writes to it any more.
        self.copies.synchronize()
        self.work.synchronize()
        if self.failure is not None:
            raise self.failure
        self.check()

    def stop(self, wrong: BaseException) -> None:
        with self.lock:
            self.failure = self.failure or wrong

    def thread(self) -> None:
        try:
            torch.cuda.set_device(self.device)
            slots: list[_Slot] = []
            n_bytes = min(PIECE_BYTES, max(job.info.stored_bytes for job in self.jobs))
            for turn in range(2**62):
                with self.lock:
                    piece = None if self.failure is not None else next(self.todo, None)
                if piece is None:
                    break
                if turn < 2:
                    slots.append(_Slot(max(1, n_bytes)))
                slot = slots[turn % 2]
                slot.copied.synchronize()
                self.bring(slot, *piece)
        except BaseException as wrong:
            self.stop(wrong)

    def bring(self, slot: _Slot, job: _Job, at: int, n_bytes: int) -> None:
        """Reads a piece and enqueues its copy; behind the last one, what is to be done with the whole."""
        if job.kind == "host":
            self.decode_on_cpu(job)
            return
        view = slot.bytes[:n_bytes]
        share = 0
        if job.kind == "stored":
            share = job.file.read_stored(tersor.default_context(), job.name, at, view)
        else:
            job.file.read_raw(job.name, at, view)
        header = view[:HEADER_BYTES].tobytes().hex() if at == 0 else ""
        with self.lock:
            if job.raw is None:
                job.raw = self.room(job)
            with torch.cuda.stream(self.copies):
                job.raw[at : at + n_bytes].copy_(slot.tensor[:n_bytes], non_blocking=True)
                slot.copied.record(self.copies)
            job.digest = (job.digest + share) & _MASK
            job.header = header or job.header
            job.pieces_left -= 1
            if job.pieces_left == 0:
                self.finish(job)

    def room(self, job: _Job) -> torch.Tensor:
        """Device memory for what is read: the tensor itself, or a frame that is let go when it is decoded."""
        scratch = job.kind in ("frame", "matrix")
        with torch.cuda.stream(self.copies if scratch else self.caller):
            return torch.empty(job.info.stored_bytes, dtype=torch.uint8, device=self.device)

    def finish(self, job: _Job) -> None:
        if job.kind == "stored":
            if job.file.is_container and job.digest != job.info.digest:
                raise job.fail(7, "digest of a stored tensor differs")
            job.out = job.shaped(job.raw)
            return
        if job.kind == "frame":
            self.decode(job)
        else:
            self.unpack(job)
        if job.kind != "packed":
            job.raw.record_stream(self.work)
            job.raw = None

    def decode(self, job: _Job) -> None:
        dst = self.destination(job)
        task = self.task(job, job.raw.data_ptr(), dst.data_ptr())
        self.work.wait_stream(self.copies)
        _core.cuda.decode(
            job.info.coding, [task], self.workspace.data_ptr(), self.workspace.numel(), self.work.cuda_stream
        )

    def unpack(self, job: _Job) -> None:
        """Unpacks a matrix frame, or only compares its digests."""
        info = info_of(job.header)
        if info.digest != job.info.digest or info.n_bytes != job.info.stored_bytes:
            raise job.fail(7, "the frame is not the one in the digest list")
        dst = 0 if job.kind == "packed" else self.destination(job).data_ptr()
        self.work.wait_stream(self.copies)
        _core.cuda.unpack(
            info, job.raw.data_ptr(), dst, result=self.verdicts[job.verdict].data_ptr(), stream=self.work.cuda_stream
        )

    def destination(self, job: _Job) -> torch.Tensor:
        with torch.cuda.stream(self.caller):
            raw = torch.empty(job.info.original_bytes, dtype=torch.uint8, device=self.device)
        job.out = job.shaped(raw)
        return raw

    def decode_on_cpu(self, job: _Job) -> None:
        host = torch.empty(job.info.original_bytes, dtype=torch.uint8, pin_memory=True)
        job.file.read_into(tersor.default_context(), job.name, host.numpy())
        with self.lock:
            dst = self.destination(job)
        with torch.cuda.stream(self.copies):
            dst.copy_(host, non_blocking=True)
        self.copies.synchronize()

    def check(self) -> None:
        """The verdicts, and the frames' digests against the file's list."""
        rows = self.verdicts.cpu().numpy()
        for job in self.jobs:
            if job.verdict < 0:
                continue
            row = rows[job.verdict].tobytes()
            code, chunk = int.from_bytes(row[:4], "little", signed=True), int.from_bytes(row[4:8], "little")
            if code != 0:
                raise job.fail(code, "what the GPU decoded is not good", chunk if chunk != 0xFFFFFFFF else None)
            if job.kind == "frame" and int.from_bytes(row[16:24], "little") != job.info.digest:
                raise job.fail(7, "the frame is not the one in the digest list")


def load(
    files: list[_core.TensorFile],
    device: torch.device,
    names: Collection[str] | None = None,
    packed: bool = False,
    threads: int = 0,
) -> dict[str, Any]:
    """The tensors of the files on a CUDA device, ready for its current stream. ``packed``: matrix frames stay packed.
    Errors: BackendUnavailableError (no CUDA), those of the files."""
    if not torch.cuda.is_available():
        raise error("backend_unavailable", "PyTorch finds no CUDA device")
    if device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    jobs = [
        _Job(file, name, packed) for file in files for name in file.names() if names is None or name in names
    ]  # fmt: skip
    if not jobs:
        return {}
    n_threads = threads or min(MAX_THREADS, len(os.sched_getaffinity(0)))
    with torch.cuda.device(device):
        _Loader(jobs, device).run(min(n_threads, sum(job.pieces_left for job in jobs)))
    return {job.name: PackedWeight(job.raw, job.header) if job.kind == "packed" else job.out for job in jobs}
