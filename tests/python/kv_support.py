"""Values for the tests of tersor.kv, and their bits."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

torch = pytest.importorskip("torch")

DTYPES = {
    "BF16": (np.dtype(ml_dtypes.bfloat16), torch.bfloat16),
    "F16": (np.dtype(np.float16), torch.float16),
    "F32": (np.dtype(np.float32), torch.float32),
    "F8_E4M3": (np.dtype(ml_dtypes.float8_e4m3fn), torch.float8_e4m3fn),
    "F8_E5M2": (np.dtype(ml_dtypes.float8_e5m2), torch.float8_e5m2),
}
SHAPES = [(), (1,), (0,), (3, 0, 2), (7,), (1024,), (1025,), (3, 5, 7), (2, 1, 3, 1, 2, 1, 2, 2), (33, 8, 128)]
EXPONENT = {"BF16": (7, 0xFF), "F16": (10, 0x1F), "F32": (23, 0xFF), "F8_E4M3": (3, 0xF), "F8_E5M2": (2, 0x1F)}


def normal(shape, dtype: str = "BF16", seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal(shape)
    return np.asarray(values).astype(DTYPES[dtype][0])


def bits(x: np.ndarray) -> np.ndarray:
    x = np.ascontiguousarray(x)
    return x.reshape(-1).view(f"u{x.dtype.itemsize}")


def to_torch(x: np.ndarray, dtype: str) -> torch.Tensor:
    if x.size == 0:
        return torch.empty(x.shape, dtype=DTYPES[dtype][1])
    flat = torch.from_numpy(np.ascontiguousarray(x).reshape(-1).view(np.uint8).copy())
    return flat.view(DTYPES[dtype][1]).reshape(x.shape)


def tensor_bits(x: torch.Tensor) -> np.ndarray:
    if x.numel() == 0:
        return np.empty(0, np.uint8)
    return x.detach().contiguous().reshape(-1).view(torch.uint8).numpy()


def exponents(x: np.ndarray, dtype: str) -> np.ndarray:
    shift, mask = EXPONENT[dtype]
    return (bits(x) >> shift) & mask
