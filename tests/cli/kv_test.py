"""kv-send and kv-recv over loopback: equal bytes, reports, progress."""

import json
import os
import pty
import random
import signal
import socket
import subprocess
import time
import unittest
import urllib.error
import urllib.request

from kv_support import SAMPLE, KvTest, Receiver, kv_bytes
from support import PROGRAM, bf16_weights, safetensors_bytes


class Transfers(KvTest):
    def test_equal_bytes_with_every_codec(self):
        source = self.write("kv.safetensors", kv_bytes())
        for codec in ("auto", "rank", "top16", "raw"):
            for more in ([], ["--no-mmap"]):
                with self.subTest(codec, more=more):
                    target = self.out / f"{codec}{len(more)}.safetensors"
                    receiver = Receiver(self, "-o", target, "--once")
                    done = self.sent(source, receiver, "--codec", codec, *more)
                    code, out, errors = receiver.finish()
                    self.assertEqual(code, 0, errors)
                    self.assertEqual(target.read_bytes(), source.read_bytes())
                    self.assertIn(b"published and verified", done.stdout)
                    self.assertIn(b"complete and verified", out)

    def test_any_safetensors_file(self):
        files = {
            "sample": SAMPLE.read_bytes(),
            "no tensors": safetensors_bytes([]),
            "only empty ones": safetensors_bytes([("a", "F32", [0], b""), ("b", "BF16", [3, 0], b"")]),
            "scalar": safetensors_bytes([("a", "F32", [], b"\x00\x00\x80\x3f")]),
            "unknown dtype": safetensors_bytes([("a", "NEW_9", [7], b"sevenby")]),
            "nine dimensions": safetensors_bytes([("a", "BF16", [1] * 8 + [4], b"abcdefgh")]),
            "long names": safetensors_bytes([("ü" * 3000, "F16", [2], b"abcd"), ("\t\n", "U8", [1], b"x")]),
            "noise": safetensors_bytes([("a", "BF16", [50_000], random.Random(3).randbytes(100_000))]),
            "many": safetensors_bytes([(f"t{i}", "F16", [4], bf16_weights(4, i)) for i in range(600)]),
        }
        for what, data in files.items():
            with self.subTest(what):
                source = self.write("x.safetensors", data)
                target = self.out / "y"
                receiver = Receiver(self, "-o", target, "--once", "--force")
                self.sent(source, receiver, "--codec", "rank")
                self.assertEqual(receiver.finish()[0], 0)
                self.assertEqual(target.read_bytes(), data)

    def test_a_container_goes_through_as_it_is(self):
        self.ok("compress", self.model(n_values=100_000))
        source = self.dir / "model.tersor.safetensors"
        receiver = Receiver(self, "-o", self.out / "m.tersor.safetensors", "--once")
        self.sent(source, receiver)
        self.assertEqual(receiver.finish()[0], 0)
        self.assertEqual((self.out / "m.tersor.safetensors").read_bytes(), source.read_bytes())
        self.ok("verify", self.out / "m.tersor.safetensors", "--against", self.dir / "model.safetensors")

    def test_many_files_into_a_directory(self):
        receiver = Receiver(self, "-o", self.out / "new", "--json")
        files = {f"kv-{i}.safetensors": kv_bytes(1, 50_000, i) for i in range(6)}
        senders = []
        for name, data in files.items():
            self.write(name, data)
            senders.append(subprocess.Popen([PROGRAM, "kv-send", name, "--to", receiver.address, "-q"], cwd=self.dir))
        self.assertEqual([s.wait(60) for s in senders], [0] * 6)
        for name, data in files.items():
            self.assertEqual((self.out / "new" / name).read_bytes(), data)
        again = self.send(self.dir / "kv-0.safetensors", receiver)
        self.assertEqual(again.returncode, 2, again.stderr)
        self.assertIn(b"exist", again.stderr.lower())
        receiver.process.send_signal(signal.SIGINT)
        code, out, _ = receiver.finish()
        self.assertEqual(code, -signal.SIGINT)
        reports = [json.loads(line) for line in out.decode().splitlines()]
        self.assertEqual(sorted(os.path.basename(r["file"]) for r in reports), sorted(files))
        self.assertEqual(sorted(self.names(self.out / "new")), sorted(files))

    def test_names_are_no_paths(self):
        receiver = Receiver(self, "-o", self.out)
        source = self.write(".hidden $(name)", kv_bytes(1, 1000))
        self.sent(source, receiver)
        self.assertEqual(self.left(), ["_hidden___name_.safetensors"])

    def test_existing_files_stay_unless_forced(self):
        target = self.out / "kv.safetensors"
        target.write_bytes(b"old")
        done = self.fails(2, "kv-recv", "--listen", "127.0.0.1:0", "-o", target, "--once")
        self.assertIn(b"--force", done.stderr)
        self.assertEqual(target.read_bytes(), b"old")
        receiver = Receiver(self, "-o", target, "--once", "--force")
        self.sent(SAMPLE, receiver)
        self.assertEqual(receiver.finish()[0], 0)
        self.assertEqual(target.read_bytes(), SAMPLE.read_bytes())

    def test_every_transport_that_works_here(self):
        known = {t["name"]: t for t in json.loads(self.ok("doctor", "--json").stdout)["transports"]}
        self.assertTrue(known["tcp"]["available"])
        source = self.write("kv.safetensors", kv_bytes(2))
        for name in ("tcp", "ucx"):
            if name not in known or not known[name]["available"]:
                continue
            with self.subTest(name):
                receiver = Receiver(self, "-o", self.out / name, "--once", "--transport", name)
                self.sent(source, receiver, "--transport", name, "--codec", "top16")
                self.assertEqual(receiver.finish()[0], 0)
                self.assertEqual((self.out / name).read_bytes(), source.read_bytes())

    def test_quiet_says_nothing(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(
            [PROGRAM, "kv-recv", "--listen", f"127.0.0.1:{port}", "-o", self.out / "x", "--once", "-q"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(100):
            done = self.run_cli("kv-send", SAMPLE, "--to", f"127.0.0.1:{port}", "-q")
            if done.returncode == 0:
                break
            time.sleep(0.1)
        self.assertEqual((done.stdout, done.stderr), (b"", b""))
        self.assertEqual(process.communicate(timeout=30), (b"", b""))


class Reports(KvTest):
    def test_json_of_both_sides(self):
        source = self.write("kv.safetensors", kv_bytes())
        receiver = Receiver(self, "-o", self.out / "x", "--once", "--json")
        sender = self.json_of(self.sent(source, receiver, "--json", "--codec", "rank"))
        code, out, errors = receiver.finish()
        self.assertEqual(code, 0, errors)
        got = json.loads(out)
        self.assertEqual(
            list(sender),
            ["command", "source", "destination", "transport", "codec", "threads", "backend", "authenticated", "request",
             "raw_bytes", "sent_bytes", "ratio", "parts", "resumptions", "seconds", "encode_seconds", "send_seconds",
             "credit_seconds", "decode_seconds", "effective_gb_s", "link_gb_s", "speedup_estimate"],
        )  # fmt: skip
        self.assertEqual(
            list(got),
            ["command", "listen", "destination", "transport", "authenticated", "request", "file", "raw_bytes",
             "frame_bytes", "ratio", "parts", "seconds", "decode_seconds", "effective_gb_s"],
        )  # fmt: skip
        size = source.stat().st_size
        self.assertEqual((sender["raw_bytes"], got["raw_bytes"]), (size, size))
        self.assertEqual(sender["request"], got["request"])
        self.assertEqual(got["listen"], receiver.address)
        self.assertLess(sender["sent_bytes"], size * 0.8)
        self.assertLess(got["frame_bytes"], sender["sent_bytes"])
        for side in (sender, got):
            parts = side["parts"]
            self.assertEqual(parts["total"], parts["rank"] + parts["top16"] + parts["raw"])
            self.assertGreater(side["seconds"], 0)
            self.assertFalse(side["authenticated"])
        self.assertEqual(sender["parts"]["total"], got["parts"]["total"])
        for stage in ("encode_seconds", "send_seconds", "decode_seconds"):
            self.assertGreater(sender[stage], 0)

    def test_progress_on_a_terminal(self):
        source = self.write("kv.safetensors", kv_bytes())
        receiver = Receiver(self, "-o", self.out / "x", "--once")
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [PROGRAM, "kv-send", source, "--to", receiver.address], stdout=subprocess.PIPE, stderr=theirs
        )
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:
            pass  # the other end is closed
        finally:
            os.close(ours)
        out, _ = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 0)
        self.assertIn(b"kv-send [####################] 100%", shown)
        self.assertNotIn(b"\x1b", out)
        self.assertEqual(receiver.finish()[0], 0)

    def test_errors_as_json(self):
        done = self.run_cli("kv-send", SAMPLE, "--to", "127.0.0.1:1", "--json")
        self.assertEqual(done.returncode, 2)
        self.assertEqual(self.json_of(done)["error"]["name"], "io_error")

    def test_metrics(self):
        receiver = Receiver(self, "-o", self.out, metrics=True)
        self.sent(SAMPLE, receiver)
        with urllib.request.urlopen(receiver.page, timeout=10) as page:
            text = page.read().decode()
        self.assertIn('tersor_transfer_requests_published_total{role="receiver"} 1\n', text)
        self.assertIn("# TYPE tersor_transfer_wire_bytes_total counter\n", text)
        with self.assertRaises(urllib.error.HTTPError) as other:
            urllib.request.urlopen(receiver.page.replace("/metrics", "/x"), timeout=10)
        self.assertEqual(other.exception.code, 404)
        other.exception.close()


if __name__ == "__main__":
    unittest.main()
