# %% [markdown]
# # Compressing a KV cache
# Calibrate a codebook on the first tokens, then code what follows with it: no counting while the model runs.

# %%
from pathlib import Path

import numpy as np

import tersor.numpy
from tersor.kv import Codec, Encoded

DATA = Path(__file__).resolve().parents[2] / "tests/data"
CALIBRATED = 48

# %% [markdown]
# 96 tokens of two layers of a small model: `[token, kv_head, head_dim]`, BF16.

# %%
cache = tersor.numpy.load_file(DATA / "kv-sample.safetensors")
for name, states in cache.items():
    print(name, states.dtype, states.shape)

# %% [markdown]
# One codec for each tensor. `calibrate` returns the share of values whose exponent is in the codebook.

# %%
codecs = {}
for name, states in cache.items():
    codecs[name] = Codec()
    coverage = codecs[name].calibrate(states[:CALIBRATED])
    print(f"{name}: coverage {100 * coverage:.3f}%")

# %%
packed = {name: codecs[name].encode(states[CALIBRATED:]) for name, states in cache.items()}
for name, encoded in packed.items():
    print(f"{name}: {encoded.original_bytes:,} -> {encoded.compressed_bytes:,} bytes, ratio {encoded.ratio:.3f}")

# %% [markdown]
# The bytes are self-contained: another process decodes them with a fresh codec, and gets the same bits.

# %%
for name, states in cache.items():
    message = packed[name].to_bytes()
    back = Codec().decode(Encoded.from_bytes(message))
    assert back.shape == states[CALIBRATED:].shape and back.dtype == states.dtype
    assert np.array_equal(back.view(np.uint16), states[CALIBRATED:].view(np.uint16))
print("all values equal")

# %% [markdown]
# `top16` is a little larger and a little faster.


# %%
def size(codec: str) -> int:
    return sum(Codec(codec=codec).encode(states).compressed_bytes for states in cache.values())


sizes = {codec: size(codec) for codec in ("rank", "top16")}
original = sum(states.nbytes for states in cache.values())
print({codec: f"{original / size:.3f}" for codec, size in sizes.items()})
assert sizes["rank"] < sizes["top16"] < original
