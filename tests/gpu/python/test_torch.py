"""Packed weights, operators and modules on the GPU."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

import tersor
import tersor.torch
from tersor.torch import PackedWeight


def weights(rows, cols, dtype=torch.bfloat16, seed=0):
    generator = torch.Generator(device="cuda").manual_seed(seed)
    scale = torch.exp(0.3 * torch.randn(rows, 1, device="cuda", generator=generator)) * cols**-0.5
    return (torch.randn(rows, cols, device="cuda", generator=generator) * scale).to(dtype)


def same_bits(a, b):
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.view(torch.int16), b.view(torch.int16))


def assert_close_to_fp64(y, x, w, bias=None):
    right = F.linear(x.double(), w.double(), None if bias is None else bias.double())
    error = (y.double() - right).norm() / right.norm()
    library = (F.linear(x, w, bias).double() - right).norm() / right.norm()
    assert error <= 1.05 * library + 1e-6, (float(error), float(library))


SHAPES = [(64, 64), (200, 320), (1024, 4096), (4096, 1024), (6144, 4096), (1000, 136)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", SHAPES)
def test_packing_on_gpu_and_cpu_is_the_same(shape, dtype):
    w = weights(*shape, dtype)
    on_gpu = PackedWeight.pack(w)
    on_cpu = PackedWeight.pack(w.cpu())
    assert on_gpu.to_bytes() == on_cpu.to_bytes()
    assert same_bits(on_gpu.unpack(), w)
    assert same_bits(on_cpu.to("cuda").unpack(), w)


@pytest.mark.parametrize("n", [1, 2, 7, 8, 16, 31, 64, 100, 256, 257, 700])
@pytest.mark.parametrize("shape", SHAPES)
def test_products(shape, n):
    w = weights(*shape)
    packed = PackedWeight.pack(w)
    x = torch.randn(n, shape[1], device="cuda").bfloat16()
    bias = torch.randn(shape[0], device="cuda").bfloat16()
    assert_close_to_fp64(tersor.torch.linear(x, packed), x, w)
    assert_close_to_fp64(tersor.torch.linear(x, packed, bias), x, w, bias)
    assert same_bits(tersor.torch.linear(x, packed, bias, exact=True), F.linear(x, w, bias))
    first = tersor.torch.linear(x, packed)
    assert all(same_bits(first, tersor.torch.linear(x, packed)) for _ in range(5))


def test_strided_and_leading_dimensions():
    w = weights(256, 320)
    packed = PackedWeight.pack(w)
    wide = torch.randn(3, 5, 640, device="cuda").bfloat16()
    for x in (wide[..., :320], wide[..., 1:321], wide[..., ::2], wide[:, :0, :320]):
        y = tersor.torch.linear(x, packed)
        assert y.shape == (*x.shape[:-1], 256)
        if y.numel():
            assert_close_to_fp64(y, x, w)


def test_errors():
    packed = PackedWeight.pack(weights(128, 256))
    with pytest.raises(tersor.InvalidArgumentError):
        tersor.torch.linear(torch.randn(2, 255, device="cuda").bfloat16(), packed)
    with pytest.raises(tersor.InvalidArgumentError):
        tersor.torch.linear(torch.randn(2, 256, device="cuda"), packed)
    damaged = packed.data.clone()
    damaged[400] ^= 1
    with pytest.raises(tersor.DigestMismatchError):
        PackedWeight(damaged).unpack()
    header = packed.data.clone()
    header[40] ^= 1
    with pytest.raises(tersor.DigestMismatchError):
        PackedWeight(header)
    with pytest.raises(tersor.TruncatedError):
        PackedWeight(packed.data[:-128])


def test_products_in_a_graph_right_behind_the_packing():
    """The first product with a buffer must wait for the kernel that writes it; later ones may overlap with the kernel
    before them."""
    for seed in range(20):
        w = weights(2048, 2048, seed=seed)
        x = torch.randn(4, 2048, device="cuda").bfloat16()
        packed = PackedWeight.pack(w)
        right = tersor.torch.linear(x, packed)
        assert_close_to_fp64(right, x, w)
        out = torch.empty_like(right)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = x
            for _ in range(3):
                y = tersor.torch.linear(y, packed)
            out.copy_(y)
        graph.replay()
        y = x
        for _ in range(3):
            y = tersor.torch.linear(y, packed)
        assert same_bits(out, y)


def test_streams():
    w = weights(1024, 2048)
    packed = PackedWeight.pack(w)
    x = torch.randn(8, 2048, device="cuda").bfloat16()
    right = tersor.torch.linear(x, packed)
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(4)]
    found = []
    for _ in range(50):
        for stream in streams:
            with torch.cuda.stream(stream):
                found.append(tersor.torch.linear(x, packed))
    torch.cuda.synchronize()
    assert all(same_bits(y, right) for y in found)


def llama(**changes):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=1024, hidden_size=512, intermediate_size=1024, num_hidden_layers=3, num_attention_heads=8,
        num_key_value_heads=4, tie_word_embeddings=False, **changes,
    )  # fmt: skip
    torch.manual_seed(5)
    return LlamaForCausalLM(config).to(device="cuda", dtype=torch.bfloat16).eval().requires_grad_(False)


def test_module_exact_and_default():
    model = llama()
    tokens = torch.randint(0, 1024, (2, 40), device="cuda")
    with torch.inference_mode():
        right = model(tokens).logits
        exact = copy.deepcopy(model)
        report = tersor.torch.compress_module(exact, exact=True)
        assert report.ratio > 1.3 and all(layer.action == "packed" for layer in report.layers)
        assert same_bits(exact(tokens).logits, right)
        packed = copy.deepcopy(model)
        tersor.torch.compress_module(packed)
        close = packed(tokens).logits
        assert (close.float() - right.float()).abs().max() < 0.05 * right.float().abs().max()
        back = copy.deepcopy(packed)
        back.load_state_dict(packed.state_dict())
        assert same_bits(back(tokens).logits, close)
        assert same_bits(packed.cpu()(tokens.cpu()).logits, model.cpu()(tokens.cpu()).logits)
        assert same_bits(packed.cuda()(tokens).logits, close)


def test_compile_one_graph_for_all_layers():
    model = llama(attn_implementation="sdpa")
    tersor.torch.compress_module(model)
    tokens = torch.randint(0, 1024, (2, 1), device="cuda")
    with torch.inference_mode():
        right = model(tokens).logits
        compiled = torch.compile(model.forward, fullgraph=True)
        assert (compiled(tokens).logits.float() - right.float()).abs().max() < 0.05 * right.float().abs().max()
        torch._dynamo.reset()
        counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
        for layer in model.model.layers:
            layer.mlp.forward = torch.compile(layer.mlp.forward, backend=counter, fullgraph=True)
        assert same_bits(model(tokens).logits, right)
        assert counter.frame_count == 1, counter.frame_count


def test_experts():
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(
        vocab_size=512, hidden_size=256, intermediate_size=512, moe_intermediate_size=128, num_experts=16,
        num_experts_per_tok=4, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=64,
    )  # fmt: skip
    torch.manual_seed(3)
    model = Qwen3MoeForCausalLM(config).to(device="cuda", dtype=torch.bfloat16).eval().requires_grad_(False)
    for tokens in (torch.randint(0, 512, (1, 1), device="cuda"), torch.randint(0, 512, (4, 64), device="cuda")):
        with torch.inference_mode():
            right = model(tokens).logits
            exact = copy.deepcopy(model)
            tersor.torch.compress_module(exact, exact=True)
            assert same_bits(exact(tokens).logits, right)
            packed = copy.deepcopy(model)
            tersor.torch.compress_module(packed)
            close = packed(tokens).logits
            assert (close.float() - right.float()).norm() < 0.05 * right.float().norm()


@pytest.mark.parametrize("codec", ["rank", "top16"])
def test_frames(codec):
    x = weights(300, 1000)
    frame, result = torch.ops.tersor.encode(x, codec)
    y, verdict = torch.ops.tersor.decode(frame, codec, torch.bfloat16, [300, 1000])
    assert same_bits(x, y)
    assert result.cpu().view(torch.int32)[0] == 0 and verdict.cpu().view(torch.int32)[0] == 0
    n_bytes = int(result.cpu().view(torch.int64)[1])
    data, dtype, shape = tersor.decode(frame[:n_bytes].cpu().numpy())
    assert (dtype, shape) == ("BF16", (300, 1000))
    assert bytes(data) == x.cpu().view(torch.uint8).numpy().tobytes()

    def both(t):
        coded, _ = torch.ops.tersor.encode(t, codec)
        return torch.ops.tersor.decode(coded, codec, torch.bfloat16, [300, 1000])[0]

    assert same_bits(torch.compile(both, fullgraph=True)(x), x)
    graph = torch.cuda.CUDAGraph()
    static = x.clone()
    with torch.cuda.graph(graph):
        again = both(static)
    for seed in range(5):
        static.copy_(weights(300, 1000, seed=seed))
        graph.replay()
        assert same_bits(again, static)
