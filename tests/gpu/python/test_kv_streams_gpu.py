"""tersor.kv on an NVIDIA GPU: nothing waits, streams and threads, CUDA graphs."""

from __future__ import annotations

import threading

import pytest
from kv_support_gpu import normal, same, torch

import tersor
from tersor import kv


@pytest.fixture
def never_waits():
    """Raises from anything in the test that makes the host wait for the GPU."""

    class Guard:
        def __enter__(self):
            torch.cuda.set_sync_debug_mode("error")

        def __exit__(self, *what):
            torch.cuda.set_sync_debug_mode("default")

    yield Guard()
    torch.cuda.set_sync_debug_mode("default")


# ---- waiting, streams, threads ----


def test_encoding_and_decoding_do_not_wait(never_waits):
    x = normal((4096, 1024))
    one, exact, out = kv.Codec(), kv.Codec(), torch.empty_like(x)
    one.calibrate(x)
    for codec in (one, exact):
        codec.decode(codec.encode(x))  # the codec's workspace is there now
        torch.cuda._sleep(50_000_000)
        with never_waits:
            encoded = codec.encode(x)
            decoding = codec.decode(encoded, out, check=False)
        assert not decoding.ready()
        assert decoding.check() is out and decoding.ready() and same(x, out)
        assert encoded.ratio > 1.4


def test_a_frame_is_ready_before_another_stream_decodes_it():
    one = kv.Codec()
    a, b = torch.cuda.Stream(), torch.cuda.Stream()
    for seed in range(20):
        x = normal((1024, 513), seed=seed)
        torch.cuda.synchronize()
        with torch.cuda.stream(a):
            torch.cuda._sleep(20_000_000)
            encoded = one.encode(x)
        with torch.cuda.stream(b):
            y = one.decode(encoded)
        assert same(x, y)
        with torch.cuda.stream(a):
            torch.cuda._sleep(20_000_000)
            encoded = one.encode(x)
        data = encoded.to_bytes()  # on the default stream
        assert same(x.cpu(), kv.Codec().decode(kv.Encoded.from_bytes(data), kind="torch"))


def test_threads_with_streams_share_a_codec():
    one, wrong = kv.Codec(), []

    def work(seed: int) -> None:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for i in range(30):
                x = normal((100 + seed, 300 + i), seed=seed * 100 + i)
                if not same(x, one.decode(one.encode(x))):
                    wrong.append((seed, i))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ---- CUDA graphs ----


@pytest.mark.parametrize("codec", ["rank", "top16"])
@pytest.mark.parametrize("calibrated", [False, True])
@pytest.mark.parametrize("canonical", [False, True])
def test_a_graph_replays_encoding_and_decoding(codec, calibrated, canonical):
    one = kv.Codec(codec=codec, canonical=canonical)
    x = normal((512, 640))
    if calibrated:
        one.calibrate(x)
    room, out = one.allocate(x), torch.zeros_like(x)
    one.decode(one.encode(x, out=room), out)
    from_host = kv.Codec().encode(x.cpu())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        one.encode(x, out=room)
        decoding = one.decode(room, out, check=False)
        with pytest.raises(tersor.InvalidArgumentError):
            _ = room.compressed_bytes
        with pytest.raises(tersor.InvalidArgumentError):
            decoding.check()
        with pytest.raises(tersor.InvalidArgumentError):
            one.decode(from_host, out)
    for seed in range(1, 30):
        x.copy_(normal((512, 640), seed=seed) * (1 if calibrated else seed))
        out.zero_()
        graph.replay()
        assert decoding.check() is out and same(x, out)
        assert room.compressed_bytes == room.info.frame_bytes < room.original_bytes
        if canonical:
            wanted = kv.Codec(codec=codec, codebooks=one.codebooks).encode(x.cpu())
            assert room.to_bytes() == wanted.to_bytes()


def test_a_graph_needs_no_preallocated_memory():
    one, x = kv.Codec(), normal((300, 1000))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        encoded = one.encode(x)
        decoding = one.decode(encoded, check=False)
    for seed in range(5):
        x.copy_(normal((300, 1000), seed=seed))
        graph.replay()
        assert same(x, decoding.check()) and same(x.cpu(), kv.Codec(device="cpu").decode(encoded))


def test_replays_take_no_memory():
    one, x = kv.Codec(), normal((512, 640))
    room, out = one.allocate(x), torch.zeros_like(x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        one.encode(x, out=room)
        decoding = one.decode(room, out, check=False)
    graph.replay()
    decoding.check()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    for _ in range(1000):
        graph.replay()
    torch.cuda.synchronize()
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before
    assert decoding.check() is out and same(x, out)


def test_a_graph_finds_damage_at_each_replay():
    one, x = kv.Codec(), normal((512, 640))
    frame = one.encode(x).tensor().clone()
    encoded = kv.Encoded.from_tensor(frame, dtype="BF16", shape=(512, 640))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        decoding = one.decode(encoded, check=False)
    graph.replay()
    assert same(x, decoding.check())
    frame[30_000] ^= 8
    graph.replay()
    with pytest.raises(tersor.DigestMismatchError):
        decoding.check()
    frame[30_000] ^= 8
    graph.replay()
    assert same(x, decoding.check())


def test_given_memory():
    one, x = kv.Codec(), normal((64, 64))
    room = one.allocate(x)
    for call in (lambda: room.compressed_bytes, room.to_bytes, room.wait, lambda: one.decode(room)):
        with pytest.raises(tersor.InvalidArgumentError):
            call()
    for wrong in (normal((64, 65)), normal((64, 64), "F16"), x.cpu()):
        with pytest.raises(tersor.MismatchError):
            one.encode(wrong, out=room)
    with pytest.raises(tersor.MismatchError):
        kv.Codec(codec="top16").encode(x, out=room)
    with pytest.raises(tersor.InvalidArgumentError):
        one.encode(x, out=one.encode(x))
