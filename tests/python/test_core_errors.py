"""Every error class from a real cause, what it tells, and how it fits Python's own exceptions.

Two cannot be caused from Python on a CPU, and are made by hand: CancelledError (the exception that stopped a call is raised
instead) and InternalError (a bug)."""

from __future__ import annotations

import copy
import pathlib
import pickle
import re
import struct
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from files_support import TINYLM

import tersor
from tersor import _core, _errors

CONTEXT = tersor.default_context()
WEIGHTS = (np.random.default_rng(0).standard_normal((300, 200)) * 0.02).astype(ml_dtypes.bfloat16)
FRAME = bytes(tersor.encode(WEIGHTS))
MATRIX = bytes(_core.pack(CONTEXT, WEIGHTS.view(np.uint8), "BF16", 300, 200))
MASK = (1 << 64) - 1


def mix(z: int) -> int:
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
    return z ^ z >> 31


def with_header(**fields: int) -> bytes:
    """The frame with other bytes in its header, which a digest (spec/frame.md) makes whole again."""
    header = bytearray(FRAME[:128])
    for name, value in fields.items():
        header[int(name.removeprefix("at_"))] = value
    header[40:48] = bytes(8)
    digest = sum(mix(mix(2 << 56 | i) ^ word) for i, word in enumerate(struct.unpack("<16Q", header))) & MASK
    header[40:48] = digest.to_bytes(8, "little")
    return bytes(header) + FRAME[128:]


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def decode(frame):
    return lambda tmp: tersor.decode(frame)


def unpack(data, room=WEIGHTS.nbytes):
    return lambda tmp: _core.unpack_into(CONTEXT, data, bytearray(room))


def encode(*args, **options):
    return lambda tmp: tersor.encode(*args, **options)


def compressed(tmp: pathlib.Path) -> pathlib.Path:
    out = tmp / "m.tersor.safetensors"
    tersor.compress(TINYLM, out)
    return out


def changed_original(tmp: pathlib.Path):
    other = tmp / "other.safetensors"
    data = TINYLM.read_bytes()
    other.write_bytes(flipped(data, len(data) - 5))
    return tersor.verify(compressed(tmp), other)


def damaged_file(tmp: pathlib.Path):
    packed = compressed(tmp)
    data = packed.read_bytes()
    packed.write_bytes(flipped(data, len(data) // 2))
    return tersor.verify(packed)


def text_file(tmp: pathlib.Path):
    (tmp / "a.safetensors").write_text("no tensors in here, just text")
    return tersor.compress(tmp / "a.safetensors", tmp / "out")


def existing(tmp: pathlib.Path):
    (tmp / "there").write_text("precious")
    return tersor.compress(TINYLM, tmp / "there")


def below_a_file(tmp: pathlib.Path):
    (tmp / "file").write_text("")
    return tersor.compress(TINYLM, tmp / "file" / "out.safetensors")


def books_of_tomorrow(tmp: pathlib.Path):
    books = tersor.calibrate_files(TINYLM).replace('"tersor_codebooks"', '"was"')
    return tersor.compress(TINYLM, tmp / "out", codebooks=books.replace("{", '{"tersor_codebooks": 99, ', 1))


CAUSES = [
    ("invalid_argument", encode(b"", codec="zip")),
    ("invalid_argument", encode(b"", dtype="BF17")),
    ("invalid_argument", encode(b"123", dtype="BF16")),
    ("invalid_argument", encode(b"123", dtype="U8", shape=(4,))),
    ("invalid_argument", encode(WEIGHTS, codebook=b"short")),
    ("invalid_argument", encode(WEIGHTS, codebook=bytes(16))),
    ("invalid_argument", encode("text")),
    ("invalid_argument", encode([1, 2])),
    ("invalid_argument", lambda tmp: tersor.Context(threads=5000)),
    ("invalid_argument", lambda tmp: _core.pack(CONTEXT, b"", "BF16", 0, 3)),
    ("invalid_argument", lambda tmp: _core.pack(CONTEXT, bytes(12), "BF16", 2, 3, "square")),
    ("invalid_argument", lambda tmp: _core.pack(CONTEXT, bytes(12), "BF16", 2, 3, inline_escapes=3)),
    ("invalid_argument", lambda tmp: _core.pack(CONTEXT, bytes(12), "BF16", 2, 3, stride=2)),
    ("invalid_argument", lambda tmp: _core.compress(CONTEXT, TINYLM, tmp / "o", level=9)),
    ("invalid_argument", lambda tmp: tersor.compress(TINYLM, tmp / "o", packing="square")),
    ("destination_too_small", lambda tmp: _core.decode_into(CONTEXT, FRAME, bytearray(WEIGHTS.nbytes - 1))),
    ("destination_too_small", lambda tmp: _core.encode_into(CONTEXT, WEIGHTS.view(np.uint8), "BF16", (300, 200),
                                                            bytearray(1000))),
    ("destination_too_small", unpack(MATRIX, 10)),
    ("truncated", decode(b"")),
    ("truncated", decode(FRAME[:127])),
    ("truncated", decode(FRAME[:-1])),
    ("truncated", unpack(MATRIX[:-1])),
    ("truncated", lambda tmp: tersor.inspect(MATRIX[:127])),
    ("bad_magic", decode(b"no frame" * 50)),
    ("bad_magic", unpack(FRAME)),
    ("bad_magic", decode(MATRIX)),
    ("bad_magic", lambda tmp: tersor.kind(b"")),
    ("unsupported_version", decode(with_header(at_8=2))),
    ("malformed", decode(FRAME + b"0")),
    ("malformed", decode(with_header(at_12=9))),
    ("malformed", text_file),
    ("digest_mismatch", decode(flipped(FRAME, 8))),
    ("digest_mismatch", decode(flipped(FRAME, len(FRAME) // 2))),
    ("digest_mismatch", unpack(flipped(MATRIX, len(MATRIX) // 2))),
    ("digest_mismatch", damaged_file),
    ("unsupported", decode(with_header(at_10=9))),
    ("unsupported", encode(b"123", raw_fallback=False)),
    ("unsupported", encode(np.zeros(3, complex))),
    ("unsupported", encode(np.zeros(3, object))),
    ("unsupported", encode(np.zeros(3, ">f4"))),
    ("unsupported", encode(np.zeros(3, "M8[s]"))),
    ("unsupported", lambda tmp: _core.count_symbols(CONTEXT, "U8", b"")),
    ("unsupported", lambda tmp: _core.pack(CONTEXT, bytes(12), "F16", 2, 3, "tcatbe")),
    ("size_overflow", encode(b"", dtype="F64", shape=(2**40, 2**40))),
    ("size_overflow", lambda tmp: _core.pack(CONTEXT, b"", "BF16", 2**40, 2**40)),
    ("io_error", below_a_file),
    ("not_found", lambda tmp: tersor.compress(TINYLM, tmp / "no" / "such" / "place")),
    ("not_found", lambda tmp: tersor.compress(tmp / "nowhere", tmp / "o")),
    ("not_found", lambda tmp: tersor.inspect_files(tmp / "nowhere")),
    ("not_found", lambda tmp: tersor.analyze_files(tmp / "nowhere")),
    ("not_found", lambda tmp: _core.TensorFile(TINYLM).info("no such tensor")),
    ("already_exists", existing),
    ("backend_unavailable", lambda tmp: tersor.Context(backend="abacus")),
    ("mismatch", changed_original),
    ("wrong_kind", lambda tmp: tersor.compress(compressed(tmp), tmp / "twice")),
    ("wrong_kind", lambda tmp: tersor.decompress(TINYLM, tmp / "plain")),
    ("wrong_kind", lambda tmp: tersor.verify(TINYLM)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "cause"), CAUSES, ids=[f"{i}-{name}" for i, (name, _) in enumerate(CAUSES)])
def test_causes(name, cause, tmp_path):
    with pytest.raises(tersor.Error) as caught:
        cause(tmp_path)
    fault = caught.value
    code, kind = next((code, kind) for code, (n, kind) in _errors._CODES.items() if n == name)
    assert type(fault) is kind
    assert (fault.code, fault.name) == (code, name)
    assert fault.message and fault.message in str(fault)
    for made in (pickle.loads(pickle.dumps(fault)), copy.copy(fault)):
        assert type(made) is kind and str(made) == str(fault) and vars(made) == vars(fault)


def test_every_class_has_a_cause():
    # The rest: the two above, and test_out_of_memory.
    assert set(_errors._BY_NAME) - {name for name, _ in CAUSES} == {"cancelled", "internal", "out_of_memory"}


def test_out_of_memory():
    program = """
import resource, sys
import tersor
data = bytes(96 << 20)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
context = tersor.Context(threads=1)
resource.setrlimit(resource.RLIMIT_AS, (used + (48 << 20),) * 2)
try:
    tersor.encode(data, context=context)
except tersor.OutOfMemoryError as fault:
    assert isinstance(fault, MemoryError) and fault.code == 10
    print("refused")
print(len(tersor.encode(b"still works", context=context)))
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs RLIMIT_AS")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["refused", "384"], done.stdout + done.stderr


def test_codes_are_those_of_the_library():
    header = pathlib.Path(__file__).parents[2] / "include" / "tersor" / "error.hpp"
    if not header.exists():
        pytest.skip("not in a checkout")
    text = header.read_text().partition("enum class errc")[2].partition("};")[0]
    found = {int(n): name for name, n in re.findall(r"^  (\w+) =\s+(\d+)", text, re.MULTILINE)}
    assert found.pop(0) == "ok"
    assert found == {code: name for code, (name, _) in _errors._CODES.items()}


BUILTIN = {
    "invalid_argument": ValueError,
    "destination_too_small": ValueError,
    "size_overflow": OverflowError,
    "out_of_memory": MemoryError,
    "io_error": OSError,
    "not_found": FileNotFoundError,
    "already_exists": FileExistsError,
}


@pytest.mark.parametrize("name", list(_errors._BY_NAME))
def test_classes(name):
    kind = _errors._BY_NAME[name]
    assert getattr(tersor, kind.__name__) is kind and kind.__name__ in tersor.__all__
    assert issubclass(kind, tersor.Error)
    assert issubclass(kind, BUILTIN.get(name, tersor.Error))
    fault = _errors.error(name, "what", file="f", tensor="t", byte_offset=0, chunk=0)
    assert str(fault) == "f: tensor 't': byte 0: chunk 0: what"
    assert (fault.file, fault.tensor, fault.byte_offset, fault.chunk) == ("f", "t", 0, 0)
    again = pickle.loads(pickle.dumps(fault))
    assert type(again) is kind and vars(again) == vars(fault) and again.args == fault.args
    assert str(_errors.from_code(fault.code, "what")) == "what"
    assert repr(fault) == f"{kind.__name__}('what')"
    with pytest.raises(kind):
        raise fault


def test_a_code_of_tomorrow_is_internal():
    assert type(_errors.from_code(999, "new")) is tersor.InternalError


def test_where_the_fault_lies(tmp_path):
    with pytest.raises(tersor.TruncatedError) as caught:
        tersor.decode(FRAME[:-1])
    assert (caught.value.byte_offset, caught.value.file, caught.value.chunk) == (len(FRAME) - 1, None, None)

    index = tersor.inspect(FRAME)
    for chunk in (0, index.n_chunks - 1):
        # The first rest plane begins behind the header and an index of 24 bytes a chunk, each padded to 128.
        at = 128 + -(-24 * index.n_chunks // 128) * 128 + chunk * 8192
        with pytest.raises(tersor.DigestMismatchError) as caught:
            tersor.decode(flipped(FRAME, at))
        assert caught.value.chunk == chunk and f"chunk {chunk}" in str(caught.value)

    packed = compressed(tmp_path)
    plan = tersor.inspect_files(packed)["files"][0]["tensors"]
    name = next(t["name"] for t in plan if t["codec"] == "rank")
    info = _core.TensorFile(packed).info(name)
    data = packed.read_bytes()
    packed.write_bytes(flipped(data, info.file_offset + info.stored_bytes // 2))
    with pytest.raises(tersor.DigestMismatchError) as caught:
        tersor.verify(packed)
    assert (caught.value.file, caught.value.tensor) == (str(packed), name)
    with pytest.raises(tersor.NotFoundError) as caught:
        tersor.inspect_files(tmp_path / "nowhere")
    assert caught.value.file == str(tmp_path / "nowhere")


def test_paths_that_are_no_text(tmp_path):
    """Bytes of a path that are no UTF-8 come back as they went in."""
    odd = str(tmp_path) + "/caf\udce9"
    with pytest.raises(tersor.NotFoundError) as caught:
        tersor.inspect_files(odd)
    assert caught.value.file == odd
    source = pathlib.Path(odd + ".safetensors")
    source.write_bytes(TINYLM.read_bytes())
    seen = set()
    report = tersor.compress(source, tmp_path / "out", progress=lambda done, total, file: seen.add(file))
    assert report["files"][0]["name"] == source.name and all("caf\udce9" in file for file in seen)


@pytest.mark.parametrize(
    "wrong",
    [{"codec": 1}, {"codec": None}, {"packing": 3}, {"include": 3}, {"include": [3]}, {"inline_escapes": -1},
     {"overwrite": "x"}, {"codebooks": 7}, {"progress": 5}],
)  # fmt: skip
def test_options_of_wrong_types(wrong, tmp_path):
    with pytest.raises(TypeError):
        tersor.compress(TINYLM, tmp_path / "out", **wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [(1, "U8", (3,), b"abc"), ("a", 1, (3,), b"abc"), ("a", "U8", 3, b"abc"),
                                   ("a", "U8", (-3,), b"abc"), ("a", "U8", (3,), "abc"),
                                   ("a", "U8", (3,), np.zeros(3, np.uint16))])  # fmt: skip
def test_tensors_of_wrong_types(wrong, tmp_path):
    with pytest.raises(TypeError):
        _core.save_plain([wrong], None, tmp_path / "out")
    with pytest.raises(TypeError):
        _core.save_tensors(CONTEXT, [wrong], None, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_other_wrong_types():
    for call in (
        lambda: tersor.Context(threads=-1),
        lambda: tersor.Context(threads="2"),
        lambda: _core.encode(None, b"", "U8", (0,)),
        lambda: _core.encode(CONTEXT, b"", "U8", (-1,)),
        lambda: tersor.encode(b"", dtype="U8", shape=(2**64,)),
        lambda: tersor.compress("a\0b", "c"),
        lambda: tersor.compress(5),
        lambda: tersor.compress("a", "b", levels=3),
    ):
        with pytest.raises(TypeError):
            call()


def test_no_cuda_is_an_error_not_a_crash():
    try:
        devices = _core.cuda.devices()
    except tersor.Error as fault:
        assert type(fault) in (tersor.BackendUnavailableError, tersor.UnsupportedError)
    else:
        assert all(d["name"] for d in devices)
