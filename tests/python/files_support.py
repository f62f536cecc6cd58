"""Arrays and indices for the tests of files."""

from __future__ import annotations

import pathlib

import ml_dtypes
import numpy as np

TINYLM = pathlib.Path(__file__).parents[1] / "data" / "tinylm-2m" / "model.safetensors"
OPTIONS = [
    {},
    {"codec": "top16"},
    {"codec": "raw"},
    {"codec": "raw", "packing": "packed"},
    {"packing": "packed"},
    {"packing": "tcatbe"},
    {"exclude": ["*"]},
    {"codec": None},
]


def weights(shape, dtype=ml_dtypes.bfloat16, seed=0):
    return (np.random.default_rng(seed).standard_normal(shape) * 0.02).astype(dtype)


def samples():
    """Every dtype that numpy has; matrices, cubes, scalars, empty tensors, names of every kind."""
    rng = np.random.default_rng(1)
    out = {
        "matrix": weights((200, 320)),
        "half": weights((157, 250), np.float16),
        "cube": weights((31, 9, 101)),
        "f32": weights((300, 40), np.float32),
        "scalar": np.array(1.5, np.float32),
        "scalar16": np.array(1.5, ml_dtypes.bfloat16),
        "empty": np.zeros((0, 7), np.float32),
        "flat": np.zeros((7, 0), ml_dtypes.bfloat16),
        "": np.arange(3, dtype=np.int64),
        'é\n"\\/\x01😀': np.arange(5, dtype=np.uint8),
        "bool": rng.integers(0, 2, (5, 5)).astype(bool),
        "c64": (rng.standard_normal((4, 3)) + 1j).astype(np.complex64),
    }
    for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float64"):
        out[name] = rng.integers(0, 100, (37, 11)).astype(name)
    for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"):
        out[name] = np.abs(weights((65, 33), np.float32)).astype(getattr(ml_dtypes, name))
    return out


def raw(array):
    return np.ascontiguousarray(array).tobytes()


def expect_same(got, want):
    assert set(got) == set(want)
    for name, array in want.items():
        assert got[name].dtype == array.dtype, name
        assert got[name].shape == array.shape, name
        assert raw(got[name]) == raw(array), name


INDICES = [
    np.s_[...], np.s_[()], np.s_[:], np.s_[0], np.s_[-1], np.s_[3:17], np.s_[17:3], np.s_[:, 5], np.s_[..., 2],
    np.s_[None], np.s_[None, 4:9, None], np.s_[::3], np.s_[::-1], np.s_[20:2:-4, ::-2], np.s_[-5:, 1:-1:2],
    np.s_[2, 3], np.s_[..., -1, 0], np.s_[:1000], np.s_[5, ..., None], np.s_[np.int64(4), np.uint8(2):7],
]  # fmt: skip
