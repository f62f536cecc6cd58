# %% [markdown]
# # Tensors in compressed files
# `tersor.numpy` reads and writes safetensors files as the safetensors package does; the values inside are compressed.

# %%
import tempfile
from pathlib import Path

import numpy as np

import tersor
import tersor.numpy

DATA = Path(__file__).resolve().parents[2] / "tests/data"
OUT = Path(tempfile.mkdtemp(prefix="tersor-"))

# %% [markdown]
# Plain and compressed files are read by the same call. BF16 arrays have the dtype `ml_dtypes.bfloat16`.

# %%
tensors = tersor.numpy.load_file(DATA / "tinylm-2m/model.safetensors")
embedding = tensors["model.embed_tokens.weight"]
print(f"{len(tensors)} tensors; the embedding is {embedding.dtype} {embedding.shape}")

# %%
path = OUT / "model.tersor.safetensors"
tersor.numpy.save_file(tensors, path)
plain = (DATA / "tinylm-2m/model.safetensors").stat().st_size
print(f"{plain:,} -> {path.stat().st_size:,} bytes, ratio {plain / path.stat().st_size:.3f}")

# %% [markdown]
# What comes back is the same, bit for bit: not close, equal.

# %%
again = tersor.numpy.load_file(path)
for name, tensor in tensors.items():
    assert again[name].dtype == tensor.dtype and np.array_equal(again[name].view(np.uint16), tensor.view(np.uint16))
print("all tensors equal")

# %% [markdown]
# `safe_open` reads the header only. A slice decodes just the chunks that it needs.

# %%
with tersor.numpy.safe_open(path) as file:
    names = list(file.keys())
    rows = file.get_slice("model.embed_tokens.weight")[65:91]
print(names[:3], rows.shape)
assert np.array_equal(rows.view(np.uint16), embedding[65:91].view(np.uint16))

# %% [markdown]
# Whole files and model directories are one call. Every digest is compared; a flipped bit is an error that says where.

# %%
tersor.compress(DATA / "tinylm-2m", OUT / "tinylm-tersor", verify=True)
damaged = bytearray((OUT / "tinylm-tersor/model.safetensors").read_bytes())
damaged[len(damaged) // 2] ^= 1
(OUT / "tinylm-tersor/model.safetensors").write_bytes(damaged)
try:
    tersor.verify(OUT / "tinylm-tersor")
    raise SystemExit("a flipped bit was not noticed")
except tersor.DigestMismatchError as e:
    print(f"{type(e).__name__}: tensor {e.tensor}, chunk {e.chunk}")
