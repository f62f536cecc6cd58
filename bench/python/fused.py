"""What stands between the products of a decoder, made lean: the same for plain and packed weights.

Transformers' eager code launches some fifty small kernels a layer, which hide what the products take. Engines fuse them. Here
torch.compile fuses norms, rotary embedding, activation and softmax, and attention to a static cache reads each key once for
all heads of its group."""

from __future__ import annotations

import sys

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "grouped"


@torch.compile(dynamic=True)
def _softmax(scores: torch.Tensor, mask: torch.Tensor, scaling: float, dtype: torch.dtype) -> torch.Tensor:
    scores = torch.where(mask, scores.float() * scaling, float("-inf"))
    return torch.softmax(scores, -1).to(dtype)


def grouped_attention(module, query, key, value, attention_mask, dropout=0.0, scaling=None, **kwargs):
    batch, heads, length, dim = query.shape
    if length != 1 or attention_mask is None:
        return ALL_ATTENTION_FUNCTIONS["sdpa"](
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    kv_heads, room = key.shape[1:3]
    q = query.reshape(batch * kv_heads, heads // kv_heads, dim)
    scores = torch.bmm(q, key.reshape(batch * kv_heads, room, dim).mT).view(batch, kv_heads, -1, room)
    weights = _softmax(scores, attention_mask, scaling, query.dtype)
    mixed = torch.bmm(weights.view(batch * kv_heads, -1, room), value.reshape(batch * kv_heads, room, dim))
    return mixed.view(batch, 1, heads, dim), None


def lean(model: torch.nn.Module) -> None:
    """Compiles the pieces of a model's class, for all its instances, and makes ``model`` use grouped attention."""
    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.config._attn_implementation = NAME
    torch._dynamo.config.recompile_limit = 64
    modeling = sys.modules[type(model).__module__]
    if getattr(modeling, "tersor_lean", False):
        return
    modeling.tersor_lean = True
    modeling.apply_rotary_pos_emb = torch.compile(modeling.apply_rotary_pos_emb)
    for name, member in vars(modeling).items():
        if isinstance(member, type) and name.endswith(("RMSNorm", "MLP")):
            member.forward = torch.compile(member.forward)
