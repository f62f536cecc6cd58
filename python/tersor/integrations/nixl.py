"""NIXL (1.5): compressed tensors through one-sided writes or reads between registered buffers, over UCX.

NIXL moves ranges whose sizes both sides must know, so compression lies above it: the sender encodes into a registered slot,
exactly the encoded bytes are written into (or read by) a registered slot of the receiver, and a notification says how many
they are. The receiver decodes from its slot and verifies every chunk in the destination before `receive` returns.

    receiver = NixlReceiver("decode")
    sender = NixlSender("prefill", receiver.hello())     # hello: bytes, to be carried by whatever connects both sides
    receiver.connect(sender.hello())
    sender.send(7, [k, v]); receiver.receive(7, [k2, v2])

One sender for each receiver; tensors on the CPU. NIXL has neither encryption nor authentication of its own. A process that
used UCX through NIXL 1.5.1 may crash in libnl's destructor when it exits, after Python has ended (docs/vllm-kv.md).
"""

from __future__ import annotations

import secrets
import struct
import time
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tersor._errors import error

from ._blob import blob_bound, check_codec, decode_blob, encode_blob_into, tensor_part

__all__ = ["NixlReceiver", "NixlSender", "SendReport", "available"]

_HELLO = struct.Struct("<4sHHQQQQ")  # magic, version, slots, bytes of a slot, address, session, bytes of the metadata
_NOTE = struct.Struct("<4sHHQQQI")  # magic, kind, slot, session, request, bytes, CRC-32
_HELLO_MAGIC, _NOTE_MAGIC, _VERSION = b"TNXH", b"TNXN", 1
_WRITTEN, _READABLE, _FREE = 1, 2, 3
_MAX_SLOT_BYTES = 1 << 40


class SendReport(NamedTuple):
    """What a transfer took; bytes of the values, bytes that were moved."""

    raw_bytes: int
    sent_bytes: int
    encode_seconds: float
    transfer_seconds: float


def available() -> str:
    """What was found, for a log: NIXL's package and plugins, or why there is none. Does not raise."""
    try:
        api = _api()
        agent = api.nixl_agent("tersor-probe", api.nixl_agent_config(backends=[]))
        return f"{api.nixl_agent.__module__}: plugins {', '.join(agent.get_plugin_list())}"
    except Exception as failure:
        return f"no NIXL: {failure}"


class _Side:
    """An agent with registered slots, and the other side's."""

    def __init__(self, name: str, slots: int, slot_bytes: int, session: int, backend: str) -> None:
        self._registered: Any = None
        if not 0 < slots < 1 << 16 or not 0 < slot_bytes <= _MAX_SLOT_BYTES:
            raise error("invalid_argument", f"{slots} slots of {slot_bytes} bytes")
        self._slots, self._slot_bytes, self._session = slots, slot_bytes, session
        self._memory = np.zeros(slots * slot_bytes, np.uint8)
        self._peer: str | None = None
        self._peer_address = 0
        api = _api()
        try:
            self._agent = api.nixl_agent(name, api.nixl_agent_config(backends=[backend]))
            region = (self._memory.ctypes.data, self._memory.nbytes, 0, "tersor")
            self._registered = self._agent.register_memory([region], "DRAM", backends=[backend])
        except Exception as failure:
            raise error("backend_unavailable", f"NIXL's backend {backend}: {failure}") from failure

    def hello(self) -> bytes:
        """What the other side needs to know, to be carried to it over a channel that is trusted."""
        metadata = self._agent.get_agent_metadata()
        fields = (_VERSION, self._slots, self._slot_bytes, self._memory.ctypes.data, self._session, len(metadata))
        return _HELLO.pack(_HELLO_MAGIC, *fields) + metadata

    def close(self) -> None:
        """Gives the memory back; the object is of no more use. What is in flight fails. Done at the end of its life too,
        since NIXL must let go of the memory before it is freed."""
        if getattr(self, "_registered", None) is None:  # its constructor may have failed
            return
        registered, self._registered = self._registered, None
        if self._peer is not None:
            self._agent.remove_remote_agent(self._peer)
        self._agent.deregister_memory(registered)
        self._agent = None

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:
            return

    def _meet(self, hello: bytes, session: int | None) -> None:
        _, slots, slot_bytes, address, theirs, metadata = _read_hello(hello)
        if (slots, slot_bytes) != (self._slots, self._slot_bytes):
            found = f"{slots} slots of {slot_bytes} bytes"
            raise error("mismatch", f"the other side has {found}, this one {self._slots} of {self._slot_bytes}")
        if session is not None and theirs != session:
            raise error("mismatch", "the other side's hello answers another receiver")
        name = self._agent.add_remote_agent(metadata)
        self._peer = name.decode() if isinstance(name, bytes) else name
        self._peer_address = address

    def _slot(self, slot: int, n_bytes: int | None = None) -> Any:
        begin = slot * self._slot_bytes
        return self._memory[begin : begin + (self._slot_bytes if n_bytes is None else n_bytes)]

    def _move(self, operation: str, slot: int, n_bytes: int, note: bytes, deadline: float) -> None:
        offset = slot * self._slot_bytes
        mine = self._agent.get_xfer_descs([(self._memory.ctypes.data + offset, n_bytes, 0)], "DRAM")
        other = self._agent.get_xfer_descs([(self._peer_address + offset, n_bytes, 0)], "DRAM")
        handle = None
        try:
            handle = self._agent.initialize_xfer(operation, mine, other, self._peer)
            state = self._agent.transfer(handle, note)
            while state == "PROC" and time.monotonic() < deadline:
                time.sleep(0.0001)
                state = self._agent.check_xfer_state(handle)
        except Exception as failure:
            raise error("io_error", f"NIXL {operation} of {n_bytes} bytes: {failure}") from failure
        finally:
            if handle is not None:
                self._agent.release_xfer_handle(handle)
        if state != "DONE":
            raise error("io_error", f"NIXL {operation} of {n_bytes} bytes ended as {state}")

    def _notes(self) -> list[tuple[int, int, int, int]]:
        """Kind, slot, request and size of the intact notifications of this session; others are dropped."""
        found = []
        for message in self._agent.get_new_notifs().get(self._peer, []):
            if len(message) != _NOTE.size or zlib.crc32(message[:-4]) != int.from_bytes(message[-4:], "little"):
                continue
            magic, kind, slot, session, request, n_bytes, _ = _NOTE.unpack(message)
            if (magic, session) == (_NOTE_MAGIC, self._session) and slot < self._slots and n_bytes <= self._slot_bytes:
                found.append((kind, slot, request, n_bytes))
        return found

    def _note(self, kind: int, slot: int, request: int, n_bytes: int) -> bytes:
        head = _NOTE.pack(_NOTE_MAGIC, kind, slot, self._session, request, n_bytes, 0)[:-4]
        return head + zlib.crc32(head).to_bytes(4, "little")


class NixlReceiver(_Side):
    """The side that gets tensors. `slots` transfers of up to `slot_bytes` encoded bytes may be under way; the sender takes
    over both. Not for several threads at a time. Errors: BackendUnavailableError, InvalidArgumentError."""

    def __init__(self, name: str, slots: int = 2, slot_bytes: int = 64 << 20, backend: str = "UCX") -> None:
        super().__init__(name, slots, slot_bytes, secrets.randbits(64), backend)
        self._arrived: dict[int, tuple[int, int, int]] = {}

    def connect(self, hello: bytes) -> None:
        """Takes the sender's hello. Errors: MismatchError, BadMagicError, TruncatedError."""
        self._meet(hello, self._session)

    def receive(self, request: int, out: Sequence[Any], timeout: float = 30.0) -> None:
        """Decodes a request's tensors into `out`, contiguous torch tensors on the CPU, and verifies them there.
        Errors: CancelledError (nothing came in time; the request may still be asked for), IoError (the read failed), and
        `tersor.Error` of damaged data or other tensors than expected: the request is then gone, and out must not be used."""
        parts = [tensor_part(t) for t in out]
        deadline = time.monotonic() + timeout
        while request not in self._arrived:
            for kind, slot, found, n_bytes in self._notes():
                if kind in (_WRITTEN, _READABLE):
                    self._arrived[found] = (kind, slot, n_bytes)
            if request not in self._arrived:
                if time.monotonic() >= deadline:
                    raise error("cancelled", f"request {request} did not come within {timeout} s")
                time.sleep(0.0002)
        kind, slot, n_bytes = self._arrived.pop(request)
        try:
            if kind == _READABLE:
                self._move("READ", slot, n_bytes, b"", deadline)
            decode_blob(self._slot(slot, n_bytes), parts, _key(self._session, request))
        finally:
            self._agent.send_notif(self._peer, self._note(_FREE, slot, request, 0))


class NixlSender(_Side):
    """The side that has tensors. `hello`: the receiver's. `mode`: "write" pushes, "read" lets the receiver fetch. Not for
    several threads at a time. Errors: BackendUnavailableError, MismatchError, BadMagicError, TruncatedError."""

    def __init__(self, name: str, hello: bytes, codec: str = "rank", mode: str = "write", backend: str = "UCX") -> None:
        if mode not in ("write", "read"):
            raise error("invalid_argument", f"unknown mode {mode!r}: write and read are known")
        _, slots, slot_bytes, _, session, _ = _read_hello(hello)
        super().__init__(name, slots, slot_bytes, session, backend)
        self._codec, self._mode = check_codec(codec), mode
        self._free = list(range(slots))
        self._meet(hello, session)

    def send(self, request: int, tensors: Sequence[Any], timeout: float = 30.0) -> SendReport:
        """Encodes contiguous torch tensors on the CPU and moves them; they may be changed when it returns. With "write" the
        bytes have arrived then, with "read" they wait to be fetched. A request's number is used once.
        Errors: DestinationTooSmallError (larger than a slot), CancelledError (no slot became free in time), IoError."""
        parts = [tensor_part(t) for t in tensors]
        deadline = time.monotonic() + timeout
        begin = time.perf_counter()
        slot = self._take_slot(deadline, timeout)
        try:
            n_bytes = encode_blob_into(self._codec, parts, _key(self._session, request), self._slot(slot))
            encoded = time.perf_counter()
            if self._mode == "write":
                self._move("WRITE", slot, n_bytes, self._note(_WRITTEN, slot, request, n_bytes), deadline)
            else:
                self._agent.send_notif(self._peer, self._note(_READABLE, slot, request, n_bytes))
        except BaseException:
            self._free.append(slot)
            raise
        raw = sum(p.n_bytes for p in parts)
        return SendReport(raw, n_bytes, encoded - begin, time.perf_counter() - encoded)

    def bound(self, tensors: Sequence[Any]) -> int:
        """The bytes of a slot that hold such tensors whatever their values are."""
        return blob_bound(self._codec, [(p.dtype, p.shape) for p in map(tensor_part, tensors)])

    def _take_slot(self, deadline: float, timeout: float) -> int:
        while True:
            for kind, slot, _, _ in self._notes():
                if kind == _FREE and slot not in self._free:
                    self._free.append(slot)
            if self._free:
                return self._free.pop(0)
            if time.monotonic() >= deadline:
                raise error("cancelled", f"no slot became free within {timeout} s")
            time.sleep(0.0002)


def _key(session: int, request: int) -> bytes:
    return struct.pack("<QQ", session, request)


def _read_hello(hello: bytes) -> tuple[int, int, int, int, int, bytes]:
    if len(hello) < _HELLO.size:
        raise error("truncated", f"a hello of {len(hello)} bytes")
    magic, version, slots, slot_bytes, address, session, size = _HELLO.unpack_from(hello)
    if magic != _HELLO_MAGIC:
        raise error("bad_magic", "not a hello of Tersor over NIXL")
    if version != _VERSION:
        raise error("unsupported_version", f"hello of version {version}, {_VERSION} is known")
    if len(hello) != _HELLO.size + size or slots == 0 or not 0 < slot_bytes <= _MAX_SLOT_BYTES:
        raise error("malformed", "a hello that contradicts itself")
    return version, slots, slot_bytes, address, session, hello[_HELLO.size :]


def _api() -> Any:
    import importlib

    try:
        return importlib.import_module("nixl._api")
    except ImportError as failure:
        raise error("backend_unavailable", f"the package nixl does not import: {failure}") from failure
