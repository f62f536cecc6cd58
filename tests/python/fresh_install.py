"""What a wheel must do in an environment that has nothing else: run by scripts/test_python.sh in a fresh one."""

from __future__ import annotations

import importlib.metadata
import pathlib
import subprocess
import sys
import tempfile

import tersor

MODEL = pathlib.Path(__file__).resolve().parents[1] / "data" / "tinylm-2m"

assert "site-packages" in tersor.__file__, tersor.__file__
assert importlib.metadata.version("tersor") == tersor.__version__
assert (pathlib.Path(tersor.__file__).parent / "py.typed").exists()
plugins = importlib.metadata.entry_points(group="vllm.general_plugins")
assert [plugin.value for plugin in plugins if plugin.name == "tersor"] == ["tersor.vllm:register"]

values = bytes(range(256)) * 300
frame = tersor.encode(values, dtype="BF16")
assert bytes(tersor.decode(frame).data) == values
with tempfile.TemporaryDirectory() as work:
    small, back = pathlib.Path(work, "small"), pathlib.Path(work, "back")
    assert tersor.compress(MODEL, small)["ratio"] > 1.4
    tersor.verify(small, against=MODEL)
    tersor.decompress(small, back)
    for path in MODEL.iterdir():
        assert (back / path.name).read_bytes() == path.read_bytes(), path
for other in ("numpy", "torch", "transformers", "matplotlib", "ml_dtypes"):
    assert other not in sys.modules, other
for module, needs in (("tersor.numpy", "numpy"), ("tersor.torch", "torch"), ("tersor.transformers", "transformers")):
    done = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True, text=True, check=False)
    if done.returncode:
        assert "ModuleNotFoundError" in done.stderr, (module, needs, done.stderr)
print(f"tersor {tersor.__version__} works from its wheel alone, on Python {sys.version.split()[0]}")
