"""``torch.nn.Linear`` with a weight that stays compressed."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tersor._errors import error
from tersor.torch import ops  # noqa: F401  (defines torch.ops.tersor)
from tersor.torch.packed import PackedWeight, capacity_of, header_of, in_room, settled, unpack


class Linear(nn.Module):
    """A linear layer over a packed matrix.

    ``weight`` is a parameter of 1-D uint8: a whole matrix frame, header included, so a state dict describes itself, and a few
    zeros behind it, so that layers of one shape have buffers of one size.
    ``bias`` is plain. No gradients flow to the weight. ``exact``: see tersor.torch.linear."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype = torch.bfloat16,
        exact: bool = False,
    ):
        """A layer without a weight yet; load_packed or load_state_dict bring it."""
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.dtype = dtype
        self.exact = exact
        self.escapes = 0
        self._header = ""
        empty = torch.empty(0, dtype=torch.uint8, device=device)
        self.weight = nn.Parameter(empty, requires_grad=False)
        if bias:
            values = torch.empty(out_features, dtype=dtype, device=device)
            self.bias = nn.Parameter(values, requires_grad=False)
        else:
            self.register_parameter("bias", None)

    @staticmethod
    def from_linear(linear: nn.Linear, exact: bool = False, **packing: Any) -> Linear:
        """Packs a plain layer's weight where it is. The bias is shared. ``packing``: options of PackedWeight.pack."""
        weight = linear.weight
        made = Linear(linear.in_features, linear.out_features, False, "meta", weight.dtype, exact)
        made.load_packed(PackedWeight.pack(weight, **packing))
        made.bias = linear.bias
        made.train(linear.training)
        return made

    def load_packed(self, packed: PackedWeight | torch.Tensor | Any) -> None:
        """Takes a packed matrix (a PackedWeight, a uint8 tensor, bytes) of this layer's shape and dtype.
        Errors: MismatchError, and those of a damaged header."""
        if not isinstance(packed, PackedWeight):
            packed = PackedWeight.from_bytes(packed)
        info = packed.info
        if (info.rows, info.cols) != (self.out_features, self.in_features) or packed.dtype != self.dtype:
            raise error(
                "mismatch",
                f"the packed matrix is {info.dtype} {info.rows} x {info.cols}, the layer "
                f"{self.dtype} {self.out_features} x {self.in_features}",
            )
        if info.layout != "packed":
            raise error("unsupported", f"layers take the layout packed, not {info.layout}")
        self._header = packed.header
        self.escapes = info.inline_escapes
        self.weight = nn.Parameter(in_room(packed.data, capacity_of(info)), requires_grad=False)

    @property
    def header(self) -> str:
        """The weight's header in hex. Read from the device, which waits, if ``weight`` was set from outside."""
        if not self._header:
            if self.weight.numel() == 0 or self.weight.device.type == "meta":
                raise error("invalid_argument", "the layer has no weight yet")
            self.load_packed(PackedWeight(self.weight.data, header_of(self.weight.data)))
        return self._header

    @property
    def packed(self) -> PackedWeight:
        """The weight as it is stored; the memory is shared."""
        return PackedWeight(self.weight.data, self.header)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype != self.dtype:
            raise error("invalid_argument", f"X is {x.dtype}, but the weight holds {self.dtype}")
        return torch.ops.tersor.linear(
            x, self.weight, self.out_features, self.in_features, self.escapes, self.bias, self.exact
        )

    def settle(self) -> None:
        """After ``weight`` was set from outside: reads its header and checks it; waits for the device."""
        self._header = ""
        _ = self.header

    def unpacked(self) -> torch.Tensor:
        """The plain weight, bit for bit; digests compared."""
        return unpack(self.weight.data, self.header)

    def dequantize(self) -> nn.Linear:
        """The plain layer with the weight that was packed, bit for bit."""
        plain = nn.Linear(self.in_features, self.out_features, False, device="meta", dtype=self.dtype)
        plain.weight = nn.Parameter(self.unpacked(), requires_grad=False)
        plain.bias = self.bias
        return plain

    def _apply(self, fn, recurse=True):
        # .half(), .to(dtype) and the like concern activations and bias only: bytes stay bytes.
        super()._apply(fn, recurse)
        if self.weight.device.type == "cuda":
            settled.forget(self.weight)
        return self

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors):
        key = prefix + "weight"
        given = state_dict.get(key)
        if given is not None:
            shared = bool(metadata.get("assign_to_params_buffers", False))
            self._take(given, key, errors, shared)
            state_dict = {k: v for k, v in state_dict.items() if k != key}
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, errors)
        if given is not None and key in missing:
            missing.remove(key)

    def _take(self, given: torch.Tensor, key: str, errors: list[str], shared: bool) -> None:
        device = self.weight.device if self.weight.device.type != "meta" else given.device
        try:
            header = header_of(given)
            self.load_packed(PackedWeight(given.to(device, copy=not shared), header))
        except Exception as fault:
            errors.append(f"{key}: {fault}")

    def extra_repr(self) -> str:
        bits = f", {self.packed.info.bits_per_weight:.2f} bits a weight" if self._header else ""
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}{bits}"
