"""Graphs, timers and the machine's description, shared by the measurements."""

from __future__ import annotations

import datetime
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

import tersor


def machine(commit: str) -> dict[str, Any]:
    """What a result must say of where it comes from."""
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split("\n")[0]
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": driver,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tersor": tersor.__version__,
        "commit": commit,
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def capture(step: Callable[[], Any], warmups: int = 3) -> torch.cuda.CUDAGraph:
    """A CUDA graph of one call, after some calls outside of it."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warmups):
            step()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def seconds_of(run: Callable[[], Any], times: int) -> float:
    """Seconds a call, over ``times`` calls between two events."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    for _ in range(times):
        run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3 / times


def alternate(
    runs: dict[str, Callable[[], Any]], times: int, rounds: int = 5, between: Callable[[], Any] = lambda: None
) -> dict[str, float]:
    """Median seconds a call of each, measured in turns so that clocks and heat are shared."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            between()
            found[name].append(seconds_of(run, times))
    return {name: statistics.median(values) for name, values in found.items()}


def write(path: str | None, document: dict[str, Any]) -> None:
    if path:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(document, indent=1) + "\n")
