"""Killed, interrupted, silent and rude peers, full disks: an error and no file, never anything in between."""

import random
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
import unittest

from kv_support import SAMPLE, KvTest, Receiver, kv_bytes
from support import PROGRAM


class Faults(KvTest):
    def slow_proxy(self, receiver, limit=None):
        """Passes bytes on; after `limit` of them from the sender it stops, and keeps the connection open."""
        host, port = receiver.address.rsplit(":", 1)
        door = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(door.close)
        stalled = threading.Event()
        open_sockets = []

        def pump(source, target, budget):
            try:
                while data := source.recv(16384):
                    if budget is not None:
                        if budget <= len(data):
                            stalled.set()
                            return
                        budget -= len(data)
                    target.sendall(data)
                target.shutdown(socket.SHUT_WR)
            except OSError:
                pass

        def serve():
            while True:
                try:
                    near, _ = door.accept()
                except OSError:
                    return
                open_sockets.append(near)
                try:
                    far = socket.create_connection((host, int(port)))
                except OSError:
                    near.close()
                    continue
                open_sockets.append(far)
                threading.Thread(target=pump, args=(near, far, limit), daemon=True).start()
                threading.Thread(target=pump, args=(far, near, None), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        self.addCleanup(lambda: [s.close() for s in open_sockets])
        return f"127.0.0.1:{door.getsockname()[1]}", stalled

    def start_send(self, source, address, *args):
        process = subprocess.Popen(
            [PROGRAM, "kv-send", source, "--to", address, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def test_a_killed_sender_leaves_nothing(self):
        source = self.write("kv.safetensors", kv_bytes())
        receiver = Receiver(self, "-o", self.out / "x", "--once")
        for how in (signal.SIGKILL, signal.SIGINT):
            with self.subTest(how):
                address, stalled = self.slow_proxy(receiver, 1_500_000)
                process = self.start_send(source, address)
                self.assertTrue(stalled.wait(30))
                process.send_signal(how)
                self.assertEqual(process.wait(30), -how)
                self.assertFalse((self.out / "x").exists())
        # It goes on, and the next sender is served.
        self.sent(source, receiver)
        code, _, errors = receiver.finish()
        self.assertEqual(code, 0, errors)
        self.assertEqual((self.out / "x").read_bytes(), source.read_bytes())
        self.await_nothing_left(["x"])

    def test_a_receiver_that_is_interrupted_leaves_nothing(self):
        source = self.write("kv.safetensors", kv_bytes())
        for how in (signal.SIGINT, signal.SIGTERM):
            with self.subTest(how):
                receiver = Receiver(self, "-o", self.out / "x", "--once")
                address, stalled = self.slow_proxy(receiver, 1_500_000)
                process = self.start_send(source, address, "--timeout", "2")
                self.assertTrue(stalled.wait(30))
                receiver.process.send_signal(how)
                self.assertEqual(receiver.finish()[0], -how)
                self.assertEqual(process.wait(60), 2)
                self.assertEqual(self.left(), [])

    def test_a_killed_receiver_leaves_no_file_under_the_name(self):
        source = self.write("kv.safetensors", kv_bytes())
        receiver = Receiver(self, "-o", self.out / "x", "--once")
        address, stalled = self.slow_proxy(receiver, 1_500_000)
        process = self.start_send(source, address, "--timeout", "2")
        self.assertTrue(stalled.wait(30))
        receiver.process.kill()
        self.assertEqual(receiver.finish()[0], -signal.SIGKILL)
        self.assertEqual(process.wait(60), 2)
        self.assertFalse((self.out / "x").exists())
        for name in self.left():
            self.assertRegex(name, r"^\.x\.tersor-.*\.tmp$")

    def test_a_silent_receiver_is_given_up(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            start = time.monotonic()
            done = self.fails(2, "kv-send", SAMPLE, "--to", f"127.0.0.1:{silent.getsockname()[1]}", "--timeout", "0.5")
            self.assertLess(time.monotonic() - start, 20)
            self.assertIn(b"timed out", done.stderr)

    def test_a_silent_sender_is_given_up(self):
        receiver = Receiver(self, "-o", self.out / "x", "--once", "--timeout", "1")
        host, port = receiver.address.rsplit(":", 1)
        with socket.create_connection((host, int(port))) as silent:
            silent.sendall(b"TKV")
            code, _, errors = receiver.finish(30)
        self.assertEqual(code, 2, errors)
        self.assertIn("nothing came for 1 s", errors)
        self.assertEqual(self.left(), [])

    def test_rubbish_is_refused_and_the_receiver_goes_on(self):
        receiver = Receiver(self, "-o", self.out / "x", "--once")
        host, port = receiver.address.rsplit(":", 1)
        rng = random.Random(5)
        for size in (1, 87, 88, 500, 100_000):
            with socket.create_connection((host, int(port))) as rude:
                try:
                    rude.sendall(rng.randbytes(size))
                    rude.shutdown(socket.SHUT_WR)
                    rude.settimeout(20)
                    while rude.recv(4096):
                        pass
                except (BrokenPipeError, ConnectionResetError):
                    pass
        self.sent(SAMPLE, receiver)
        code, _, errors = receiver.finish()
        self.assertEqual(code, 0, errors)
        self.assertEqual((self.out / "x").read_bytes(), SAMPLE.read_bytes())

    def test_port_in_use(self):
        receiver = Receiver(self, "-o", self.out / "x", "--once")
        done = self.fails(2, "kv-recv", "--listen", receiver.address, "-o", self.out / "y", "--once")
        self.assertIn(b"in use", done.stderr)
        done = self.run_cli(
            "kv-recv", "--listen", "127.0.0.1:0", "-o", self.out / "y", "--once", "--metrics", receiver.address
        )
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"in use", done.stderr)
        self.assertEqual(self.left(), [])

    def test_wrong_places_and_arguments(self):
        listen = ["kv-recv", "--listen", "127.0.0.1:0"]
        plain = self.write("plain", b"no safetensors file")
        for code, args in (
            (2, ["kv-recv", "-o", self.out / "x"]),
            (2, [*listen]),
            (2, ["kv-recv", "--listen", "127.0.0.1", "-o", self.out / "x"]),
            (2, ["kv-recv", "--listen", "127.0.0.1:99999", "-o", self.out / "x"]),
            (2, ["kv-recv", "--listen", "no-such-host.invalid:0", "-o", self.out / "x", "--psk-file", self.key()]),
            (2, [*listen, "-o", self.out, "--once"]),
            (2, [*listen, "-o", plain]),
            (2, [*listen, "-o", self.out / "x", "--timeout", "-1"]),
            (2, [*listen, "-o", self.out / "x", "--transport", "pigeon"]),
            (2, [*listen, "-o", self.out / "x", "--metrics", "0.0.0.0:0"]),
            (2, ["kv-send", SAMPLE]),
            (2, ["kv-send", SAMPLE, "--to", "127.0.0.1"]),
            (2, ["kv-send", SAMPLE, "--to", "127.0.0.1:1"]),
            (2, ["kv-send", SAMPLE, "--to", "127.0.0.1:1", "--codec", "zip"]),
            (2, ["kv-send", SAMPLE, "--to", "127.0.0.1:1", "--transport", "pigeon"]),
            (2, ["kv-send", self.dir / "absent", "--to", "127.0.0.1:1"]),
            (2, ["kv-send", self.out, "--to", "127.0.0.1:1"]),
            (1, ["kv-send", plain, "--to", "127.0.0.1:1"]),
        ):
            with self.subTest(args):
                done = self.run_cli(*args)
                self.assertEqual(done.returncode, code, done.stderr)
                self.assertRegex(done.stderr.decode().splitlines()[-1], r"^tersor: error: .+")
        shutil.rmtree(self.out / "x", ignore_errors=True)

    def test_a_file_larger_than_allowed(self):
        receiver = Receiver(self, "-o", self.out, "--max-size", "0.0001")
        done = self.send(SAMPLE, receiver)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"allowed", done.stderr)
        self.assertEqual(self.left(), [])


class FullDisk(KvTest):
    def test_no_space(self):
        small = self.dir / "small"
        small.mkdir()
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=False, capture_output=True
        ).returncode:
            self.skipTest("no right to mount")
        self.addCleanup(subprocess.run, ["umount", small], check=True)
        source = self.write("kv.safetensors", kv_bytes())
        receiver = Receiver(self, "-o", small)
        done = self.send(source, receiver)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn(b"no space", done.stderr.lower())
        self.assertEqual(self.names(small), [])
        self.sent(SAMPLE, receiver)
        self.assertEqual(self.names(small), [SAMPLE.name])
        receiver.process.kill()
        receiver.finish()

    def test_a_file_size_limit(self):
        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

        source = self.write("kv.safetensors", kv_bytes())
        receiver = Receiver(self, "-o", self.out, preexec_fn=limit)
        done = self.send(source, receiver)
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(self.left(), [])
        self.sent(SAMPLE, receiver)
        self.assertEqual(self.left(), [SAMPLE.name])


if __name__ == "__main__":
    unittest.main()
