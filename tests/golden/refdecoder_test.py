"""The decoder written from the specification alone gives the library's bytes and the library's error codes."""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
REFDECODER = ROOT / "spec" / "refdecoder"
sys.path.insert(0, str(REFDECODER))

from tersor_ref import container, dump, frame, matrix  # noqa: E402
from tersor_ref.errors import TersorError  # noqa: E402

RANDOM_FRAMES = 60
ARGS = None


def manifest():
    return json.loads((ARGS.vectors / "vectors.json").read_text())


def code_of(data, decode=frame.decode):
    try:
        decode(data)
    except TersorError as e:
        return e.code
    return "ok"


def program(*args):
    return subprocess.run([sys.executable, "-B", "-m", "tersor_ref", *map(str, args)], cwd=REFDECODER,
                          capture_output=True, text=True, check=False)


class Vectors(unittest.TestCase):
    def test_every_vector_decodes_to_its_bytes(self):
        vectors = manifest()["vectors"]
        self.assertGreater(len(vectors), 50)
        for v in vectors:
            with self.subTest(v["name"]):
                f = frame.Frame((ARGS.vectors / v["frame"]).read_bytes())
                self.assertEqual(f.header.shape, v["frame_shape"])
                self.assertEqual(f.header.codec, v["codec"])
                self.assertTrue(f.decode() == (ARGS.vectors / v["bin"]).read_bytes())

    def test_every_must_fail_frame_gives_its_code(self):
        bad = manifest()["must_fail"]
        self.assertGreaterEqual(len(bad), 40)
        for v in bad:
            with self.subTest(v["name"]):
                self.assertEqual(code_of((ARGS.vectors / v["frame"]).read_bytes()), v["error"])

    def test_every_bit_of_a_small_frame_matters(self):
        data = (ARGS.vectors / "rank-bf16-1-weights.tersor").read_bytes()
        for at in range(0, len(data)):
            flipped = bytearray(data)
            flipped[at] ^= 1 << at % 8
            with self.subTest(byte=at):
                self.assertNotEqual(code_of(bytes(flipped)), "ok")


class Matrices(unittest.TestCase):
    def test_every_matrix_decodes_to_its_bytes(self):
        matrices = manifest()["matrices"]
        self.assertGreaterEqual(len(matrices), 10)
        for v in matrices:
            with self.subTest(v["name"]):
                data = (ARGS.vectors / v["frame"]).read_bytes()
                h = matrix.parse_header(data)
                self.assertEqual((h.rows, h.cols), (v["rows"], v["cols"]))
                self.assertTrue(matrix.decode(data) == (ARGS.vectors / v["bin"]).read_bytes())

    def test_every_must_fail_matrix_gives_its_code(self):
        bad = manifest()["matrices_must_fail"]
        self.assertGreaterEqual(len(bad), 30)
        for v in bad:
            with self.subTest(v["name"]):
                self.assertEqual(code_of((ARGS.vectors / v["frame"]).read_bytes(), matrix.decode), v["error"])


class Files(unittest.TestCase):
    def test_the_original_comes_back(self):
        files = manifest()["files"]
        self.assertGreaterEqual(len(files), 2)
        for v in files:
            plain = (ARGS.vectors / v["plain"]).read_bytes()
            self.assertTrue(container.decompress((ARGS.vectors / v["packed"]).read_bytes()) == plain)

    def test_every_must_fail_file_gives_its_code(self):
        bad = manifest()["files_must_fail"]
        self.assertGreaterEqual(len(bad), 10)
        for v in bad:
            with self.subTest(v["name"]):
                self.assertEqual(code_of((ARGS.vectors / v["packed"]).read_bytes(), container.decompress), v["error"])


class Fresh(unittest.TestCase):
    def test_random_frames(self):
        if not ARGS.make_vectors:
            self.skipTest("no --make-vectors")
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([ARGS.make_vectors, "--random", str(RANDOM_FRAMES), str(ARGS.seed), folder], check=True)
            frames = sorted(pathlib.Path(folder).glob("*.tersor"))
            self.assertEqual(len(frames), RANDOM_FRAMES)
            for path in frames:
                with self.subTest(path.name, seed=ARGS.seed):
                    self.assertTrue(frame.decode(path.read_bytes()) == path.with_suffix(".bin").read_bytes())


class Program(unittest.TestCase):
    def test_decode_writes_the_bytes(self):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "out"
            done = program("decode", ARGS.vectors / "rank-bf16-1025-weights.tersor", "-o", out)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertTrue(out.read_bytes() == (ARGS.vectors / "bf16-1025-weights.bin").read_bytes())

    def test_decode_takes_matrix_frames(self):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "out"
            done = program("decode", ARGS.vectors / "packed-bf16-17x130-mixed.tersor", "-o", out)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertTrue(out.read_bytes() == (ARGS.vectors / "packed-bf16-17x130-mixed.bin").read_bytes())

    def test_exit_codes(self):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "out"
            bad = program("decode", ARGS.vectors / "must-fail" / "header-digest.tersor", "-o", out)
            self.assertEqual(bad.returncode, 1)
            self.assertIn("digest_mismatch", bad.stderr)
            self.assertFalse(out.exists())
            self.assertEqual(program("decode", pathlib.Path(folder) / "absent", "-o", out).returncode, 2)

    def test_dump_names_every_section(self):
        text = "\n".join(dump.lines((ARGS.vectors / "rank-f16-1025-weights.tersor").read_bytes()))
        for word in ("magic", "codebook", "shape[0]: 1025", "chunk 0", "rest bytes 0", "rest fields 2", "codes", "tails",
                     "every digest is right"):
            self.assertIn(word, text)

    def test_the_worked_dump_of_the_specification_is_real(self):
        text = (ROOT / "spec" / "frame.md").read_text()
        dumped = "\n".join(dump.lines((ARGS.vectors / "rank-bf16-23-weights-calibrated.tersor").read_bytes()))
        self.assertIn(dumped, text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=pathlib.Path, required=True)
    parser.add_argument("--make-vectors")
    parser.add_argument("--seed", type=int, default=1)
    ARGS, rest = parser.parse_known_args()
    ARGS.vectors = ARGS.vectors.resolve()
    unittest.main(argv=[sys.argv[0], *rest])
