"""Two GPUs of one machine: K/V of a layer is encoded on GPU 0 as soon as it is computed, its frames travel by NCCL with their
real lengths, and GPU 1 decodes and verifies them. Started by run.py --device cuda; with --device pair-cpu the same by gloo.

Rank 0 prefills and also runs the whole alone, for comparison; rank 1 generates from what came.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import socket
import statistics
import threading
import time
from typing import Any

import torch
import torch.distributed as dist

from model import StreamingCache, filled_cache, generate, kv_shape, load, prefill, read_prompt, single_process
from tersor.kv import Codec, Encoded

WARM_UP = 2


class Lane:
    """A stream of a GPU's own; nothing of the kind on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __enter__(self) -> Lane:
        self._inside = torch.cuda.stream(self.stream) if self.stream else contextlib.nullcontext()
        self._inside.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._inside.__exit__(*raised)

    def after(self, event: Any) -> None:
        if self.stream:
            self.stream.wait_event(event)

    def mark(self) -> Any:
        return self.stream.record_event() if self.stream else None

    def keep(self, tensor: torch.Tensor) -> None:
        """The tensor's memory is not given away before this stream is done with it."""
        if self.stream:
            tensor.record_stream(self.stream)  # type: ignore[arg-type]

    def wait(self) -> None:
        if self.stream:
            self.stream.synchronize()


class LayerSender:
    """Takes layers from the prefill's thread, and encodes and sends them on a thread and a stream of its own."""

    def __init__(self, device: torch.device, codec: str) -> None:
        self._device = device
        self._codec = None if codec == "raw" else Codec(device, codec=codec)
        self._layers: queue.SimpleQueue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run)
        self._raised: BaseException | None = None
        self.sent_bytes = 0
        self._thread.start()

    def put(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        event = torch.cuda.current_stream(self._device).record_event() if self._device.type == "cuda" else None
        self._layers.put((event, keys, values))

    def finish(self) -> None:
        self._layers.put(None)
        self._thread.join()
        if self._raised is not None:
            raise self._raised

    def _run(self) -> None:
        try:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)
            with Lane(self._device) as lane:
                before = None
                while (layer := self._layers.get()) is not None:
                    event, *tensors = layer
                    lane.after(event)
                    made = [self._codec.encode(x) for x in tensors] if self._codec else tensors
                    # The frames of the layer before are complete by now, or nearly: their lengths are there.
                    if before is not None:
                        self._send(before)
                    before = made
                if before is not None:
                    self._send(before)
                lane.wait()
        except BaseException as raised:
            self._raised = raised

    def _send(self, made: list[Any]) -> None:
        if self._codec is None:
            frames = [x.contiguous().reshape(-1).view(torch.uint8) for x in made]
        else:
            frames = [encoded.tensor() for encoded in made]
            dist.send(torch.tensor([len(frame) for frame in frames], device=self._device), 1)
        for frame in frames:
            dist.send(frame, 1)
            self.sent_bytes += len(frame)


def receive_layers(device: torch.device, codec: str, shape: tuple[int, ...], n_layers: int) -> list[Any]:
    """K and V of every layer. Frames are decoded while the next ones are on their way; nothing is returned before every
    digest was compared."""
    raw_bytes = 2 * torch.Size(shape).numel()
    if codec == "raw":
        tensors = [torch.empty(shape, dtype=torch.bfloat16, device=device) for _ in range(2 * n_layers)]
        for tensor in tensors:
            dist.recv(tensor.view(-1).view(torch.uint8), 0)
        return list(zip(tensors[::2], tensors[1::2], strict=True))
    decoder, decodings = Codec(device, codec=codec), []
    lane, decoding_lane = Lane(device), Lane(device)
    with lane:
        for _ in range(n_layers):
            lengths = torch.empty(2, dtype=torch.int64, device=device)
            dist.recv(lengths, 0)
            for length in lengths.tolist():
                if not 0 < length <= 2 * raw_bytes + 4096:
                    raise ValueError(f"a frame of {length} bytes for {raw_bytes} bytes of values")
                frame = torch.empty(length, dtype=torch.uint8, device=device)
                dist.recv(frame, 0)
                here = lane.mark()
                with decoding_lane:
                    decoding_lane.after(here)
                    if device.type == "cuda":
                        decoding_lane.keep(frame)
                        encoded = Encoded.from_tensor(frame, dtype="BF16", shape=shape, codec=codec)
                    else:
                        encoded = Encoded.from_bytes(frame.numpy().tobytes(), "torch")
                    decodings.append(decoder.decode(encoded, check=False))
    tensors = [decoding.check() for decoding in decodings]
    return list(zip(tensors[::2], tensors[1::2], strict=True))


def settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def send_request(model: Any, prompt: torch.Tensor, codec: str, overlapped: bool) -> dict[str, Any]:
    """Prefills and sends, layer by layer or all after the prefill; times on the machine's clock."""
    device = prompt.device
    dist.barrier()
    settle(device)
    begun = time.monotonic()
    sender = LayerSender(device, codec)
    kept: list[Any] = []

    def on_layer(index: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        if overlapped:
            sender.put(keys, values)
        kept.append((keys, values))

    first = prefill(model, prompt, StreamingCache(model.config, on_layer))
    computed = time.monotonic()
    if not overlapped:
        for keys, values in kept:
            sender.put(keys, values)
    sender.finish()
    dist.send(torch.tensor([first], device=device), 1)
    settle(device)
    return {"begun": begun, "computed": computed, "sent_bytes": sender.sent_bytes}


def receive_request(model: Any, codec: str, shape: tuple[int, ...]) -> tuple[int, list[Any], float]:
    device = model.device
    dist.barrier()
    layers = receive_layers(device, codec, shape, model.config.num_hidden_layers)
    first = torch.empty(1, dtype=torch.int64, device=device)
    dist.recv(first, 0)
    token = int(first)
    settle(device)
    return token, layers, time.monotonic()


def measure(
    rank: int, model: Any, prompt: torch.Tensor, args: argparse.Namespace, codec: str, overlapped: bool
) -> dict:
    """One kind of transfer, several times; rank 1's times and tokens travel to rank 0 as objects."""
    shape = kv_shape(model.config, args.tokens)
    rows, tokens = [], []
    for turn in range(WARM_UP + args.repeat):
        if rank == 0:
            sent = send_request(model, prompt, codec, overlapped)
            box: list[Any] = [None]
        else:
            first, layers, ready = receive_request(model, codec, shape)
            if turn == 0:
                tokens = generate(model, filled_cache(model.config, layers), first, args.generate)[0]
            box = [(ready, tokens)]
            del layers
        dist.broadcast_object_list(box, src=1, device=prompt.device)
        if rank == 0 and turn >= WARM_UP:
            ready, tokens = box[0]
            rows.append(
                (ready - sent["begun"], sent["computed"] - sent["begun"], ready - sent["computed"], sent["sent_bytes"])
            )
    if rank == 1:
        return {}
    raw = 2 * torch.Size(shape).numel() * 2 * model.config.num_hidden_layers
    columns = list(zip(*rows, strict=True))
    names = ("first_token_seconds", "prefill_seconds", "after_prefill_seconds")
    row = {name: statistics.median(column) for name, column in zip(names, columns, strict=False)}
    return {
        "codec": codec, "overlapped": overlapped, "raw_bytes": raw, "sent_bytes": columns[3][0], **row,
        "first_token_seconds_all": list(columns[0]), "tokens": tokens,
    }  # fmt: skip


def worker(rank: int, port: int, args: argparse.Namespace) -> None:
    device = torch.device("cuda", rank) if args.device == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=rank, world_size=2)
    try:
        model = load(args.model, str(device))
        prompt = read_prompt(args.prompt, args.tokens, str(device))
        single_process(model, prompt, 2)  # warm on both
        kinds = [(codec, overlapped) for overlapped in (True, False) for codec in ("raw", "top16", "rank")]
        rows = [measure(rank, model, prompt, args, *kind) for kind in kinds]
        if rank == 0:
            alone = [single_process(model, prompt, args.generate) for _ in range(args.repeat)]
            tell(rows, alone[0][0], statistics.median(seconds for _, seconds in alone), device, args)
    finally:
        dist.destroy_process_group()


def tell(rows: list[dict], alone: list[int], seconds: float, device: torch.device, args: argparse.Namespace) -> None:
    print(f"{args.model}: {args.tokens} tokens, {rows[0]['raw_bytes']:,} bytes of cache")
    print(f"one process: first token after {1e3 * seconds:.2f} ms")
    for row in rows:
        row["tokens_equal"] = row.pop("tokens") == alone
        how = "while it prefills" if row["overlapped"] else "after the prefill"
        ratio = row["raw_bytes"] / row["sent_bytes"]
        print(
            f"{row['codec']:6}{how:18} {ratio:.3f}x, first token after {1e3 * row['first_token_seconds']:.2f} ms"
            f" (prefill {1e3 * row['prefill_seconds']:.2f}, then {1e3 * row['after_prefill_seconds']:.2f}),"
            f" tokens equal: {'yes' if row['tokens_equal'] else 'NO'}"
        )
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    document = {
        "machine": {"device": name, "torch": torch.__version__}, "model": str(args.model), "tokens": args.tokens,
        "generated": args.generate, "repeat": args.repeat, "single_process_seconds": seconds, "rows": rows,
    }  # fmt: skip
    if args.json:
        args.json.write_text(json.dumps(document, indent=1) + "\n")
    if not all(row["tokens_equal"] for row in rows):
        raise SystemExit("tokens differ")


def run(args: argparse.Namespace) -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    torch.multiprocessing.spawn(worker, (port, args), nprocs=2)
    return 0
