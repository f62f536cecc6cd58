"""Wrong input, wrong usage, signals, terminals, pipes: what a careful program does when things go badly."""

import json
import os
import pty
import shutil
import signal
import subprocess
import time
import unittest

from support import PROGRAM, CliTest, bf16_weights, safetensors_bytes, small_model

USAGE_ERRORS = [
    [],
    ["frobnicate"],
    ["bench"],
    ["bench", "soup"],
    ["compress"],
    ["compress", "a", "b"],
    ["compress", "SRC", "-T", "0"],
    ["compress", "SRC", "-T", "abc"],
    ["compress", "SRC", "-T", "-1"],
    ["compress", "SRC", "-T", "99999999999999999999"],
    ["compress", "SRC", "-T"],
    ["compress", "SRC", "--codec", "zip"],
    ["compress", "SRC", "--codec"],
    ["compress", "SRC", "--frobnicate"],
    ["compress", "SRC", "-q", "-v"],
    ["decompress", "SRC", "--codec", "rank"],
    ["calibrate", "SRC"],
    ["analyze"],
    ["verify"],
    ["inspect"],
    ["bench", "codec", "--device", "tpu"],
    ["bench", "codec", "--codec", "zip"],
    ["bench", "codec", "--size", "0"],
    ["bench", "codec", "--input", "SRC", "--synthetic"],
]


def header(text, data=b""):
    return len(text).to_bytes(8, "little") + text + data


MALFORMED = {
    "empty": b"",
    "seven bytes": b"1234567",
    "length beyond the file": (1 << 40).to_bytes(8, "little") + b"{}",
    "length of 2^64 - 1": b"\xff" * 8 + b"{}",
    "no JSON": header(b"hello"),
    "an array": header(b"[]"),
    "cut JSON": header(b'{"a":{"dtype":"BF16"'),
    "broken UTF-8": header(b'{"\xff":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    "hole": header(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', b"xx"),
    "trailing bytes": header(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"xx"),
    "missing bytes": header(b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', b"xx"),
    "size against shape": header(b'{"a":{"dtype":"BF16","shape":[3],"data_offsets":[0,4]}}', b"xxxx"),
    "duplicate key": header(
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x"
    ),
    "product wraps": header(
        b'{"a":{"dtype":"U8","shape":[4194305,4194305,211106198978564],"data_offsets":[0,4]}}', b"xxxx"
    ),
}


class BadInput(CliTest):
    def test_usage_errors(self):
        source = str(self.model("SRC"))
        for case in USAGE_ERRORS:
            args = [source if a == "SRC" else a for a in case]
            with self.subTest(case):
                self.fails(2, *args)
                self.assertEqual(self.names(), ["SRC"])

    def test_usage_errors_as_json(self):
        done = self.fails(2, "compress", "x", "--codec", "zip", "--json")
        self.assertEqual(self.json_of(done)["error"]["name"], "invalid_argument")

    def test_malformed_sources(self):
        for what, data in MALFORMED.items():
            source = self.write("bad.safetensors", data)
            for verb in (["compress"], ["inspect"], ["analyze"], ["verify"], ["decompress"]):
                with self.subTest(what, verb=verb[0]):
                    done = self.fails(1, *verb, source)
                    self.assertIn(b"bad.safetensors", done.stderr)
                    self.assertEqual(self.names(), ["bad.safetensors"])

    def test_damaged_containers(self):
        self.ok("compress", self.model())
        packed = (self.dir / "model.tersor.safetensors").read_bytes()
        (self.dir / "model.tersor.safetensors").unlink()
        (self.dir / "model.safetensors").unlink()
        step = len(packed) // 40
        for at in range(0, len(packed), step):
            for what, data in (
                ("flip", packed[:at] + bytes([packed[at] ^ 0x40]) + packed[at + 1 :]),
                ("cut", packed[:at]),
            ):
                with self.subTest(what, at=at):
                    source = self.write("b.tersor.safetensors", data)
                    done = self.run_cli("decompress", source)
                    # A flip in the marks of the header can make it look like another kind of file.
                    self.assertIn(done.returncode, (1, 2) if at < 100 else (1,), done.stderr)
                    self.assertRegex(done.stderr, rb"\Atersor: error: [^\n]+\n\Z")
                    self.assertEqual(self.names(), ["b.tersor.safetensors"])

    def test_error_json_names_the_place(self):
        self.ok("compress", self.model())
        path = self.dir / "model.tersor.safetensors"
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 1
        path.write_bytes(bytes(data))
        done = self.fails(1, "verify", path, "--json")
        error = self.json_of(done)["error"]
        self.assertEqual(
            list(error), ["code", "name", "message", "file", "tensor", "byte_offset", "chunk"]
        )
        self.assertEqual(error["tensor"], "model.layers.0.w")
        self.assertEqual(error["file"], str(path))
        self.assertIsNotNone(error["chunk"])

    def test_places_that_do_not_work(self):
        source = self.model()
        empty = self.dir / "empty"
        empty.mkdir()
        fifo = self.dir / "fifo"
        os.mkfifo(fifo)
        cases = [
            ["compress", self.dir / "absent.safetensors"],
            ["decompress", self.dir / "absent.safetensors"],
            ["inspect", self.dir / "absent.safetensors"],
            ["analyze", self.dir / "absent.safetensors"],
            ["compress", empty],
            ["compress", fifo, "-o", self.dir / "x"],
            ["compress", source, "-o", self.dir / "no" / "such" / "x.safetensors"],
            ["compress", source, "-o", empty],
            ["compress", source, "-o", empty, "-f"],
            ["compress", source, "-o", source, "-f"],
            ["compress", source, "-o", source / "below"],
            ["decompress", source],
            ["calibrate", source, "-o", self.dir / "no" / "book.json"],
            ["calibrate", source, "-o", self.dir / "book.json", "--include", "ids"],
            ["analyze", source, "--report", empty],
        ]
        before = self.names()
        content = source.read_bytes()
        for case in cases:
            with self.subTest(case):
                self.fails(2, *case)
                self.assertEqual(self.names(), before)
                self.assertEqual(source.read_bytes(), content)
        self.ok("compress", source)
        self.fails(2, "compress", self.dir / "model.tersor.safetensors", "-o", self.dir / "twice.safetensors")

    def test_permission_denied(self):
        # Permissions do not bind root: then the program runs as nobody.
        user = {"user": 65534} if os.geteuid() == 0 else {}
        if user and subprocess.run([f"{PROGRAM}", "--version"], capture_output=True, **user).returncode != 0:
            self.skipTest("nobody cannot run the program where it lies")
        source = self.model()
        locked = self.dir / "locked"
        locked.mkdir(0o555)
        self.dir.chmod(0o755)
        self.fails(2, "compress", source, "-o", locked / "x.safetensors", **user)
        self.assertEqual(self.names(locked), [])
        source.chmod(0)
        self.fails(2, "inspect", source, **user)
        self.fails(2, "compress", source, "-o", locked / "x.safetensors", **user)

    def test_file_size_limit_stands_for_a_full_disk(self):
        source = self.model(n_values=400000)
        limited = 'trap "" XFSZ; ulimit -f 200; exec "$@"'
        done = subprocess.run(
            ["bash", "-c", limited, "bash", PROGRAM, "compress", str(source)], capture_output=True, timeout=60
        )
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertRegex(done.stderr, rb"\Atersor: error: [^\n]+\n\Z")
        self.assertEqual(self.names(), ["model.safetensors"])


class Streams(CliTest):
    def test_quiet_is_silent(self):
        source = self.model()
        packed = self.dir / "model.tersor.safetensors"
        for args in (
            ["compress", source, "--include", "none*", "--dry-run"],
            ["compress", source],
            ["verify", packed],
            ["decompress", packed, "-f"],
            ["calibrate", source, "-o", self.dir / "book.json"],
        ):
            done = self.ok(*args, "-q")
            self.assertEqual((done.stdout, done.stderr), (b"", b""), args)

    def test_no_progress_without_a_terminal(self):
        self.assertEqual(self.ok("compress", self.model()).stderr, b"")

    def run_in_terminal(self, *args):
        parent, child = pty.openpty()
        with subprocess.Popen([PROGRAM, *map(str, args)], stdout=subprocess.PIPE, stderr=child) as process:
            os.close(child)
            seen = b""
            while True:
                try:
                    piece = os.read(parent, 65536)
                except OSError:
                    break
                if not piece:
                    break
                seen += piece
            out = process.stdout.read()
        os.close(parent)
        self.assertEqual(process.returncode, 0, seen)
        return out, seen

    def test_progress_on_a_terminal(self):
        # Slow enough for the line to be drawn again: the scalar backend and verification.
        weights = bf16_weights(2 << 20)
        tensors = [(f"layers.{i}.w", "BF16", [2 << 20], weights) for i in range(24)]
        source = self.write("model.safetensors", safetensors_bytes(tensors))
        os.environ["TERSOR_BACKEND"] = "scalar"
        self.addCleanup(os.environ.pop, "TERSOR_BACKEND")
        out, seen = self.run_in_terminal("compress", source, "--json", "--verify", "-T", "1")
        json.loads(out)
        self.assertRegex(seen, rb"\rcompress \[#+\.*\] +[1-9]\d?%  [0-9.]+ MB / [0-9.]+ MB  [0-9.]+ MB/s  ETA \d+:\d\d")
        self.assertTrue(seen.endswith(b"\r\x1b[K"), "the line is taken away at the end")
        self.assertEqual(self.run_in_terminal("compress", source, "-f", "-q"), (b"", b""))

    def test_closed_pipe_and_full_device(self):
        source = self.model()
        read_end, write_end = os.pipe()
        os.close(read_end)
        done = subprocess.run([PROGRAM, "inspect", str(source), "--json"], stdout=write_end, stderr=subprocess.PIPE)
        os.close(write_end)
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"cannot write to standard output", done.stderr)
        with open("/dev/full", "wb") as full:
            done = subprocess.run([PROGRAM, "inspect", str(source)], stdout=full, stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 2)
        self.assertIn(b"No space left", done.stderr)

    def test_closed_standard_descriptors_do_not_reach_files(self):
        source = self.model()
        packed = self.dir / "model.tersor.safetensors"
        subprocess.run(["bash", "-c", '"$@" <&- >&- 2>&-', "bash", PROGRAM, "compress", str(source), "-v"], timeout=60)
        self.ok("verify", packed, "--against", source)


class Signals(CliTest):
    def interrupt(self, number, *args):
        """Sends the signal as soon as the temporary is there; returns the finished process."""
        with subprocess.Popen([PROGRAM, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                if any(name.endswith(".tmp") for name in os.listdir(self.dir)):
                    process.send_signal(number)
                    break
            process.communicate(timeout=60)
            return process

    def test_signals_leave_nothing_behind(self):
        n_values = 64 << 20
        source = self.dir / "big.safetensors"
        source.write_bytes(safetensors_bytes([("w", "BF16", [n_values], bf16_weights(n_values))]))
        slow = ["-T", "1", "--verify"]
        os.environ["TERSOR_BACKEND"] = "scalar"
        self.addCleanup(os.environ.pop, "TERSOR_BACKEND")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process = self.interrupt(number, "compress", source, *slow)
            self.assertEqual(process.returncode, -number, "dies by the signal")
            self.assertEqual(self.names(), ["big.safetensors"])
        self.interrupt(signal.SIGINT, "compress", source, "--rm", *slow)
        self.assertEqual(self.names(), ["big.safetensors"])

    def test_directory_output(self):
        source = self.dir / "m"
        source.mkdir()
        n_values = 32 << 20
        (source / "model.safetensors").write_bytes(
            safetensors_bytes([("w", "BF16", [n_values], bf16_weights(n_values))])
        )
        (source / "config.json").write_text("{}")
        os.environ["TERSOR_BACKEND"] = "scalar"
        self.addCleanup(os.environ.pop, "TERSOR_BACKEND")
        process = self.interrupt(signal.SIGINT, "compress", source, "-T", "1", "--verify")
        self.assertEqual(process.returncode, -signal.SIGINT)
        self.assertEqual(self.names(), ["m"])


class Shells(CliTest):
    def options_of(self, *verb):
        text = self.ok(*verb, "--help").stdout.decode()
        return {w.strip(",") for line in text.splitlines() if line.startswith("  -") for w in line.split() if w.startswith("--")}

    def verbs(self):
        return [["compress"], ["pack"], ["decompress"], ["verify"], ["inspect"], ["analyze"], ["calibrate"], ["bench", "codec"], ["bench", "gemm"], ["tune"], ["doctor"]]

    def source_text(self, *parts):
        return (self.source_dir.joinpath(*parts)).read_text()

    def setUp(self):
        super().setUp()
        from support import SOURCE

        self.source_dir = SOURCE

    def test_completions_know_every_option(self):
        bash = self.source_text("cli", "completions", "tersor.bash")
        zsh = self.source_text("cli", "completions", "_tersor")
        fish = self.source_text("cli", "completions", "tersor.fish")
        for verb in self.verbs():
            for option in self.options_of(*verb):
                with self.subTest(verb=verb, option=option):
                    self.assertIn(option, bash)
                    self.assertIn(option, zsh)
                    self.assertIn(f"-l {option[2:]}", fish)

    def test_man_pages_know_every_option(self):
        for verb in self.verbs():
            name = "bench" if verb == ["bench", "codec"] else "-".join(verb)
            page = self.source_text("docs", "man", f"tersor-{name}.1").replace("\\-", "-")
            for option in self.options_of(*verb):
                with self.subTest(verb=verb, option=option):
                    self.assertIn(option, page)

    def test_bash_completion(self):
        script = self.source_dir / "cli" / "completions" / "tersor.bash"

        def complete(*words):
            line = " ".join(words)
            code = (
                f'source "{script}"; complete -p tersor >/dev/null || exit 9; '
                f'COMP_WORDS=({line} {"" if words[-1] else chr(34) * 2}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); '
                '_tersor 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"'
            )
            done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, cwd=self.dir, timeout=30)
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout.split()

        self.write("file.safetensors", small_model(8))
        self.assertEqual(complete("tersor", "comp"), ["compress"])
        self.assertEqual(complete("tersor", "compress", "--codec", "t"), ["top16"])
        self.assertEqual(complete("tersor", "compress", "--codeb"), ["--codebook"])
        self.assertEqual(complete("tersor", "verify", "--ag"), ["--against"])
        self.assertEqual(complete("tersor", "bench", "c"), ["codec"])
        self.assertEqual(complete("tersor", "compress", "fi"), ["file.safetensors"])

    @unittest.skipUnless(shutil.which("fish"), "needs fish")
    def test_fish_completion(self):
        script = self.source_dir / "cli" / "completions" / "tersor.fish"
        code = f'source "{script}"; complete -C "tersor comp"; complete -C "tersor compress --codec "'
        done = subprocess.run(["fish", "-c", code], capture_output=True, text=True, timeout=60, env={**os.environ, "HOME": str(self.dir)})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stderr, "")
        for word in ("compress", "rank", "top16"):
            self.assertIn(word, done.stdout)

    @unittest.skipUnless(shutil.which("zsh"), "needs zsh")
    def test_zsh_completion_parses_and_loads(self):
        directory = self.source_dir / "cli" / "completions"
        code = f'fpath=("{directory}" $fpath); autoload -Uz compinit; compinit -u -d "{self.dir}/dump"; print $_comps[tersor]'
        done = subprocess.run(["zsh", "-fc", code], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.stdout.strip(), "_tersor", done.stderr)
        done = subprocess.run(["zsh", "-n", str(directory / "_tersor")], capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
