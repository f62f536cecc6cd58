"""tersor.transfer: what is sent is what comes, complete, once, or not at all."""

from __future__ import annotations

import math
import threading
import time
import urllib.request

import numpy as np
import pytest
from kv_support import DTYPES, normal, to_torch, torch
from transfer_support import QUICK, bits, cache, same

import tersor
from tersor import transfer
from tersor.transfer import Receiver, Region, Sender


@pytest.fixture
def receiver():
    with Receiver(timeouts=QUICK) as made:
        yield made


@pytest.fixture
def sender(receiver):
    with Sender(*receiver.address, timeouts=QUICK) as made:
        yield made


@pytest.mark.parametrize("codec", ["auto", "raw", "top16", "rank"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_round_trip(receiver, codec, dtype):
    sent = cache(dtype=dtype)
    with Sender(*receiver.address, codec=codec) as sender:
        report = sender.send(1, sent, note=b"blocks 3, 4")
    got = receiver.wait(1, 0)
    assert same(got, sent) and got.note == b"blocks 3, 4" and got.request_id == 1
    size = sum(x.numel() * x.element_size() for x in sent.values())
    assert report["raw_bytes"] == size and report["parts"] == 6 and report["resumptions"] == 0
    assert report["sent_bytes"] < size + 10_000 and (codec != "rank" or report["sent_bytes"] < 0.97 * size)
    coded = "raw_parts" if codec == "raw" else f"{codec}_parts"
    # FP8 frames of top16 may be no smaller than raw ones, which are sent in their place.
    assert codec == "auto" or dtype.startswith("F8") or report[coded] == 6
    assert {(r.layer, r.kind) for r in got.regions.values()} == {(i, k) for i in range(3) for k in "KV"}


def test_kinds_of_arrays(receiver, sender):
    sent = {
        "numpy": normal((33, 5)),
        "strided": normal((40, 6))[::2, 1::3],
        "torch": to_torch(normal((7, 3), "F16"), "F16"),
        "transposed": to_torch(normal((7, 3)), "BF16").t(),
        "ids": np.arange(9),
        "flags": np.array([True, False]),
        "scalar": np.float32(2.5),
        "empty": torch.empty(0, 4),
        "nothing": np.empty((3, 0), np.float16),
    }
    sender.send(2, sent | {"bytes": b"abc", "buffer": tersor.encode(b"x" * 100)})
    got = receiver.wait(2, 0)
    for name, array in sent.items():
        assert bits(got.numpy(name)) == bits(got.torch(name)) == bits(array), name
        assert got.numpy(name).shape == tuple(array.shape) == tuple(got.torch(name).shape)
    assert bytes(got.numpy("bytes")) == b"abc" and len(got["buffer"]) > 100
    assert isinstance(got["numpy"], torch.Tensor)
    got.torch("numpy")[0, 0] = 3
    assert got.numpy("numpy")[0, 0] == 3
    with pytest.raises(KeyError):
        got["other"]


def test_a_request_of_nothing(receiver, sender):
    assert sender.send(2**64 - 1, {}, note=b"\0" * 65536)["parts"] == 0
    assert dict(receiver.wait(2**64 - 1, 0)) == {}
    for wrong in (-1, 2**64, "7"):
        with pytest.raises(TypeError):
            sender.send(wrong, {})
    with pytest.raises(tersor.InvalidArgumentError, match="64 KiB"):
        sender.send(1, {}, note=b"\0" * 65537)
    with pytest.raises(tersor.InvalidArgumentError, match="a name is a string"):
        sender.send(1, {7: normal((3,))})


def test_arrays_as_told():
    for kind, made in (("numpy", np.ndarray), ("torch", torch.Tensor)):
        with Receiver(arrays=kind) as receiver, Sender(*receiver.address) as sender:
            sender.send(1, {"a": normal((5,))})
            assert isinstance(receiver.wait(1)["a"], made)
    with pytest.raises(tersor.InvalidArgumentError, match="'jax'"):
        Receiver(arrays="jax")


@pytest.mark.parametrize(
    ("name", "layer", "kind"),
    [
        ("layers.3.k", 3, "K"), ("model.layers.12.self_attn.v", 12, "V"), ("h/7/value", 7, "V"), ("5.key_cache", 5, "K"),
        ("kv", 0, "other"), ("layers.2.mlp", 2, "other"), ("v2.layers.4.k", 4, "K"), ("layers.99999999999.k", 0, "K"),
    ],
)  # fmt: skip
def test_names(receiver, sender, name, layer, kind):
    sender.send(1, {name: normal((8,))})
    region = receiver.wait(1).regions[name]
    assert (region.layer, region.kind) == (layer, kind)


def test_what_is_given_comes_before_the_name(receiver, sender):
    sent = {"layers.1.k": normal((64, 4)), "x": normal((3,))}
    book = tersor._core.make_codebook(
        "BF16", tersor._core.count_symbols(tersor.default_context(), "BF16", bits(sent["x"]))
    )
    sender.send(1, sent, layers={"x": 9}, kinds={"x": "V"}, page_bytes=16, codebooks={"x": book})
    regions = receiver.wait(1).regions
    assert regions["x"] == Region("x", 9, "V", "BF16", (3,), 16, book) and regions["layers.1.k"].codebook is None
    with pytest.raises(tersor.InvalidArgumentError, match="'query'"):
        sender.send(2, sent, kinds={"x": "query"})
    with pytest.raises(tersor.InvalidArgumentError, match="whole values"):
        sender.send(3, sent, page_bytes=3)
    with pytest.raises(tersor.UnsupportedError):
        sender.send(4, {"x": np.empty(3, complex)})


def test_large_tensors_are_cut(receiver):
    sent = {"layers.0.k": to_torch(normal((1000, 1031)), "BF16")}
    with Sender(*receiver.address, part_bytes=1 << 18) as sender:
        assert sender.send(1, sent)["parts"] == math.ceil(1000 * 1031 * 2 / (1 << 18))
    assert same(receiver.wait(1), sent)


def test_layer_by_layer(receiver, sender):
    """What was put travels while the next is made."""
    sent = cache()
    specs = {name: x if i % 2 else ("BF16", x.shape) for i, (name, x) in enumerate(sent.items())}
    with sender.begin(5, specs) as t:
        for n, (name, x) in enumerate(sent.items()):
            t.put(name, x)
            until = time.monotonic() + 10
            while receiver.counters()["parts"] < n + 1:
                assert time.monotonic() < until, "it waits for all"
                time.sleep(0.002)
        with pytest.raises(tersor.NotFoundError):
            receiver.wait(6, 0)
    assert t.report is not None and t.report["parts"] == 6
    assert same(receiver.wait(5), sent)


def test_layers_in_any_order(receiver, sender):
    sent = cache()
    with sender.begin(5, [Region(n, 0, "other", "BF16", tuple(x.shape)) for n, x in sent.items()]) as t:
        for name in reversed(sent):
            t.put(name, sent[name])
    assert same(receiver.wait(5, 0), sent)


def test_wrong_puts(receiver, sender):
    sent = cache(1)
    with sender.begin(5, sent) as t:
        t.put("layers.0.k", sent["layers.0.k"])
        with pytest.raises(tersor.InvalidArgumentError, match="before"):
            t.put("layers.0.k", sent["layers.0.k"])
        with pytest.raises(tersor.NotFoundError, match=r"layers\.1\.k"):
            t.put("layers.1.k", sent["layers.0.k"])
        with pytest.raises(tersor.MismatchError, match=r"BF16 \[128, 4, 64\], this is F32 \[128, 4, 64\]"):
            t.put("layers.0.v", sent["layers.0.v"].float())
        t.put("layers.0.v", sent["layers.0.v"])
    assert same(receiver.wait(5, 0), sent)
    region = Region("x", 0, "K", "BF16", (3,))
    with pytest.raises(tersor.InvalidArgumentError, match="same name"):
        sender.begin(6, [region, region])


@pytest.mark.parametrize("how", ["raises", "forgets", "cancels"])
def test_unfinished_requests_never_appear(receiver, sender, how):
    sent = cache()
    raised = {"raises": ZeroDivisionError, "forgets": tersor.InvalidArgumentError, "cancels": tersor.CancelledError}
    with pytest.raises(raised[how]), sender.begin(5, sent) as t:
        t.put("layers.0.k", sent["layers.0.k"])
        if how == "raises":
            _ = 1 / 0
        if how == "cancels":
            t._missing.clear()
            t.cancel()
    with pytest.raises(tersor.NotFoundError, match=r"request 5 did not come in 0\.2 seconds"):
        receiver.wait(5, 0.2)
    sender.send(6, sent)
    assert same(receiver.wait(6, 0), sent)


def test_put_says_what_ended_the_request(receiver, sender):
    sender.send(5, {"a": normal((3,))})
    with pytest.raises(tersor.AlreadyExistsError), sender.begin(5, {"a": ("BF16", (3,))}) as t:
        time.sleep(0.5)
        t.put("a", normal((3,)))


# ---- memory of the caller's ----


def test_allocate_into_a_cache():
    """Parts are decoded into places of an existing cache; the arrays that come are these."""
    pool = torch.zeros(4, 2, 128, 4, 64, dtype=torch.bfloat16)
    asked, published = [], []

    def allocate(request_id, regions, note):
        asked.append((request_id, [r.name for r in regions], note))
        block = int.from_bytes(note, "little")
        return {r.name: pool[block][int(r.kind == "V")] for r in regions}

    sent = cache(1)
    with Receiver(allocate=allocate, on_published=published.append) as receiver, Sender(*receiver.address) as sender:
        sender.send(7, sent, note=bytes([2]))
        got = receiver.wait(7, 0)
        assert got["layers.0.k"].data_ptr() == pool[2, 0].data_ptr() and same(got, sent)
        assert asked == [(7, list(sent), bytes([2]))] and published == [7]
    assert bits(pool[2, 1]) == bits(sent["layers.0.v"]) and not pool[[0, 1, 3]].any()


def read_only(n: int) -> np.ndarray:
    made = np.empty(n, np.uint8)
    made.flags.writeable = False
    return made


@pytest.mark.parametrize(
    ("give", "says"),
    [
        (lambda n: {"a": np.empty(n - 1, np.uint8)}, "another size for 'a'"),
        (lambda n: {"a": np.empty(2 * n, np.uint8)[::2]}, "not contiguous"),
        (lambda n: {"a": read_only(n)}, "read-only"),
        (lambda n: {"b": np.empty(n, np.uint8)}, "no memory for a region"),
        (lambda n: [np.empty(n, np.uint8)], "no memory for a region"),
        (lambda n: {"a": bytearray(n)}, "bytearray"),
        (lambda n: 1 / 0, "division by zero"),
        (lambda n: (_ for _ in ()).throw(tersor.OutOfMemoryError("all blocks are used")), "all blocks are used"),
    ],
)
def test_allocate_gives_nothing_of_use(give, says):
    with Receiver(allocate=lambda _, regions, note: give(regions[0].n_bytes)) as receiver:
        with Sender(*receiver.address) as sender, pytest.raises(tersor.Error, match=says) as refused:
            sender.send(1, {"a": normal((50,))})
        assert isinstance(refused.value, tersor.OutOfMemoryError) == ("blocks" in says)
        with pytest.raises(tersor.NotFoundError):
            receiver.wait(1, 0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_on_published_raises():
    with Receiver(on_published=lambda request_id: 1 / 0) as receiver, Sender(*receiver.address) as sender:
        sender.send(1, cache(1))
        assert same(receiver.wait(1, 0), cache(1))


# ---- waiting ----


def test_wait_any_and_threads(receiver):
    """Several senders at once; every request comes once."""

    def send(n: int) -> None:
        with Sender(*receiver.address) as sender:
            for i in range(6):
                sender.send(100 * n + i, cache(1, seed=100 * n + i))

    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    got = [receiver.wait_any(20) for _ in range(24)]
    for thread in threads:
        thread.join()
    assert sorted(g.request_id for g in got) == [100 * n + i for n in range(4) for i in range(6)]
    assert all(same(g, cache(1, seed=g.request_id)) for g in got)
    with pytest.raises(tersor.NotFoundError):
        receiver.wait_any(0)


def test_close_wakes_who_waits():
    receiver = Receiver()
    raised = []

    def wait() -> None:
        try:
            receiver.wait(1)
        except tersor.CancelledError as e:
            raised.append(e)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    receiver.close()
    receiver.close()
    thread.join(5)
    assert len(raised) == 1


def test_published_requests_outlive_the_connection():
    with Receiver() as receiver:
        with Sender(*receiver.address) as sender:
            sender.send(1, cache(1))
        receiver.close()
        assert same(receiver.wait(1, 0), cache(1))


def test_progress(receiver):
    seen = []
    with Sender(*receiver.address, codec="raw") as sender:
        with sender.begin(1, cache(1), progress=lambda done, total: seen.append((done, total))) as t:
            t.put("layers.0.k", cache(1)["layers.0.k"])
            time.sleep(0.3)
            t.put("layers.0.v", cache(1)["layers.0.v"])
        assert seen and seen[0] == (65536, 131072)
        with pytest.raises(ZeroDivisionError), sender.begin(2, cache(1), progress=lambda done, total: 1 / 0) as t:
            t.put("layers.0.k", cache(1)["layers.0.k"])
            time.sleep(0.3)
            t.put("layers.0.v", cache(1)["layers.0.v"])
        with pytest.raises(tersor.NotFoundError):
            receiver.wait(2, 0)


def test_metrics(receiver, sender):
    sender.send(1, cache(1))
    host, port = receiver.serve_metrics()
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert "tersor_transfer_" in text and 'role="receiver"' in text
    assert receiver.metrics().splitlines()[0] in text
    assert receiver.counters()["requests_published"] == 1


def test_transports():
    found = {t["name"]: t for t in transfer.transports()}
    assert found["tcp"]["available"] and all(t["detail"] for t in found.values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensors_on_a_gpu(receiver, sender):
    sent = {name: x.cuda() for name, x in cache().items()}
    sender.send(1, sent)
    assert same(receiver.wait(1, 0), {name: x.cpu() for name, x in sent.items()})
