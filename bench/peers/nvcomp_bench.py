"""Measures nvCOMP's ANS on a GPU and prints rows for `tersor bench codec --device cuda:N --peer-json`.

    python nvcomp_bench.py [--library libnvcomp.so.6] [--rows 65536 --hidden-dim 4096 | --input model.safetensors] > peers.json

Needs PyTorch, and libnvcomp from the package nvidia-libnvcomp-cu13. See README.md.
"""

import argparse
import ctypes
import importlib.util
import json
import pathlib
import statistics
import struct
import sys

import torch

TYPE_UCHAR, TYPE_FLOAT16, TYPE_UNKNOWN = 1, 10, 0xFF
CHUNK_KIB = (64, 256)
POISON = 0xA5
L2_FACTOR = 3


class CompressOpts(ctypes.Structure):
    """nvcompBatchedANSCompressOpts_t"""

    _fields_ = [("type", ctypes.c_int), ("data_type", ctypes.c_int), ("rest", ctypes.c_char * 56)]


class DecompressOpts(ctypes.Structure):
    """nvcompBatchedANSDecompressOpts_t"""

    _fields_ = [("backend", ctypes.c_int), ("data_type", ctypes.c_int), ("rest", ctypes.c_char * 56)]


size_t, pointer = ctypes.c_size_t, ctypes.c_void_p
SIGNATURES = {
    "nvcompBatchedANSCompressGetTempSize": [size_t, size_t, CompressOpts, pointer, size_t, pointer],
    "nvcompBatchedANSCompressGetMaxOutputChunkSize": [size_t, CompressOpts, pointer],
    "nvcompBatchedANSCompressAsync": [pointer, pointer, size_t, size_t, pointer, size_t, pointer, pointer, CompressOpts, pointer, pointer],
    "nvcompBatchedANSDecompressGetTempSize": [size_t, size_t, DecompressOpts, pointer, size_t, pointer],
    "nvcompBatchedANSDecompressAsync": [pointer, pointer, pointer, pointer, size_t, pointer, size_t, pointer, DecompressOpts, pointer, pointer],
}


def find_library() -> str:
    spec = importlib.util.find_spec("nvidia.libnvcomp")
    for place in spec.submodule_search_locations if spec else []:
        for file in sorted(pathlib.Path(place).glob("lib*/libnvcomp.so*")):
            return str(file)
    return "libnvcomp.so.6"


def load_library(path: str) -> ctypes.CDLL:
    library = ctypes.CDLL(path)
    for name, arguments in SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, ctypes.c_int
    return library


def checked(status: int) -> None:
    if status != 0:
        raise SystemExit(f"nvCOMP refused with status {status}")


def bf16_bytes(path: pathlib.Path) -> bytes:
    """The BF16 tensors of a safetensors file, or of all of a directory, in the order of their data."""
    out = []
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        raw = file.read_bytes()
        (length,) = struct.unpack_from("<Q", raw)
        header = json.loads(raw[8 : 8 + length])
        spans = [t["data_offsets"] for name, t in header.items() if name != "__metadata__" and t["dtype"] == "BF16"]
        out += [raw[8 + length + begin : 8 + length + end] for begin, end in sorted(spans)]
    content = b"".join(out)
    if not content:
        raise SystemExit(f"{path}: holds no BF16 tensor")
    return content


def make_values(args) -> tuple[str, torch.Tensor]:
    """The name of the data and its bytes on the device."""
    n_bytes = 2 * args.rows * args.hidden_dim
    if args.input is None:
        values = torch.empty(n_bytes // 2, dtype=torch.bfloat16, device="cuda")
        for piece in values.split(1 << 26):  # in float32 only piece by piece
            piece.copy_(torch.randn(piece.numel(), device="cuda"))
        return "normal", values.view(torch.uint8)
    content = torch.frombuffer(bytearray(bf16_bytes(args.input)), dtype=torch.uint8).cuda()
    copies = n_bytes // content.numel() + 1
    return args.input.name, content.repeat(copies)[:n_bytes].contiguous()


class Batch:
    """Chunks of one buffer with all that a call wants; sizes and addresses lie in device memory."""

    def __init__(self, library, source: torch.Tensor, chunk: int, data_type: int):
        self.library, self.source, self.chunk = library, source, chunk
        n_bytes = source.numel()
        self.n = (n_bytes + chunk - 1) // chunk
        self.compress_opts = CompressOpts(0, data_type, b"")
        self.decompress_opts = DecompressOpts(2, data_type, b"")  # CUDA kernels
        temp, bound = size_t(), size_t()
        checked(library.nvcompBatchedANSCompressGetMaxOutputChunkSize(chunk, self.compress_opts, ctypes.byref(bound)))
        stride = (bound.value + 255) // 256 * 256
        checked(library.nvcompBatchedANSCompressGetTempSize(self.n, chunk, self.compress_opts, ctypes.byref(temp), n_bytes, 0))
        self.compress_temp = torch.empty(max(temp.value, 1), dtype=torch.uint8, device="cuda")
        checked(library.nvcompBatchedANSDecompressGetTempSize(self.n, chunk, self.decompress_opts, ctypes.byref(temp), n_bytes, 0))
        self.decompress_temp = torch.empty(max(temp.value, 1), dtype=torch.uint8, device="cuda")
        self.encoded = torch.empty(self.n * stride, dtype=torch.uint8, device="cuda")
        self.restored = torch.empty_like(source)
        steps = torch.arange(self.n, dtype=torch.int64, device="cuda")
        self.source_at = source.data_ptr() + chunk * steps
        self.encoded_at = self.encoded.data_ptr() + stride * steps
        self.restored_at = self.restored.data_ptr() + chunk * steps
        self.sizes = torch.full((self.n,), chunk, dtype=torch.int64, device="cuda")
        self.sizes[-1] = n_bytes - chunk * (self.n - 1)
        self.encoded_sizes = torch.zeros_like(self.sizes)
        self.restored_sizes = torch.zeros_like(self.sizes)
        self.statuses = torch.full((self.n,), -1, dtype=torch.int32, device="cuda")

    def encode(self) -> None:
        checked(
            self.library.nvcompBatchedANSCompressAsync(
                self.source_at.data_ptr(), self.sizes.data_ptr(), self.chunk, self.n, self.compress_temp.data_ptr(),
                self.compress_temp.numel(), self.encoded_at.data_ptr(), self.encoded_sizes.data_ptr(), self.compress_opts,
                self.statuses.data_ptr(), torch.cuda.current_stream().cuda_stream,
            )
        )

    def decode(self) -> None:
        checked(
            self.library.nvcompBatchedANSDecompressAsync(
                self.encoded_at.data_ptr(), self.encoded_sizes.data_ptr(), self.sizes.data_ptr(), self.restored_sizes.data_ptr(),
                self.n, self.decompress_temp.data_ptr(), self.decompress_temp.numel(), self.restored_at.data_ptr(),
                self.decompress_opts, self.statuses.data_ptr(), torch.cuda.current_stream().cuda_stream,
            )
        )

    def check_statuses(self, what: str) -> None:
        torch.cuda.synchronize()
        if bool((self.statuses != 0).any()):
            raise SystemExit(f"nvCOMP: {what} failed, status {int(self.statuses[self.statuses != 0][0])}")
        self.statuses.fill_(-1)

    def check_restored(self) -> None:
        self.check_statuses("decode")
        if not torch.equal(self.restored, self.source):
            raise SystemExit("nvCOMP did not give the input back bit for bit")


def median_seconds(args, call) -> float:
    for _ in range(args.warmup):
        call()
    times = []
    for _ in range(args.repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(args.iters):
            call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3 / args.iters)
    return statistics.median(times)


def measure(args, library, data: str, source: torch.Tensor, chunk: int, data_type: int) -> dict:
    batch = Batch(library, source, chunk, data_type)
    batch.encode()
    batch.check_statuses("encode")
    batch.restored.fill_(POISON)
    batch.decode()
    batch.check_restored()
    encode = median_seconds(args, batch.encode)
    batch.check_statuses("encode")
    batch.restored.fill_(POISON)
    decode = median_seconds(args, batch.decode)
    batch.check_restored()
    # What finds a chunk again is its size, 8 bytes.
    encoded_bytes = int(batch.encoded_sizes.sum()) + 8 * batch.n
    name = "f16" if data_type == TYPE_FLOAT16 else "bytes"
    return {
        "codec": f"nvcomp-ans-{name}-{chunk >> 10}k",
        "dtype": "bf16",
        "data": data,
        "bytes": source.numel(),
        "ratio": source.numel() / encoded_bytes,
        "encode_gb_s": source.numel() / encode / 1e9,
        "decode_gb_s": source.numel() / decode / 1e9,
        "graph": False,
        "peer": True,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--library", default=None, help="default: the installed package's, else the system's")
    parser.add_argument("--rows", type=int, default=65536)
    parser.add_argument("--hidden-dim", type=int, default=4096)
    parser.add_argument("--input", type=pathlib.Path, help="BF16 tensors, repeated to rows x hidden-dim; default: N(0, 1)")
    parser.add_argument("--device", type=int, default=0)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--iters", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()

    torch.cuda.set_device(args.device)
    torch.manual_seed(1)
    library = load_library(args.library or find_library())
    data, source = make_values(args)
    if source.numel() < L2_FACTOR * getattr(torch.cuda.get_device_properties(args.device), "L2_cache_size", 64 << 20):
        raise SystemExit("too few bytes: they would stay in the L2 cache")
    rows = [
        measure(args, library, data, source, kib << 10, data_type)
        for data_type in (TYPE_FLOAT16, TYPE_UCHAR)
        for kib in CHUNK_KIB
    ]
    json.dump({"device": torch.cuda.get_device_name(args.device), "rows": rows}, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
