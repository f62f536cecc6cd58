"""Two network namespaces joined by a veth pair with a set rate, and a worker in the far one. Needs unshare, ip and tc (iproute2)
and a kernel that lets users make namespaces; no privileges."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NEAR, FAR = "10.77.0.1", "10.77.0.2"
#: Large packets: a core carries more with them, as with the segmentation offload of real cards.
MTU = "9000"
_INSIDE = "TERSOR_TTFT_INSIDE"


def enter_namespace() -> None:
    """Starts the program again in a network of its own."""
    if os.environ.get(_INSIDE):
        return
    os.execvpe("unshare", ["unshare", "-Urn", sys.executable, *sys.argv], {**os.environ, _INSIDE: "1"})


def call(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Worker:
    """A process in the far namespace that answers lines of JSON."""

    def __init__(self, *arguments: str) -> None:
        command = ["unshare", "-n", sys.executable, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid

    def tell(self, **message: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the far worker ended")
        return json.loads(line)

    def ask(self, **message: Any) -> dict[str, Any]:
        self.tell(**message)
        return self.hear()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


@contextlib.contextmanager
def far_worker(*arguments: str) -> Iterator[Worker]:
    """A worker, and a link to it."""
    worker = Worker(*arguments)
    try:
        worker.hear()  # it is in its namespace by now
        call("ip", "link", "set", "lo", "up")
        call("ip", "link", "add", "near", "mtu", MTU, "type", "veth", "peer", "name", "far", "mtu", MTU)
        call("ip", "link", "set", "far", "netns", str(worker.pid))
        call("ip", "addr", "add", f"{NEAR}/24", "dev", "near")
        call("ip", "link", "set", "near", "up")
        enter = ("nsenter", "-t", str(worker.pid), "-n")
        call(*enter, "ip", "addr", "add", f"{FAR}/24", "dev", "far")
        call(*enter, "ip", "link", "set", "far", "up")
        call(*enter, "ip", "link", "set", "lo", "up")
        # What one rate taught TCP must not hold for the next one.
        Path("/proc/sys/net/ipv4/tcp_no_metrics_save").write_text("1")
        yield worker
    finally:
        worker.end()


def set_rate(gbit: float) -> None:
    """Limits what leaves the near end. The bucket holds 2 ms, so that no burst makes a transfer look faster."""
    burst = max(int(gbit * 1e9 / 8 * 2e-3), 256 << 10)
    call(
        "tc",
        "qdisc",
        "replace",
        "dev",
        "near",
        "root",
        "tbf",
        "rate",
        f"{gbit}gbit",
        "burst",
        str(burst),
        "latency",
        "20ms",
    )


def answer_plain(door: socket.socket) -> None:
    """Far end of `plain_speed`: reads a connection to its end."""
    with door.accept()[0] as connection:
        room = bytearray(1 << 20)
        while connection.recv_into(room):
            pass
        connection.sendall(b"!")


def plain_speed(port: int, n_bytes: int) -> float:
    """GB/s of a plain socket over the link, with nothing else in the way."""
    data = bytes(1 << 20)
    with socket.create_connection((FAR, port)) as connection:
        begun = time.monotonic()
        for _ in range(n_bytes >> 20):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)
        return (n_bytes >> 20 << 20) / (time.monotonic() - begun) / 1e9
