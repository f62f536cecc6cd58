"""The receiving end."""

from __future__ import annotations

import atexit
import math
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .. import _arrays, _core
from .._errors import error
from ._regions import Geometry, Region, Timeouts, common_options

#: Called with (request_id, regions, note); gives writable, contiguous CPU memory for every region's name.
Allocate = Callable[[int, Sequence[Region], bytes], Mapping[str, Any]]


class Received(Mapping):
    """A request that came: complete, and every digest compared in the memory that the arrays share. A mapping from
    names to arrays; ``request_id``, ``note`` and ``regions`` (by name) say what they are."""

    def __init__(self, request_id: int, regions: Sequence[Region], note: bytes, arrays: Mapping[str, Any], kind: str):
        self.request_id = request_id
        self.note = note
        self.regions = {region.name: region for region in regions}
        self._arrays = arrays
        self._kind = kind

    def __getitem__(self, name: str) -> Any:
        if self._kind == "given":
            return self._arrays[name]
        return self.torch(name) if self._kind == "torch" else self.numpy(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.regions)

    def __len__(self) -> int:
        return len(self.regions)

    def numpy(self, name: str) -> Any:
        """As a numpy array that shares the memory; BF16 and float8 have the dtypes of ml_dtypes."""
        region, raw = self.regions[name], self._arrays[name]
        flat = _byte_view(raw, name)
        if _arrays.is_torch(flat):
            flat = flat.numpy()
        return flat.view(_arrays.numpy_dtype(region.dtype)).reshape(region.shape)

    def torch(self, name: str) -> Any:
        """As a torch tensor on the CPU that shares the memory."""
        import torch

        region, raw = self.regions[name], self._arrays[name]
        flat = _byte_view(raw, name)
        if not _arrays.is_torch(flat):
            flat = torch.from_numpy(flat)
        if not flat.numel():
            return torch.empty(region.shape, dtype=_arrays.torch_dtype(region.dtype))
        return flat.view(_arrays.torch_dtype(region.dtype)).reshape(region.shape)

    def __repr__(self) -> str:
        n_bytes = sum(region.n_bytes for region in self.regions.values())
        return f"Received(request_id={self.request_id}, {len(self)} tensors, {n_bytes} bytes)"


class Receiver:
    """Listens, and decodes what senders send into the memory where it will be used.

    ``port`` 0 lets the system choose; `address` says. Hosts beyond loopback need ``psk`` or the transport "tls".
    ``expect``: what senders must say about their bytes, else they are refused. ``max_bytes`` bounds what is pending and what
    was not waited for yet; a request beyond it is refused. ``max_part_bytes``: decoded; a connection takes ``n_slots`` frames
    of this size of memory. ``resume``: seconds that a request outlives its connection.

    ``arrays``: "torch" or "numpy", what `wait` gives; None takes torch where the process has imported it.
    ``allocate(request_id, regions, note)``: gives the memory for a request, for instance pinned tensors or places in
    a cache: a mapping from names to writable, contiguous numpy arrays or torch CPU tensors of the right size in bytes; `wait`
    gives these. It is called once a request from a thread of the receiver's; what it raises refuses the request, and its
    text travels to the sender. The memory's content is unspecified until the request is published, and after it was discarded.
    ``on_published(request_id)`` is called from such a thread, too. Neither may call `wait` or `close`.

    Errors: InvalidArgumentError (beyond loopback without a key), IoError, UnsupportedError, BackendUnavailableError.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        psk: bytes | None = None,
        tenant: str = "",
        expect: Geometry | None = None,
        transport: str = "tcp",
        tls: tuple[Any, Any, Any] | None = None,
        max_bytes: int = 16 << 30,
        max_part_bytes: int = 4 << 20,
        n_slots: int = 8,
        max_connections: int = 16,
        max_pending: int = 64,
        timeouts: Timeouts | None = None,
        resume: float = 60.0,
        allow_unauthenticated_remote: bool = False,
        arrays: str | None = None,
        allocate: Allocate | None = None,
        on_published: Callable[[int], object] | None = None,
        context: Any = None,
    ) -> None:
        from .. import default_context

        if arrays not in (None, "numpy", "torch"):
            raise error("invalid_argument", f"unknown kind of arrays {arrays!r}: numpy and torch are known")
        self._kind = arrays or ("torch" if "torch" in sys.modules else "numpy")
        options = common_options(expect, psk, tenant, tls, transport, timeouts)
        options |= {
            "n_slots": n_slots,
            "max_part_bytes": max_part_bytes,
            "max_request_bytes": max_bytes,
            "max_connections": max_connections,
            "max_pending": max_pending,
            "resume": resume,
            "allow_unauthenticated_remote": allow_unauthenticated_remote,
        }
        memory = _Memory(self._kind, allocate)
        self._given = allocate is not None
        self._core = _core.transfer.Receiver(
            context or default_context(), host, port, options, memory, on_published, max_bytes
        )
        _open.add(self)

    @property
    def address(self) -> tuple[str, int]:
        """Where senders connect to."""
        return self._core.address

    def wait(self, request_id: int, timeout: float | None = None) -> Received:
        """Waits for a request and hands it over; its id stays used. Ctrl-C ends the wait. Errors: NotFoundError (not
        there after ``timeout`` seconds), CancelledError (the receiver was closed)."""
        found = self._core.take(request_id, timeout)
        if found is None:
            raise error("not_found", f"request {request_id} did not come in {timeout} seconds")
        return self._received(found)

    def wait_any(self, timeout: float | None = None) -> Received:
        """The same for whichever request is published first."""
        found = self._core.take(None, timeout)
        if found is None:
            raise error("not_found", f"no request came in {timeout} seconds")
        return self._received(found)

    def counters(self) -> dict[str, Any]:
        """Since it was made: connections, refused, failed_connections, requests_published, requests_discarded,
        resumptions, parts, raw_parts, rejected_parts, bypassed_parts, raw_bytes, wire_bytes, and seconds of the stages."""
        return self._core.counters()

    def metrics(self) -> str:
        """The counters in the Prometheus text format."""
        return self._core.metrics()

    def serve_metrics(self, port: int = 0, host: str = "127.0.0.1") -> tuple[str, int]:
        """Answers GET /metrics, on loopback only; gives the address."""
        return self._core.serve_metrics(host, port)

    def last_error(self) -> str | None:
        """What ended the newest failed connection, for people."""
        return self._core.last_error()

    def close(self) -> None:
        """Ends every connection, discards what is pending, and wakes who waits. Published requests can still be waited
        for."""
        self._core.close()
        _open.discard(self)

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _received(self, found: tuple[int, list[tuple], bytes, Any]) -> Received:
        request_id, regions, note, arrays = found
        kind = "given" if self._given else self._kind
        return Received(request_id, [Region(*region) for region in regions], note, arrays, kind)


class _Memory:
    """Called by the extension for the memory of a request; must not hold the receiver, which holds it."""

    def __init__(self, kind: str, allocate: Allocate | None):
        self._kind = kind
        self._allocate = allocate

    def __call__(self, request_id: int, given: list[tuple], note: bytes) -> tuple[list[Any], dict[str, Any]]:
        regions = tuple(Region(*region) for region in given)
        names = {region.name for region in regions}
        if len(names) != len(regions):
            raise error("invalid_argument", "two regions have the same name")
        if self._allocate is None:
            arrays: Mapping[str, Any] = {region.name: self._new(region) for region in regions}
        else:
            arrays = self._allocate(request_id, regions, note)
            if not isinstance(arrays, Mapping) or not names <= arrays.keys():
                raise error("invalid_argument", "allocate gave no memory for a region")
        return [_byte_view(arrays[region.name], region.name) for region in regions], dict(arrays)

    def _new(self, region: Region) -> Any:
        n_bytes = region.n_bytes
        if self._kind == "torch":
            import torch

            return torch.empty(n_bytes, dtype=torch.uint8)
        import numpy

        return numpy.empty(n_bytes, numpy.uint8)


def _byte_view(array: Any, name: str) -> Any:
    """Writable bytes that share an array's memory. Errors: InvalidArgumentError."""
    if _arrays.is_torch(array):
        import torch

        if array.device.type != "cpu" or not array.is_contiguous():
            raise error("invalid_argument", "the memory is not contiguous on the CPU", tensor=name)
        return array.detach().reshape(-1).view(torch.uint8) if array.numel() else torch.empty(0, dtype=torch.uint8)
    if _arrays.is_numpy(array):
        import numpy

        if not array.flags.c_contiguous or not array.flags.writeable:
            raise error("invalid_argument", "the memory is not contiguous, or read-only", tensor=name)
        return array.reshape(-1).view(numpy.uint8) if math.prod(array.shape) else numpy.empty(0, numpy.uint8)
    raise error("invalid_argument", f"expected a numpy array or torch tensor, not {type(array).__name__}", tensor=name)


_open: weakref.WeakSet[Receiver] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    # Their threads call Python, which must still be there.
    for receiver in list(_open):
        receiver.close()
