"""The sending end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from .. import _arrays, _core
from .._errors import error
from ._regions import Geometry, Naming, Region, Timeouts, common_options, dtype_name

Report = dict[str, Any]
Progress = Callable[[int, int], object]
Specs = Mapping[str, Any] | Iterable[Region]

_DLPACK_CUDA = (2, 13)  # kDLCUDA, kDLCUDAManaged


def host_bytes(x: Any) -> tuple[Any, str, tuple[int, ...]]:
    """Bytes on the CPU, dtype and shape. An array on a GPU is copied into pinned memory, and the copy waited for."""
    known = _arrays.is_torch(x) or _arrays.is_numpy(x)
    if not known and hasattr(x, "__dlpack_device__") and int(x.__dlpack_device__()[0]) in _DLPACK_CUDA:
        import torch

        x = torch.from_dlpack(x)
    if _arrays.is_torch(x) and x.is_cuda:
        import torch

        pinned = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
        x = pinned.copy_(x.detach())
    return _arrays.as_bytes(x)


class Sender:
    """A connection to a receiver; connects when it is made.

    ``codec``: "auto" measures the link and both ends and takes what is fastest, raw included; or "raw", "top16", "rank".
    ``geometry``: what this end means by the bytes. ``psk``: at least 16 bytes, then both ends prove that they have it and
    every message is authenticated (not encrypted). ``tenant``: a salt that both ends must share. ``tls``: PEM files
    (certificate, key, CA) of the transport "tls". ``part_bytes``: decoded bytes of a part. ``attempts``: connections for one
    request: a dropped one is taken up again, and verified parts are not sent twice. ``context``: threads for encoding.

    Threads may share a sender, which sends one request at a time. Errors: IoError (no connection), MismatchError (refused;
    the message names what differs), InvalidArgumentError, UnsupportedError, BackendUnavailableError (transport).
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        psk: bytes | None = None,
        tenant: str = "",
        geometry: Geometry | None = None,
        codec: str = "auto",
        transport: str = "tcp",
        tls: tuple[Any, Any, Any] | None = None,
        part_bytes: int = 4 << 20,
        timeouts: Timeouts | None = None,
        attempts: int = 3,
        context: Any = None,
    ) -> None:
        from .. import default_context

        options = common_options(geometry, psk, tenant, tls, transport, timeouts)
        options |= {"codec": codec, "part_bytes": part_bytes, "attempts": attempts}
        self._context = context or default_context()
        self._core = _core.transfer.Sender(host, port, options)
        self._turn = threading.Lock()
        self._agreed = geometry.codebooks if geometry is not None else ()

    def send(
        self,
        request_id: int,
        tensors: Mapping[str, Any],
        *,
        note: bytes = b"",
        page_bytes: int | None = None,
        layers: Mapping[str, int] | None = None,
        kinds: Mapping[str, str] | None = None,
        codebooks: Mapping[str, bytes] | None = None,
        progress: Progress | None = None,
    ) -> Report:
        """Sends arrays under their names and returns when the receiver has published them all: the report.

        ``tensors``: numpy, torch, any DLPack array, bytes; an array that is not contiguous is copied, one on a GPU is
        copied to pinned host memory first. ``request_id`` must be new to the receiver. ``note``: up to 64 KiB for the
        receiver, authenticated with the rest. ``layers`` and ``kinds`` ("K", "V", "other") by name, else from names like
        "layers.3.k". ``page_bytes``: pages of a paged cache; parts are whole pages. ``codebooks``: by name,
        16 exponents; else those of the geometry.
        ``progress(done, total)`` is called from this thread; an exception in it, or Ctrl-C, ends the request.

        Report: raw_bytes, sent_bytes, parts, raw_parts, top16_parts, rank_parts, bypassed_parts, resumptions, seconds,
        encode_seconds, send_seconds, credit_seconds, decode_seconds (stages overlap).
        After an error nothing of the request is, or will be, visible, except when the connection was lost between the
        last message and its answer (IoError, "may be published").
        Errors: AlreadyExistsError (the id was used), IoError, MismatchError, OutOfMemoryError (no room there),
        DestinationTooSmallError (the receiver's limits), CancelledError, UnsupportedError (dtype)."""
        naming = Naming(page_bytes, layers, kinds, codebooks, self._agreed)
        regions, parts = [], _core.transfer.Parts(self._context, len(tensors))
        for index, (name, array) in enumerate(tensors.items()):
            data, dtype, shape = host_bytes(array)
            regions.append(naming.region(name, dtype, shape))
            parts.put(index, data)
        return self._send(request_id, regions, note, parts, progress)

    def begin(
        self,
        request_id: int,
        specs: Specs,
        *,
        note: bytes = b"",
        page_bytes: int | None = None,
        layers: Mapping[str, int] | None = None,
        kinds: Mapping[str, str] | None = None,
        codebooks: Mapping[str, bytes] | None = None,
        progress: Progress | None = None,
    ) -> Transfer:
        """A request whose tensors come one after another, so that sending overlaps with their making::

            with sender.begin(7, {"layers.0.k": ("BF16", (512, 8, 128)), ...}) as t:
                t.put("layers.0.k", k)        # as soon as it is computed
            print(t.report)

        ``specs``: (dtype, shape) by name, or anything with these attributes, or a sequence of `Region`. Parts are sent in
        this order. The rest is as in `send`."""
        naming = Naming(page_bytes, layers, kinds, codebooks, self._agreed)
        if isinstance(specs, Mapping):
            regions = [naming.region(name, *_dtype_and_shape(spec)) for name, spec in specs.items()]
        else:
            regions = [Region(*region) for region in specs]
        return Transfer(self, request_id, regions, note, progress)

    def close(self) -> None:
        """Ends the connection, and a request that another thread is sending."""
        self._core.close()

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _send(
        self, request_id: int, regions: Sequence[Region], note: bytes, parts: Any, progress: Progress | None
    ) -> Report:
        with self._turn:
            return self._core.send(request_id, list(regions), bytes(note), parts, progress)


def _dtype_and_shape(spec: Any) -> tuple[str, Sequence[int]]:
    if isinstance(spec, tuple):
        dtype, shape = spec
    else:
        dtype, shape = spec.dtype, spec.shape
    return dtype_name(dtype), tuple(shape)


class Transfer:
    """A request in the making (`Sender.begin`). A context manager: it starts on entry and is finished on a normal exit;
    an exception in the block cancels it. Without ``with``: `start`, then `finish` or `cancel`, which must be called.

    Memory: every array that was put is kept until the receiver has published the request.
    """

    def __init__(
        self, sender: Sender, request_id: int, regions: Sequence[Region], note: bytes, progress: Progress | None
    ) -> None:
        self.regions = tuple(regions)
        #: what the request cost, once it is finished
        self.report: Report | None = None
        self._indexes = {region.name: index for index, region in enumerate(self.regions)}
        if len(self._indexes) != len(self.regions):
            raise error("invalid_argument", "two regions have the same name")
        self._missing = dict(self._indexes)
        self._parts = _core.transfer.Parts(sender._context, len(self.regions))
        self._raised: BaseException | None = None
        self._thread = threading.Thread(
            target=self._run, args=(sender, request_id, note, progress), name=f"tersor-send-{request_id}"
        )

    def start(self) -> Transfer:
        """Sends, on a thread of its own, what is put."""
        self._thread.start()
        return self

    def put(self, name: str, array: Any) -> None:
        """Hands a tensor over, which must not be changed until the request is finished. Any thread may call.
        Errors: NotFoundError, MismatchError (another dtype or shape than announced), InvalidArgumentError (put before),
        and what has ended the request meanwhile."""
        self._raise_if_ended()
        if name not in self._indexes:
            raise error("not_found", "the request announced no such tensor", tensor=name)
        region = self.regions[self._indexes[name]]
        data, dtype, shape = host_bytes(array)
        if (dtype, tuple(shape)) != (region.dtype, tuple(region.shape)):
            announced = f"{region.dtype} {list(region.shape)}"
            raise error("mismatch", f"announced was {announced}, this is {dtype} {list(shape)}", tensor=name)
        self._parts.put(self._indexes[name], data)
        self._missing.pop(name, None)

    def finish(self) -> Report:
        """Waits until the receiver has published the request. Errors: InvalidArgumentError (a tensor was not put), those
        of `Sender.send`."""
        if self._missing and self._thread.is_alive():
            self.cancel("not every tensor was put")
            self._thread.join()
            raise error("invalid_argument", "the tensor was announced, but not put", tensor=min(self._missing))
        try:
            self._thread.join()
        except BaseException:
            self.cancel()
            self._thread.join()
            raise
        self._raise_if_ended()
        assert self.report is not None
        return self.report

    def cancel(self, why: str = "cancelled") -> None:
        """Ends the request; `finish` then raises CancelledError. Nothing of it becomes visible."""
        self._parts.cancel(why)

    def __enter__(self) -> Transfer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        if raised is None:
            self.finish()
            return
        self.cancel(f"the sender raised {type(raised).__name__}")
        self._thread.join()

    def _run(self, sender: Sender, request_id: int, note: bytes, progress: Progress | None) -> None:
        try:
            self.report = sender._send(request_id, self.regions, note, self._parts, progress)
        except BaseException as raised:
            self._raised = raised

    def _raise_if_ended(self) -> None:
        if self._raised is not None:
            raise self._raised
