"""Frames, Buffers and contexts through the package's own calls."""

from __future__ import annotations

import array
import copy
import ctypes
import math
import pickle
import sys
import threading
import time

import ml_dtypes
import numpy as np
import pytest

import tersor
from tersor import _arrays, _core

CONTEXT = tersor.default_context()
CODED = ("BF16", "F16", "F32", "F8_E4M3", "F8_E5M2")
CODECS = ("rank", "top16", "raw")
SHAPES = [(), (0,), (1,), (3, 0, 5), (2, 3, 5), (20_000,), (173, 311)]


def values(dtype: str, shape=(173, 311), seed=0) -> np.ndarray:
    """Values of every dtype; the ones with an exponent look like trained weights."""
    rng = np.random.default_rng(seed)
    target = _arrays.numpy_dtype(dtype)
    if dtype[0] in "BF" and dtype != "BOOL":
        return (rng.standard_normal(shape) * 0.02).astype(target)
    return rng.integers(0, 2 if dtype == "BOOL" else 100, shape).astype(target)


def expect(frame, x: np.ndarray, dtype: str) -> None:
    data, found, shape = tersor.decode(frame)
    assert (found, shape) == (dtype, x.shape)
    assert bytes(data) == x.tobytes()


# ---- encode and decode ----


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", list(_arrays.VALUE_BYTES))
def test_every_dtype(dtype, codec):
    for shape in SHAPES:
        x = values(dtype, shape)
        frame = tersor.encode(x, codec=codec)
        expect(frame, x, dtype)
        info = tersor.inspect(frame)
        assert (info.dtype, info.shape, info.n_values) == (dtype, shape, x.size)
        assert (info.decoded_bytes, info.frame_bytes) == (x.nbytes, len(frame))
    # A codec that would not make it smaller gives way to raw.
    assert info.codec in ((codec, "raw") if dtype in CODED else ("raw",))
    if dtype in ("BF16", "F16", "F8_E5M2") and codec == "rank":
        assert info.codec == "rank" and len(frame) < x.nbytes
    if dtype == "BF16" and codec != "raw":
        assert info.codec == codec and len(frame) < 0.77 * x.nbytes


def test_every_bit_pattern():
    every = np.arange(65536, dtype=np.uint16)
    for dtype in (ml_dtypes.bfloat16, np.float16):
        x = every.view(dtype)
        for codec in CODECS:
            for fallback in (True, False):
                frame = tersor.encode(x, codec=codec, raw_fallback=fallback)
                assert bytes(tersor.decode(frame).data) == every.tobytes()
    # Where all exponents are equally frequent there is nothing to gain.
    even = np.random.default_rng(0).permutation(every).view(ml_dtypes.bfloat16)
    assert tersor.inspect(tersor.encode(even)).codec == "raw"
    forced = tersor.inspect(tersor.encode(even, raw_fallback=False))
    assert forced.codec == "rank" and forced.raw_tiles + forced.escape_tiles > 0


@pytest.mark.parametrize(
    "of",
    [lambda x: x.T, lambda x: x[::2, ::3], lambda x: x[::-1], np.asfortranarray, lambda x: x[:, None, 5:90],
     lambda x: np.broadcast_to(x[0], (7, *x[0].shape))],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["BF16", "F32", "U8"])
def test_layouts_of_memory(dtype, of):
    x = of(values(dtype))
    expect(tersor.encode(x), np.ascontiguousarray(x), dtype)


def test_numpy_scalars_and_read_only():
    expect(tersor.encode(np.float16(3)), np.array(3, np.float16), "F16")
    x = values("BF16")
    x.flags.writeable = False
    expect(tersor.encode(x), x, "BF16")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, tersor.Buffer])
def test_plain_bytes(kind):
    x = values("BF16", (40, 50))
    given = kind(x.tobytes())
    expect(tersor.encode(given), x.view(np.uint8).reshape(-1), "U8")
    expect(tersor.encode(given, dtype="BF16"), x.reshape(-1), "BF16")
    expect(tersor.encode(given, dtype="BF16", shape=(40, 50)), x, "BF16")
    expect(tersor.encode(given, dtype="BF16", shape=[2, 20, 50]), x.reshape(2, 20, 50), "BF16")
    expect(tersor.encode(kind(b"")), np.zeros(0, np.uint8), "U8")


def test_other_objects_with_a_buffer():
    expect(tersor.encode(array.array("d", [1, 2.5])), np.array([1, 2.5]), "F64")
    expect(tersor.encode(array.array("b", [1, -2])), np.array([1, -2], np.int8), "I8")
    expect(tersor.encode((ctypes.c_uint8 * 3)(1, 2, 3)), np.array([1, 2, 3], np.uint8), "U8")
    grid = np.arange(12, dtype=np.uint8).reshape(3, 4)
    expect(tersor.encode(memoryview(grid)), grid, "U8")
    expect(tersor.encode(memoryview(np.asfortranarray(grid))), grid, "U8")
    expect(tersor.encode(memoryview(grid[:0])), grid[:0], "U8")
    expect(tersor.encode(memoryview(grid.reshape(-1)[::2])), grid.reshape(-1)[::2], "U8")


def test_dtype_reads_other_bits():
    x = values("U16", (64,))
    expect(tersor.encode(x, dtype="BF16"), x.view(ml_dtypes.bfloat16), "BF16")


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F8_E4M3", "I64", "BOOL"])
def test_torch_tensors(dtype):
    torch = pytest.importorskip("torch")
    raw = np.ascontiguousarray(values(dtype)).view(np.uint8)
    t = torch.from_numpy(raw.copy()).view(_arrays.torch_dtype(dtype))
    for each in (t, t.t(), t[::2], t[0, 0], t[:0]):
        data, found, shape = tersor.decode(tersor.encode(each))
        assert (found, shape) == (dtype, tuple(each.shape))
        assert bytes(data) == each.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    if dtype == "BF16":
        grad = t.clone().requires_grad_()
        assert tersor.encode(grad) == tersor.encode(t)
        assert tersor.encode(t._neg_view()) == tersor.encode(-t)


class Shared:
    """An array of another library: DLPack and nothing else."""

    def __init__(self, x):
        self.x = x

    def __dlpack__(self, **how):
        return self.x.__dlpack__(**how)

    def __dlpack_device__(self):
        return self.x.__dlpack_device__()


def test_dlpack_arrays():
    x = values("F16")
    expect(tersor.encode(Shared(x)), x, "F16")
    frame = tersor.encode(x)
    assert bytes(_core.decode(CONTEXT, Shared(np.from_dlpack(frame).copy()))[0]) == x.tobytes()


def test_into_memory_of_the_caller():
    x = values("BF16").view(np.uint8).reshape(-1)
    bound = _core.encode_bound("rank", "BF16", x.size // 2)
    for make in (bytearray, lambda n: np.zeros(n, np.uint8), lambda n: memoryview(bytearray(n))):
        room, out = make(bound), make(x.size)
        n = _core.encode_into(CONTEXT, x, "BF16", (173, 311), room)
        assert bytes(memoryview(room)[:n]) == bytes(_core.encode(CONTEXT, x, "BF16", (173, 311)))
        assert _core.decode_into(CONTEXT, memoryview(room)[:n], out) == x.size
        assert bytes(out) == x.tobytes()


def test_chunks():
    x = values("BF16", (50_000,))
    frame, per_chunk = tersor.encode(x), 8192
    n_chunks = tersor.inspect(frame).n_chunks
    assert n_chunks == math.ceil(x.size / per_chunk)
    for first, count in ((0, n_chunks), (2, 3), (n_chunks - 1, 1), (1, 0)):
        want = x[first * per_chunk : (first + count) * per_chunk].tobytes()
        room = bytearray(count * per_chunk * 2)
        assert _core.decode_chunks(CONTEXT, frame, first, count, room) == len(want)
        assert room[: len(want)] == want
    with pytest.raises(tersor.InvalidArgumentError):
        _core.decode_chunks(CONTEXT, frame, n_chunks, 1, bytearray(per_chunk * 2))


@pytest.mark.parametrize("wrong", ["strided", "dtype", "fortran", "read-only", "bytes"])
def test_destinations_that_cannot_be_written(wrong):
    """Never decoded into a copy that nobody sees."""
    x = values("U8", (100, 60))
    frame = tersor.encode(x)
    dst = {
        "strided": np.zeros(2 * x.nbytes, np.uint8)[::2],
        "dtype": np.zeros(x.nbytes, np.uint16),
        "fortran": np.zeros(x.shape, np.uint8, order="F"),
        "read-only": memoryview(bytearray(x.nbytes)).toreadonly(),
        "bytes": bytes(x.nbytes),
    }[wrong]
    with pytest.raises(TypeError):
        _core.decode_into(CONTEXT, frame, dst)
    assert not np.asarray(dst).any()


@pytest.mark.parametrize("wrong", ["abc", None, 5, [1, 2], np.zeros(300, np.uint16), np.zeros(600, np.uint8)[::2]])
def test_frames_that_are_no_bytes(wrong):
    for call in (tersor.decode, _core.inspect, _core.inspect_packed):
        with pytest.raises(TypeError):
            call(wrong)


def test_values_are_never_converted():
    with pytest.raises(TypeError):
        _core.encode(CONTEXT, np.full(6, 300.7, np.float32), "U8", (6,))


def test_kind():
    x = values("BF16")
    frame = tersor.encode(x)
    matrix = _core.pack(CONTEXT, x.view(np.uint8), "BF16", *x.shape)
    for of in (bytes, memoryview, lambda b: b, np.asarray):
        assert tersor.kind(of(frame)) == "frame"
        assert tersor.kind(of(matrix)) == "matrix"
        assert isinstance(tersor.inspect(of(frame)), tersor.FrameInfo)
        assert isinstance(tersor.inspect(of(matrix)), tersor.MatrixInfo)
    for other in (b"", b"TSR", bytes(200)):
        with pytest.raises(tersor.BadMagicError):
            tersor.kind(other)


def test_kind_of_a_tensor():
    torch = pytest.importorskip("torch")
    frame = torch.from_dlpack(tersor.encode(values("BF16")))
    assert tersor.kind(frame) == "frame"
    assert tersor.inspect(frame).dtype == "BF16"
    assert tersor.decode(frame).dtype == "BF16"


# ---- Buffer ----


def test_buffer_is_shared_without_copies():
    frame = tersor.encode(values("BF16"))
    address = np.asarray(frame).ctypes.data
    assert np.frombuffer(frame, np.uint8).ctypes.data == address
    assert np.from_dlpack(frame).ctypes.data == address
    assert frame.__dlpack_device__() == (1, 0)
    view = memoryview(frame)
    assert (view.format, view.ndim, view.nbytes, view.readonly) == ("B", 1, len(frame), False)
    before = frame[5] if hasattr(frame, "__getitem__") else view[5]
    view[5] ^= 1
    assert np.asarray(frame)[5] == before ^ 1


def test_buffer_and_torch():
    torch = pytest.importorskip("torch")
    frame = tersor.encode(values("BF16"))
    t = torch.from_dlpack(frame)
    assert (t.dtype, t.data_ptr()) == (torch.uint8, np.asarray(frame).ctypes.data)
    assert torch.frombuffer(frame, dtype=torch.uint8).data_ptr() == t.data_ptr()


def test_views_keep_the_bytes_alive():
    views = [
        f(tersor.encode(values("BF16", seed=i))) for i, f in enumerate([memoryview, np.asarray, np.from_dlpack] * 3)
    ]
    churn = [tersor.encode(values("F32")) for _ in range(5)]
    del churn
    for i, view in enumerate(views):
        assert bytes(tersor.decode(np.asarray(view).copy()).data) == values("BF16", seed=i).tobytes()


def test_buffer_refuses_to_copy_by_dlpack():
    with pytest.raises(BufferError):
        tersor.encode(b"abc").__dlpack__(copy=True)


def test_buffer_compares_pickles_and_prints():
    frame = tersor.encode(values("BF16"))
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(frame, protocol)) == frame
    assert copy.deepcopy(frame) == frame == bytes(frame)
    assert frame != bytes(frame)[:-1]
    assert frame != tersor.encode(values("BF16", seed=1))
    assert frame not in ("text", 3) and frame is not None
    assert repr(frame) == f"tersor.Buffer({len(frame)} bytes)"
    assert len(tersor.Buffer(b"")) == 0 and bytes(tersor.Buffer(b"ab")) == b"ab"


def test_no_leaks_of_references():
    x = values("BF16")
    tersor.decode(tersor.encode(x))
    before = sys.getrefcount(x), sys.getrefcount(CONTEXT)
    for _ in range(50):
        frame = tersor.encode(x, context=CONTEXT)
        tersor.decode(frame)
        with pytest.raises(tersor.Error):
            tersor.decode(b"")
    assert (sys.getrefcount(x), sys.getrefcount(CONTEXT)) == before
    assert sys.getrefcount(frame) <= 2


# ---- contexts and threads ----


def test_backends_write_the_same_bytes(monkeypatch):
    x = values("BF16")
    names = [b["name"] for b in tersor.backends() if b["supported"]]
    assert "scalar" in names and sum(b["chosen"] for b in tersor.backends()) == 1
    frames = {n: tersor.encode(x, context=tersor.Context(threads=2, backend=n)) for n in names}
    assert all(f == frames["scalar"] for f in frames.values())
    for name in names:
        monkeypatch.setenv("TERSOR_BACKEND", name)
        assert tersor.Context().backend == name
        assert [b["name"] for b in tersor.backends() if b["chosen"]] == [name]
    monkeypatch.setenv("TERSOR_BACKEND", "abacus")
    with pytest.raises(tersor.BackendUnavailableError):
        tersor.Context()
    assert tersor.Context(threads=1, backend="scalar").threads == 1
    assert repr(tersor.Context(3, "scalar")) == "tersor.Context(threads=3, backend='scalar')"


@pytest.mark.parametrize("context", [None, tersor.Context(threads=3)], ids=["default", "own"])
def test_threads_share_a_context(context):
    arrays = [values(CODED[i % 5], (200, 300), seed=i) for i in range(8)]
    faults = []

    def work(x):
        try:
            for _ in range(15):
                assert bytes(tersor.decode(tersor.encode(x, context=context), context=context).data) == x.tobytes()
        except BaseException as fault:
            faults.append(fault)

    threads = [threading.Thread(target=work, args=(x,)) for x in arrays]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not faults


def test_the_interpreter_goes_on_while_a_call_works():
    x = np.random.default_rng(0).integers(0, 255, 48 << 20, dtype=np.uint8)
    context = tersor.Context(threads=1, backend="scalar")
    spans = []

    def work():
        start = time.perf_counter()
        tersor.encode(x, dtype="BF16", context=context)
        spans.append((start, time.perf_counter()))

    worker = threading.Thread(target=work)
    ticks = []
    worker.start()
    while worker.is_alive():
        ticks.append(time.perf_counter())
        time.sleep(0.001)
    worker.join()
    (start, end) = spans[0]
    inside = [t for t in ticks if start + 0.1 * (end - start) < t < end - 0.1 * (end - start)]
    assert len(inside) >= 5, f"{len(inside)} steps of another thread in {end - start:.3f} s"
