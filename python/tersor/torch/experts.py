"""Experts of mixture-of-experts layers, kept by Transformers as 3-D parameters, in packed form."""

from __future__ import annotations

import torch
from torch import nn

from tersor._errors import error
from tersor.torch import ops  # noqa: F401  (defines torch.ops.tersor)
from tersor.torch.packed import PackedWeight, capacity_of, header_of, info_of

_UP = ("gate_up_proj", "up_proj")


def holds_experts(module: nn.Module) -> bool:
    """True for a module that keeps the matrices of all its experts in 3-D parameters, as Transformers 5 does."""
    down = getattr(module, "down_proj", None)
    up = next((getattr(module, name) for name in _UP if hasattr(module, name)), None)
    return all(isinstance(weight, nn.Parameter) and weight.dim() == 3 for weight in (up, down))


def up_name_of(module: nn.Module) -> str:
    """The name of the parameter that a module of experts multiplies first."""
    return next(name for name in _UP if hasattr(module, name))


class PackedExperts(nn.Module):
    """The matrices of all experts, [experts, stride] of uint8: row e begins with expert e's packed matrix."""

    def __init__(self, weights: torch.Tensor, inline_escapes: int = 0):
        """Packs ``weights`` [experts, rows, cols], one expert after the other."""
        super().__init__()
        packed = [PackedWeight.pack(weight, inline_escapes=inline_escapes) for weight in weights]
        stride = max(capacity_of(p.info) for p in packed)
        data = torch.zeros(len(packed), stride, dtype=torch.uint8, device=weights.device)
        for row, p in zip(data, packed, strict=True):
            row[: p.nbytes] = p.data
        self.headers = "".join(p.header for p in packed)
        info = packed[0].info
        self.rows, self.cols, self.escapes = info.rows, info.cols, info.inline_escapes
        self.weight = nn.Parameter(data, requires_grad=False)

    @property
    def n_experts(self) -> int:
        return self.weight.shape[0]

    def unpacked(self) -> torch.Tensor:
        """[experts, rows, cols], bit for bit."""
        return torch.ops.tersor.unpack_experts(self.weight, self.headers)

    def forward(self, x: torch.Tensor, first_token: torch.Tensor) -> torch.Tensor:
        """``x`` [tokens, cols] sorted by expert; expert e has the rows first_token[e] .. first_token[e + 1] (int32)."""
        return torch.ops.tersor.grouped_linear(x, self.weight, self.rows, self.cols, self.escapes, first_token)

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, errors):
        key = prefix + "weight"
        given = state_dict.get(key)
        if given is None:
            missing.append(key)
            return
        try:
            self._take(given)
        except Exception as fault:
            errors.append(f"{key}: {fault}")

    def _take(self, given: torch.Tensor) -> None:
        headers = []
        for row in given.cpu():
            headers.append(header_of(row))
        shapes = [(i.rows, i.cols, i.inline_escapes) for i in map(info_of, headers)]
        if shapes != [(self.rows, self.cols, self.escapes)] * self.n_experts:
            raise error("mismatch", "the packed matrices have other shapes than the experts")
        self.headers = "".join(headers)
        self.weight = nn.Parameter(given.to(self.weight.device, copy=True), requires_grad=False)


class Experts(nn.Module):
    """Stands for a Transformers module of experts: the same call, ``(hidden_states, top_k_index, top_k_weights)``.

    Few tokens an expert: products with the packed matrices. Many, on the CPU, or ``exact``: the matrices of this layer are
    unpacked into scratch memory and the original module's own forward runs on them."""

    #: Tokens an expert, on average, beyond which unpacking pays.
    most_fused_tokens = 64

    def __init__(self, original: nn.Module, up: PackedExperts, down: PackedExperts, exact: bool = False):
        """Takes the place of ``original``, whose parameters it lets go; see ``pack``."""
        super().__init__()
        self.exact = exact
        self.up_name = up_name_of(original)
        self.up, self.down = up, down
        setattr(original, self.up_name, None)
        original.down_proj = None
        self.num_experts = up.n_experts
        self.original = original

    @staticmethod
    def pack(original: nn.Module, exact: bool = False, inline_escapes: int = 0) -> Experts | None:
        """Packs a module's experts where they are. None, and nothing changed, if that would not make them smaller."""
        plain = [getattr(original, up_name_of(original)), original.down_proj]
        packed = [PackedExperts(weight.data, inline_escapes) for weight in plain]
        if sum(p.weight.nbytes for p in packed) >= sum(weight.nbytes for weight in plain):
            return None
        return Experts(original, *packed, exact)

    def forward(self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor):
        tokens, top_k = top_k_index.shape
        few = tokens * top_k <= self.most_fused_tokens * self.num_experts
        if self.exact or not few or hidden_states.device.type != "cuda":
            return self._on_plain_weights(hidden_states, top_k_index, top_k_weights)
        expert, order = torch.sort(top_k_index.reshape(-1).clamp(0, self.num_experts - 1), stable=True)
        bounds = torch.arange(self.num_experts + 1, device=expert.device, dtype=expert.dtype)
        first_token = torch.searchsorted(expert, bounds).to(torch.int32)
        y = self.up(hidden_states[order // top_k], first_token)
        y = self._activate(y)
        y = self.down(y, first_token) * top_k_weights.reshape(-1)[order].unsqueeze(-1)
        back = torch.empty_like(y)
        back[order] = y
        return back.view(tokens, top_k, -1).sum(dim=1).to(hidden_states.dtype)

    def _activate(self, y: torch.Tensor) -> torch.Tensor:
        original = self.original
        if self.up_name == "up_proj":
            return original.act_fn(y)
        if hasattr(original, "_apply_gate"):
            return original._apply_gate(y)
        gate, up = y.chunk(2, dim=-1)
        return original.act_fn(gate) * up

    def _on_plain_weights(self, *arguments):
        original = self.original
        # As attributes of the instance: parameters of these names are None by now.
        original.__dict__[self.up_name] = self.up.unpacked()
        original.__dict__["down_proj"] = self.down.unpacked()
        try:
            return original(*arguments)
        finally:
            del original.__dict__[self.up_name], original.__dict__["down_proj"]


def compress_experts(model: nn.Module, name: str, module: nn.Module, exact: bool, inline_escapes: int):
    """Replaces one module of experts; the reports of its matrices."""
    from tersor.torch.modules import LayerReport, replace

    up_name = up_name_of(module)
    weights = {kind: getattr(module, kind) for kind in (up_name, "down_proj")}
    sizes = {kind: (tuple(w.shape), w.nbytes) for kind, w in weights.items()}
    reason = _why_not(module, list(weights.values()))
    del weights
    made = None
    if not reason:
        made = Experts.pack(module, exact, inline_escapes)
        reason = "packing does not make it smaller"
    if made is None:
        return [LayerReport(f"{name}.{k}", shape, n, n, "kept", reason) for k, (shape, n) in sizes.items()]
    replace(model, name, made)
    stored = {up_name: made.up.weight.nbytes, "down_proj": made.down.weight.nbytes}
    return [LayerReport(f"{name}.{k}", shape, n, stored[k], "packed") for k, (shape, n) in sizes.items()]


def _why_not(module: nn.Module, weights: list[torch.Tensor]) -> str:
    # Transformers says both of a module whose call is the one that Experts stands for.
    if getattr(module, "is_transposed", None) is not False:
        return "experts are stored transposed, or called in another way"
    if getattr(module, "has_bias", None) is not False:
        return "experts have biases"
    if any(w.dtype not in (torch.bfloat16, torch.float16) for w in weights):
        return f"{weights[0].dtype} is not packed"
    if any(min(w.shape[1:]) < 64 for w in weights):
        return "too small"
    return ""
