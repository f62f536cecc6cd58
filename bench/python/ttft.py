"""Time to the first token when prefill and decode are on two machines, by link speed: the cache of an 8B model travels between
two network namespaces of one machine.

python bench/python/ttft.py --json ttft.json --data kv.safetensors 2048:1,5,10,25 8192:1,5,10,25 32768:5,10:raw,rank

Measured: from the begin of the prefill until the whole cache lies decoded and verified in memory that the receiver had before,
when the decode worker can emit the first token (which the prefill worker computed). Modelled: the prefill itself, as a clock
on which layers become ready ("clock"), or all of them at once ("sent at once", no prefill at all).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import socket
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import ttft_link as link

import tersor
import tersor.numpy
from tersor import _core
from tersor.transfer import Receiver, Sender

# Llama-3.1-8B
LAYERS, KV_HEADS, HEAD_DIM, HIDDEN, PARAMETERS = 32, 8, 128, 4096, 8.03e9
#: Layers that are held once; the others are sent from the same memory.
DISTINCT = 8
#: Of the prefill GPU: 989 TFLOP/s of dense BF16 (H100), of which prefill reaches 40%.
PREFILL_FLOPS = 0.4 * 989e12
DIGEST_DOMAIN = 9
CODECS = ("raw", "top16", "rank", "auto")


def prefill_seconds(tokens: int) -> float:
    """Two operations a parameter and token, and causal attention."""
    attention = 4 * tokens * tokens * HIDDEN * LAYERS / 2
    return (2 * PARAMETERS * tokens + attention) / PREFILL_FLOPS


def region_bytes(tokens: int) -> int:
    return 2 * tokens * KV_HEADS * HEAD_DIM


def tensors_of(path: Path, tokens: int) -> dict[str, np.ndarray]:
    """K and V of all layers out of a real cache: its rows of one head and token, in new orders and with random signs of rows.
    Exponents and mantissas keep their distribution, and values of a head stay beside each other."""
    source = tersor.numpy.load_file(path)
    rng, out = np.random.default_rng(1), {}
    have = sorted({int(name.split(".")[1]) for name in source})
    for layer in range(min(DISTINCT, LAYERS)):
        for kind in "kv":
            real = source[f"layers.{have[layer % len(have)]}.{kind}"]
            rows = real.reshape(-1, real.shape[-1]).view(np.uint16)
            n_rows = region_bytes(tokens) // 2 // rows.shape[1]
            made = np.empty((n_rows, rows.shape[1]), np.uint16)
            for first in range(0, n_rows, len(rows)):
                part = made[first : first + len(rows)]
                np.take(rows, rng.permutation(len(rows))[: len(part)], axis=0, out=part)
                part ^= (rng.integers(0, 2, (len(part), 1), dtype=np.uint16) << 15).astype(np.uint16)
            out[f"layers.{layer}.{kind}"] = made.reshape(-1).view(real.dtype).reshape(tokens, KV_HEADS, HEAD_DIM)
    for layer in range(DISTINCT, LAYERS):
        for kind in "kv":
            out[f"layers.{layer}.{kind}"] = out[f"layers.{layer % DISTINCT}.{kind}"]
    return out


def digests(arrays: dict[str, np.ndarray]) -> dict[str, int]:
    """Of every array's bytes; what is shared is read once."""
    context, known = tersor.default_context(), {}
    out = {}
    for name, array in arrays.items():
        at = array.ctypes.data
        if at not in known:
            known[at] = _core.digest_bytes(context, DIGEST_DOMAIN, array.reshape(-1).view(np.uint8))
        out[name] = known[at]
    return out


# ---- the decode worker ----


def receive() -> None:
    """Answers the near end's lines: a request to wait for, or a plain connection."""
    say = lambda **message: print(json.dumps(message), flush=True)  # noqa: E731
    say(here=os.getpid())
    begin = json.loads(sys.stdin.readline())
    # The KV memory of an engine, which is there before requests are.
    pool = np.full(begin["pool_bytes"], 1, np.uint8)

    def allocate(request_id, regions, note):
        ends = np.cumsum([region.n_bytes for region in regions])
        return {r.name: pool[end - r.n_bytes : end] for r, end in zip(regions, ends, strict=True)}

    # The namespaces have no other users: without a key, raw is not slowed by authentication.
    with (
        Receiver(link.FAR, allow_unauthenticated_remote=True, allocate=allocate, max_bytes=len(pool)) as receiver,
        socket.create_server((link.FAR, 0)) as door,
    ):
        say(port=receiver.address[1], plain=door.getsockname()[1])
        for line in sys.stdin:
            asked = json.loads(line)
            if asked["do"] == "plain":
                link.answer_plain(door)
                say(done=True)
                continue
            got = receiver.wait(asked["request"], 300)
            ready = time.monotonic()
            found = digests({name: got[name] for name in got})
            say(ready=ready, equal=found == asked["digests"])


# ---- the prefill worker ----


def send_once(sender: Sender, request: int, tensors: dict[str, np.ndarray], seconds: float) -> tuple[float, dict]:
    """Begin, and report. ``seconds``: of the modelled prefill; 0 has every layer ready at once."""
    begun = time.monotonic()
    with sender.begin(request, tensors) as t:
        for layer in range(LAYERS):
            time.sleep(max(0.0, begun + seconds * (layer + 1) / LAYERS - time.monotonic()))
            for kind in "kv":
                t.put(f"layers.{layer}.{kind}", tensors[f"layers.{layer}.{kind}"])
    assert t.report is not None
    return begun, t.report


class Plan(NamedTuple):
    tokens: int
    rates: list[float]
    codecs: list[str]

    @classmethod
    def parse(cls, text: str) -> Plan:
        tokens, rates, *codecs = text.split(":")
        return cls(int(tokens), [float(r) for r in rates.split(",")], codecs[0].split(",") if codecs else list(CODECS))


def measure(
    worker: link.Worker, port: int, tensors: dict, plan: Plan, gbit: float, args: argparse.Namespace
) -> list[dict]:
    """All codecs over one link, in turns, so that what else the machine does meets all of them."""
    link.set_rate(gbit)
    expected = digests(tensors)
    senders = {codec: Sender(link.FAR, port, codec=codec) for codec in plan.codecs}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for turn in range(args.repeat):
        for mode, seconds in (("clock", prefill_seconds(plan.tokens)), ("sent at once", 0.0)):
            for codec, sender in senders.items():
                args.request += 1
                worker.tell(do="wait", request=args.request, digests=expected)
                begun, report = send_once(sender, args.request, tensors, seconds)
                got = worker.hear()
                if not got["equal"]:
                    raise RuntimeError("the cache that came is not the one that was sent")
                row = rows.setdefault(
                    (mode, codec),
                    {
                        "tokens": plan.tokens, "link_gbit_s": gbit, "codec": codec, "mode": mode,
                        "modelled_prefill_seconds": seconds, "raw_bytes": report["raw_bytes"], "first_token_seconds": [],
                        "load": [],
                    },
                )  # fmt: skip
                row["first_token_seconds"].append(got["ready"] - begun)
                row["load"].append(os.getloadavg()[0])
                row["report"] = report
        print(f"  {plan.tokens} tokens, {gbit} Gb/s, turn {turn + 1}", file=sys.stderr, flush=True)
    for sender in senders.values():
        sender.close()
    for row in rows.values():
        row["median_seconds"] = statistics.median(row["first_token_seconds"])
        row["best_seconds"] = min(row["first_token_seconds"])
        row["ratio"] = row["raw_bytes"] / row["report"]["sent_bytes"]
        base = rows.get((row["mode"], "raw"))
        if base is not None and "median_seconds" in base:
            row["speed_up"] = base["median_seconds"] / row["median_seconds"]
            row["speed_up_of_best"] = base["best_seconds"] / row["best_seconds"]
    return list(rows.values())


def main() -> None:
    args = arguments()
    if args.far:
        receive()
        return
    link.enter_namespace()
    plans = [Plan.parse(text) for text in args.plan]
    args.request, rows, links = 0, [], []
    most = max(plan.tokens for plan in plans)
    with link.far_worker(os.path.abspath(__file__), "--far") as worker:
        ports = worker.ask(do="begin", pool_bytes=2 * LAYERS * region_bytes(most))
        for gbit in sorted({rate for plan in plans for rate in plan.rates}):
            link.set_rate(gbit)
            worker.tell(do="plain")
            speed = link.plain_speed(ports["plain"], int(min(gbit, 10) * 0.06e9))
            worker.hear()
            links.append({"link_gbit_s": gbit, "plain_socket_gb_s": speed})
            print(f"link of {gbit} Gb/s: a plain socket moves {speed:.3f} GB/s", flush=True)
        for plan in plans:
            tensors = tensors_of(args.data, plan.tokens)
            for gbit in plan.rates:
                rows += measure(worker, ports["port"], tensors, plan, gbit, args)
                show(rows[-2 * len(plan.codecs) :])
                if args.json:
                    args.json.write_text(json.dumps(document(args, links, rows), indent=1) + "\n")
            del tensors


def show(rows: list[dict]) -> None:
    for row in rows:
        print(
            f"{row['tokens']:6} tokens  {row['link_gbit_s']:4g} Gb/s  {row['mode']:12}  {row['codec']:5}  {row['ratio']:.3f}x"
            f"  {row['median_seconds']:.3f} s  {row.get('speed_up', math.nan):.3f}x of raw"
            f"  (best {row['best_seconds']:.3f} s, {row.get('speed_up_of_best', math.nan):.3f}x)",
            flush=True,
        )


def document(args: argparse.Namespace, links: list, rows: list) -> dict[str, Any]:
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        cpu = next(
            (line.partition(":")[2].strip() for line in info if line.startswith("model name")), platform.machine()
        )
    return {
        "what": "time to first token, prefill and decode in two network namespaces joined by a rate-limited veth pair",
        "measured": "from the begin of the prefill until the whole cache lies verified in the receiver's memory",
        "modelled": f"prefill: layers become ready on a clock of {PREFILL_FLOPS / 1e12:.0f} TFLOP/s; none in 'sent at once'",
        "machine": {
            "cpu": cpu,
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "shared": "both ends, and other work (see load), on these cores",
        },
        "command": f"python bench/python/ttft.py {' '.join(args.plan)} --repeat {args.repeat} --data {args.data.name}",
        "data": f"{args.data.name}: rows of a head and token permuted, signs of rows random; {DISTINCT} layers sent as {LAYERS}",
        "model": {"layers": LAYERS, "kv_heads": KV_HEADS, "head_dim": HEAD_DIM, "dtype": "BF16"},
        "repeat": args.repeat,
        "tersor": tersor.__version__,
        "links": links,
        "rows": rows,
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", nargs="*", default=["2048:1,5,10,25"], help="TOKENS:GBIT,GBIT,...[:CODEC,CODEC,...]")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "tests/data/kv-sample.safetensors")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--far", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
