"""Runs the notebook-style scripts of examples/notebooks, each in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).resolve().parents[2] / "examples/notebooks").glob("*.py"))
NEEDS = {
    "01_files": ("numpy", "ml_dtypes"),
    "02_kv_codec": ("numpy", "ml_dtypes"),
    "03_analyze_and_plot": ("matplotlib",),
    "04_torch_module": ("torch", "transformers"),
}
SAYS = {
    "01_files": ("all tensors equal", "DigestMismatchError: tensor "),
    "02_kv_codec": ("all values equal", "layers.4.v: 30,720 -> "),
    "03_analyze_and_plot": ("39 tensors", "pareto.png"),
    "04_torch_module": ("logits equal", "weights equal"),
}


def test_every_script_is_known():
    assert [script.stem for script in SCRIPTS] == sorted(NEEDS) == sorted(SAYS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_script(script, tmp_path):
    missing = [name for name in NEEDS[script.stem] if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    environment = {**os.environ, "TMPDIR": str(tmp_path), "MPLBACKEND": "agg"}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    for words in SAYS[script.stem]:
        assert words in done.stdout
    figures = list(tmp_path.glob("tersor-*/*.png"))
    assert len(figures) == (4 if script.stem == "03_analyze_and_plot" else 0)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in figures)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_cells(script):
    """Every script is a sequence of cells that begins with a title."""
    text = script.read_text(encoding="utf-8")
    assert text.startswith("# %% [markdown]\n# # ") and text.count("\n# %%\n") >= 3
