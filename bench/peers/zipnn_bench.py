"""Measures ZipNN on the bytes that `tersor bench codec` measured, and adds its row to that JSON.

    python zipnn_bench.py --json-in bench.json [--json-out out.json] [--input model.safetensors] [--threads N]

Bytes, threads and repetition to full size are those of bench.json. See README.md.
"""

import argparse
import json
import pathlib
import statistics
import struct
import sys
import time
import warnings

warnings.filterwarnings("ignore")


def bf16_bytes(path: pathlib.Path) -> bytes:
    """The BF16 tensors of a safetensors file, or of all of a directory, in the order of their data."""
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    out = []
    for file in files:
        raw = file.read_bytes()
        (length,) = struct.unpack_from("<Q", raw)
        header = json.loads(raw[8 : 8 + length])
        spans = [t["data_offsets"] for name, t in header.items() if name != "__metadata__" and t["dtype"] == "BF16"]
        out += [raw[8 + length + begin : 8 + length + end] for begin, end in sorted(spans)]
    content = b"".join(out)
    if not content:
        raise SystemExit(f"{path}: holds no BF16 tensor")
    return content


def repeated(content: bytes, n_bytes: int) -> bytes:
    return (content * (n_bytes // len(content) + 1))[:n_bytes]


def measure(content: bytes, threads: int, rounds: int) -> dict:
    from zipnn import ZipNN

    coder = ZipNN(method="huffman", input_format="byte", bytearray_dtype="bfloat16", threads=threads)
    encode, decode = [], []
    for round_number in range(rounds + 1):
        # ZipNN reorders bytes in place in what it is given: it gets a copy, made outside the measured time.
        source = bytearray(content)
        start = time.perf_counter()
        encoded = coder.compress(source)
        between = time.perf_counter()
        size = len(encoded)
        begin = time.perf_counter()
        restored = coder.decompress(encoded)
        end = time.perf_counter()
        if round_number == 0:  # warm-up and check
            if bytes(restored) != content:
                raise SystemExit("ZipNN did not give the input back bit for bit")
            continue
        encode.append(between - start)
        decode.append(end - begin)
    return {
        "codec": "zipnn",
        "ratio": len(content) / size,
        "encode_gb_s": len(content) / statistics.median(encode) / 1e9,
        "decode_gb_s": len(content) / statistics.median(decode) / 1e9,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json-in", required=True, type=pathlib.Path, help="what `tersor bench codec --json` printed")
    parser.add_argument("--json-out", type=pathlib.Path, help="default: standard output")
    parser.add_argument("--input", type=pathlib.Path, help="default: the input named in the JSON")
    parser.add_argument("--threads", type=int, help="default: as in the JSON")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()

    report = json.loads(args.json_in.read_text())
    source = args.input or pathlib.Path(report["input"])
    if not source.exists():
        raise SystemExit(f"{source}: not found; the synthetic input has no file, measure with --input")
    content = repeated(bf16_bytes(source), report["bytes"])
    row = measure(content, args.threads or report["threads"], args.rounds)
    report["codecs"] = [c for c in report["codecs"] if c["codec"] != "zipnn"] + [row]
    text = json.dumps(report, indent=2) + "\n"
    if args.json_out:
        args.json_out.write_text(text)
    else:
        sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
