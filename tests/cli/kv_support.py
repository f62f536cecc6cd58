"""A kv-recv process, keys, and files as large as a few parts."""

import re
import subprocess
import threading
import time

from support import PROGRAM, SOURCE, CliTest, bf16_weights, safetensors_bytes

SAMPLE = SOURCE / "tests" / "data" / "kv-sample.safetensors"
KEY = "0123456789abcdef0123456789abcdef\n"


def kv_bytes(n_layers=4, n_values=400_000, seed=1):
    """A cache whose layers are larger than a part, with odd tensors between."""
    tensors = []
    for layer in range(n_layers):
        tensors.append((f"layers.{layer}.k", "BF16", [n_values], bf16_weights(n_values, seed + layer)))
        tensors.append((f"layers.{layer}.v", "BF16", [n_values], bf16_weights(n_values, seed + 100 + layer)))
    tensors.append(("empty", "F32", [0, 3], b""))
    tensors.append(("ids", "I64", [5], bytes(range(40))))
    tensors.append(("flags", "BOOL", [3], b"\x00\x01\x01"))
    return safetensors_bytes(tensors, {"format": "pt"})


class Receiver:
    """A kv-recv process and the address that it printed."""

    def __init__(self, test, *args, listen="127.0.0.1:0", metrics=False, **kwargs):
        command = [PROGRAM, "kv-recv", "--listen", listen, *map(str, args)]
        if metrics:
            command += ["--metrics", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)
        test.addCleanup(self.close)
        self.errors = []
        self.address = self.page = None
        ready = threading.Event()

        def read():
            for line in self.process.stderr:
                self.errors.append(line.decode(errors="replace"))
                if found := re.search(r"listening on (\S+)", self.errors[-1]):
                    self.address = found[1]
                if found := re.search(r"metrics on (\S+)", self.errors[-1]):
                    self.page = found[1]
                if self.address and (self.page or not metrics):
                    ready.set()
            ready.set()

        self.reader = threading.Thread(target=read, daemon=True)
        self.reader.start()
        test.assertTrue(ready.wait(30), "kv-recv said nothing")
        test.assertIsNotNone(self.address, "".join(self.errors))

    def finish(self, timeout=60):
        out = self.process.stdout.read()
        code = self.process.wait(timeout)
        self.reader.join(10)
        return code, out, "".join(self.errors)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(30)
        self.reader.join(10)
        self.process.stdout.close()
        self.process.stderr.close()


class KvTest(CliTest):
    def setUp(self):
        super().setUp()
        self.out = self.dir / "out"
        self.out.mkdir()

    def key(self, name="key", text=KEY, mode=0o600):
        path = self.write(name, text.encode())
        path.chmod(mode)
        return path

    def send(self, source, receiver, *args, **kwargs):
        return self.run_cli("kv-send", source, "--to", receiver.address, *args, **kwargs)

    def sent(self, *args, **kwargs):
        done = self.send(*args, **kwargs)
        self.assertEqual(done.returncode, 0, done.stderr.decode(errors="replace"))
        return done

    def left(self):
        return sorted(p.name for p in self.out.iterdir())

    def await_nothing_left(self, names=()):
        """Cleanup may come a moment after the process that caused it is gone."""
        for _ in range(100):
            if self.left() == sorted(names):
                return
            time.sleep(0.1)
        self.assertEqual(self.left(), sorted(names))
