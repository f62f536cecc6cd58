"""Processes, interpreters and environments around the package: fork, spawn, subinterpreters, missing packages."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import tersor

DATA = np.random.default_rng(0).integers(0, 200, 600_000, dtype=np.uint8)
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")


def python(program: str, *args, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", program, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def round_trip(_=None) -> bool:
    return bytes(tersor.decode(tersor.encode(DATA)).data) == DATA.tobytes()


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_multiprocessing(how):
    if how not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {how} here")
    assert round_trip()
    with multiprocessing.get_context(how).Pool(2) as pool:
        assert pool.map(round_trip, range(4)) == [True] * 4
    assert round_trip()


FORK = """
import os, signal, sys
import tersor
mode, data = sys.argv[1], bytes(range(256)) * 4000
context = tersor.Context(threads=3)
default = tersor.default_context()
frame = tersor.encode(data, context=context)
assert tersor.encode(data) == frame
child = os.fork()
if child == 0:
    signal.alarm(20)  # a child that hangs is a failure
    if mode == "default":
        assert tersor.default_context() is not default
        assert tersor.encode(data) == frame and bytes(tersor.decode(frame).data) == data
    elif mode == "its own":
        assert tersor.encode(data, context=tersor.Context(threads=2)) == frame
    elif mode == "the parent's":
        try:
            tersor.encode(data, context=context)
        except tersor.InvalidArgumentError as fault:
            assert "fork" in str(fault)
        else:
            raise AssertionError("its threads are not in the child")
    sys.exit(0)  # with all that an interpreter does at its end
status = os.waitpid(child, 0)[1]
assert status == 0, f"the child ended with {status}"
assert tersor.encode(data, context=context) == frame and tersor.default_context() is default
"""


@pytest.mark.parametrize("mode", ["nothing", "default", "its own", "the parent's"])
def test_fork_and_a_normal_end(mode):
    done = python(FORK.replace("import os", "import warnings; warnings.simplefilter('ignore'); import os", 1), mode)
    assert done.returncode == 0, done.stdout + done.stderr


def test_fork_while_a_call_works():
    """Other threads do not exist in the child, whatever they held."""
    stop = threading.Event()

    def work():
        while not stop.is_set():
            tersor.encode(DATA)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:
                signal.alarm(20)
                os._exit(0 if round_trip() else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        worker.join()


def test_default_context_is_one():
    assert tersor.default_context() is tersor.default_context()
    found = []
    threads = [threading.Thread(target=lambda: found.append(tersor.default_context())) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert set(map(id, found)) == {id(tersor.default_context())}


SUBINTERPRETER = """
import sys
import tersor
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
program = '''
import sys
sys.path[:] = PATH
try:
    import tersor
except ImportError as refusal:
    assert "interpreter" in str(refusal), refusal
else:
    assert tersor.decode(tersor.encode(b"abc")).shape == (3,)
'''.replace("PATH", repr(sys.path))
made = interpreters.create()
fault = interpreters.run_string(made, program)
assert fault is None, fault
interpreters.destroy(made)
assert tersor.decode(tersor.encode(b"abc")).shape == (3,)
print("still here")
"""


def test_subinterpreters_are_refused_or_work():
    if not any(importlib.util.find_spec(name) for name in ("_interpreters", "_xxsubinterpreters")):
        pytest.skip("no subinterpreters here")
    done = python(SUBINTERPRETER)
    assert (done.returncode, done.stdout) == (0, "still here\n"), done.stdout + done.stderr


WITHOUT = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("numpy", "torch", "ml_dtypes", "safetensors", "transformers", "matplotlib"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
import pickle, tersor
frame = tersor.encode(bytes(range(256)) * 16, dtype="BF16", shape=(32, 64))
found = tersor.decode(frame)
assert (found.dtype, found.shape, bytes(found.data)) == ("BF16", (32, 64), bytes(range(256)) * 16)
assert tersor.kind(frame) == "frame" and tersor.inspect(memoryview(frame)).dtype == "BF16"
assert tersor.encode(frame) == tersor.encode(bytes(frame)) and pickle.loads(pickle.dumps(frame)) == frame
tersor.compress(sys.argv[1], sys.argv[2], packing="packed")
tersor.verify(sys.argv[2], sys.argv[1])
tersor.analyze_files(sys.argv[2])
for wrong in ("text", 3, [1]):
    try:
        tersor.encode(wrong)
    except tersor.InvalidArgumentError:
        continue
    raise AssertionError(wrong)
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"numpy", "torch", "ml_dtypes"}, loaded
"""


def test_without_numpy_and_torch(tmp_path):
    from files_support import TINYLM

    done = python(WITHOUT, TINYLM.parent, tmp_path / "out")
    assert done.returncode == 0, done.stderr


def test_importing_is_light():
    done = python("import sys, tersor; print(' '.join(m for m in ('numpy', 'torch', 'ml_dtypes') if m in sys.modules))")
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_the_environment_names_the_backend():
    program = "import tersor; print(tersor.default_context().backend)"
    done = python(program, env={**os.environ, "TERSOR_BACKEND": "scalar"})
    assert done.stdout.strip() == "scalar", done.stderr
    done = python(program, env={**os.environ, "TERSOR_BACKEND": "abacus"})
    assert done.returncode == 1 and "BackendUnavailableError" in done.stderr and "abacus" in done.stderr


def test_the_end_of_the_interpreter():
    """Views and contexts that outlive the module: no message, no crash."""
    program = """
import sys, threading, tersor
context = tersor.Context(threads=3)
frame = tersor.encode(bytes(1 << 20), context=context)
view, decoded = memoryview(frame), tersor.decode(frame)
threading.Thread(target=tersor.encode, args=(bytes(8 << 20),)).start()
sys.kept = [context, view, decoded]
"""
    done = python(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
