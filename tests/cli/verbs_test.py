"""Every verb does its job, and says so in text and in JSON."""

import shutil
import unittest

from support import MODEL, CliTest, bf16_weights, safetensors_bytes


class Verbs(CliTest):
    def test_file_round_trip_with_default_names(self):
        source = self.model()
        before = source.read_bytes()
        self.ok("compress", source)
        packed = self.dir / "model.tersor.safetensors"
        self.assertEqual(source.read_bytes(), before, "the source is kept")
        self.assertLess(packed.stat().st_size, len(before) * 0.75)
        source.unlink()
        self.ok("decompress", packed)
        self.assertEqual(source.read_bytes(), before)
        self.assertEqual(self.names(), ["model.safetensors", "model.tersor.safetensors"])

    def test_directory_round_trip(self):
        source = self.dir / "tiny"
        shutil.copytree(MODEL, source)
        (source / "notes.txt").write_text("kept as it is")
        done = self.ok("compress", source, "--json")
        report = self.json_of(done)
        self.assertGreater(report["ratio"], 1.4)
        self.assertEqual({f["name"] for f in report["files"] if f["safetensors"]}, {"model.safetensors"})
        packed = self.dir / "tiny-tersor"
        self.assertIn('"quant_method": "tersor"', (packed / "config.json").read_text().replace('":"', '": "'))
        self.ok("decompress", packed, "-o", self.dir / "back")
        self.assertEqual(self.names(source), self.names(self.dir / "back"))
        for name in self.names(source):
            self.assertEqual((source / name).read_bytes(), (self.dir / "back" / name).read_bytes(), name)

    def test_every_codec_and_read_mode(self):
        source = self.model()
        sizes = {}
        for codec in ("rank", "top16", "raw"):
            for extra in ([], ["--no-mmap"], ["-T", "3"]):
                packed = self.dir / "x.safetensors"
                self.ok("compress", source, "-o", packed, "--codec", codec, "-f", *extra)
                data = packed.read_bytes()
                self.assertEqual(sizes.setdefault(codec, data), data, "independent of threads and read mode")
                self.ok("decompress", packed, "-o", self.dir / "y.safetensors", "-f", *extra)
                self.assertEqual((self.dir / "y.safetensors").read_bytes(), source.read_bytes())
        self.assertLess(len(sizes["rank"]), len(sizes["top16"]))
        self.assertLess(len(sizes["top16"]), len(sizes["raw"]))

    def test_refuses_to_overwrite_without_force(self):
        source = self.model()
        packed = self.write("p.safetensors", b"precious")
        self.fails(2, "compress", source, "-o", packed)
        self.assertEqual(packed.read_bytes(), b"precious")
        self.ok("compress", source, "-o", packed, "-f")
        self.fails(2, "decompress", packed, "-o", source)
        self.ok("decompress", packed, "-o", source, "--force")

    def test_rm_removes_the_source_after_success_only(self):
        source = self.model()
        before = source.read_bytes()
        self.write("taken.safetensors", b"x")
        self.fails(2, "compress", source, "-o", self.dir / "taken.safetensors", "--rm")
        self.assertTrue(source.exists())
        report = self.json_of(self.ok("compress", source, "--rm", "--json"))
        self.assertTrue(report["verified"])
        self.assertFalse(source.exists())
        self.ok("decompress", self.dir / "model.tersor.safetensors", "--rm")
        self.assertEqual(source.read_bytes(), before)
        self.assertEqual(self.names(), ["model.safetensors", "taken.safetensors"])

    def test_dry_run_writes_nothing(self):
        source = self.model()
        real = self.json_of(self.ok("compress", source, "-o", self.dir / "p.safetensors", "--json"))
        dry = self.json_of(self.ok("compress", source, "-o", self.dir / "q.safetensors", "--json", "--dry-run"))
        self.assertTrue(dry["dry_run"])
        self.assertEqual(dry["stored_bytes"], real["stored_bytes"])
        self.ok("compress", source, "--dry-run", "--rm")
        self.ok("decompress", self.dir / "p.safetensors", "-o", self.dir / "z.safetensors", "--dry-run", "--rm")
        self.assertEqual(self.names(), ["model.safetensors", "p.safetensors"])

    def test_include_and_exclude(self):
        source = self.model()

        def codecs(*flags):
            report = self.json_of(self.ok("compress", source, "--dry-run", "--json", *flags))
            return {t["name"]: t["codec"] for f in report["files"] for t in f["tensors"]}

        self.assertEqual(codecs("--include", "*.0.*")["model.layers.1.w"], "raw")
        self.assertEqual(codecs("--include", "*.0.*")["model.layers.0.w"], "rank")
        self.assertEqual(codecs("--exclude", "*.0.*")["model.layers.0.w"], "raw")
        warned = self.ok("compress", source, "--dry-run", "--include", "nothing*")
        self.assertIn(b"tersor: warning: --include 'nothing*' matches no tensor", warned.stderr)

    def test_verify(self):
        source = self.model()
        packed = self.dir / "model.tersor.safetensors"
        self.ok("compress", source, "--verify")
        self.ok("verify", packed)
        self.assertEqual(self.json_of(self.ok("verify", packed, "--against", source, "--json"))["against"], str(source))
        data = bytearray(source.read_bytes())
        data[-100] ^= 1
        other = self.write("other.safetensors", bytes(data))
        self.fails(1, "verify", packed, "--against", other)
        broken = bytearray(packed.read_bytes())
        broken[len(broken) // 2] ^= 1
        self.fails(1, "verify", self.write("broken.safetensors", bytes(broken)))
        self.fails(2, "verify", self.dir / "absent.safetensors")
        self.fails(2, "verify", source)

    def test_inspect(self):
        source = self.model()
        self.ok("compress", source)
        for path, codec in ((source, "raw"), (self.dir / "model.tersor.safetensors", "rank")):
            text = self.ok("inspect", path).stdout.decode()
            self.assertIn("model.layers.*.w", text)
            self.assertIn("all tensors", text)
            report = self.json_of(self.ok("inspect", path, "--json"))
            tensors = {t["name"]: t for t in report["files"][0]["tensors"]}
            self.assertEqual(tensors["model.layers.0.w"]["codec"], codec)
            self.assertEqual(tensors["model.layers.0.w"]["shape"], [20000])
            types = {t["tensor_type"]: t for t in report["tensor_types"]}
            self.assertEqual(types["model.layers.*.w"]["n_tensors"], 2)
        only = self.json_of(self.ok("inspect", source, "--json", "--include", "ids"))
        self.assertEqual([t["name"] for t in only["files"][0]["tensors"]], ["ids"])

    def test_names_cannot_steer_the_terminal(self):
        name = "evil\x1b[31m\nname"
        source = self.write("e.safetensors", safetensors_bytes([(name, "BF16", [64], bf16_weights(64))]))
        for verb in (["inspect"], ["analyze"], ["compress", "-v"]):
            done = self.ok(*verb, source)
            self.assertNotIn(b"\x1b", done.stdout + done.stderr)
            self.assertIn(b"evil\\x1b[31m\\x0aname", done.stdout)

    def test_analyze(self):
        source = self.model()
        self.assertIn(b"entropy", self.ok("analyze", source).stdout)
        report = self.json_of(self.ok("analyze", source, MODEL, "--json"))
        self.assertEqual(report["total"]["files"], 2)
        self.assertEqual(len(report["tensors"][0]["coverage"]), 17)
        page = self.dir / "out.html"
        self.ok("analyze", MODEL, "--report", page)
        text = page.read_text()
        self.assertIn("<svg", text)
        self.assertNotIn("http://", text.replace("http://www.w3.org", ""))
        self.fails(2, "analyze", MODEL, "--report", page)
        self.ok("analyze", MODEL, "--report", page, "-f")

    def test_calibrate_and_codebook(self):
        source = self.model()
        book = self.dir / "codebook.json"
        summary = self.json_of(self.ok("calibrate", source, "-o", book, "--json"))
        self.assertEqual(summary["n_tensors"], 2)
        self.fails(2, "calibrate", source, "-o", book)
        self.ok("calibrate", source, "-o", book, "-f")
        self.ok("compress", source, "--codebook", book, "-o", self.dir / "a.safetensors")
        self.ok("decompress", self.dir / "a.safetensors", "-o", self.dir / "b.safetensors")
        self.assertEqual((self.dir / "b.safetensors").read_bytes(), source.read_bytes())
        self.fails(1, "compress", source, "--codebook", self.write("bad.json", b"{"))
        self.fails(2, "compress", source, "--codebook", self.dir / "absent.json")
        self.fails(2, "compress", source, "--codebook", self.dir)
        self.assertFalse((self.dir / "model.tersor.safetensors").exists())

    def test_bench_codec(self):
        flags = ["--size", "2", "--repeats", "1", "--codec", "rank,top16,raw"]
        report = self.json_of(self.ok("bench", "codec", "--json", *flags))
        self.assertEqual(list(report), ["memcpy_gb_s", "threads", "input", "bytes", "backend", "codecs"])
        self.assertEqual([row["codec"] for row in report["codecs"]], ["rank", "top16", "raw"])
        self.assertEqual(
            list(report["codecs"][0]), ["codec", "ratio", "encode_gb_s", "decode_gb_s", "encode_auto_gb_s"]
        )
        self.assertGreater(report["codecs"][0]["ratio"], 1.4)
        forced = self.json_of(
            self.ok("bench", "codec", "--json", *flags, "--input", MODEL, "--calibration-input", MODEL, "-T", "2",
                    env={"TERSOR_BACKEND": "scalar"})
        )
        self.assertEqual((forced["backend"], forced["threads"], forced["input"]), ("scalar", 2, str(MODEL)))
        self.assertIn(b"memcpy", self.ok("bench", "codec", "--size", "2", "--repeats", "1").stdout)

    def test_bench_codec_on_a_gpu(self):
        cuda = self.json_of(self.ok("doctor", "--json"))["cuda"]
        self.assertEqual(cuda["available"], bool(cuda["devices"]))
        self.assertEqual(cuda["available"], cuda["reason"] is None)
        bench = ["bench", "codec", "--device", "cuda:0"]
        for wrong in (["--codec", "raw"], ["--codec", "zstd-1"], ["--dtype", "f64"], ["--size", "2"], ["--data", "soup"],
                      ["--data", "input"], ["--chunk-size", "4096"], ["--peer-json", self.dir / "absent.json"]):
            with self.subTest(wrong=wrong):
                self.fails(2, *bench, *wrong)
        self.fails(1, *bench, "--peer-json", self.write("peers.json", b'{"rows": [1]}'))
        self.fails(2, "bench", "codec", "--rows", "2")
        report = self.dir / "gpu.json"
        flags = ["--rows", "64", "--hidden-dim", "256", "--warmup", "1", "--iters", "2", "--repeats", "1", "--output", report]
        if not cuda["available"]:
            done = self.run_cli(*bench, *flags, "--json")
            self.assertEqual((done.returncode, self.json_of(done)["error"]["name"]), (2, "backend_unavailable"))
            self.assertFalse(report.exists())
            return
        found = self.json_of(self.ok(*bench, *flags, "--json", "--pages", "--kv-tokens", "64", "--kv-layers", "1"))
        self.assertEqual(len(found["rows"]), 8)
        self.assertEqual(len(found["latency"]), 8)
        self.assertEqual(len(found["pages"]), 8)
        self.assertTrue(report.with_suffix(".svg").exists())

    def test_gemm_verbs_understand_their_arguments(self):
        plan = ["--plan", "warp_mma n_tile=8 row_blocks=1 ctas=1"]
        table = self.write("plans.json", b'{"tersor_gemm_plans": 0, "device": "x", "plans": []}')
        for wrong in (["4096"], ["4096", "4096", "8", "9"], ["4096", "4096", "8", "--n", "1"], ["0", "4096"], ["-1", "4096"],
                      ["4096", "4096", "--shapes", "targets"], ["--shapes", "soup"], ["--shapes", "12x"], ["--shapes", "0x5"],
                      ["--n", "0"], ["--n", "1,x"], ["--n", "65537"], ["--layout", "loose"], ["--dtype", "e4m3"], ["--device", "cpu"],
                      ["--split-k", "0"], ["--split-k", "two"], ["--plan", "mma"], [*plan, "--split-k", "2"],
                      [*plan, "--plans", table], ["--plans", self.dir / "absent.json"], ["--graph", "--no-graph"],
                      ["--repeats", "0"], ["--dtype", "f16", "--input", table]):
            with self.subTest(wrong=wrong):
                self.fails(2, "bench", "gemm", *wrong)
        self.fails(1, "bench", "gemm", "--plans", self.write("bad.json", b'{"tersor_gemm_plans": 0}'))
        self.fails(2, "tune")
        self.fails(2, "tune", "-o", table)
        for wrong in (["--shapes", "soup"], ["--layout", "loose"], ["--device", "cpu"]):
            self.fails(2, "tune", "-o", self.dir / "new.json", *wrong)
        self.assertEqual(self.names(), ["bad.json", "plans.json"])

    def test_gemm_verbs_on_a_gpu(self):
        report, plans = self.dir / "gemm.json", self.dir / "plans.json"
        bench = ["bench", "gemm", "256", "512", "--n", "1,8", "--repeats", "1", "--output", report, "--json"]
        tune = ["tune", "--shapes", "256x512", "--n", "8", "--repeats", "1", "-o", plans, "--json"]
        if not self.json_of(self.ok("doctor", "--json"))["cuda"]["available"]:
            for command in (bench, tune):
                done = self.run_cli(*command)
                self.assertEqual((done.returncode, self.json_of(done)["error"]["name"]), (2, "backend_unavailable"))
            self.assertEqual(self.names(), [])
            return
        found = self.json_of(self.ok(*bench, "--pdl", "--unpack"))
        self.assertEqual([(row["n"], row["pdl"], row["wrong"]) for row in found["rows"]],
                         [(1, False, False), (1, True, False), (8, False, False), (8, True, False)])
        self.assertEqual(len(found["unpack"]), 1)
        self.assertTrue(report.with_suffix(".svg").exists())
        self.assertEqual(len(self.json_of(self.ok(*tune))["plans"]), 1)
        self.ok(*bench, "--plans", plans)

    def test_doctor(self):
        text = self.ok("doctor").stdout.decode()
        self.assertIn("cuda", text)
        report = self.json_of(self.ok("doctor", "--json", env={"TERSOR_BACKEND": "scalar"}))
        self.assertEqual((report["backend"], report["forced_backend"]), ("scalar", "scalar"))
        self.assertGreaterEqual(report["threads"], 1)
        done = self.run_cli("doctor", "--json", env={"TERSOR_BACKEND": "abacus"})
        self.assertEqual(done.returncode, 2)
        self.assertIn("abacus", self.json_of(done)["backend_error"])

    def test_version_and_help(self):
        self.assertRegex(self.ok("--version").stdout.decode(), r"\Atersor \d+\.\d+\.\d+\n\Z")
        self.assertIn(b"Examples:", self.ok("--help").stdout)
        for verb in ("compress", "pack", "decompress", "verify", "inspect", "analyze", "calibrate", "doctor"):
            text = self.ok(verb, "--help").stdout.decode()
            self.assertGreaterEqual(text.count(f"tersor {verb}"), 2, verb)
            self.assertIn("Examples:", text)
        self.assertIn(b"Examples:", self.ok("bench", "codec", "--help").stdout)


if __name__ == "__main__":
    unittest.main()
