# %% [markdown]
# # A model that runs from packed weights
# `compress_module` replaces the linear layers of any torch model in place. This model gains little, since the packed
# layout rounds its 192 columns up to 256; with the matrices of large models a weight takes 11.5 bits instead of 16.

# %%
import copy
from pathlib import Path

import torch
import transformers

import tersor.torch

MODEL = Path(__file__).resolve().parents[2] / "tests/data/tinylm-2m"

# %%
plain = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.bfloat16).eval()
packed = copy.deepcopy(plain)
report = tersor.torch.compress_module(packed, exact=True)
done = [layer for layer in report.layers if layer.action == "packed"]
print(f"{len(done)} of {len(report.layers)} layers packed: {report.plain_bytes:,} -> {report.stored_bytes:,} bytes")
print(packed.model.layers[0].mlp.up_proj)
assert done and report.stored_bytes < report.plain_bytes

# %% [markdown]
# `exact=True` computes with the plain weights, restored bit for bit into scratch memory: the same logits.
# (Without it a GPU multiplies straight from the packed bytes, which is faster and may sum in another order.)

# %%
prompt = torch.tensor([list(b"import ")])
with torch.no_grad():
    logits = packed(prompt).logits
    assert torch.equal(logits, plain(prompt).logits)
print("logits equal:", tuple(logits.shape))

# %%
options = {"max_new_tokens": 48, "do_sample": False, "eos_token_id": None}
tokens = packed.generate(prompt, **options)
assert torch.equal(tokens, plain.generate(prompt, **options))
print(bytes(tokens[0].tolist()).decode(errors="replace"))

# %% [markdown]
# Weights come back as they were.

# %%
for name, module in packed.named_modules():
    if isinstance(module, tersor.torch.Linear):
        assert torch.equal(module.dequantize().weight, plain.get_submodule(name).weight)
print("weights equal")
