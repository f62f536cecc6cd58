"""Runs examples/disaggregated: two processes give the tokens of one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "disaggregated"


def run(*options: str) -> str:
    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    command = [sys.executable, str(EXAMPLE / "run.py"), *options]
    # Threads that wait for each other's turn on few cores would take most of the time.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("codec", ["rank"])
def test_two_processes(codec):
    said = run("--tokens", "256", "--generate", "24", "--codec", codec)
    assert "tokens equal those of one process: yes (24 tokens)" in said and "time to first token" in said
    assert codec == "auto" or "parts: 8 rank, 0 top16, 1 raw" in said


def test_frames_between_two_ranks():
    """What runs on two GPUs over NCCL, on the CPU over gloo."""
    said = run("--device", "pair-cpu", "--tokens", "128", "--generate", "8", "--repeat", "1")
    assert said.count("tokens equal: yes") == 6 and "NO" not in said
