"""Runs the program and makes small safetensors files; standard library only."""

import json
import os
import pathlib
import random
import shutil
import struct
import subprocess
import tempfile
import unittest

PROGRAM = os.environ["TERSOR_PROGRAM"]
SOURCE = pathlib.Path(os.environ["TERSOR_SOURCE_DIR"])
MODEL = SOURCE / "tests" / "data" / "tinylm-2m"


def safetensors_bytes(tensors, metadata=None):
    """`tensors`: list of (name, dtype, shape, bytes)."""
    header, at = {}, 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, dtype, shape, data in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(t[3] for t in tensors)


def bf16_weights(n_values, seed=1):
    """BF16 bytes that compress like trained weights."""
    rng = random.Random(seed)
    block = b"".join(struct.pack("<f", rng.gauss(0, 0.02))[2:] for _ in range(min(n_values, 1 << 16)))
    return (block * (n_values * 2 // len(block) + 1))[: n_values * 2]


def small_model(n_values=20000):
    return safetensors_bytes(
        [
            ("model.layers.0.w", "BF16", [n_values], bf16_weights(n_values, 1)),
            ("model.layers.1.w", "BF16", [n_values], bf16_weights(n_values, 2)),
            ("ids", "I64", [4], bytes(32)),
        ],
        {"format": "pt"},
    )


def matrix_model():
    """Matrices of both dtypes that packing pays for, and tensors that stay as they are."""
    half = b"".join(struct.pack("<e", x) for x in (random.Random(3).gauss(0, 0.02) for _ in range(96 * 256)))
    return safetensors_bytes(
        [
            ("model.embed_tokens.weight", "BF16", [130, 512], bf16_weights(130 * 512, 1)),
            ("model.layers.0.norm.weight", "BF16", [300], bf16_weights(300, 2)),
            ("model.layers.0.w.weight", "BF16", [64, 320], bf16_weights(64 * 320, 3)),
            ("model.layers.1.w.weight", "F16", [96, 256], half),
            ("narrow", "BF16", [63, 640], bf16_weights(63 * 640, 4)),
            ("noise", "BF16", [64, 128], random.Random(5).randbytes(64 * 128 * 2)),
            ("ids", "I64", [8, 8], bytes(512)),
        ],
        {"format": "pt"},
    )


class CliTest(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="tersor-cli-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def run_cli(self, *args, env=None, **kwargs):
        return subprocess.run(
            [PROGRAM, *map(str, args)],
            capture_output=True,
            timeout=120,
            env={**os.environ, **(env or {})},
            **kwargs,
        )

    def ok(self, *args, **kwargs):
        done = self.run_cli(*args, **kwargs)
        self.assertEqual(done.returncode, 0, done.stderr.decode(errors="replace"))
        return done

    def fails(self, code, *args, **kwargs):
        """Exit code, and one clear line on standard error."""
        done = self.run_cli(*args, **kwargs)
        text = done.stderr.decode(errors="replace")
        self.assertEqual(done.returncode, code, f"{args}: {text}")
        self.assertRegex(text, r"\Atersor: error: [^\n]+\n\Z", f"{args}")
        return done

    def json_of(self, done):
        """Standard output holds one JSON document and nothing else."""
        return json.loads(done.stdout)

    def write(self, name, data):
        path = self.dir / name
        path.write_bytes(data)
        return path

    def model(self, name="model.safetensors", n_values=20000):
        return self.write(name, small_model(n_values))

    def names(self, directory=None):
        return sorted(p.name for p in (directory or self.dir).iterdir())
