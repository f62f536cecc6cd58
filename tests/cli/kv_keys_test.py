"""Who may send: pre-shared keys, tenants, TLS; and nobody from elsewhere without them."""

import json
import shutil
import subprocess
import unittest

from kv_support import KEY, SAMPLE, KvTest, Receiver


class Keys(KvTest):
    def setUp(self):
        super().setUp()
        transports = {t["name"]: t["available"] for t in self.json_of(self.ok("doctor", "--json"))["transports"]}
        if not transports.get("tls"):
            self.skipTest("this build has no OpenSSL")

    def test_the_same_key(self):
        key = self.key()
        receiver = Receiver(self, "-o", self.out / "x", "--once", "--psk-file", key, "--json")
        done = self.sent(SAMPLE, receiver, "--psk-file", key, "--json")
        self.assertTrue(self.json_of(done)["authenticated"])
        code, out, errors = receiver.finish()
        self.assertEqual(code, 0, errors)
        self.assertTrue(json.loads(out)["authenticated"])
        self.assertEqual((self.out / "x").read_bytes(), SAMPLE.read_bytes())

    def test_line_ends_do_not_count(self):
        receiver = Receiver(self, "-o", self.out / "x", "--once", "--psk-file", self.key("a", KEY))
        self.sent(SAMPLE, receiver, "--psk-file", self.key("b", KEY.rstrip("\n")))
        self.assertEqual(receiver.finish()[0], 0)

    def test_other_keys_and_none_are_refused(self):
        key = self.key()
        other = self.key("other", KEY.upper())
        receiver = Receiver(self, "-o", self.out / "x", "--once", "--psk-file", key)
        plain = Receiver(self, "-o", self.out / "y", "--once")
        for what, args, to in (
            ("another key", ["--psk-file", other], receiver),
            ("no key", [], receiver),
            ("a key too many", ["--psk-file", key], plain),
        ):
            with self.subTest(what):
                done = self.send(SAMPLE, to, *args, "--timeout", "5")
                self.assertIn(done.returncode, (1, 2), done.stderr)
                self.assertRegex(done.stderr, rb"(?i)key|authent|proof")
                self.assertEqual(self.left(), [])
        # Both still take a sender who is right.
        self.sent(SAMPLE, receiver, "--psk-file", key)
        self.sent(SAMPLE, plain)
        code, _, errors = receiver.finish()
        self.assertEqual(code, 0)
        self.assertIn("warning", errors)
        self.assertEqual(plain.finish()[0], 0)

    def test_bad_key_files(self):
        listen = ["kv-recv", "--listen", "127.0.0.1:0", "-o", self.out / "x", "--once", "--psk-file"]
        send = ["kv-send", SAMPLE, "--to", "127.0.0.1:9", "--psk-file"]
        for command in (listen, send):
            done = self.fails(2, *command, self.key("short", "fifteen bytes !"))
            self.assertIn(b"at least 16", done.stderr)
            self.fails(2, *command, self.key("empty", ""))
            self.fails(2, *command, self.key("long", "x" * 5000))
            self.fails(2, *command, self.dir / "absent")
            self.fails(2, *command, self.dir)
        self.assertEqual(self.left(), [])

    def test_a_key_that_others_may_read_is_warned_of(self):
        receiver = Receiver(self, "-o", self.out / "x", "--once", "--psk-file", self.key(mode=0o644))
        self.sent(SAMPLE, receiver, "--psk-file", self.key("own"))
        self.assertIn("other users may read", receiver.finish()[2])

    def test_beyond_loopback_only_with_a_key(self):
        done = self.fails(2, "kv-recv", "--listen", "0.0.0.0:0", "-o", self.out / "x", "--once")
        self.assertIn(b"--psk-file", done.stderr)
        self.assertIn(b"loopback", done.stderr)
        receiver = Receiver(self, "-o", self.out / "x", "--once", "--psk-file", self.key(), listen="0.0.0.0:0")
        receiver.address = receiver.address.replace("0.0.0.0", "127.0.0.1")
        self.sent(SAMPLE, receiver, "--psk-file", self.key("again"))
        self.assertEqual(receiver.finish()[0], 0)

    def test_tls(self):
        if not shutil.which("openssl"):
            self.skipTest("no openssl program makes certificates here")

        def openssl(*args):
            subprocess.run(["openssl", *args], cwd=self.dir, check=True, capture_output=True)

        def authority(name):
            openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")  # fmt: skip

        def certificate(name, signer):
            openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                    "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
            self.write("san", b"subjectAltName=IP:127.0.0.1")
            openssl("x509", "-req", "-in", f"{name}.csr", "-CA", f"{signer}.pem", "-CAkey", f"{signer}.key",
                    "-CAcreateserial", "-days", "2", "-extfile", "san", "-out", f"{name}.pem")  # fmt: skip
            return ["--transport", "tls", "--tls-cert", self.dir / f"{name}.pem", "--tls-key", self.dir / f"{name}.key"]

        authority("ca")
        authority("stranger")
        ca = ["--tls-ca", self.dir / "ca.pem"]
        receiver = Receiver(self, "-o", self.out / "x", "--once", *certificate("receiver", "ca"), *ca)
        refused = self.send(SAMPLE, receiver, *certificate("intruder", "stranger"), *ca, "--timeout", "3")
        self.assertIn(refused.returncode, (1, 2))
        plain = self.send(SAMPLE, receiver, "--timeout", "3")
        self.assertIn(plain.returncode, (1, 2))
        self.assertEqual(self.left(), [])
        self.sent(SAMPLE, receiver, *certificate("sender", "ca"), *ca)
        self.assertEqual(receiver.finish()[0], 0)
        self.assertEqual((self.out / "x").read_bytes(), SAMPLE.read_bytes())
        done = self.fails(2, "kv-send", SAMPLE, "--to", "127.0.0.1:1", *ca)
        self.assertIn(b"--transport tls", done.stderr)

    def test_tenants(self):
        one, two = self.key("one", "tenant one"), self.key("two", "tenant two")
        receiver = Receiver(self, "-o", self.out / "x", "--once", "--tenant-file", one)
        for args in ([], ["--tenant-file", two]):
            done = self.send(SAMPLE, receiver, *args)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(b"tenant", done.stderr)
        self.sent(SAMPLE, receiver, "--tenant-file", one)
        self.assertEqual(receiver.finish()[0], 0)


if __name__ == "__main__":
    unittest.main()
