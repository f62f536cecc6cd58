"""Operators of torch: ``torch.ops.tersor.linear``, ``unpack``, ``encode``, ``decode``, with fake kernels, so that
torch.compile and CUDA graphs take them. A packed matrix is described by its shape and its number of inline escapes, which
all layers of one kind share, so that they also share a compiled graph. Layout ``packed`` only."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F

import tersor
from tersor import _arrays, _core
from tersor._errors import error
from tersor.torch.packed import HEADER_BYTES, any_info, header_of, info_of, settled, unpack, unpack_into

#: Beyond so many tokens a product unpacks into a scratch buffer and takes the library's GEMM: the plan of
#: plan_gemm, with torch's own GEMM.
MOST_FUSED_TOKENS = 256

_library = torch.library.Library("tersor", "DEF")
_library.define(
    "linear(Tensor x, Tensor weight, int rows, int cols, int escapes, Tensor? bias=None, bool exact=False) -> Tensor"
)
_library.define("unpack(Tensor weight, ScalarType dtype, int rows, int cols, int escapes) -> Tensor")
_library.define("encode(Tensor x, str codec, Tensor? codebook=None) -> (Tensor, Tensor)")
_library.define("decode(Tensor frame, str codec, ScalarType dtype, SymInt[] shape) -> (Tensor, Tensor)")


def _implement(name: str, device: str):
    return torch.library.impl(_library, name, device)


# ---- linear ----


def _check_linear(x: torch.Tensor, cols: int) -> None:
    if x.dim() == 0 or x.shape[-1] != cols:
        raise error("invalid_argument", f"X is {tuple(x.shape)}, but the weight has {cols} columns")


@_implement("linear", "Meta")
def _linear_fake(x, weight, rows, cols, escapes, bias=None, exact=False):
    _check_linear(x, cols)
    return x.new_empty(*x.shape[:-1], rows)


@_implement("linear", "CPU")
def _linear_cpu(x, weight, rows, cols, escapes, bias=None, exact=False):
    _check_linear(x, cols)
    return F.linear(x, _unpack_cpu(weight, x.dtype, rows, cols, escapes), bias)


@_implement("linear", "CUDA")
def _linear_cuda(x, weight, rows, cols, escapes, bias=None, exact=False):
    _check_linear(x, cols)
    n = x.numel() // cols
    if exact or n > MOST_FUSED_TOKENS:
        return F.linear(x, _unpack_cuda(weight, x.dtype, rows, cols, escapes), bias)
    flat = x.reshape(n, cols)
    if flat.stride(1) != 1 or (n > 1 and flat.stride(0) % 8) or flat.data_ptr() % 16:
        flat = flat.contiguous()
    y = torch.empty(n, rows, dtype=x.dtype, device=x.device)
    if n:
        address = weight.data_ptr()
        with torch.cuda.device(x.device):
            _core.cuda.gemm(
                any_info(x.dtype, rows, cols, escapes, weight.numel()), address, flat.data_ptr(),
                flat.stride(0) if n > 1 else 0, y.data_ptr(), 0, n, bias=0 if bias is None else bias.data_ptr(),
                overlap_previous=settled.seen_before(address), stream=torch.cuda.current_stream().cuda_stream,
            )  # fmt: skip
    return y.view(*x.shape[:-1], rows)


def _keep_for_backward(ctx, inputs, output):
    x, weight, ctx.rows, ctx.cols, ctx.escapes = inputs[:5]
    ctx.dtype = x.dtype
    ctx.save_for_backward(weight)


def _linear_backward(ctx, grad):
    """Gradients of the input and the bias, so that adapters can be trained over packed weights, which stay frozen."""
    (weight,) = ctx.saved_tensors
    of_x = of_bias = None
    if ctx.needs_input_grad[0]:
        of_x = grad @ torch.ops.tersor.unpack(weight, ctx.dtype, ctx.rows, ctx.cols, ctx.escapes)
    if len(ctx.needs_input_grad) > 5 and ctx.needs_input_grad[5]:
        of_bias = grad.reshape(-1, ctx.rows).sum(0)
    # Arguments left to their defaults are not counted.
    return (of_x, None, None, None, None, of_bias, None)[: len(ctx.needs_input_grad)]


torch.library.register_autograd("tersor::linear", _linear_backward, setup_context=_keep_for_backward, lib=_library)


@_implement("unpack", "Meta")
def _unpack_fake(weight, dtype, rows, cols, escapes):
    return weight.new_empty(rows, cols, dtype=dtype)


@_implement("unpack", "CPU")
def _unpack_cpu(weight, dtype, rows, cols, escapes):
    plain = unpack(weight, header_of(weight))
    if tuple(plain.shape) != (rows, cols) or plain.dtype != dtype:
        raise error("mismatch", f"the packed matrix holds {plain.dtype} {tuple(plain.shape)}")
    return plain


@_implement("unpack", "CUDA")
def _unpack_cuda(weight, dtype, rows, cols, escapes):
    plain = torch.empty(rows, cols, dtype=dtype, device=weight.device)
    unpack_into(weight, any_info(dtype, rows, cols, escapes, weight.numel()), plain)
    return plain


# ---- frames ----


def _capacity(x: torch.Tensor, codec: str) -> int:
    bound = _core.encode_bound(codec, _arrays.dtype_of_torch(x.dtype), x.numel())
    if bound == 0:
        raise error("unsupported", f"{codec} does not code {x.dtype}")
    return bound


@_implement("encode", "Meta")
def _encode_fake(x, codec, codebook=None):
    result = x.new_empty(_core.cuda.FRAME_RESULT_BYTES, dtype=torch.uint8)
    return x.new_empty(_capacity(x, codec), dtype=torch.uint8), result


@_implement("encode", "CPU")
def _encode_cpu(x, codec, codebook=None):
    frame = torch.empty(_capacity(x, codec), dtype=torch.uint8)
    data, dtype, shape = _arrays.as_bytes(x)
    book = None if codebook is None else codebook.numpy().tobytes()
    n_bytes = _core.encode_into(tersor.default_context(), data, dtype, shape, frame.numpy(), codec, book, False)
    frame[n_bytes:] = 0
    result = torch.zeros(_core.cuda.FRAME_RESULT_BYTES, dtype=torch.uint8)
    result.view(torch.int64)[1] = n_bytes
    return frame, result


@_implement("encode", "CUDA")
def _encode_cuda(x, codec, codebook=None):
    x = x.contiguous()
    dtype, n = _arrays.dtype_of_torch(x.dtype), x.numel()
    frame = torch.empty(_capacity(x, codec), dtype=torch.uint8, device=x.device)
    result = torch.empty(_core.cuda.FRAME_RESULT_BYTES, dtype=torch.uint8, device=x.device)
    with torch.cuda.device(x.device):
        stream = torch.cuda.current_stream().cuda_stream
        if codebook is None:
            codebook = torch.empty(16, dtype=torch.uint8, device=x.device)
            ws = torch.zeros(_core.cuda.codebook_workspace_size(), dtype=torch.uint8, device=x.device)
            _core.cuda.make_codebook(
                codec, dtype, x.data_ptr(), n, codebook.data_ptr(), ws.data_ptr(), ws.numel(), stream
            )
        task = (
            dtype, list(x.shape), x.data_ptr(), None, codebook.data_ptr(), frame.data_ptr(), frame.numel(),
            result.data_ptr(),
        )  # fmt: skip
        ws_bytes = _core.cuda.encode_workspace_size(codec, False, [task])
        ws = torch.zeros(max(ws_bytes, 16), dtype=torch.uint8, device=x.device)
        _core.cuda.encode(codec, [task], False, ws.data_ptr(), ws.numel(), stream)
    return frame, result


@_implement("decode", "Meta")
def _decode_fake(frame, codec, dtype, shape):
    return frame.new_empty(shape, dtype=dtype), frame.new_empty(_core.cuda.FRAME_RESULT_BYTES, dtype=torch.uint8)


@_implement("decode", "CPU")
def _decode_cpu(frame, codec, dtype, shape):
    out, raw = _arrays.empty_torch(_arrays.dtype_of_torch(dtype), tuple(shape))
    data = frame.numpy()
    info = _core.inspect(data)
    if info.dtype != _arrays.dtype_of_torch(dtype) or info.n_values != math.prod(shape):
        raise error("mismatch", f"the frame holds {info.dtype} {info.shape}")
    _core.decode_into(tersor.default_context(), data[: info.frame_bytes], raw)
    result = torch.zeros(_core.cuda.FRAME_RESULT_BYTES, dtype=torch.uint8)
    result.view(torch.int64)[1] = info.frame_bytes
    return out, result


@_implement("decode", "CUDA")
def _decode_cuda(frame, codec, dtype, shape):
    out = torch.empty(shape, dtype=dtype, device=frame.device)
    result = torch.empty(_core.cuda.FRAME_RESULT_BYTES, dtype=torch.uint8, device=frame.device)
    name = _arrays.dtype_of_torch(dtype)
    with torch.cuda.device(frame.device):
        task = (name, out.numel(), frame.data_ptr(), frame.numel(), out.data_ptr(), result.data_ptr())
        ws = torch.zeros(max(_core.cuda.decode_workspace_size([task]), 16), dtype=torch.uint8, device=frame.device)
        _core.cuda.decode(codec, [task], ws.data_ptr(), ws.numel(), torch.cuda.current_stream().cuda_stream)
    return out, result


# ---- experts ----

_library.define(
    "grouped_linear(Tensor x, Tensor weights, int rows, int cols, int escapes, Tensor first_token) -> Tensor"
)
_library.define("unpack_experts(Tensor weights, str headers) -> Tensor")


@functools.lru_cache(maxsize=4096)
def infos_of(headers: str) -> list[tersor.MatrixInfo]:
    """The parsed headers of a layer's experts, from their hex texts, one after the other."""
    size = 2 * HEADER_BYTES
    return [info_of(headers[at : at + size]) for at in range(0, len(headers), size)]


@_implement("grouped_linear", "Meta")
def _grouped_fake(x, weights, rows, cols, escapes, first_token):
    _check_linear(x, cols)
    return x.new_empty(x.shape[0], rows)


@_implement("grouped_linear", "CPU")
def _grouped_cpu(x, weights, rows, cols, escapes, first_token):
    _check_linear(x, cols)
    first = first_token.tolist()
    y = x.new_zeros(x.shape[0], rows)
    for expert, weight in enumerate(weights):
        tokens = slice(first[expert], first[expert + 1])
        if tokens.start < tokens.stop:
            y[tokens] = F.linear(x[tokens], _unpack_cpu(weight, x.dtype, rows, cols, escapes))
    return y


@_implement("grouped_linear", "CUDA")
def _grouped_cuda(x, weights, rows, cols, escapes, first_token):
    _check_linear(x, cols)
    x = x.contiguous()
    y = torch.zeros(x.shape[0], rows, dtype=x.dtype, device=x.device)
    if not x.shape[0]:
        return y
    start, stride, n_groups = weights.data_ptr(), weights.stride(0), weights.shape[0]
    addresses = torch.arange(start, start + n_groups * stride, stride, dtype=torch.int64, device=x.device)
    with torch.cuda.device(x.device):
        _core.cuda.grouped_gemm(
            any_info(x.dtype, rows, cols, escapes, stride), n_groups, addresses.data_ptr(), first_token.data_ptr(),
            x.shape[0], x.shape[0], x.data_ptr(), 0, y.data_ptr(), 0, stream=torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip
    return y


def _unpack_expert(weights, headers, expert, info):
    at = 2 * HEADER_BYTES * expert
    return unpack(weights[expert, : info.n_bytes], headers[at : at + 2 * HEADER_BYTES], check=False)


@_implement("unpack_experts", "Meta")
def _unpack_experts_fake(weights, headers):
    infos = infos_of(headers)
    dtype = _arrays.torch_dtype(infos[0].dtype)
    return weights.new_empty(len(infos), infos[0].rows, infos[0].cols, dtype=dtype)


@torch.library.impl(_library, "unpack_experts", "CompositeExplicitAutograd")
def _unpack_experts(weights, headers):
    infos = infos_of(headers)
    plain = [_unpack_expert(weights, headers, expert, info) for expert, info in enumerate(infos)]
    return torch.stack(plain)
