"""Seconds until a model is ready on the GPU: plain safetensors beside a compressed directory, each load in a process of its own.

    python bench/python/load_bench.py --model llama-3.1-8b --work /scratch -o result.json

Ready: from_pretrained has returned and the GPU has finished; imports and the CUDA context are not counted. `cached`: the files
are in the page cache; `disk`: they were dropped from it before."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

CHILD = """
import json, sys, time
import torch, transformers, tersor, tersor.transformers, tersor.torch, safetensors.torch, glob
kind, path = sys.argv[1:3]
torch.cuda.init(); torch.zeros(1, device="cuda"); torch.cuda.synchronize()
torch.cuda.reset_peak_memory_stats()
begin = time.perf_counter()
if kind == "from_pretrained":
    held = transformers.AutoModelForCausalLM.from_pretrained(path, dtype="auto", device_map="cuda")
elif kind == "from_pretrained, verify off":
    config = tersor.transformers.TersorConfig(verify=False)
    held = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype="auto", device_map="cuda", quantization_config=config)
elif kind == "safetensors.load_file":
    held = [safetensors.torch.load_file(f, device="cuda") for f in sorted(glob.glob(path + "/*.safetensors"))]
elif kind == "tersor.load_packed":
    held = [tersor.torch.load_packed(f, device="cuda") for f in sorted(glob.glob(path + "/*.safetensors"))]
else:
    held = [tersor.torch.load_file(f, device="cuda") for f in sorted(glob.glob(path + "/*.safetensors"))]
torch.cuda.synchronize()
print(json.dumps({"seconds": time.perf_counter() - begin, "gpu_bytes": torch.cuda.memory_allocated(),
                  "peak_gpu_bytes": torch.cuda.max_memory_allocated()}))
"""


def files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.suffix == ".safetensors")


def drop_from_cache(directory: Path) -> None:
    for path in files(directory):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def read_through(directory: Path) -> None:
    for path in files(directory):
        with open(path, "rb", buffering=0) as stream:
            while stream.read(1 << 24):
                pass


def load(kind: str, directory: Path) -> dict:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, kind, str(directory)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llama-3.1-8b")
    parser.add_argument("--layers", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="a directory with room for the model three times")
    parser.add_argument("--calls", nargs="*", help="only these, such as safetensors.load_file")
    parser.add_argument("--cached-only", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--commit", default="")
    parser.add_argument("-o", "--output")
    options = parser.parse_args()

    import torch
    from measure import machine, write
    from models import build

    import tersor

    made = {name: options.work / name for name in ("plain", "packed", "coded")}
    build(options.model, options.layers).save_pretrained(made["plain"])
    torch.cuda.empty_cache()
    seconds = {}
    begin = time.perf_counter()
    tersor.pack_model(made["plain"], made["packed"])
    seconds["pack_model"] = time.perf_counter() - begin
    begin = time.perf_counter()
    tersor.compress(made["plain"], made["coded"])
    seconds["compress"] = time.perf_counter() - begin
    document = {
        "what": "seconds until a model is ready on the GPU",
        "machine": machine(options.commit),
        "model": options.model,
        "file_bytes": {name: sum(path.stat().st_size for path in files(d)) for name, d in made.items()},
        "made_in_seconds": seconds,
        "loads": [],
    }
    print(document["file_bytes"], seconds, flush=True)
    plans = [
        ("from_pretrained", "plain"),
        ("from_pretrained", "packed"),
        ("from_pretrained, verify off", "packed"),
        ("from_pretrained", "coded"),
        ("safetensors.load_file", "plain"),
        ("tersor.load_packed", "packed"),
        ("tersor.load_file", "coded"),
    ]
    plans = [plan for plan in plans if not options.calls or plan[0] in options.calls]
    for state in ("cached",) if options.cached_only else ("cached", "disk"):
        for kind, name in plans if state == "cached" else [p for p in plans[:2] if p[0] == "from_pretrained"]:
            found = []
            for _ in range(options.rounds if state == "cached" else 1):
                (read_through if state == "cached" else drop_from_cache)(made[name])
                found.append(load(kind, made[name]))
            row = {"state": state, "call": kind, "files": name}
            row["seconds"] = round(statistics.median(f["seconds"] for f in found), 3)
            row["gpu_bytes"], row["peak_gpu_bytes"] = found[0]["gpu_bytes"], found[0]["peak_gpu_bytes"]
            document["loads"].append(row)
            print(row, flush=True)
    write(options.output, document)


if __name__ == "__main__":
    main()
