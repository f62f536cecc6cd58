"""Loading files to the GPU: the same tensors as on the CPU, and every damage found."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)

import tersor  # noqa: E402
import tersor.torch.files as tt  # noqa: E402
from tersor.torch import _gpu_load  # noqa: E402
from tersor.torch.packed import PackedWeight  # noqa: E402

TINYLM = pathlib.Path(__file__).parents[2] / "data" / "tinylm-2m" / "model.safetensors"
OPTIONS = [
    {},
    {"codec": "top16"},
    {"codec": "raw"},
    {"codec": "raw", "packing": "packed"},
    {"packing": "packed"},
    {"packing": "tcatbe"},
    {"codec": None},
]


def samples(scale=1):
    g = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=g) * 0.02

    return {
        "large": normal(3000 * scale, 2048).bfloat16(),  # several pieces
        "stored": torch.randint(-(2**31), 2**31, (3_000_001 * scale,), generator=g, dtype=torch.int32),
        "matrix": normal(200, 320).bfloat16(),
        "half": normal(157, 250).half(),
        "cube": normal(31, 9, 101).bfloat16(),
        "f32": normal(300, 400),  # coded, decoded on the CPU
        "f8": normal(100, 100).to(torch.float8_e4m3fn),
        "f8_e5m2": normal(100, 100).to(torch.float8_e5m2),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3, dtype=torch.bfloat16),
        "bool": normal(5, 5) > 0,
        **{f"norm.{i}": normal(64 + i).bfloat16() for i in range(40)},
    }


def expect_same(got, want, device="cuda"):
    assert set(got) == set(want)
    for name, t in want.items():
        assert got[name].device.type == device and got[name].dtype == t.dtype and got[name].shape == t.shape, name
        mine = got[name].cpu().contiguous().reshape(-1).view(torch.uint8)
        assert torch.equal(mine, t.contiguous().reshape(-1).view(torch.uint8)), name


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_load(tmp_path, options, threads):
    want = samples()
    tt.save_file(want, tmp_path / "x", {"format": "pt"}, **options)
    expect_same(tt.load_file(tmp_path / "x", device="cuda", threads=threads), want)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", 0, torch.device("cuda", 0)], ids=str)
def test_devices(tmp_path, device):
    want = samples()
    tt.save_file(want, tmp_path / "x")
    expect_same(tt.load_file(tmp_path / "x", device=device), want)
    with tt.safe_open(tmp_path / "x", device=device) as f:
        expect_same({name: f.get_tensor(name) for name in ("matrix", "f32", "empty")},
                    {name: want[name] for name in ("matrix", "f32", "empty")})  # fmt: skip
        expect_same(f.get_tensors(), want)
        rows = f.get_slice("matrix")[10:50:3, ::-1]
        assert rows.device.type == "cuda" and torch.equal(rows.cpu(), want["matrix"][10:50:3].flip(1))


def test_tensors_of_the_gpu_are_saved(tmp_path):
    want = samples()
    tt.save_file({name: t.cuda() for name, t in want.items()}, tmp_path / "x")
    expect_same(tt.load_file(tmp_path / "x"), want, "cpu")


def test_tinylm(tmp_path):
    tersor.compress(TINYLM, tmp_path / "c.safetensors")
    tersor.compress(TINYLM, tmp_path / "p.safetensors", packing="packed")
    want = tt.load_file(TINYLM)
    for name in ("c", "p"):
        expect_same(tt.load_file(tmp_path / f"{name}.safetensors", device="cuda"), want)
    tersor.decompress(tmp_path / "c.safetensors", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == TINYLM.read_bytes()


def test_another_stream_and_many_loads_at_once(tmp_path):
    want = samples()
    tt.save_file(want, tmp_path / "x", packing="packed")
    with torch.cuda.stream(torch.cuda.Stream()):
        expect_same(tt.load_file(tmp_path / "x", device="cuda"), want)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: tt.load_file(tmp_path / "x", device="cuda"), range(8)):
            expect_same(got, want)


@pytest.mark.parametrize("layout", ["packed", "tcatbe"])
def test_packed_matrices_stay_packed(tmp_path, layout):
    want = samples()
    tt.save_file(want, tmp_path / "x", packing=layout)
    torch.cuda.synchronize()
    got = tt.load_packed(tmp_path / "x", device="cuda")
    packed = {name: t for name, t in got.items() if isinstance(t, PackedWeight)}
    assert {"large", "matrix"} <= set(packed)
    for name, weight in packed.items():
        assert weight.data.device.type == "cuda" and torch.equal(weight.unpack().cpu(), want[name])
    expect_same({n: t for n, t in got.items() if n not in packed}, {n: t for n, t in want.items() if n not in packed})
    some = tt.load_packed(tmp_path / "x", device="cuda", names={"matrix", "bool"})
    assert set(some) == {"matrix", "bool"}
    with pytest.raises(tersor.NotFoundError):
        tt.load_packed(tmp_path / "x", device="cuda", names={"no"})


@pytest.mark.parametrize("options", [{}, {"codec": "top16"}, {"packing": "packed"}, {"packing": "tcatbe"}], ids=str)
def test_damage_is_found(tmp_path, options):
    want = samples()
    tt.save_file(want, tmp_path / "x", **options)
    good = (tmp_path / "x").read_bytes()
    with tt.safe_open(tmp_path / "x") as f:
        infos = {name: f.info(name) for name in want}
        places = {n: (i.file_offset, i.stored_bytes, i.is_stored) for n, i in infos.items() if i.stored_bytes > 300}
    for name, (begin, n_bytes, is_stored) in places.items():
        if name.startswith("norm."):
            continue
        # Behind the header, in the middle of planes or blocks, at the end of what was read first.
        for at in (begin + 200, begin + n_bytes // 2, begin + min(n_bytes, _gpu_load.PIECE_BYTES) * 3 // 4):
            bad = bytearray(good)
            bad[at] ^= 0x10
            (tmp_path / "bad").write_bytes(bad)
            try:
                tt.load_file(tmp_path / "bad", device="cuda")
            except tersor.Error as e:
                assert e.code in (6, 7) and e.tensor == name and e.file == str(tmp_path / "bad"), (name, at - begin, e)
            else:
                # Gaps and unused places of matrix frames are the CPU's to look at; the values are right then.
                assert infos[name].is_matrix and not is_stored, (name, at - begin)
                expect_same(tt.load_file(tmp_path / "bad", device="cuda"), want)
            if infos[name].is_matrix and at == begin + 200:
                with pytest.raises(tersor.Error) as caught:
                    tt.load_packed(tmp_path / "bad", device="cuda")
                assert caught.value.code in (6, 7) and caught.value.tensor == name
    expect_same(tt.load_file(tmp_path / "x", device="cuda"), want)  # the device is none the worse


def test_another_frame_in_the_place_of_a_frame(tmp_path):
    """A file that is replaced while it is open: whole and good frames that are not those of the list."""
    a = {"w": torch.randn(256, 256).bfloat16()}
    b = {"w": torch.randn(256, 256).bfloat16()}
    for options in ({"codec": "top16"}, {"packing": "packed"}):
        tt.save_file(a, tmp_path / "a", **options)
        tt.save_file(b, tmp_path / "b", **options)
        with tt.safe_open(tmp_path / "a", device="cuda") as f, tt.safe_open(tmp_path / "b") as g:
            mine, other = f.info("w"), g.info("w")
            frame = (tmp_path / "b").read_bytes()[other.file_offset :][: other.stored_bytes]
            with open(tmp_path / "a", "r+b") as file:
                file.seek(mine.file_offset)
                file.write(frame[: mine.stored_bytes])
            with pytest.raises(tersor.Error) as caught:
                f.get_tensor("w")
            assert caught.value.code in (3, 6, 7) and caught.value.tensor == "w"


def test_a_file_that_shrinks(tmp_path):
    tt.save_file(samples(), tmp_path / "x")
    with tt.safe_open(tmp_path / "x", device="cuda") as f:
        os.truncate(tmp_path / "x", 1 << 20)
        with pytest.raises(tersor.TruncatedError):
            f.get_tensors()


def test_memory_on_the_way_is_bounded(tmp_path):
    """Frames are let go as they are decoded: nowhere near two copies of the model."""
    one = (torch.randn(2048, 4096) * 0.02).bfloat16()
    want = {f"layer.{i}": one + i * 0.001 for i in range(24)}  # 16 MiB each
    tt.save_file(want, tmp_path / "x")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    got = tt.load_file(tmp_path / "x", device="cuda")
    total = sum(t.numel() * t.element_size() for t in want.values())
    assert torch.cuda.max_memory_allocated() - before < 1.5 * total
    expect_same(got, want)
