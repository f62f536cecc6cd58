# %% [markdown]
# # How far will a model compress?
# Counts of all exponents, and the figures of the HTML report as matplotlib axes.

# %%
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

import tersor
import tersor.plot

ROOT = Path(__file__).resolve().parents[2]
OUT = Path(tempfile.mkdtemp(prefix="tersor-"))

# %%
analysis = tersor.analyze_files(ROOT / "tests/data/tinylm-2m")
total = analysis["total"]
print(f"{total['tensors']} tensors, {total['bytes']:,} bytes")
print(f"rank {total['rank_ratio']:.3f}, top16 {total['top16_ratio']:.3f}, ideal {total['ideal_ratio']:.3f}")

# %% [markdown]
# Each function takes axes, so figures go where you want them; with `plt.subplots()` a notebook shows them by itself.

# %%
figure = Figure(figsize=(13, 8.6), layout="constrained")
axes = figure.subplots(2, 2)
tersor.plot.exponent_histogram(analysis, ax=axes[0, 0])
tersor.plot.exponent_histogram(analysis, log=True, ax=axes[0, 1])
tersor.plot.coverage(analysis, ax=axes[1, 0])
tersor.plot.bits_per_value(analysis, ax=axes[1, 1])
figure.savefig(OUT / "weights.png", dpi=120)

# %% [markdown]
# Without axes a function makes a figure of its own.

# %%
tersor.plot.tensor_types(analysis).figure.savefig(OUT / "types.png", dpi=120)

# %% [markdown]
# Tensors that are named like a KV cache can be compared by layer. For a model's cache over text there is a command:
# `python -m tersor.analyze --model DIR --dataset TEXT -o OUT`.

# %%
kv = tersor.analyze_files(ROOT / "tests/data/kv-sample.safetensors")
figure = Figure(figsize=(13, 4.3), layout="constrained")
left, right = figure.subplots(1, 2)
tersor.plot.kv_layers(kv, "entropy", ax=left)
tersor.plot.kv_layers(kv, "ratio", ax=right)
figure.savefig(OUT / "kv.png", dpi=120)

# %% [markdown]
# Measurements: the JSON of `tersor bench codec` as ratio against speed.

# %%
figure = Figure(figsize=(13, 4.6), layout="constrained")
left, right = figure.subplots(1, 2)
tersor.plot.pareto(ROOT / "bench/results/codec-h200.json", ax=left)
tersor.plot.pareto(ROOT / "bench/results/codec-h200.json", speed="encode", ax=right)
figure.savefig(OUT / "pareto.png", dpi=120)
print(*sorted(str(path) for path in OUT.glob("*.png")), sep="\n")
