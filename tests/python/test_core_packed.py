"""Codebooks, digests and packed matrices through the package's own calls."""

from __future__ import annotations

import pickle

import ml_dtypes
import numpy as np
import pytest
from test_core import CODECS, expect, values

import tersor
from tersor import _core

CONTEXT = tersor.default_context()


# ---- codebooks ----


def test_histogram():
    x = values("BF16")
    h = _core.count_symbols(CONTEXT, "BF16", x.view(np.uint8))
    want = np.bincount((x.view(np.uint16).reshape(-1) >> 7) & 255, minlength=256)
    assert h.counts == want.tolist()
    assert h.total() == x.size
    p = want[want > 0] / x.size
    assert h.entropy() == pytest.approx(-(p * np.log2(p)).sum())
    for k in (0, 1, 7, 16, 300):
        assert h.coverage(k) == pytest.approx(np.sort(want)[::-1][:k].sum() / x.size)
    same = pickle.loads(pickle.dumps(h))
    assert same.counts == h.counts
    h += same
    assert h.counts == (2 * want).tolist()
    empty = _core.Histogram()
    assert (empty.total(), empty.entropy()) == (0, 0)


def test_codebooks():
    x, other = values("BF16"), (values("BF16", seed=2).astype(np.float32) * 64).astype(ml_dtypes.bfloat16)
    h = _core.count_symbols(CONTEXT, "BF16", x.view(np.uint8))
    book = _core.make_codebook("BF16", h)
    order = np.argsort(-np.array(h.counts), kind="stable")
    assert isinstance(book, bytes) and list(book) == order[:16].tolist()
    assert tersor.encode(x, codebook=book) == tersor.encode(x)
    assert tersor.inspect(tersor.encode(x)).codebook == book
    expect(tersor.encode(other, codebook=book, raw_fallback=False), other, "BF16")
    bits = {c: _core.expected_bits(c, "BF16", h, book) for c in CODECS}
    assert bits["rank"] < bits["top16"] < bits["raw"]
    assert bits["raw"] == pytest.approx(16, abs=0.1)
    for codec in ("rank", "top16"):
        assert 8 * len(tersor.encode(x, codec=codec)) / x.size == pytest.approx(bits[codec], rel=0.03)


def test_digest():
    assert _core.digest_bytes(CONTEXT, 1, b"abc") == _core.digest_bytes(tersor.Context(1, "scalar"), 1, b"abc")
    assert len({_core.digest_bytes(CONTEXT, d, x) for d in (1, 2) for x in (b"abc", b"abd", b"ab")}) == 6


# ---- packed matrices ----


@pytest.mark.parametrize(("layout", "dtype"), [("packed", "BF16"), ("packed", "F16"), ("tcatbe", "BF16")])
@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (200, 320), (157, 251)])
def test_pack(layout, dtype, shape):
    x = values(dtype, shape)
    rows, cols = shape
    packed = _core.pack(CONTEXT, x.view(np.uint8), dtype, rows, cols, layout)
    info = tersor.inspect(packed)
    assert (info.layout, info.dtype, info.rows, info.cols, info.n_bytes) == (layout, dtype, rows, cols, len(packed))
    assert info.bits_per_weight == pytest.approx(8 * len(packed) / x.size)
    assert len(packed) <= _core.pack_bound(dtype, rows, cols, layout)
    assert repr(info).startswith(f"tersor.MatrixInfo({layout}, {dtype}, {rows} x {cols}")
    assert _core.inspect_packed(bytes(packed)[:128]).digest == info.digest
    out = np.zeros(x.shape, np.uint8 if x.itemsize == 1 else np.uint16)
    _core.unpack_into(CONTEXT, packed, out.view(np.uint8))
    assert out.tobytes() == x.tobytes()

    # Column major, dense and with a stride, and rows with a stride: the same matrix, the same bytes.
    turned = np.ascontiguousarray(x.T)
    assert _core.pack(CONTEXT, turned.view(np.uint8), dtype, rows, cols, layout, column_major=True) == packed
    back = np.zeros((cols, rows), np.uint16)
    _core.unpack_into(CONTEXT, packed, back.view(np.uint8), column_major=True)
    assert back.tobytes() == turned.tobytes()
    for column_major, dense in ((False, x), (True, turned)):
        outer, inner = dense.shape
        wide = np.zeros((outer, inner + 8), np.uint16)
        wide[:, :inner] = dense.view(np.uint16)
        span = wide.reshape(-1)[: (outer - 1) * wide.shape[1] + inner].view(np.uint8)
        made = _core.pack(CONTEXT, span, dtype, rows, cols, layout, column_major=column_major, stride=inner + 8)
        assert made == packed
        room = np.full_like(wide, 7)
        end = (outer - 1) * wide.shape[1] + inner
        _core.unpack_into(CONTEXT, packed, room.reshape(-1)[:end].view(np.uint8), column_major, inner + 8)
        assert room[:, :inner].tobytes() == dense.tobytes()
        assert (room[:, inner:] == 7).all()


def test_inline_escapes_and_stretched():
    x = np.random.default_rng(3).integers(0, 65536, (64, 256)).astype(np.uint16)  # every exponent: mostly escapes
    sizes = {}
    for escapes in (0, 8, 1024):
        packed = _core.pack(CONTEXT, x.view(np.uint8), "BF16", 64, 256, inline_escapes=escapes)
        info = tersor.inspect(packed)
        assert info.inline_escapes == (escapes or _core.DEFAULT_INLINE_ESCAPES)
        out = np.zeros_like(x)
        _core.unpack_into(CONTEXT, packed, out.view(np.uint8))
        assert (out == x).all()
        sizes[escapes] = info.n_overflow
    assert sizes[8] > sizes[0] > sizes[1024]
    small = tersor.inspect(_core.pack(CONTEXT, values("BF16", (64, 256)).view(np.uint8), "BF16", 64, 256))
    room = small.stretched(small.n_bytes + 1000)
    assert small.n_bytes <= room.n_bytes <= small.n_bytes + 1000
    assert (room.rows, room.cols, room.blocks_at) == (small.rows, small.cols, small.blocks_at)
    with pytest.raises(tersor.InvalidArgumentError):
        small.stretched(small.overflow_at)
