"""Packed models: which tensors are packed, that everything else reads them, and that damage is seen."""

import shutil
import unittest

from support import MODEL, CliTest, matrix_model


class Pack(CliTest):
    def codings(self, *args):
        report = self.json_of(self.ok(*args, "--json"))
        return {t["name"]: t["codec"] for f in report["files"] for t in f["tensors"]}

    def source(self):
        return self.write("model.safetensors", matrix_model())

    def test_matrices_that_pay_are_packed_and_the_others_kept(self):
        source = self.source()
        out = self.dir / "p.safetensors"
        report = self.json_of(self.ok("pack", source, "-o", out, "--verify", "--json"))
        self.assertEqual((report["command"], report["layout"], report["codec"]), ("pack", "packed", "raw"))
        self.assertTrue(report["verified"])
        self.assertLess(report["stored_bytes"], report["original_bytes"])
        expected = {"model.embed_tokens.weight": "packed", "model.layers.0.w.weight": "packed",
                    "model.layers.1.w.weight": "packed", "model.layers.0.norm.weight": "raw", "narrow": "raw",
                    "noise": "raw", "ids": "raw"}
        self.assertEqual(self.codings("inspect", out), expected)
        self.assertIn(b"packed", self.ok("inspect", out).stdout)
        self.assertIn(b"3 of 7 tensors packed", self.ok("pack", source, "--dry-run").stdout)

    def test_everything_reads_a_packed_file(self):
        source = self.source()
        out, back = self.dir / "p.safetensors", self.dir / "back.safetensors"
        for layout in ("packed", "tcatbe"):
            for others in ("raw", "rank", "top16"):
                for extra in ([], ["--no-mmap"], ["-T", "3"]):
                    with self.subTest(layout=layout, others=others, extra=extra):
                        self.ok("pack", source, "-o", out, "--layout", layout, "--others", others, "-f", *extra)
                        self.ok("decompress", out, "-o", back, "-f", *extra)
                        self.assertEqual(back.read_bytes(), source.read_bytes())
                        self.ok("verify", out, "--against", source, *extra)
        self.ok("verify", out)
        plain = self.json_of(self.ok("analyze", source, "--json"))
        packed = self.json_of(self.ok("analyze", out, "--json"))
        self.assertEqual([t["entropy"] for t in plain["tensors"]], [t["entropy"] for t in packed["tensors"]])

    def test_options(self):
        source = self.source()
        dry = ["pack", source, "--dry-run"]
        self.assertEqual(self.codings(*dry, "--others", "rank")["narrow"], "rank")
        self.assertEqual(self.codings(*dry, "--exclude", "*embed*")["model.embed_tokens.weight"], "raw")
        self.assertEqual(self.codings(*dry, "--include", "*.0.*")["model.layers.0.w.weight"], "packed")
        self.assertEqual(self.codings(*dry, "--include", "*.0.*")["model.layers.1.w.weight"], "raw")
        self.assertEqual(self.codings(*dry, "--layout", "tcatbe")["model.layers.0.w.weight"], "tcatbe")
        self.assertEqual(self.codings(*dry, "--layout", "tcatbe")["model.layers.1.w.weight"], "raw")
        sizes = {}
        for n in ("auto", "56", "8", "80"):
            out = self.dir / f"{n}.safetensors"
            self.ok("pack", source, "-o", out, "--inline-escapes", n)
            sizes[n] = out.read_bytes()
        self.assertEqual(sizes["auto"], sizes["56"])
        self.assertNotEqual(sizes["auto"], sizes["8"])
        self.assertLess(len(sizes["auto"]), len(sizes["80"]))
        for wrong in (["--inline-escapes", "7"], ["--inline-escapes", "0"], ["--inline-escapes", "1032"],
                      ["--inline-escapes", "many"], ["--layout", "soup"], ["--others", "soup"]):
            with self.subTest(wrong=wrong):
                self.fails(2, *dry, *wrong)

    def test_packing_twice_is_refused(self):
        source = self.source()
        out = self.dir / "p.safetensors"
        self.ok("pack", source, "-o", out)
        self.fails(2, "pack", out, "-o", self.dir / "q.safetensors")
        self.fails(2, "compress", out, "-o", self.dir / "q.safetensors")

    def test_damage_is_seen(self):
        out = self.dir / "p.safetensors"
        self.ok("pack", self.source(), "-o", out)
        data = out.read_bytes()
        starts = [i for i in range(0, len(data), 128) if data[i:i + 4] == b"TSRM"]
        self.assertEqual(len(starts), 3)
        for at in (starts[0] + 9, starts[0] + 200, starts[1] + 40, starts[2] + 1000, starts[2] + 64):
            broken = bytearray(data)
            broken[at] ^= 4
            with self.subTest(at=at):
                path = self.write("broken.safetensors", bytes(broken))
                self.fails(1, "verify", path)
                done = self.run_cli("decompress", path, "-o", self.dir / "never.safetensors", "--json")
                error = self.json_of(done)["error"]
                self.assertEqual(error["file"], str(path))
                self.assertIn(error["tensor"], ("model.embed_tokens.weight", "model.layers.0.w.weight",
                                                "model.layers.1.w.weight"))
                self.assertFalse((self.dir / "never.safetensors").exists())

    def test_directory(self):
        source = self.dir / "tiny"
        shutil.copytree(MODEL, source)
        report = self.json_of(self.ok("pack", source, "-o", self.dir / "packed", "--json", "--verify"))
        self.assertGreater(report["ratio"], 1.1)
        self.assertIn('"quant_method": "tersor"', (self.dir / "packed" / "config.json").read_text().replace('":"', '": "'))
        self.ok("verify", self.dir / "packed", "--against", source)
        self.ok("decompress", self.dir / "packed", "-o", self.dir / "back")
        for name in self.names(source):
            self.assertEqual((source / name).read_bytes(), (self.dir / "back" / name).read_bytes(), name)


if __name__ == "__main__":
    unittest.main()
