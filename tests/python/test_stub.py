"""The type stubs of the extension say what the extension has, and type checkers take them."""

from __future__ import annotations

import ast
import pathlib
import re
import subprocess
import sys

import pytest

import tersor
from tersor import _core

STUBS = pathlib.Path(tersor.__file__).parent / "_core"
MODULES = [
    (_core, STUBS / "__init__.pyi"),
    (_core.cuda, STUBS / "cuda" / "__init__.pyi"),
    (_core.cuda.kv, STUBS / "cuda" / "kv.pyi"),
    (_core.transfer, STUBS / "transfer.pyi"),
]
each_module = pytest.mark.parametrize(("module", "stub"), MODULES, ids=[m.__name__ for m, _ in MODULES])
# Python calls these of its own accord; the module may have more of them than a stub needs.
SPECIAL = {"__new__", "__doc__", "__module__", "__hash__"}

Argument = tuple[str, str, str]  # name, kind, default


def arguments_of(function: ast.FunctionDef, values: tuple | None = None) -> list[Argument]:
    """What a caller sees of a signature; ``values``: the defaults, where the text only numbers them."""

    def text(default: ast.expr | None) -> str:
        if default is None:
            return ""
        found = ast.literal_eval(default)
        return repr(found if values is None else values[found])

    a = function.args
    positional = [(arg, "positional") for arg in a.posonlyargs] + [(arg, "any") for arg in a.args]
    defaults = [None] * (len(positional) - len(a.defaults)) + list(a.defaults)
    out = [(arg.arg, kind, text(d)) for (arg, kind), d in zip(positional, defaults, strict=True)]
    if a.vararg:
        out.append((a.vararg.arg, "*", ""))
    out += [(arg.arg, "keyword", text(d)) for arg, d in zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    if a.kwarg:
        out.append((a.kwarg.arg, "**", ""))
    return out


def signature_of(function) -> list[Argument]:
    """The arguments of a function of nanobind; overloads must not differ in them."""
    found = []
    for text, _, values in function.__nb_signature__:
        # Defaults are numbered and types of arrays are no Python: only names and defaults count here.
        plain = re.sub(r"ndarray\[[^\]]*\]", "object", text).replace("\\", "")
        found.append(arguments_of(ast.parse(plain + ": ...").body[0], values or ()))
    assert all(f == found[0] for f in found)
    return found[0]


def is_public(name: str) -> bool:
    return not name.startswith("_")


def names_in(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """What a stub defines for others."""
    out: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            out[node.name] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            out[node.target.id] = node
        elif isinstance(node, ast.ImportFrom):
            out.update({a.asname: node for a in node.names if a.asname and a.asname == a.name})
    return out


def check_class(made: type, node: ast.ClassDef) -> None:
    stub = names_in(node.body)
    real = {name: value for name, value in vars(made).items() if name not in SPECIAL}
    assert {n for n in real if is_public(n)} == {n for n in stub if is_public(n)}
    assert set(stub) <= set(real) | {"__buffer__", "__init__"}
    for name, value in real.items():
        entry = stub.get(name)
        if isinstance(entry, ast.FunctionDef) and hasattr(value, "__nb_signature__"):
            assert signature_of(value) == arguments_of(entry), f"{made.__name__}.{name}"
        is_property = isinstance(entry, ast.FunctionDef) and any(
            isinstance(d, ast.Name) and d.id == "property" for d in entry.decorator_list
        )
        assert is_property == (type(value) is property), f"{made.__name__}.{name}"
        if is_property:
            result = value.fget.__nb_signature__[0][0].rpartition("->")[2].strip()
            written = ast.unparse(entry.returns)
            assert written.split("[")[0] == result.split("[")[0], f"{made.__name__}.{name}"


@each_module
def test_same_names(module, stub):
    assert set(filter(is_public, dir(module))) == set(filter(is_public, names_in(ast.parse(stub.read_text()).body)))


@each_module
def test_same_arguments(module, stub):
    checked = 0
    for name, node in names_in(ast.parse(stub.read_text()).body).items():
        if isinstance(node, ast.FunctionDef):
            assert signature_of(getattr(module, name)) == arguments_of(node), name
            checked += 1
        elif isinstance(node, ast.ClassDef) and is_public(name):
            check_class(getattr(module, name), node)
            checked += 1
        elif isinstance(node, ast.AnnAssign) and is_public(name):
            assert type(getattr(module, name)).__name__ == ast.unparse(node.annotation), name
    assert checked > 5


def test_drift_is_found():
    """The comparison above sees another name, another default and another order."""
    node = ast.parse("def encode_bound(codec: str, dtype: str, n: int = 0) -> int: ...").body[0]
    assert signature_of(_core.encode_bound) != arguments_of(node)
    node = ast.parse("def encode_bound(dtype: str, codec: str, n_values: int) -> int: ...").body[0]
    assert signature_of(_core.encode_bound) != arguments_of(node)
    assert signature_of(_core.Context.__init__)[1:] == [("threads", "any", "0"), ("backend", "any", "''")]


GOOD = """
from pathlib import Path
import tersor
from tersor import _core
from tersor._core.cuda import kv

def round_trip(values: bytes) -> bytes:
    context = tersor.Context(threads=2)
    frame: tersor.Buffer = tersor.encode(values, dtype="BF16", context=context)
    room = bytearray(len(values))
    n: int = _core.decode_into(context, frame, room)
    data, dtype, shape = tersor.decode(memoryview(frame))
    sizes: tuple[int, ...] = shape
    return bytes(data)[:n]

def products(info: tersor.MatrixInfo) -> str:
    _core.cuda.decode("rank", [("BF16", 1, 2, 3, 4, 5)], 0, 0, stream=7)
    store = kv.PageStore("slots", 1, 2, overflow_places=3)
    return _core.cuda.plan_gemm(info, 16) + _core.cuda.devices()[0]["name"]

report = tersor.compress(Path("a"), progress=lambda done, total, file: None)
"""
BAD = """
from tersor import _core
_core.encode_bound("rank", "BF16", "many")
_core.Context().threads + "x"
_core.cuda.decode("rank", [("BF16", 1)], 0, 0, 0)
_core.no_such_name
"""


def mypy(tmp_path: pathlib.Path, program: str) -> tuple[int, str]:
    pytest.importorskip("mypy")
    source = tmp_path / "program.py"
    source.write_text(program)
    # The package alone: mypy refuses a site-packages as its path.
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "tersor").symlink_to(STUBS.parent)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-site-packages", "--ignore-missing-imports", "--follow-imports=silent",
         "--config-file=", f"--cache-dir={tmp_path / 'cache'}", source.name],
        cwd=tmp_path, env={"MYPYPATH": str(packages), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_mypy_takes_a_program(tmp_path):
    code, text = mypy(tmp_path, GOOD)
    assert code == 0, text


def test_mypy_refuses_wrong_uses(tmp_path):
    code, text = mypy(tmp_path, BAD)
    assert code == 1, text
    assert {int(line.split(":")[1]) for line in text.splitlines() if ": error:" in line} == {3, 4, 5, 6}, text
