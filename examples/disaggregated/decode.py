"""The decode worker: waits for the KV cache of a request, verified, and generates from it.

python examples/disaggregated/decode.py --listen 127.0.0.1:7000

The first line it prints is where it listens, as JSON; the last one the tokens.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import transformers

from model import TINYLM, filled_cache, generate, kv_shape, load, warm_up
from tersor.transfer import Geometry, Receiver


def main() -> None:
    args = arguments()
    config = transformers.AutoConfig.from_pretrained(args.model)
    _, kv_heads, _, head_dim = kv_shape(config, 1)
    n_layers = config.num_hidden_layers
    host, _, port = args.listen.rpartition(":")
    key = args.psk_file.read_bytes() if args.psk_file else None
    # A sender with another model or shape is refused by name.
    expect = Geometry(
        model=Path(args.model).name, dtype="BF16", n_layers=n_layers, kv_heads=kv_heads, head_dim=head_dim
    )
    with Receiver(host, int(port), psk=key, expect=expect, transport=args.transport, arrays="torch") as receiver:
        address = receiver.address
        print(json.dumps({"listening": f"{address[0]}:{address[1]}"}), flush=True)
        model = load(args.model)
        warm_up(model)
        got = receiver.wait(args.request, args.timeout)
        ready = time.monotonic()
        cache = filled_cache(config, [(got[f"layers.{i}.k"], got[f"layers.{i}.v"]) for i in range(n_layers)])
        tokens, used = generate(model, cache, int(got["first_token"][0]), args.generate)
        result = {"ready": ready, "second_token": used, "tokens": tokens, "counters": receiver.counters()}
    print(json.dumps(result), flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument("--model", default=str(TINYLM), help="the directory that the prefill worker has, too")
    parser.add_argument("--generate", type=int, default=48, help="tokens")
    parser.add_argument("--request", type=int, default=1)
    parser.add_argument("--transport", default="tcp")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds to wait for the request")
    parser.add_argument("--psk-file", type=Path, help="needed beyond loopback; the same on both sides")
    return parser.parse_args()


if __name__ == "__main__":
    main()
