"""Requests for the tests of tersor.transfer, and a proxy that does to a connection what networks do."""

from __future__ import annotations

import contextlib
import socket
import threading

import numpy as np
from kv_support import normal, to_torch, torch

from tersor.transfer import Timeouts

PSK = bytes(range(32))
QUICK = Timeouts(connect=2, handshake=2, message=5, idle=20)


def cache(layers: int = 3, tokens: int = 128, dtype: str = "BF16", seed: int = 0) -> dict:
    """K and V of some layers as torch tensors."""
    shape = (tokens, 4, 64)
    names = [f"layers.{i}.{kind}" for i in range(layers) for kind in "kv"]
    return {name: to_torch(normal(shape, dtype, seed + n), dtype) for n, name in enumerate(names)}


def bits(x) -> bytes:
    """The bytes of a numpy array or torch tensor."""
    if isinstance(x, np.ndarray | np.generic):
        return np.ascontiguousarray(x).tobytes()
    return x.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if x.numel() else b""


def same(got, sent) -> bool:
    """Whether a received request holds the tensors that were sent: names, shapes, bits."""
    return list(got) == list(sent) and all(
        tuple(got[name].shape) == tuple(sent[name].shape) and bits(got[name]) == bits(sent[name]) for name in sent
    )


class Proxy:
    """Forwards connections to a receiver. `damage(data, n)` may change what a sender sends, or end the connection by
    None; ``n`` is how many bytes of the connection came before. ``connections`` counts them."""

    def __init__(self, to: tuple[str, int], damage) -> None:
        self.connections = 0
        self._to, self._damage = to, damage
        self._door = socket.create_server(("127.0.0.1", 0))
        self.address = self._door.getsockname()
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *raised) -> None:
        self._door.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._door.accept()
                far = socket.create_connection(self._to)
                self.connections += 1
                threading.Thread(target=self._forward, args=(near, far, self._damage), daemon=True).start()
                threading.Thread(target=self._forward, args=(far, near, None), daemon=True).start()

    @staticmethod
    def _forward(source: socket.socket, to: socket.socket, damage) -> None:
        n = 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sent = data if damage is None else damage(data, n)
                if sent is None:
                    break
                n += len(data)
                to.sendall(sent)
        for end in (source, to):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
