"""Compressed transfers through the real NIXL, agents in one process and in two, over UCX on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

pytest.importorskip("torch")
pytest.importorskip("nixl", reason="NIXL is not installed: scripts/test_integrations.sh")

import torch

import tersor
from tersor.integrations import nixl as integration

FOUND = integration.available()
pytestmark = pytest.mark.skipif("UCX" not in FOUND, reason=FOUND)


def tensors(seed: int = 0, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 256, 8, 64, generator=generator).to(dtype) for _ in range(2)]


def same(a, b) -> bool:
    return all(torch.equal(x.view(torch.uint8), y.view(torch.uint8)) for x, y in zip(a, b, strict=True))


@pytest.fixture(params=["write", "read"])
def pair(request):
    receiver = integration.NixlReceiver("receiver", slots=2, slot_bytes=4 << 20)
    sender = integration.NixlSender("sender", receiver.hello(), mode=request.param)
    receiver.connect(sender.hello())
    yield sender, receiver
    sender.close()
    receiver.close()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float32])
def test_tensors_arrive_bit_for_bit(pair, dtype) -> None:
    sender, receiver = pair
    for request in range(6):  # more than there are slots: they come back
        sent = tensors(request, dtype)
        if dtype == torch.float32:
            sent = [t[:2].contiguous() for t in sent]
        report = sender.send(request, sent)
        if dtype == torch.bfloat16:
            assert report.sent_bytes < report.raw_bytes / 1.45
        got = [torch.empty_like(t) for t in sent]
        receiver.receive(request, got)
        assert same(got, sent)


def test_requests_may_be_taken_out_of_order(pair) -> None:
    sender, receiver = pair
    sent = {request: tensors(request) for request in (10, 11)}
    for request, values in sent.items():
        sender.send(request, values)
    for request in (11, 10):
        got = [torch.empty_like(t) for t in sent[request]]
        receiver.receive(request, got)
        assert same(got, sent[request])


def test_damage_and_other_shapes_raise_and_free_the_slot(pair) -> None:
    sender, receiver = pair
    sent = tensors()
    side = receiver if sender._mode == "write" else sender
    for request in range(8):
        report = sender.send(request, sent)
        got = [torch.empty_like(t) for t in sent]
        if request % 2 == 0:
            slot = next(s for s in range(2) if bytes(side._slot(s)[:8]) == b"\x89TSRKVB\n")
            for s in range(2):
                side._slot(s)[report.sent_bytes // 3] ^= 4
            assert slot in (0, 1)
            with pytest.raises(tersor.Error):
                receiver.receive(request, got)
        else:
            with pytest.raises(tersor.Error, match="expected"):
                receiver.receive(request, [t.view(torch.float16) for t in got])
    sender.send(99, sent)
    got = [torch.empty_like(t) for t in sent]
    receiver.receive(99, got)
    assert same(got, sent)


def test_too_large_too_late_and_no_slot(pair) -> None:
    sender, receiver = pair
    with pytest.raises(tersor.Error, match="bytes"):
        sender.send(1, [torch.zeros(1 << 22, dtype=torch.uint8).random_(0, 256), *tensors()])
    out = [torch.empty_like(t) for t in tensors()]
    with pytest.raises(tersor.Error, match="did not come"):
        receiver.receive(2, out, timeout=0.2)
    sender.send(3, tensors())
    sender.send(4, tensors())
    with pytest.raises(tersor.Error, match="no slot"):
        sender.send(5, tensors(), timeout=0.2)
    receiver.receive(3, out)
    sender.send(5, tensors(5))
    receiver.receive(5, out)
    assert same(out, tensors(5))


def test_hellos_are_checked() -> None:
    receiver = integration.NixlReceiver("a", slots=1, slot_bytes=1 << 16)
    other = integration.NixlReceiver("b", slots=1, slot_bytes=1 << 16)
    hello = receiver.hello()
    for wrong in (b"", hello[:20], hello[:-1], b"x" * len(hello), hello[:4] + b"\x09" + hello[5:]):
        with pytest.raises(tersor.Error):
            integration.NixlSender("s", wrong)
    with pytest.raises(tersor.Error, match="another receiver"):
        receiver.connect(other.hello())
    with pytest.raises(ValueError):
        integration.NixlSender("s", hello, mode="push")
    with pytest.raises(tersor.Error, match="NIXL"):
        integration.NixlReceiver("c", backend="NO_SUCH")
    receiver.close()
    receiver.close()
    other.close()


def sender_main() -> None:
    hello = bytes.fromhex(sys.stdin.readline())
    sender = integration.NixlSender("child", hello, mode=sys.argv[1])
    print(sender.hello().hex(), flush=True)
    assert sys.stdin.readline() == "go\n"
    for request in range(5):
        sender.send(request, tensors(request))
    sys.stdin.readline()
    sender.close()
    os._exit(0)  # NIXL 1.5.1 brings a libnl that crashes when a process exits


@pytest.mark.parametrize("mode", ["write", "read"])
def test_two_processes(mode: str) -> None:
    receiver = integration.NixlReceiver("parent", slots=2, slot_bytes=4 << 20)
    child = subprocess.Popen(
        [sys.executable, __file__, mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    watchdog = threading.Timer(60, child.kill)
    watchdog.start()
    try:
        child.stdin.write(receiver.hello().hex() + "\n")
        child.stdin.flush()
        line = next(line for line in child.stdout if line.startswith("544e5848"))  # b"TNXH"; NIXL logs there too
        receiver.connect(bytes.fromhex(line))
        child.stdin.write("go\n")
        child.stdin.flush()
        for request in range(5):
            got = [torch.empty_like(t) for t in tensors()]
            receiver.receive(request, got)
            assert same(got, tensors(request))
        child.stdin.write("\n")
        child.stdin.flush()
        assert child.wait(30) == 0
    finally:
        watchdog.cancel()
        child.kill()
        child.wait()
        receiver.close()


if __name__ == "__main__":
    sender_main()
