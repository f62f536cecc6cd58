"""compress_module on models of Transformers and on modules of one's own, on the CPU."""

from __future__ import annotations

import copy
import io

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from hf_models import TEXT, llama, qwen2, qwen3_moe  # noqa: E402
from torch import nn  # noqa: E402

import tersor  # noqa: E402
import tersor.torch as tt  # noqa: E402
from tersor.torch.fused import Part, merge_packed_siblings  # noqa: E402


def model_of(config, dtype=torch.bfloat16, **kwargs):
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype, **kwargs).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    return model


@torch.no_grad()
def logits(model):
    return model(TEXT).logits


def compressed(model, **options):
    made = copy.deepcopy(model)
    return made, tt.compress_module(made, **options)


def names(report, action):
    return {layer.name for layer in report.layers if layer.action == action}


def linears(model):
    return {name for name, module in model.named_modules() if type(module) is nn.Linear}


def gpt_neox():
    return transformers.GPTNeoXConfig(
        vocab_size=256, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4
    )


def mixtral():
    return transformers.MixtralConfig(
        vocab_size=256, hidden_size=128, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=4,
    )  # fmt: skip


CONFIGS = {"llama": llama(), "qwen2": qwen2(), "gpt_neox": gpt_neox(), "qwen3_moe": qwen3_moe(), "mixtral": mixtral()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", list(CONFIGS))
def test_models_compute_the_same(name, dtype):
    plain = model_of(CONFIGS[name], dtype)
    packed, report = compressed(plain, inline_escapes=0)
    assert torch.equal(logits(packed), logits(plain))
    assert {layer.action for layer in report.layers} <= {"packed", "kept"}
    if dtype == torch.bfloat16:
        assert len(names(report, "packed")) >= 8
        assert report.stored_bytes < report.plain_bytes and report.ratio > 1
    # A state dict of the packed model brings another packed model to the same weights.
    fresh, _ = compressed(model_of(CONFIGS[name], dtype), inline_escapes=0)
    for parameter in fresh.parameters():
        if parameter.dtype == dtype:
            parameter.data.zero_()
    assert fresh.load_state_dict(packed.state_dict()).missing_keys == []
    assert torch.equal(logits(fresh), logits(plain))


def test_fused_qkv_of_gpt_neox():
    plain = model_of(CONFIGS["gpt_neox"])
    packed, report = compressed(plain)
    layer = packed.gpt_neox.layers[0].attention.query_key_value
    assert isinstance(layer, tt.Linear) and layer.out_features == 3 * 128 and layer.bias is not None
    assert "gpt_neox.layers.0.attention.query_key_value" in names(report, "packed")


def test_tied_head():
    plain = model_of(llama(tie_word_embeddings=True))
    kept, report = compressed(plain)
    assert names(report, "kept") == {"lm_head"}
    reason = next(layer.reason for layer in report.layers if layer.name == "lm_head")
    assert "tied" in reason
    assert kept.lm_head.weight is kept.model.embed_tokens.weight
    assert torch.equal(logits(kept), logits(plain))
    both, report = compressed(plain, pack_tied=True)
    assert isinstance(both.lm_head, tt.Linear) and "lm_head" in names(report, "packed")
    assert torch.equal(both.model.embed_tokens.weight, plain.model.embed_tokens.weight)
    assert torch.equal(logits(both), logits(plain))


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_fused_siblings(name):
    plain = model_of(CONFIGS[name])
    fused, report = compressed(plain, fuse=True)
    assert {n.rpartition(".")[2] for n in names(report, "packed")} >= {"merged", "o_proj", "down_proj"}
    assert len(report.layers) == 2 * 4 + 1
    want = logits(plain)
    assert torch.allclose(logits(fused).float(), want.float(), atol=0.02)
    first = logits(fused)
    assert torch.equal(first, logits(fused))
    attention = fused.model.layers[0].self_attn
    for part, original in ((attention.k_proj, plain.model.layers[0].self_attn.k_proj),):
        assert isinstance(part, Part)
        assert torch.equal(part.plain_weight(), original.weight)
        assert torch.equal(part.dequantize().weight, original.weight)
        if original.bias is not None:
            assert torch.equal(part.plain_bias(), original.bias)
    assert fused.model.layers[0].mlp.gate_proj.together._held is None

    fresh, _ = compressed(model_of(CONFIGS[name]), fuse=True)
    for parameter in fresh.parameters():
        if parameter.dtype != torch.uint8:
            parameter.data.zero_()
    fresh.load_state_dict(fused.state_dict())
    assert torch.equal(logits(fresh), first)
    assert torch.equal(logits(copy.deepcopy(fused)), first)


def test_fusing_what_is_packed_already():
    plain = model_of(CONFIGS["qwen2"])
    packed, _ = compressed(plain)
    assert merge_packed_siblings(packed) == 4
    fused, _ = compressed(plain, fuse=True)
    assert torch.equal(logits(packed), logits(fused))


def test_fuse_leaves_alone_what_a_glob_leaves_out():
    fused, report = compressed(model_of(CONFIGS["llama"]), fuse=True, exclude=["*q_proj"])
    attention = fused.model.layers[0].self_attn
    assert type(attention.q_proj) is nn.Linear and isinstance(attention.k_proj, tt.Linear)
    assert isinstance(fused.model.layers[0].mlp.gate_proj, Part)
    assert not any("q_proj" in layer.name for layer in report.layers)


def test_experts():
    plain = model_of(CONFIGS["qwen3_moe"])
    packed, report = compressed(plain)
    experts = [m for m in packed.modules() if isinstance(m, tt.Experts)]
    assert len(experts) == 2 and all(e.num_experts == 4 for e in experts)
    assert {n.rpartition(".")[2] for n in names(report, "packed")} >= {"gate_up_proj", "down_proj"}
    originals = [m for m in plain.modules() if hasattr(m, "gate_up_proj")]
    for made, original in zip(experts, originals, strict=True):
        assert torch.equal(made.up.unpacked(), original.gate_up_proj)
        assert torch.equal(made.down.unpacked(), original.down_proj)
    buffer = io.BytesIO()
    torch.save(packed.state_dict(), buffer)
    buffer.seek(0)
    state = torch.load(buffer, weights_only=True)
    key = next(k for k in state if k.endswith("experts.up.weight"))
    fresh, _ = compressed(model_of(CONFIGS["qwen3_moe"]))
    fresh.load_state_dict(state)
    assert torch.equal(logits(fresh), logits(plain))
    for wrong in (state[key][:, :1000], state[key].flip(1)):
        with pytest.raises(RuntimeError, match="experts"):
            fresh.load_state_dict({**state, key: wrong})
    missing = {k: v for k, v in state.items() if k != key}
    assert fresh.load_state_dict(missing, strict=False).missing_keys == [key]


def test_experts_that_packing_makes_larger_stay_plain():
    plain = model_of(CONFIGS["qwen3_moe"])
    for module in plain.modules():
        if hasattr(module, "gate_up_proj"):
            for weight in (module.gate_up_proj, module.down_proj):
                weight.data *= 2.0 ** torch.randint(-60, 60, weight.shape)
    packed, report = compressed(plain)
    kept = [layer for layer in report.layers if "experts" in layer.name]
    assert len(kept) == 4 and {(k.action, k.reason) for k in kept} == {("kept", "packing does not make it smaller")}
    assert all(k.stored_bytes == k.plain_bytes for k in kept)
    for a, b in zip(plain.parameters(), (p for p in packed.parameters()), strict=True):
        assert a.dim() < 3 or torch.equal(a, b)


def test_experts_take_the_option_of_the_layout():
    packed, _ = compressed(model_of(CONFIGS["qwen3_moe"]), inline_escapes=64)
    experts = [m for m in packed.modules() if isinstance(m, tt.PackedExperts)]
    assert len(experts) == 4 and all(e.escapes == 64 for e in experts)


def test_experts_by_groups():
    """The product of sorted tokens, as a GPU does it, here by its reference on the CPU."""
    weights = (torch.randn(3, 128, 64) * 0.02).bfloat16()
    packed = tt.PackedExperts(weights)
    x = torch.randn(7, 64).bfloat16()
    y = packed(x, torch.tensor([0, 3, 3, 7], dtype=torch.int32))
    assert torch.equal(y[:3], nn.functional.linear(x[:3], weights[0]))
    assert torch.equal(y[3:], nn.functional.linear(x[3:], weights[2]))
    with pytest.raises(tersor.InvalidArgumentError):
        packed(x[:, :60], torch.tensor([0, 3, 3, 7], dtype=torch.int32))


def test_damaged_experts_are_found():
    packed = tt.PackedExperts((torch.randn(2, 128, 128) * 0.02).bfloat16())
    packed.weight.data[1, 5000] ^= 1
    with pytest.raises(tersor.DigestMismatchError):
        packed.unpacked()


def test_include_and_exclude():
    plain = model_of(CONFIGS["llama"])
    packed, report = compressed(plain, include=["*mlp*"])
    assert report.layers and all("mlp" in layer.name for layer in report.layers)
    assert linears(plain) - linears(packed) == names(report, "packed")
    _, rest = compressed(plain, exclude=["*mlp*", "lm_head"])
    assert names(rest, "packed") == linears(plain) - names(report, "packed") - {"lm_head"}
    text, _ = compressed(plain, include="*mlp*")
    assert linears(text) == linears(packed)
    _, none = compressed(plain, include=["nothing"])
    assert none.layers == [] and none.ratio == 1


def test_what_stays_plain():
    model = nn.ModuleDict(
        {
            "single": nn.Linear(128, 128),
            "small": nn.Linear(128, 32, dtype=torch.bfloat16),
            "noise": nn.Linear(256, 256, dtype=torch.bfloat16),
            "good": nn.Linear(1024, 1024, dtype=torch.bfloat16),
        }
    )
    noise = torch.randint(0, 65536, (256, 256), dtype=torch.int32).to(torch.int16)
    model["noise"].weight.data = noise.view(torch.bfloat16)
    nn.init.normal_(model["good"].weight, std=0.02)
    good, bias = model["good"].weight.data.clone(), model["good"].bias
    report = tt.compress_module(model)
    assert names(report, "packed") == {"good"}
    reasons = {layer.name: layer.reason for layer in report.layers if layer.action == "kept"}
    assert set(reasons) == {"single", "small", "noise"} and all(reasons.values())
    assert torch.equal(model["good"].unpacked(), good) and model["good"].bias is bias
    kept = [layer for layer in report.layers if layer.action == "kept"]
    assert all(layer.stored_bytes == layer.plain_bytes for layer in kept)
    assert 1.2 < next(la.plain_bytes / la.stored_bytes for la in report.layers if la.name == "good") < 1.5
    again = tt.compress_module(model)
    assert names(again, "packed") == set()


class Adapted(nn.Module):
    """A frozen layer with a small trained one beside it."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(128, 128, dtype=torch.bfloat16)
        self.down, self.up = nn.Linear(128, 4, dtype=torch.bfloat16), nn.Linear(4, 128, dtype=torch.bfloat16)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


def test_adapters_are_trained_over_packed_weights():
    torch.manual_seed(0)
    plain = Adapted()
    nn.init.normal_(plain.base.weight, std=0.02)
    packed, report = compressed(plain, inline_escapes=128)
    assert names(report, "packed") == {"base"}
    x = torch.randn(5, 128).bfloat16()
    gradients = []
    for model in (plain, packed):
        model(model(x)).float().square().sum().backward()
        gradients.append([p.grad for n, p in model.named_parameters() if not n.startswith("base")])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert packed.base.weight.grad is None


def test_compiled_models():
    plain = model_of(CONFIGS["llama"])
    packed, _ = compressed(plain)
    torch._dynamo.reset()
    run = torch.compile(packed.forward, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        assert torch.equal(run(TEXT).logits, logits(plain))
