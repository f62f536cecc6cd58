"""kill -9 at random moments of compress and decompress: the final name is absent, old, or complete.

A temporary may be left, as nobody was alive to remove it; it must have a temporary's name.
"""

import hashlib
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import program

TEMPORARY = re.compile(r"\.[^/]*\.tersor-\d+-[0-9a-f]+\.tmp$")


def digest(path):
    with open(path, "rb") as src:
        return hashlib.file_digest(src, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.sha256(src.read()).hexdigest()


def run_time(command, dst):
    """Shortest of three whole runs, in seconds."""
    best = 1e9
    for _ in range(3):
        start = time.monotonic()
        subprocess.run(command, check=True)
        best = min(best, time.monotonic() - start)
        dst.unlink()
    return best


def one_kill(command, dst, old, delay, complete):
    """Returns what was found: "absent", "old" or "complete"; or "half"."""
    if old is not None:
        dst.write_bytes(old)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if not dst.exists():
        return "absent" if old is None else "half"
    size = dst.stat().st_size
    if old is not None and size == len(old) and dst.read_bytes() == old:
        return "old"
    return "complete" if size == complete[0] and digest(dst) == complete[1] else "half"


def main():
    tersor = program.program()
    n_kills = int(os.environ.get("TERSOR_KILLS", "1000" if program.LONG else "60"))
    rng = random.Random(5)
    seen = {"absent": 0, "old": 0, "complete": 0, "half": 0}
    strangers = 0
    killed_inside = 0
    with program.scratch() as name:
        top = pathlib.Path(name)
        plain, packed = top / "model.safetensors", top / "model.tersor.safetensors"
        program.write_model(plain, (160 << 20) if program.LONG else (48 << 20))
        subprocess.run([tersor, "compress", "-q", plain, "-o", packed], check=True)
        work = top / "work"
        work.mkdir()
        dst = work / "out.safetensors"
        jobs = []
        for verb, src, expected in (("compress", plain, packed), ("decompress", packed, plain)):
            command = [tersor, verb, "-q", "-f", str(src), "-o", str(dst)]
            jobs.append((command, run_time(command, dst), (expected.stat().st_size, digest(expected))))
        for i in range(n_kills):
            command, seconds, complete = jobs[i % 2]
            old = b"the old file" if i // 2 % 2 else None
            found = one_kill(command, dst, old, rng.uniform(0, 1.4 * seconds), complete)
            seen[found] += 1
            killed_inside += found in ("absent", "old")
            for entry in work.iterdir():
                if entry != dst and not TEMPORARY.search(entry.name):
                    strangers += 1
                entry.unlink()
    print(f"{n_kills} kills: {seen}; strange names: {strangers}")
    program.publish(12, f"kill -9: {seen['absent']} absent, {seen['old']} old, {seen['complete']} complete, {seen['half']} half",
                    n_kills, seen["half"] + strangers, "kills")
    if seen["half"] or strangers:
        sys.exit("a half file, or a file nobody asked for")
    if killed_inside < n_kills // 4:
        sys.exit("too few kills hit a running program; take a larger model")


if __name__ == "__main__":
    main()
