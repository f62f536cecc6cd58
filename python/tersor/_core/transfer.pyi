"""KV caches from one process to another; use the package tersor.transfer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

from tersor._core import Context, _BytesLike

# Name, layer, kind ("K", "V", "other"), dtype, shape, page_bytes, codebook.
_Region: TypeAlias = tuple[str, int, str, str, Sequence[int], int, bytes | None]

class _Transport(TypedDict):
    name: str
    available: bool
    detail: str

PROTOCOL_VERSION: int

def transports() -> list[_Transport]:
    """The transports of this build, and what each found."""

def parse_endpoint(text: str) -> tuple[str, int]:
    """Of "HOST:PORT" or "[::1]:PORT". Errors: InvalidArgumentError."""

def is_loopback(host: str) -> bool: ...

class Parts:
    """Tensors of a request, handed over one after another."""

    def __init__(self, ctx: Context, n_regions: int) -> None: ...
    def put(self, index: int, data: _BytesLike) -> None:
        """The bytes of a region, which are kept. Errors: InvalidArgumentError (no such region, put before)."""

    def cancel(self, why: str = "cancelled") -> None:
        """Ends whoever waits for a region."""

class Sender:
    """A connection to a receiver."""

    def __init__(self, host: str, port: int, options: Mapping[str, Any]) -> None:
        """``options``: geometry, psk, tenant, tls, transport, timeouts, codec, part_bytes, attempts."""

    def send(
        self,
        request: int,
        regions: Sequence[_Region],
        note: bytes,
        parts: Parts,
        progress: Callable[[int, int], object] | None = None,
    ) -> dict[str, Any]:
        """Sends one request; the report."""

    def stop(self) -> None:
        """Ends a request that another thread is sending."""

    def close(self) -> None: ...

class Receiver:
    """Listens, and decodes what comes into memory that a callable gives."""

    def __init__(
        self,
        ctx: Context,
        host: str,
        port: int,
        options: Mapping[str, Any],
        allocate: Callable[[int, list[_Region], bytes], tuple[list[_BytesLike], Any]],
        on_published: Callable[[int], object] | None,
        max_bytes: int,
    ) -> None:
        """``options``: those of a sender except codec, part_bytes and attempts, and n_slots, max_part_bytes,
        max_request_bytes, max_regions, max_connections, max_pending, resume, allow_unauthenticated_remote."""

    @property
    def address(self) -> tuple[str, int]: ...
    def take(
        self, request: int | None, seconds: float | None
    ) -> tuple[int, list[_Region], bytes, Any] | None:
        """A published request, or whichever is published first; None if there is none in time. Errors: CancelledError
        (the receiver was closed)."""

    def counters(self) -> dict[str, Any]: ...
    def metrics(self) -> str: ...
    def serve_metrics(self, host: str, port: int) -> tuple[str, int]: ...
    def last_error(self) -> str | None: ...
    def close(self) -> None: ...
