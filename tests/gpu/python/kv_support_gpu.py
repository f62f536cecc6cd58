"""Values on the GPU for the tests of tersor.kv, and their bits."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no GPU", allow_module_level=True)

CUDA = torch.device("cuda", torch.cuda.current_device())
DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
SHAPES = [
    (),
    (1,),
    (0,),
    (3, 0, 2),
    (7,),
    (1023,),
    (1025,),
    (8193,),
    (2, 1, 3, 1, 2, 1, 2, 2),
    (33, 8, 128),
    (777, 1031),
]


def normal(shape, dtype: str = "BF16", seed: int = 0) -> torch.Tensor:
    generator = torch.Generator(device=CUDA).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=CUDA).to(DTYPES[dtype])


def bits(x: torch.Tensor) -> torch.Tensor:
    x = x.detach().cpu().contiguous().reshape(-1)
    return x.view({1: torch.uint8, 2: torch.int16, 4: torch.int32}[x.element_size()])


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(bits(a), bits(b))
