"""tersor.torch on the CPU: packed weights, operators, layers."""

from __future__ import annotations

import copy
import io
import pickle

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

import tersor  # noqa: E402
import tersor.torch as tt  # noqa: E402
from tersor import _core  # noqa: E402

DTYPES = [torch.bfloat16, torch.float16]
ESCAPES = _core.DEFAULT_INLINE_ESCAPES


def weights(rows=200, cols=320, dtype=torch.bfloat16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(rows, cols, generator=generator) * 0.02).to(dtype)


def inputs(*shape, dtype=torch.bfloat16, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def bits(t):
    return t.detach().contiguous().view(torch.int16)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))


def flipped(data, at):
    out = data.clone()
    out[at] ^= 1
    return out


# ---- PackedWeight ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (64, 64), (200, 320), (157, 251)])
def test_packed_weight(dtype, shape):
    w = weights(*shape, dtype=dtype)
    p = tt.PackedWeight.pack(w)
    assert same(p.unpack(), w) and same(p.unpack(check=False), w)
    assert (p.shape, p.dtype, p.layout, p.device) == (shape, dtype, "packed", torch.device("cpu"))
    assert p.nbytes == p.data.numel() == len(p.to_bytes()) == p.info.n_bytes
    assert p.to_bytes() == bytes(
        _core.pack(tersor.default_context(), w.view(torch.uint8).numpy(), p.info.dtype, *shape)
    )
    assert tersor.kind(p.data) == "matrix" and repr(p).startswith("PackedWeight(")
    for given in (p.to_bytes(), bytearray(p.to_bytes()), tersor.Buffer(p.to_bytes()), p.data, p.data.numpy()):
        assert same(tt.PackedWeight.from_bytes(given).unpack(), w)
    assert same(p.to("cpu").unpack(), w)
    assert same(pickle.loads(pickle.dumps(p)).unpack(), w) and same(copy.deepcopy(p).unpack(), w)


def test_packed_weight_of_other_strides():
    w = weights(128, 256)
    for view in (w.t(), w[::2], w[:, ::2], w[:, 64:128], w[5:70], w.t()[3:], w[:1].expand(64, 256), w.flip(0)):
        assert same(tt.PackedWeight.pack(view).unpack(), view)
    assert same(tt.PackedWeight.pack(nn.Parameter(w)).unpack(), w)
    assert tt.PackedWeight.pack(w, inline_escapes=128).info.inline_escapes == 128


def test_every_bit_pattern():
    every = torch.arange(65536, dtype=torch.int32).to(torch.int16).reshape(256, 256)
    for dtype in DTYPES:
        w = every.view(dtype)
        assert same(tt.PackedWeight.pack(w).unpack(), w)


def test_tcatbe_is_stored_but_not_multiplied():
    w = weights()
    p = tt.PackedWeight.pack(w, layout="tcatbe")
    assert p.layout == "tcatbe" and same(p.unpack(), w)
    with pytest.raises(tersor.UnsupportedError):
        tt.linear(inputs(3, 320), p)
    with pytest.raises(tersor.UnsupportedError):
        tt.Linear(320, 200).load_packed(p)


def test_what_is_not_packed():
    for wrong in (torch.zeros(3, 3), torch.zeros(3, 3, dtype=torch.int8), torch.zeros(3, 3, dtype=torch.float8_e4m3fn)):
        with pytest.raises(tersor.UnsupportedError):
            tt.PackedWeight.pack(wrong)
    for wrong in (weights()[0], weights()[None], weights()[:0], weights()[:, :0]):
        with pytest.raises(tersor.InvalidArgumentError):
            tt.PackedWeight.pack(wrong)
    with pytest.raises(tersor.InvalidArgumentError):
        tt.PackedWeight.pack(weights(), layout="square")
    with pytest.raises(tersor.InvalidArgumentError):
        tt.PackedWeight.pack(weights().to("meta"))


def test_damaged_packed_weights():
    p = tt.PackedWeight.pack(weights())
    header_fault = flipped(p.data, 20)
    body_fault = flipped(p.data, p.nbytes // 2)
    with pytest.raises(tersor.DigestMismatchError):
        tt.PackedWeight.from_bytes(header_fault)
    with pytest.raises(tersor.DigestMismatchError) as caught:
        tt.PackedWeight.from_bytes(body_fault).unpack()
    assert caught.value.chunk is not None
    with pytest.raises(tersor.DigestMismatchError):
        tt.linear(inputs(2, 320), tt.PackedWeight.from_bytes(body_fault))
    for data, kind in (
        (p.data[:-1], tersor.TruncatedError),
        (p.data[:100], tersor.TruncatedError),
        (p.data[:0], tersor.TruncatedError),
        (torch.zeros(400, dtype=torch.uint8), tersor.BadMagicError),
        (p.data.view(torch.int8), tersor.InvalidArgumentError),
        (p.data.reshape(1, -1), tersor.InvalidArgumentError),
    ):
        with pytest.raises(kind):
            tt.PackedWeight.from_bytes(data)


# ---- linear ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("exact", [False, True])
def test_linear_is_that_of_torch(dtype, exact):
    w, bias = weights(dtype=dtype), inputs(200, dtype=dtype, seed=4)
    p = tt.PackedWeight.pack(w)
    for shape in ((320,), (1, 320), (7, 320), (2, 3, 320), (0, 320), (2, 0, 320)):
        x = inputs(*shape, dtype=dtype)
        assert same(tt.linear(x, p, exact=exact), F.linear(x, w))
        assert same(tt.linear(x, p, bias, exact), F.linear(x, w, bias))
    strided = inputs(320, 9, dtype=dtype).t()
    assert same(tt.linear(strided, p), F.linear(strided, w))


def test_linear_refuses():
    p = tt.PackedWeight.pack(weights())
    for x in (
        inputs(3, 319),
        inputs(3, 320, dtype=torch.float16),
        inputs(3, 320).float(),
        torch.tensor(1.0).bfloat16(),
    ):
        with pytest.raises(tersor.InvalidArgumentError):
            tt.linear(x, p)
    with pytest.raises(tersor.MismatchError):
        torch.ops.tersor.linear(inputs(3, 320), p.data, 100, 320, ESCAPES)
    with pytest.raises(tersor.MismatchError):
        torch.ops.tersor.unpack(p.data, torch.float16, 200, 320, ESCAPES)


def test_gradients_of_input_and_bias():
    w, p = weights(), tt.PackedWeight.pack(weights())
    found = []
    for call in (lambda x, b: tt.linear(x, p, b), lambda x, b: F.linear(x, w, b)):
        x, b = inputs(2, 5, 320).requires_grad_(), inputs(200, seed=3).requires_grad_()
        (call(x, b) * inputs(2, 5, 200, seed=9)).sum().backward()
        found.append((x.grad, b.grad))
    assert same(found[0][0], found[1][0])
    assert torch.allclose(found[0][1].float(), found[1][1].float(), rtol=0.02, atol=0.02)
    x = inputs(4, 320).requires_grad_()
    tt.linear(x, p).sum().backward()
    assert x.grad is not None and not p.data.requires_grad
    b = inputs(200).requires_grad_()
    tt.linear(inputs(4, 320), p, b).sum().backward()
    assert same(b.grad, torch.full((200,), 4.0, dtype=torch.bfloat16))


# ---- operators ----


def operators():
    w = weights(128, 192)
    p = tt.PackedWeight.pack(w)
    frame, _ = torch.ops.tersor.encode(w, "rank")
    experts = tt.PackedExperts(torch.stack([weights(64, 64, seed=i) for i in range(3)]))
    first = torch.tensor([0, 2, 2, 5], dtype=torch.int32)
    return {
        "linear": (inputs(3, 192).requires_grad_(), p.data, 128, 192, ESCAPES),
        "linear bias": (inputs(2, 3, 192), p.data, 128, 192, ESCAPES, inputs(128).requires_grad_(), True),
        "unpack": (p.data, torch.bfloat16, 128, 192, ESCAPES),
        "encode": (w, "top16"),
        "encode book": (w, "rank", torch.arange(112, 128, dtype=torch.uint8)),
        "decode": (frame, "rank", torch.bfloat16, [128, 192]),
        "grouped_linear": (inputs(5, 64), experts.weight.data, 64, 64, experts.escapes, first),
        "unpack_experts": (experts.weight.data, experts.headers),
    }


@pytest.mark.parametrize("name", list(operators()))
def test_opcheck(name):
    operator = getattr(torch.ops.tersor, name.split()[0]).default
    torch.library.opcheck(operator, operators()[name])


def test_frames_of_the_operators():
    for dtype in (*DTYPES, torch.float8_e4m3fn, torch.float8_e5m2):
        w = weights().float().to(dtype)
        for codec in ("rank", "top16"):
            frame, result = torch.ops.tersor.encode(w, codec)
            n_bytes = int(result.view(torch.int64)[1])
            assert int(result.view(torch.int32)[0]) == 0
            assert tersor.decode(frame[:n_bytes]).data == w.view(torch.uint8).numpy().tobytes()
            out, verdict = torch.ops.tersor.decode(frame, codec, dtype, [200, 320])
            assert torch.equal(out.view(torch.uint8), w.view(torch.uint8))
            assert int(verdict.view(torch.int32)[0]) == 0
    with pytest.raises(tersor.UnsupportedError):
        torch.ops.tersor.encode(torch.zeros(4, dtype=torch.int32), "rank")
    frame, _ = torch.ops.tersor.encode(weights(), "rank")
    with pytest.raises(tersor.MismatchError):
        torch.ops.tersor.decode(frame, "rank", torch.float16, [200, 320])
    with pytest.raises(tersor.DigestMismatchError):
        torch.ops.tersor.decode(flipped(frame, 9000), "rank", torch.bfloat16, [200, 320])


def test_compile_in_one_graph():
    w, p = weights(), tt.PackedWeight.pack(weights())
    layer = tt.Linear.from_linear(plain_layer())
    calls = {
        "function": (lambda x: tt.linear(x, p) + 1, lambda x: F.linear(x, w) + 1),
        "layer": (lambda x: layer(x) * 2, lambda x: plain_layer()(x) * 2),
    }
    for mine, reference in calls.values():
        torch._dynamo.reset()
        compiled = torch.compile(mine, backend="aot_eager", fullgraph=True)
        for n in (1, 5):
            assert same(compiled(inputs(n, 320)), reference(inputs(n, 320)))
    x = inputs(3, 320).requires_grad_()
    torch.compile(calls["function"][0], backend="aot_eager", fullgraph=True)(x).sum().backward()
    y = inputs(3, 320).requires_grad_()
    F.linear(y, w).sum().backward()
    assert same(x.grad, y.grad)


def test_layers_of_one_shape_share_a_graph():
    layers = [tt.Linear.from_linear(plain_layer(seed=i)) for i in range(4)]
    assert len({layer.weight.numel() for layer in layers}) == 1
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(lambda layer, x: layer(x), backend=counter, fullgraph=True)
    for i, layer in enumerate(layers):
        assert same(compiled(layer, inputs(2, 320)), plain_layer(seed=i)(inputs(2, 320)))
    assert counter.frame_count == 1


# ---- Linear ----


def plain_layer(rows=200, cols=320, bias=True, dtype=torch.bfloat16, seed=0):
    layer = nn.Linear(cols, rows, bias=bias, dtype=dtype)
    layer.weight.data = weights(rows, cols, dtype, seed)
    if bias:
        layer.bias.data = inputs(rows, dtype=dtype, seed=seed + 20)
    return layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_layer(dtype, bias):
    plain = plain_layer(bias=bias, dtype=dtype)
    layer = tt.Linear.from_linear(plain)
    x = inputs(4, 320, dtype=dtype)
    assert same(layer(x), plain(x)) and same(layer.unpacked(), plain.weight)
    assert (layer.in_features, layer.out_features, layer.bias is plain.bias) == (320, 200, True)
    assert layer.weight.dtype == torch.uint8 and layer.weight.dim() == 1 and not layer.weight.requires_grad
    again = layer.dequantize()
    assert type(again) is nn.Linear and same(again.weight, plain.weight) and again.bias is plain.bias
    assert "in_features=320, out_features=200" in repr(layer) and "bits a weight" in repr(layer)
    assert layer.packed.nbytes <= layer.weight.numel()
    assert not tt.Linear.from_linear(plain.eval()).training
    with pytest.raises(tersor.InvalidArgumentError):
        layer(x.float())


def test_state_dict():
    plain = plain_layer()
    layer = tt.Linear.from_linear(plain)
    x = inputs(4, 320)
    state = layer.state_dict()
    assert set(state) == {"weight", "bias"} and tersor.kind(state["weight"]) == "matrix"
    fresh = tt.Linear(320, 200)
    with pytest.raises(tersor.InvalidArgumentError):
        _ = fresh.header
    fresh.load_state_dict(state)
    assert same(fresh(x), plain(x))
    assert fresh.weight.data_ptr() != layer.weight.data_ptr()
    exact_bytes = {**state, "weight": layer.packed.data[: layer.packed.nbytes]}
    shorter = tt.Linear(320, 200)
    shorter.load_state_dict(exact_bytes)
    assert same(shorter(x), plain(x)) and shorter.weight.numel() == layer.weight.numel()
    meta = tt.Linear(320, 200, device="meta")
    meta.load_state_dict(state, assign=True)
    assert same(meta(x), plain(x))
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert same(copied(x), plain(x)) and same(copied.unpacked(), plain.weight)


def test_torch_save(tmp_path):
    layer, x = tt.Linear.from_linear(plain_layer()), inputs(4, 320)
    torch.save(layer.state_dict(), tmp_path / "state.pt")
    for mmap in (False, True):
        fresh = tt.Linear(320, 200)
        fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True, mmap=mmap))
        assert same(fresh(x), layer(x))
    whole = io.BytesIO()
    torch.save(layer, whole)
    whole.seek(0)
    assert same(torch.load(whole, weights_only=False)(x), layer(x))


def test_state_dicts_that_do_not_fit():
    layer = tt.Linear.from_linear(plain_layer())
    state = layer.state_dict()
    wrong = {
        "another shape": tt.Linear.from_linear(plain_layer(128, 320)).state_dict()["weight"],
        "another dtype": tt.Linear.from_linear(plain_layer(dtype=torch.float16)).state_dict()["weight"],
        "plain": plain_layer().weight.data,
        "damaged": flipped(state["weight"], 40),
        "cut": state["weight"][:1000],
    }
    for weight in wrong.values():
        fresh = tt.Linear(320, 200)
        with pytest.raises(RuntimeError, match="weight"):
            fresh.load_state_dict({**state, "weight": weight})
    for strict in (True, False):
        fresh = tt.Linear(320, 200)
        if strict:
            with pytest.raises(RuntimeError, match="Missing"):
                fresh.load_state_dict({"bias": state["bias"]})
        else:
            assert fresh.load_state_dict({"bias": state["bias"]}, strict=False).missing_keys == ["weight"]
    with pytest.raises(tersor.MismatchError):
        tt.Linear(320, 128).load_packed(layer.packed)


def test_weight_set_from_outside():
    layer, other = tt.Linear.from_linear(plain_layer()), tt.Linear.from_linear(plain_layer(seed=5))
    layer.weight = nn.Parameter(other.weight.data.clone(), requires_grad=False)
    layer.settle()
    assert same(layer(inputs(2, 320)), F.linear(inputs(2, 320), weights(seed=5), layer.bias))
    layer.weight = nn.Parameter(flipped(other.weight.data, 30), requires_grad=False)
    with pytest.raises(tersor.DigestMismatchError):
        layer.settle()


def test_moves_keep_the_bytes():
    layer = tt.Linear.from_linear(plain_layer(dtype=torch.float16))
    before = layer.weight.data.clone()
    layer.to("cpu").half()
    assert torch.equal(layer.weight.data, before)
    assert layer.to(torch.float16).weight.dtype == torch.uint8
