"""What the KV connector needs of a way to move tensors, and `tersor.transfer` as one."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tersor._errors import CancelledError, Error, IoError, error

__all__ = ["ReceiveLink", "SendLink", "open_receiver", "open_sender", "split_address"]

MAX_GIVEN_UP = 1 << 16


class SendLink(Protocol):
    """Calls come from several threads."""

    def send(self, to: str, request: int, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns a report when the receiver has published the request. Errors: `tersor.Error`."""

    def close(self) -> None: ...


class ReceiveLink(Protocol):
    """Calls come from several threads."""

    @property
    def address(self) -> tuple[str, int]: ...

    def wait(self, request: int, timeout: float) -> Mapping[str, Any]:
        """A request's tensors, complete and verified. Errors: `tersor.Error`, also if it did not come in time."""

    def close(self) -> None: ...


class TransferSender:
    """A `tersor.transfer.Sender` for each address, made when it is first needed, and anew after its connection failed."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = dict(options)
        self._senders: dict[str, Any] = {}
        self._lock = threading.Lock()

    def send(self, to: str, request: int, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        sender = self._sender(to)
        try:
            return sender.send(request, tensors)
        except (IoError, CancelledError):
            with self._lock:  # another thread may still be using it: it is not closed here
                if self._senders.get(to) is sender:
                    del self._senders[to]
            raise

    def close(self) -> None:
        with self._lock:
            senders, self._senders = self._senders, {}
        for sender in senders.values():
            sender.close()

    def _sender(self, to: str) -> Any:
        from tersor.transfer import Sender

        with self._lock:
            if to in self._senders:
                return self._senders[to]
        made = Sender(*split_address(to), **self._options)  # may take a while: without the lock
        with self._lock:
            sender = self._senders.setdefault(to, made)
        if sender is not made:
            made.close()
        return sender


class TransferReceiver:
    """A `tersor.transfer.Receiver` that does not keep what nobody takes: a request that was waited for in vain is refused
    or dropped, and one that nobody asks for is dropped `keep` seconds after it came."""

    def __init__(self, host: str, port: int, keep: float, options: Mapping[str, Any]) -> None:
        from tersor.transfer import Receiver

        self._keep = keep
        self._lock = threading.Lock()
        self._waiting: set[int] = set()
        self._given_up: OrderedDict[int, None] = OrderedDict()
        self._came: dict[int, float] = {}
        self._receiver = Receiver(host, port, allocate=self._allocate, on_published=self._published, **options)

    @property
    def address(self) -> tuple[str, int]:
        return self._receiver.address

    def wait(self, request: int, timeout: float) -> Mapping[str, Any]:
        self._sweep()
        with self._lock:
            self._waiting.add(request)
        try:
            try:
                found = self._receiver.wait(request, timeout)
            except Error:
                with self._lock:
                    self._given_up[request] = None
                    while len(self._given_up) > MAX_GIVEN_UP:
                        self._given_up.popitem(last=False)
                found = self._receiver.wait(request, 0)  # it may have come in between
        finally:
            with self._lock:
                self._waiting.discard(request)
                self._came.pop(request, None)
        return {name: found.torch(name) for name in found}

    def close(self) -> None:
        self._receiver.close()

    def _allocate(self, request: int, regions: Sequence[Any], note: bytes) -> Mapping[str, Any]:
        import torch

        with self._lock:
            if request in self._given_up:
                raise error("cancelled", f"nobody waits for request {request} any more")
        return {region.name: torch.empty(region.n_bytes, dtype=torch.uint8) for region in regions}

    def _published(self, request: int) -> None:
        with self._lock:
            self._came[request] = time.monotonic()

    def _sweep(self) -> None:
        begin = time.monotonic() - self._keep
        with self._lock:
            idle = [n for n, came in self._came.items() if n not in self._waiting]
            gone = [n for n in idle if n in self._given_up or self._came[n] < begin]
            for request in gone:
                del self._came[request]
        for request in gone:
            with contextlib.suppress(Error):
                self._receiver.wait(request, 0)


def open_sender(config: Mapping[str, Any], geometry: Mapping[str, Any]) -> SendLink:
    """`config`: codec, psk_file, tenant, transport, tls. Errors: InvalidArgumentError, NotFoundError."""
    from tersor.transfer import Geometry

    options = {"geometry": Geometry(**geometry), "codec": config.get("codec", "auto"), **_common(config)}
    return TransferSender(options)


def open_receiver(config: Mapping[str, Any], geometry: Mapping[str, Any], add_to_port: int) -> ReceiveLink:
    """`config`: listen ("127.0.0.1:14579"), max_bytes, keep (seconds), psk_file, tenant, transport, tls.
    Errors: those of `tersor.transfer.Receiver`."""
    from tersor.transfer import Geometry

    host, port = split_address(str(config.get("listen", "127.0.0.1:14579")))
    options: dict[str, Any] = {"expect": Geometry(**geometry), **_common(config)}
    if "max_bytes" in config:
        options["max_bytes"] = int(config["max_bytes"])
    keep = float(config.get("keep", 300.0))
    return TransferReceiver(host, port + add_to_port if port else 0, keep, options)


def split_address(text: str) -> tuple[str, int]:
    """HOST:PORT or [HOST]:PORT. Errors: InvalidArgumentError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 0xFFFF:
        raise error("invalid_argument", f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _common(config: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {name: config[name] for name in ("tenant", "transport") if name in config}
    if "tls" in config:
        options["tls"] = tuple(config["tls"])
    if "psk_file" in config:
        # As `tersor kv-recv --psk-file` reads it.
        options["psk"] = Path(config["psk_file"]).read_bytes().removesuffix(b"\n").removesuffix(b"\r")
    return options
