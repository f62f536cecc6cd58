"""Whole files and model directories through the package's own calls."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from files_support import TINYLM

import tersor
from tersor import _core

MODEL = TINYLM.parent
SIZE = TINYLM.stat().st_size


def tree(directory: pathlib.Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def tensors(report: dict) -> dict[str, dict]:
    return {t["name"]: t for f in report["files"] for t in f["tensors"]}


@pytest.mark.parametrize("codec", ["rank", "top16", "raw"])
@pytest.mark.parametrize("packing", [None, "packed", "tcatbe"])
def test_directory_round_trip(codec, packing, tmp_path):
    packed, plain = tmp_path / "packed", tmp_path / "plain"
    report = tersor.compress(MODEL, packed, codec=codec, packing=packing, verify=True)
    found = tensors(report)
    assert report["n_tensors"] == len(found) > 10
    assert report["original_bytes"] == sum(p.stat().st_size for p in MODEL.iterdir())
    assert report["stored_bytes"] == sum(len(data) for data in tree(packed).values())
    assert report["ratio"] == pytest.approx(report["original_bytes"] / report["stored_bytes"])
    used = {t["codec"] for t in found.values()}
    assert used <= {codec, "raw", packing} and ((codec == "raw" and not packing) or used - {"raw"})
    verdict = tersor.verify(packed, against=MODEL)
    assert verdict["n_tensors"] == report["n_tensors"]
    back = tersor.decompress(packed, plain, verify=True)
    assert tree(plain) == tree(MODEL)
    assert back["original_bytes"] == report["original_bytes"]


def test_file_round_trip_and_default_names(tmp_path):
    source = tmp_path / "m.safetensors"
    shutil.copy(TINYLM, source)
    tersor.compress(str(source))
    packed = tmp_path / "m.tersor.safetensors"
    assert packed.stat().st_size < 0.75 * SIZE
    source.rename(tmp_path / "original")
    tersor.decompress(packed)
    assert source.read_bytes() == TINYLM.read_bytes()
    shutil.copytree(MODEL, tmp_path / "model")
    tersor.compress(tmp_path / "model")
    assert (tmp_path / "model-tersor" / "config.json").exists()
    assert _core.default_compressed_path("x/m.safetensors") == pathlib.Path("x/m.tersor.safetensors")
    assert _core.default_decompressed_path("x/m.tersor.safetensors") == pathlib.Path("x/m.safetensors")


def test_pack_model(tmp_path):
    report = tersor.pack_model(MODEL, tmp_path / "out")
    assert {t["codec"] for t in tensors(report).values()} == {"packed", "raw"}
    other = tersor.pack_model(MODEL, tmp_path / "other", packing="tcatbe", codec="rank")
    assert "tcatbe" in {t["codec"] for t in tensors(other).values()}
    wide = tersor.pack_model(MODEL, tmp_path / "wide", inline_escapes=128)
    name = next(n for n, t in tensors(wide).items() if t["codec"] == "packed")
    file = _core.TensorFile(tmp_path / "wide" / "model.safetensors")
    header = np.zeros(128, np.uint8)
    file.read_raw(name, 0, header)
    assert tersor.inspect(header).inline_escapes == 128


def test_include_and_exclude(tmp_path):
    def coded(name, **globs):
        report = tersor.compress(TINYLM, tmp_path / name, **globs)
        return {n for n, t in tensors(report).items() if t["codec"] != "raw"}

    everything = coded("all")
    assert everything
    attention = {n for n in everything if "attn" in n}
    assert attention and coded("attn", include=["*attn*"]) == attention
    assert coded("text", include="*attn*") == attention
    assert coded("rest", exclude=["*attn*"]) == everything - attention
    assert coded("both", include=["*attn*"], exclude=["*q_proj*"]) == {n for n in attention if "q_proj" not in n}
    assert coded("none", exclude=["*"]) == set()
    listed = tensors(tersor.inspect_files(TINYLM, include=["*attn*"]))
    assert set(listed) >= attention and all("attn" in n for n in listed)
    assert not any("attn" in n for n in tensors(tersor.inspect_files(TINYLM, exclude="*attn*")))


def test_inspect_files(tmp_path):
    tersor.compress(MODEL, tmp_path / "out")
    plain, packed = tersor.inspect_files(MODEL), tersor.inspect_files(str(tmp_path / "out"))
    assert set(tensors(plain)) == set(tensors(packed))
    for name, t in tensors(packed).items():
        same = tensors(plain)[name]
        assert (t["dtype"], t["shape"], t["original_bytes"]) == (same["dtype"], same["shape"], same["original_bytes"])
        assert t["stored_bytes"] <= t["original_bytes"] == same["stored_bytes"]
    assert [f["compressed"] for f in packed["files"] if f["safetensors"]] == [True]


def test_analyze_and_calibrate(tmp_path):
    tersor.compress(MODEL, tmp_path / "out")
    plain, packed = tersor.analyze_files(MODEL), tersor.analyze_files([tmp_path / "out"], html=tmp_path / "page.html")
    assert plain["total"]["tensors"] == packed["total"]["tensors"] > 10
    assert plain["dtypes"]["BF16"]["shared_codebook"]["counts"] == packed["dtypes"]["BF16"]["shared_codebook"]["counts"]
    assert "<html" in (tmp_path / "page.html").read_text()[:200].lower()
    assert len(tersor.analyze_files(MODEL, include=["*attn*"])["tensors"]) < len(plain["tensors"])
    both = tersor.analyze_files([MODEL, TINYLM])
    assert both["total"]["tensors"] == 2 * plain["total"]["tensors"]

    books = tersor.calibrate_files([MODEL], exclude=["*norm*"])
    assert len(json.loads(books)["by_dtype"]["BF16"]) == 16
    assert not any("norm" in name for name in json.loads(books)["by_name"])
    report = tersor.compress(MODEL, tmp_path / "calibrated", codebooks=books, verify=True)
    assert report["ratio"] > 1.3
    for wrong in ("", "[]", "{", '{"tersor_codebooks": 0, "by_dtype": {"BF16": [1]}}'):
        with pytest.raises(tersor.Error):
            tersor.compress(MODEL, tmp_path / "wrong", codebooks=wrong)
    assert not (tmp_path / "wrong").exists()


def test_dry_run_and_overwrite(tmp_path):
    out = tmp_path / "out"
    real = tersor.compress(MODEL, out)
    out_tree = tree(out)
    with pytest.raises(tersor.AlreadyExistsError):
        tersor.compress(MODEL, out)
    assert tree(out) == out_tree
    dry = tersor.compress(MODEL, tmp_path / "dry", dry_run=True)
    assert (dry["stored_bytes"], dry["ratio"]) == (real["stored_bytes"], real["ratio"])
    assert tersor.decompress(out, tmp_path / "dry", dry_run=True)["original_bytes"] == real["original_bytes"]
    assert {p.name for p in tmp_path.iterdir()} == {"out"}
    (out / "leftover").write_text("of another model")
    tersor.compress(MODEL, out, overwrite=True)
    assert tree(out) == out_tree


# ---- progress ----


def calls(tmp_path):
    # With files that are copied as they are, and a config.json, which is written anew.
    source, packed = tmp_path / "source", tmp_path / "given"
    shutil.copytree(MODEL, source)
    (source / "tokenizer.json").write_text("{}" * 5000)
    tersor.compress(source, packed)
    return {
        "compress": lambda f: tersor.compress(source, tmp_path / "o1", progress=f),
        "compress, verified": lambda f: tersor.compress(source, tmp_path / "o2", verify=True, progress=f),
        "decompress": lambda f: tersor.decompress(packed, tmp_path / "o3", progress=f),
        "decompress, verified": lambda f: tersor.decompress(packed, tmp_path / "o4", verify=True, progress=f),
        "verify": lambda f: tersor.verify(packed, progress=f),
        "verify against": lambda f: tersor.verify(packed, source, progress=f),
    }


NAMES = ["compress", "compress, verified", "decompress", "decompress, verified", "verify", "verify against"]


@pytest.mark.parametrize("name", NAMES)
def test_progress(name, tmp_path):
    seen = []
    calls(tmp_path)[name](lambda done, total, file: seen.append((done, total, file, threading.get_ident())))
    done = [s[0] for s in seen]
    assert done == sorted(done) and len({s[1] for s in seen}) == 1
    assert done[-1] == seen[-1][1] >= SIZE
    assert {s[3] for s in seen} == {threading.get_ident()}
    assert any("model.safetensors" in s[2] for s in seen)


class Stop(BaseException):
    pass


@pytest.mark.parametrize("stop", [Stop, KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("name", NAMES)
def test_an_exception_of_the_callback_stops_the_call(name, stop, tmp_path):
    call = calls(tmp_path)[name]
    n_calls = 0

    def progress(done, total, file):
        nonlocal n_calls
        n_calls += 1
        raise stop("enough")

    with pytest.raises(stop, match="enough"):
        call(progress)
    assert n_calls == 1
    assert {p.name for p in tmp_path.iterdir()} == {"given", "source"}
    call(None)


def test_an_old_output_survives_a_stopped_overwrite(tmp_path):
    out = tmp_path / "out"
    tersor.compress(MODEL, out)
    before = tree(out)

    def progress(done, total, file):
        if done > total // 2:
            raise Stop

    with pytest.raises(Stop):
        tersor.compress(MODEL, out, codec="top16", overwrite=True, progress=progress)
    assert tree(out) == before and {p.name for p in tmp_path.iterdir()} == {"out"}


def test_a_callback_may_use_the_library(tmp_path):
    """A call inside a call on one context does not wait for itself."""
    sizes = []
    tersor.compress(MODEL, tmp_path / "out", progress=lambda *_: sizes.append(len(tersor.encode(b"x" * 300_000))))
    assert len(set(sizes)) == 1


# ---- what the system refuses ----


def big_file(path: pathlib.Path, mib: int) -> None:
    x = np.random.default_rng(0).standard_normal(mib << 18, dtype=np.float32).view(np.uint32) >> 16
    data = x.astype(np.uint16).view(np.uint8)
    _core.save_plain([(f"t{i}", "BF16", (data.size // 2,), data) for i in range(2)], None, path)


INTERRUPTED = """
import sys, time, tersor
started = open(sys.argv[3], "w")
def progress(done, total, file):
    started.write("x"); started.flush()
    time.sleep(0.02)
try:
    tersor.compress(sys.argv[1], sys.argv[2], context=tersor.Context(threads=1), progress=progress)
except KeyboardInterrupt:
    sys.exit(42)
"""


@pytest.mark.parametrize("progress", [True, False])
def test_ctrl_c(progress, tmp_path):
    source, out, mark = tmp_path / "in.safetensors", tmp_path / "place" / "out.safetensors", tmp_path / "started"
    out.parent.mkdir()
    big_file(source, 128)
    program = (
        INTERRUPTED
        if progress
        else INTERRUPTED.replace(", progress=progress", "").replace("try:", "started.write('x'); started.close()\ntry:")
    )
    slow = {**os.environ, "TERSOR_BACKEND": "scalar"}
    child = subprocess.Popen([sys.executable, "-c", program, source, out, mark], env=slow)
    try:
        deadline = time.time() + 20
        while not (mark.exists() and mark.stat().st_size and any(out.parent.iterdir())) and time.time() < deadline:
            time.sleep(0.005)
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 42
    finally:
        child.kill()
    assert list(out.parent.iterdir()) == []


def test_a_disk_that_is_full(tmp_path):
    """A limit on the size of files stands for it: the system refuses to write on."""
    program = """
import errno, resource, sys, tersor
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for call, src, dst in ((tersor.compress, sys.argv[1], sys.argv[3]), (tersor.decompress, sys.argv[2], sys.argv[3])):
    try:
        call(src, dst)
    except tersor.IoError as fault:
        assert isinstance(fault, OSError) and fault.code == 11, fault
        print(fault)
"""
    tersor.compress(MODEL, tmp_path / "packed")
    (tmp_path / "place").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program, MODEL, tmp_path / "packed", tmp_path / "place" / "out"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.count(os.strerror(errno.EFBIG)) == 2, done.stdout + done.stderr
    assert list((tmp_path / "place").iterdir()) == []


def test_too_few_open_files(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        with pytest.raises(tersor.IoError):
            tersor.compress(MODEL, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not (tmp_path / "out").exists()
    assert tersor.compress(MODEL, tmp_path / "out")["n_tensors"]


def test_nothing_stays_open(tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for i in range(3):
        tersor.compress(MODEL, tmp_path / str(i))
        tersor.verify(tmp_path / str(i), MODEL)
        with pytest.raises(tersor.Error):
            tersor.compress(MODEL, tmp_path / str(i))
    assert len(os.listdir("/proc/self/fd")) == before
