"""What the tests of the whole program share: a model to work on, and figures for the scoreboard."""

import array
import json
import os
import pathlib
import random
import struct
import sys
import tempfile

LONG = os.environ.get("TERSOR_LONG") == "1"


def publish(row, what, count, wrong, unit):
    line = json.dumps({"row": row, "what": what, "count": count, "wrong": wrong, "unit": unit})
    print("figure", line, flush=True)
    path = os.environ.get("TERSOR_FIGURES")
    if path:
        with open(path, "a", encoding="utf-8") as out:
            out.write(line + "\n")


def program():
    path = os.environ.get("TERSOR_PROGRAM")
    if not path or not os.access(path, os.X_OK):
        sys.exit("TERSOR_PROGRAM does not name the program")
    return path


def weights(n_values, seed):
    """BF16 values with the exponents of trained weights: about 2.6 bits of entropy."""
    rng = random.Random(seed)
    exponents = rng.choices(range(112, 124), [1, 1, 2, 4, 8, 16, 32, 60, 90, 80, 40, 6], k=n_values)
    rests = rng.choices(range(256), k=n_values)
    values = array.array("H", ((r >> 7) << 15 | e << 7 | r & 127 for e, r in zip(exponents, rests)))
    if sys.byteorder == "big":
        values.byteswap()
    return values.tobytes()


def write_model(path, n_bytes, seed=1):
    """A safetensors file of about n_bytes in tensors of 2 MiB and one stored tensor; the data repeat one random megabyte
    at changing offsets."""
    piece = 2 << 20
    block = weights(1 << 19, seed)
    n_tensors = max(1, n_bytes // piece)
    size = min(piece, n_bytes // 2 * 2)
    header = {"__metadata__": {"format": "pt"}}
    at = 0
    for i in range(n_tensors):
        header[f"layers.{i}.weight"] = {"dtype": "BF16", "shape": [size // 2], "data_offsets": [at, at + size]}
        at += size
    header["steps"] = {"dtype": "I64", "shape": [4], "data_offsets": [at, at + 32]}
    text = json.dumps(header).encode()
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for i in range(n_tensors):
            turn = i * 7919 * 2 % len(block)
            data = block[turn:] + block[:turn]
            out.write((data * (size // len(data) + 1))[:size])
        out.write(bytes(32))


def scratch(on_disk=False):
    """A temporary directory; in memory where there is room for it, unless it must be on a disk."""
    base = "/dev/shm" if not on_disk and os.access("/dev/shm", os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="tersor-fault-", dir=base)


def temporaries(directory):
    return [p.name for p in pathlib.Path(directory).iterdir() if p.name.startswith(".")]
