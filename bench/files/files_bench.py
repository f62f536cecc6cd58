"""The measuring half of files_bench.sh; standard library only."""

import filecmp
import json
import os
import pathlib
import statistics
import struct
import subprocess
import sys
import time

ROUNDS = int(os.environ.get("ROUNDS", "3"))
THREADS = int(os.environ.get("THREADS", str(len(os.sched_getaffinity(0)))))


def bf16_tensors(path):
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        raw = file.read_bytes()
        (length,) = struct.unpack_from("<Q", raw)
        for name, tensor in json.loads(raw[8 : 8 + length]).items():
            if name != "__metadata__" and tensor["dtype"] == "BF16":
                begin, end = tensor["data_offsets"]
                yield name, raw[8 + length + begin : 8 + length + end]


def make_model(source, n_bytes, path):
    """Tensors of 64 MiB, as large models have them, filled with the source's BF16 tensors one after another."""
    content = b"".join(data for _, data in bf16_tensors(source))
    tensor_bytes = min(64 << 20, n_bytes)
    count = max(1, n_bytes // tensor_bytes)
    block = (content * (tensor_bytes // len(content) + 2))
    header = {"__metadata__": {"format": "pt"}}
    for i in range(count):
        header[f"model.layers.{i}.weight"] = {
            "dtype": "BF16",
            "shape": [tensor_bytes // 2],
            "data_offsets": [i * tensor_bytes, (i + 1) * tensor_bytes],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for i in range(count):
            start = (i * 7919 * 2) % len(content)
            out.write(block[start : start + tensor_bytes])


def warm(path):
    """Reads the file once, so that it lies in the page cache."""
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass


def timed(source, target, command):
    times = []
    for _ in range(ROUNDS):
        target.unlink(missing_ok=True)
        os.sync()
        warm(source)
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    program, gib, source, work = sys.argv[1], float(sys.argv[2]), pathlib.Path(sys.argv[3]), pathlib.Path(sys.argv[4])
    n_bytes = int(gib * (1 << 30))
    big, packed = work / "big.safetensors", work / "packed.safetensors"
    back, copy = work / "back.safetensors", work / "copy.safetensors"
    make_model(source, n_bytes, big)
    n_bytes = big.stat().st_size

    bench = json.loads(
        subprocess.run(
            [program, "bench", "codec", "--input", big, "--size", str(min(1024, n_bytes >> 20)), "--codec", "rank",
             "--repeats", "5", "--threads", str(THREADS), "--json", "-q"],
            check=True, stdout=subprocess.PIPE,
        ).stdout
    )
    rank = bench["codecs"][0]
    codec = {"compress": n_bytes / rank["encode_auto_gb_s"] / 1e9, "decompress": n_bytes / rank["decode_gb_s"] / 1e9}
    threads = ["-T", str(THREADS), "-q"]
    seconds = {
        "cp_original": timed(big, copy, ["cp", big, copy]),
        "cp_original_sync": timed(big, copy, ["sh", "-c", 'cp "$1" "$2" && sync "$2"', "sh", big, copy]),
        "compress": timed(big, packed, [program, "compress", big, "-o", packed, *threads]),
    }
    copy.unlink()
    seconds["decompress"] = timed(packed, back, [program, "decompress", packed, "-o", back, *threads])
    if not filecmp.cmp(big, back, shallow=False):
        raise SystemExit("the restored file differs")
    report = {
        "bytes": n_bytes,
        "threads": THREADS,
        "backend": bench["backend"],
        "ratio": n_bytes / packed.stat().st_size,
        "rounds": ROUNDS,
        "seconds": seconds,
        "codec_seconds": codec,
        "compress_vs_cp_plus_codec": seconds["compress"] / (seconds["cp_original"] + codec["compress"]),
        "decompress_vs_cp_plus_codec": seconds["decompress"] / (seconds["cp_original"] + codec["decompress"]),
        "compress_vs_cp_sync_plus_codec": seconds["compress"] / (seconds["cp_original_sync"] + codec["compress"]),
        "decompress_vs_cp_sync_plus_codec": seconds["decompress"] / (seconds["cp_original_sync"] + codec["decompress"]),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
