"""SGLang's staging buffers in GPU memory: blobs in place, back, and damaged. SGLang itself is not needed."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no GPU", allow_module_level=True)

import tersor  # noqa: E402
from tersor.integrations.sglang_staging import StagingCodec, room_for  # noqa: E402

CUDA = torch.device("cuda", torch.cuda.current_device())


def region_with(values: torch.Tensor) -> torch.Tensor:
    flat = values.contiguous().reshape(-1).view(torch.uint8)
    region = torch.zeros(room_for(flat.numel()), dtype=torch.uint8, device=CUDA)
    region[: flat.numel()] = flat
    return region


@pytest.mark.parametrize("codec", ["rank", "top16", "raw"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.uint8])
@pytest.mark.parametrize("noise", [False, True])
def test_in_place_and_back(codec: str, dtype: torch.dtype, noise: bool) -> None:
    values = (
        torch.randn(2, 4, 512, 8, 64, device=CUDA).to(torch.bfloat16 if dtype == torch.uint8 else dtype).view(dtype)
    )
    if noise:
        values.view(torch.uint8).random_(0, 256)
    region = region_with(values)
    size = StagingCodec(codec).encode(region, values.nbytes, dtype)
    if dtype == torch.bfloat16 and not noise and codec != "raw":
        assert size < values.nbytes / (1.45 if codec == "rank" else 1.3)
    out = torch.empty_like(values)
    StagingCodec("rank").decode(region, out)  # whatever codec the other side has
    assert torch.equal(out.view(torch.uint8), values.view(torch.uint8))
    host = torch.empty(values.shape, dtype=dtype)
    StagingCodec("rank").decode(region.cpu(), host)  # the same bytes on a CPU
    assert torch.equal(host.view(torch.uint8), values.cpu().view(torch.uint8))


@pytest.mark.parametrize("codec", ["rank", "top16", "raw"])
def test_damage_raises(codec: str) -> None:
    values = torch.randn(1 << 18, device=CUDA).to(torch.bfloat16)
    region = region_with(values)
    size = StagingCodec(codec).encode(region, values.nbytes, torch.bfloat16)
    out = torch.empty_like(values)
    for at in (0, 9, 40, 130, 140, 300, size // 2, size - 129):
        region[at] ^= 16
        try:
            StagingCodec().decode(region, out)
            assert torch.equal(out.view(torch.int16), values.view(torch.int16)), at
        except tersor.Error:
            pass
        region[at] ^= 16
    region[size // 2] ^= 1
    with pytest.raises(tersor.Error):
        StagingCodec().decode(region, out)
    region[size // 2] ^= 1
    with pytest.raises(tersor.Error):
        StagingCodec().decode(region, torch.empty(1 << 17, dtype=torch.bfloat16, device=CUDA))
    StagingCodec().decode(region, out)
