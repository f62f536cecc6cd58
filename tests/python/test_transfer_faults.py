"""tersor.transfer: who is refused, what is too large, and what faults of a network become."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
from kv_support import normal
from transfer_support import PSK, QUICK, Proxy, cache, same

import tersor
from tersor import transfer
from tersor.transfer import Geometry, Receiver, Sender


@pytest.fixture
def receiver():
    with Receiver(timeouts=QUICK) as made:
        yield made


# ---- who may send what ----


def test_geometry():
    said = Geometry("m", "r1", "kv_blocks_nhd", "BF16", 3, 16, 4, 64)
    with Receiver(expect=said, timeouts=QUICK) as receiver:
        with Sender(*receiver.address, geometry=said) as sender:
            sender.send(1, {"layers.0.k": normal((3,))})
        others = {
            "model": {"model": "n"}, "revision": {"revision": ""}, "layout": {"layout": "x"}, "dtype": {"dtype": "F16"},
            "layers": {"n_layers": 4}, "block": {"block_size": 8}, "KV heads": {"kv_heads": 1}, "head": {"head_dim": 0},
        }  # fmt: skip
        for named, change in others.items():
            other = Geometry(**{**said.__dict__, **change})
            with pytest.raises(tersor.MismatchError, match=f"refused: {named}"):
                Sender(*receiver.address, geometry=other)
        with pytest.raises(tersor.MismatchError):
            Sender(*receiver.address)
        assert receiver.last_error() is not None and same(receiver.wait(1), {"layers.0.k": normal((3,))})


def test_codebooks_agreed_on():
    books = (bytes(range(100, 116)), bytes(range(110, 126)))
    said = Geometry(codebooks=books)
    with Receiver(expect=said, timeouts=QUICK) as receiver:
        with Sender(*receiver.address, geometry=said, codec="rank") as sender:
            sender.send(1, cache(1))
            with pytest.raises(tersor.MismatchError, match=r"codebooks: region 'layers\.0\.v'"):
                sender.send(2, cache(1), codebooks={"layers.0.v": books[0]})
        for other in (Geometry(), Geometry(codebooks=books[::-1])):
            with pytest.raises(tersor.MismatchError, match="codebook"):
                Sender(*receiver.address, geometry=other)
        got = receiver.wait(1)
        assert same(got, cache(1)) and [r.codebook for r in got.regions.values()] == list(books)


def test_keys():
    with Receiver(psk=PSK, tenant="a", timeouts=QUICK) as receiver:
        with Sender(*receiver.address, psk=PSK, tenant="a") as sender:
            sender.send(1, cache(1))
        for psk, tenant in ((None, "a"), (PSK[1:], "a"), (PSK, "b")):
            with pytest.raises(tersor.Error) as refused:
                Sender(*receiver.address, psk=psk, tenant=tenant, timeouts=QUICK)
            assert PSK.hex() not in str(refused.value)
        assert same(receiver.wait(1), cache(1)) and receiver.counters()["requests_published"] == 1
    with pytest.raises(tersor.InvalidArgumentError, match=r"at least 16|16 bytes"):
        Receiver(psk=b"short")
    with pytest.raises(tersor.InvalidArgumentError, match="beyond loopback"):
        Receiver("0.0.0.0")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program")
def test_tls(tmp_path):
    if not next(t for t in transfer.transports() if t["name"] == "tls")["available"]:
        pytest.skip("a build without OpenSSL")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    files = (certificate, key, certificate)
    with Receiver(transport="tls", tls=files, timeouts=QUICK) as receiver:
        with Sender(*receiver.address, transport="tls", tls=files, timeouts=QUICK) as sender:
            sender.send(1, cache())
        assert same(receiver.wait(1), cache())
        with pytest.raises(tersor.Error):
            Sender(*receiver.address, timeouts=QUICK)


@pytest.mark.parametrize(
    "options",
    [{"codec": "zip"}, {"transport": "pigeon"}, {"timeouts": (0, 1, 1, 1)}, {"tls": ("a",)}, {"attempts": "x"}],
)
def test_wrong_options(receiver, options):
    with pytest.raises((tersor.Error, TypeError)):
        Sender(*receiver.address, **options)


def test_no_receiver():
    with Receiver() as receiver:
        address = receiver.address
    with pytest.raises(tersor.IoError):
        Sender(*address, timeouts=QUICK)


def test_memory_is_bounded():
    sent = cache(1)
    size = sum(x.numel() * 2 for x in sent.values())
    with Receiver(max_bytes=size + size // 2) as receiver, Sender(*receiver.address) as sender:
        sender.send(1, sent)
        with pytest.raises(tersor.OutOfMemoryError, match="no room"):
            sender.send(2, sent)
        with pytest.raises(tersor.DestinationTooSmallError):
            sender.send(3, cache(2))
        assert same(receiver.wait(1, 0), sent)
        sender.send(4, sent)
        assert same(receiver.wait(4, 0), sent)


# ---- faults ----


def test_a_dropped_connection_is_taken_up_again(receiver):
    sent, first = cache(4, 512), []

    def cut_once(data: bytes, n: int) -> bytes | None:
        if n > 600_000 and not first:
            first.append(n)
            return None
        return data

    with Proxy(receiver.address, cut_once) as proxy, Sender(*proxy.address, codec="raw", part_bytes=1 << 16) as sender:
        report = sender.send(1, sent)
        assert report["resumptions"] == 1 and proxy.connections == 2
    assert same(receiver.wait(1, 0), sent)
    assert receiver.counters()["resumptions"] == 1


def test_damage_is_never_a_value(receiver):
    """One flipped bit anywhere on the way: an error or a resumption, and what comes is what was sent."""
    sent, rng = cache(1), np.random.default_rng(3)
    for request in range(40):
        at, bit = int(rng.integers(0, 100_000)), 1 << int(rng.integers(8))

        def flip(data: bytes, n: int, at: int = at, bit: int = bit) -> bytes:
            if n <= at < n + len(data):
                out = bytearray(data)
                out[at - n] ^= bit
                return bytes(out)
            return data

        came = False
        with Proxy(receiver.address, flip) as proxy:
            try:
                with Sender(*proxy.address, attempts=1, timeouts=QUICK._replace(message=0.5, handshake=0.5)) as sender:
                    sender.send(request, sent)
                    came = True
            except tersor.Error:
                pass
        try:
            assert same(receiver.wait(request, 0), sent)
        except tersor.NotFoundError:
            assert not came
