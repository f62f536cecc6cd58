"""The prefill worker: computes the KV cache of a prompt and sends every layer as soon as it is there.

python examples/disaggregated/prefill.py --to 127.0.0.1:7000
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch

from model import PROMPT, TINYLM, StreamingCache, kv_shape, load, prefill, read_prompt, warm_up
from tersor.transfer import Geometry, Sender


def main() -> None:
    args = arguments()
    model = load(args.model)
    warm_up(model)
    prompt = read_prompt(args.prompt, args.tokens)
    shape = kv_shape(model.config, args.tokens)
    n_layers = model.config.num_hidden_layers
    specs: dict = {f"layers.{i}.{kind}": ("BF16", shape) for i in range(n_layers) for kind in "kv"}
    host, _, port = args.to.rpartition(":")
    key = args.psk_file.read_bytes() if args.psk_file else None
    geometry = Geometry(
        model=Path(args.model).name, dtype="BF16", n_layers=n_layers, kv_heads=shape[1], head_dim=shape[3]
    )
    with Sender(host, int(port), psk=key, geometry=geometry, codec=args.codec, transport=args.transport) as sender:
        begun = time.monotonic()
        with sender.begin(args.request, {**specs, "first_token": ("I64", (1,))}) as t:

            def on_layer(index: int, keys: torch.Tensor, values: torch.Tensor) -> None:
                t.put(f"layers.{index}.k", keys)
                t.put(f"layers.{index}.v", values)

            first = prefill(model, prompt, StreamingCache(model.config, on_layer))
            computed = time.monotonic()
            t.put("first_token", torch.tensor([first]))
        published = time.monotonic()
    times = {"begun": begun, "prefill_seconds": computed - begun, "tail_seconds": published - computed}
    print(json.dumps({**times, "report": t.report}), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", required=True, metavar="HOST:PORT", help="where decode.py listens")
    parser.add_argument("--model", default=str(TINYLM), help="a directory of a Llama-like model")
    parser.add_argument("--prompt", default=str(PROMPT), help="a file whose bytes are the tokens")
    parser.add_argument("--tokens", type=int, default=1024, help="of the prompt")
    parser.add_argument("--request", type=int, default=1)
    parser.add_argument("--codec", default="auto", choices=("auto", "raw", "top16", "rank"))
    parser.add_argument("--transport", default="tcp")
    parser.add_argument("--psk-file", type=Path, help="needed beyond loopback; the same on both sides")
    return parser.parse_args()


if __name__ == "__main__":
    main()
