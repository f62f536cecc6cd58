"""Products with packed weights."""

from __future__ import annotations

import torch

from tersor._errors import error
from tersor.torch import ops  # noqa: F401  (defines torch.ops.tersor)
from tersor.torch.packed import PackedWeight


def linear(
    x: torch.Tensor, weight: PackedWeight, bias: torch.Tensor | None = None, exact: bool = False
) -> torch.Tensor:
    """``x[..., cols] @ W[rows, cols].T + bias`` from a weight that stays compressed, in the dtype of the weight.

    On the GPU the product decodes the weight on its way into the tensor cores, with sums in fp32; with more than
    ``ops.MOST_FUSED_TOKENS`` tokens it unpacks into a scratch buffer and takes the library's GEMM. ``exact``: always the
    latter, so that the result is that of ``torch.nn.functional.linear`` on the plain weight, bit for bit. On the CPU it
    unpacks. Runs on the current stream, waits for nothing. Errors: InvalidArgumentError (shape or dtype of ``x``)."""
    if weight.layout != "packed":
        raise error("unsupported", f"operators take the layout packed, not {weight.layout}")
    if x.dtype != weight.dtype:
        raise error("invalid_argument", f"X is {x.dtype}, but the weight holds {weight.dtype}")
    return torch.ops.tersor.linear(x, weight.data, weight.rows, weight.cols, weight.escapes, bias, exact)
