"""Mutation test: how many small faults in the decoders do the fast tests notice?

Copies the tree, builds it once with a shared library, then changes one place at a time, rebuilds the library and runs the tests
until one fails. A mutant counts as caught if a test fails, crashes or hangs. Usage: mutation_test.py [--count N] [--jobs N] [--seed N]
[--top DIR]
"""

import argparse
import concurrent.futures
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile

import mutants
import program
from equivalent_mutants import EQUIVALENT

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("CMakeLists.txt", "cmake", "include", "src", "tests", "spec", "cli", "bench", "examples")

# Fast first; what is listed here is the "fast tests" of the figure.
TESTS = [
    ["unit_test", "--gtest_filter=codec*:*afetensors*eader*"],
    ["backend_test"],
    ["safetensors_corpus_test"],
    ["fault_test", "--gtest_filter=differential*:frame_faults.chunks*:frame_faults.raw*:*too_small*"],
    ["codec_conformance_test", "--gtest_filter=*tail_length*:*codebook_entry*:*identity*:*escape*"],
    ["golden_test"],
    ["fault_test", "--gtest_filter=*hostile*:*pages*:frame_faults.a_frame_cut*"],
]


class workshop:
    """One copy of the tree with its build."""

    def __init__(self, top):
        self.tree = pathlib.Path(top) / "tree"
        self.build = pathlib.Path(top) / "build"
        if self.tree.exists():
            return
        self.tree.mkdir(parents=True)
        for name in FOLDERS:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.tree / name, ignore=shutil.ignore_patterns("results", "__pycache__"))
            elif source.exists():
                shutil.copy2(source, self.tree / name)

    def prepare(self):
        # Lets copies of the tree share compiled objects.
        os.environ["CCACHE_BASEDIR"] = str(self.tree.parent)
        os.environ["CCACHE_NOHASHDIR"] = "1"
        launcher = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
        self.call("cmake", "-S", self.tree, "-B", self.build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O1",
                  "-DBUILD_SHARED_LIBS=ON", "-DTERSOR_BUILD_CLI=OFF", "-DTERSOR_BUILD_BENCH=OFF", "-DTERSOR_BUILD_EXAMPLES=OFF",
                  *launcher)
        known = subprocess.run(["ninja", "-C", self.build, "-t", "targets", "all"], capture_output=True, text=True, check=True).stdout
        self.tests = [t for t in TESTS if f"\n{t[0]}: phony" in known or f"bin/{t[0]}:" in known]
        self.call("ninja", "-C", self.build, "-j2", "tersor", *sorted({t[0] for t in self.tests}))
        failed = self.first_failure()
        if failed:
            sys.exit(f"the unchanged tree fails {failed}")

    @staticmethod
    def call(*command):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")

    def first_failure(self):
        """The first test that fails, or None."""
        env = dict(os.environ, ASAN_OPTIONS="", TERSOR_LONG="0")
        env.pop("TERSOR_FIGURES", None)
        for command in self.tests:
            try:
                done = subprocess.run([self.build / "bin" / command[0], *command[1:]], cwd=self.tree, env=env, timeout=120,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            except subprocess.TimeoutExpired:
                return f"{command[0]} (hangs)"
            if done.returncode != 0:
                return " ".join(command)
        return None

    def judge(self, m):
        """"invalid" if it does not compile, else the test that caught it, or None."""
        file = self.tree / m.path
        text = file.read_text(encoding="utf-8")
        lines = text.splitlines(keepends=True)
        if lines[m.line].rstrip("\n") != m.before:
            return "invalid"
        lines[m.line] = m.after + "\n"
        file.write_text("".join(lines), encoding="utf-8")
        try:
            built = subprocess.run(["ninja", "-C", self.build, "-j1", "tersor"], capture_output=True, check=False)
            return "invalid" if built.returncode != 0 else self.first_failure()
        finally:
            file.write_text(text, encoding="utf-8")


def run(count, jobs, seed, top):
    shops = queue.Queue()
    for i in range(jobs):
        shop = workshop(pathlib.Path(top) / str(i))
        shop.prepare()
        shops.put(shop)
    wanted, spare = mutants.choose(shop.tree, count, seed)
    caught, survived, equivalent, n_invalid = [], [], [], 0

    def judge(m):
        shop = shops.get()
        try:
            return m, shop.judge(m)
        finally:
            shops.put(shop)

    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        while wanted:
            for m, verdict in pool.map(judge, wanted):
                if verdict == "invalid":
                    n_invalid += 1
                elif verdict is not None:
                    caught.append(m)
                elif m.key() in EQUIVALENT:
                    equivalent.append(m)
                else:
                    survived.append(m)
                    print(f"survived: {m.path}:{m.line + 1}\n  - {m.before.strip()}\n  + {m.after.strip()}", flush=True)
            missing = count - len(caught) - len(survived)
            wanted, spare = spare[: max(0, missing)], spare[max(0, missing):]
    return caught, survived, equivalent, n_invalid


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=150 if program.LONG else 60)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--top", help="keep the copies of the tree in this folder, and use those that are there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tersor-mutants-") as scratch:
        caught, survived, equivalent, n_invalid = run(options.count, options.jobs, options.seed, options.top or scratch)
    total = len(caught) + len(survived)
    share = 100 * len(caught) / max(1, total)
    for m in equivalent:
        print(f"equivalent: {m.path}:{m.line + 1}: {EQUIVALENT[m.key()]}")
    print(f"{len(caught)} of {total} mutants caught ({share:.1f}%); {len(equivalent)} equivalent, {n_invalid} did not compile")
    program.publish(29, f"mutants caught {share:.1f}%, {len(equivalent)} equivalent ones aside", total, len(survived), "mutants")
    return 0 if share >= 95 else 1


if __name__ == "__main__":
    sys.exit(main())
