"""A disk that is full at every 4 KiB step: a clear error, the old file intact, no temporary left.

With the right to mount, a small tmpfs is filled up; without, the file size limit of the process stands in for it.
"""

import os
import pathlib
import resource
import signal
import subprocess
import sys

import program

STEP = 4096
OLD = b"the old file"


class small_disk:
    """A tmpfs whose size changes; `usable` is false where mounting is not allowed."""

    def __init__(self, where):
        self.where = where
        where.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", where], capture_output=True, check=False)
        self.usable = done.returncode == 0

    def resize(self, n_bytes):
        subprocess.run(["mount", "-o", f"remount,size={n_bytes}", self.where], check=True)

    def close(self):
        if self.usable:
            subprocess.run(["umount", self.where], check=True)


def limited(n_bytes):
    def set_limit():
        # Ignored, the signal turns into the error EFBIG.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))

    return set_limit


def attempt(command, work, dst, complete, preexec):
    """Runs with a full disk; returns True if it got through, raises on a broken promise."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=preexec)
    left = program.temporaries(work)
    if left:
        raise AssertionError(f"left behind: {left}")
    if done.returncode == 0:
        if dst.read_bytes() != complete:
            raise AssertionError("success, but not the whole file")
        return True
    if done.returncode != 2 or "error" not in done.stderr:
        raise AssertionError(f"exit code {done.returncode}, message {done.stderr!r}")
    if not any(word in done.stderr.lower() for word in ("space", "large", "disk")):
        raise AssertionError(f"the message does not say why: {done.stderr!r}")
    if dst.read_bytes() != OLD:
        raise AssertionError("the old file was changed")
    return False


def fill(command, work, dst, complete, disk, stride):
    """All steps from no room to enough; returns how many there were."""
    tried = 0
    for room in range(STEP, len(complete) + 4 * stride * STEP, stride * STEP):
        dst.unlink(missing_ok=True)
        preexec = None
        if disk.usable:
            # One page holds the old file; what the directory takes is not counted.
            disk.resize(room + STEP)
        else:
            preexec = limited(room)
        dst.write_bytes(OLD)
        tried += 1
        if attempt(command, work, dst, complete, preexec):
            return tried
    raise AssertionError("no size was enough")


def main():
    tersor = program.program()
    stride = 1 if program.LONG else 24
    tried = 0
    with program.scratch() as name:
        top = pathlib.Path(name)
        plain, packed = top / "model.safetensors", top / "model.tersor.safetensors"
        program.write_model(plain, (2 << 20) if program.LONG else (1 << 20))
        subprocess.run([tersor, "compress", "-q", plain, "-o", packed], check=True)
        disk = small_disk(top / "disk")
        try:
            dst = disk.where / "out.safetensors"
            for verb, src, expected in (("compress", plain, packed), ("decompress", packed, plain)):
                command = [tersor, verb, "-q", "-f", str(src), "-o", str(dst)]
                tried += fill(command, disk.where, dst, expected.read_bytes(), disk, stride)
        finally:
            disk.close()
    how = "tmpfs" if disk.usable else "file size limit (no right to mount)"
    program.publish(13, f"disk full, {how}, every {stride * 4} KiB", tried, 0, "sizes")


if __name__ == "__main__":
    sys.exit(main())
