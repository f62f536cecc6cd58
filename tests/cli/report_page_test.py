"""The report page of `tersor analyze --report`: markup, and in a browser (skipped where there is none)."""

import html.parser
import json
import re
import shutil
import subprocess
import unittest
import xml.etree.ElementTree as ET

from support import MODEL, CliTest, bf16_weights, safetensors_bytes

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "link", "br", "img"}
# Forbids every request and every script; a breach is an error in the console.
POLICY = (
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
    "style-src 'unsafe-inline'; img-src data:\">"
)
# Runs in the page: texts that leave their figure, and what is wider than the window.
PROBE = """<script>
addEventListener('load', () => {
  const clipped = [];
  for (const svg of document.querySelectorAll('svg')) {
    const box = svg.viewBox.baseVal;
    for (const text of svg.querySelectorAll('text')) {
      const b = text.getBBox();
      if (b.x < -3 || b.y < -3 || b.x + b.width > box.width + 3 || b.y + b.height > box.height + 3)
        clipped.push(text.textContent);
    }
  }
  const result = document.createElement('pre');
  result.id = 'probe';
  result.textContent = JSON.stringify({
    clipped, window: innerWidth, page: document.documentElement.scrollWidth,
    figures: document.querySelectorAll('figure svg').length,
    empty: [...document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().height < 40).length,
    titled: document.querySelectorAll('svg > title').length});
  parent.document.body.append(result);
});
</script>"""


class Nesting(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.faults, self.seen = [], [], {}

    def handle_starttag(self, tag, attrs):
        self.seen[tag] = self.seen.get(tag, 0) + 1
        self.faults += [f"{tag} {name}" for name, _ in attrs if name.startswith("on") or name == "src"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen[tag] = self.seen.get(tag, 0) + 1

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()}")


class ReportPage(CliTest):
    def report(self, source):
        page = self.dir / "report.html"
        self.ok("analyze", source, "--report", page, "-f", "-q")
        return page.read_text(encoding="utf-8")

    def sources(self):
        """Name, path and number of figures."""
        kv = [
            (f"layers.{i}.{kind}", "BF16", [4000], bf16_weights(4000, 2 * i + (kind == "v")))
            for i in range(3)
            for kind in "kv"
        ]
        strange = [
            ("<script>alert(1)</script>", "BF16", [4000], bf16_weights(4000)),
            ("a\u202eb\u0000'\"&" + "long." * 40, "BF16", [8], b"\0" * 16),
            ("random", "BF16", [4096], bytes(i * 89 % 251 for i in range(8192))),
        ]
        integers = [("ids", "I64", [2], b"\0" * 16)]
        yield "model", MODEL, 5
        yield "kv", self.write("kv.safetensors", safetensors_bytes(kv)), 7
        yield "strange", self.write("strange.safetensors", safetensors_bytes(strange)), 5
        yield "integers", self.write("integers.safetensors", safetensors_bytes(integers)), 0

    def browse(self, text, *flags):
        """The page's final document and the lines of its console."""
        page = self.dir / "browse.html"
        page.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--log-level=0",
             "--disable-background-networking", f"--user-data-dir={self.dir / 'profile'}", *flags, "--dump-dom",
             page.as_uri()],
            capture_output=True,
            timeout=120,
        )
        self.assertEqual(done.returncode, 0, done.stderr.decode(errors="replace"))
        console = [line for line in done.stderr.decode(errors="replace").splitlines() if ":CONSOLE" in line]
        return done.stdout.decode(), console

    def test_markup(self):
        for name, path, n_figures in self.sources():
            with self.subTest(name):
                text = self.report(path)
                nesting = Nesting()
                nesting.feed(text)
                nesting.close()
                self.assertEqual((nesting.faults, nesting.open), ([], []))
                self.assertEqual(nesting.seen.get("svg", 0), n_figures)
                self.assertNotIn("script", nesting.seen)
                for svg in re.findall(r"<svg .*?</svg>", text, re.S):
                    root = ET.fromstring(svg)
                    space = "{http://www.w3.org/2000/svg}"
                    self.assertTrue(root.find(space + "title").text)
                    self.assertTrue(root.find(space + "desc").text)
                ids = re.findall(r'\bid="([^"]*)"', text)
                self.assertEqual(len(ids), len(set(ids)))
                for target in re.findall(r'aria-labelledby="([^"]*)"', text):
                    self.assertLessEqual(set(target.split()), set(ids))

    @unittest.skipUnless(BROWSER, "no chromium here")
    def test_browser_asks_for_nothing(self):
        for name, path, n_figures in self.sources():
            with self.subTest(name):
                text = self.report(path).replace("<head>", "<head>" + POLICY, 1)
                document, console = self.browse(text)
                self.assertEqual(console, [])
                self.assertEqual(document.count("<svg "), n_figures)

    @unittest.skipUnless(BROWSER, "no chromium here")
    def test_the_policy_catches_requests_and_scripts(self):
        text = self.report(MODEL).replace("<head>", "<head>" + POLICY, 1)
        for extra in ('<img src="http://127.0.0.1:9/x.png">', "<script>1</script>"):
            self.assertTrue(self.browse(text.replace("</main>", extra + "</main>"))[1], extra)

    @unittest.skipUnless(BROWSER, "no chromium here")
    def test_fits_desktop_and_phone(self):
        for name, path, n_figures in self.sources():
            text = self.report(path).replace("</head>", PROBE + "</head>", 1)
            for width in (1200, 600, 390, 320):
                with self.subTest(name, width=width):
                    # A window cannot be as narrow as a phone, a frame can.
                    frame = f'<iframe width="{width}" height="900" style="border:0" srcdoc="{html.escape(text)}"></iframe>'
                    document, _ = self.browse("<!DOCTYPE html><body>" + frame, "--window-size=1300,1000")
                    probe = json.loads(
                        html.unescape(re.search(r'<pre id="probe">(.*?)</pre>', document, re.S).group(1)))
                    self.assertLessEqual(probe["window"], width)
                    self.assertEqual(probe["clipped"], [])
                    self.assertLessEqual(probe["page"], probe["window"])
                    self.assertEqual((probe["figures"], probe["titled"]), (n_figures, n_figures))
                    self.assertEqual(probe["empty"], 0)


if __name__ == "__main__":
    unittest.main()
