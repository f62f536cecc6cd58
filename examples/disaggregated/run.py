"""Starts both workers on this machine, and compares their tokens with those of a single process.

python examples/disaggregated/run.py                   # CPU, tersor.transfer over loopback
python examples/disaggregated/run.py --device cuda     # two GPUs, NCCL: see gpu_pair.py

Ends with 1 if a token differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from model import PROMPT, TINYLM, load, read_prompt, single_process

HERE = Path(__file__).resolve().parent


def main() -> int:
    args = arguments()
    if args.device != "cpu":
        import gpu_pair

        return gpu_pair.run(args)
    both = ["--model", args.model, "--transport", args.transport]
    decode = [sys.executable, str(HERE / "decode.py"), *both, "--generate", str(args.generate)]
    prefill = [sys.executable, str(HERE / "prefill.py"), *both, "--prompt", args.prompt, "--codec", args.codec]
    prefill += ["--tokens", str(args.tokens)]
    with subprocess.Popen(decode, stdout=subprocess.PIPE, text=True) as decoder:
        try:
            assert decoder.stdout is not None
            address = json.loads(decoder.stdout.readline())["listening"]
            sent = last_line(
                subprocess.run([*prefill, "--to", address], stdout=subprocess.PIPE, text=True, check=True).stdout
            )
            got = last_line(decoder.communicate(timeout=120)[0])
        finally:
            decoder.kill()
    model, prompt = load(args.model), read_prompt(args.prompt, args.tokens)
    alone, seconds = min((single_process(model, prompt, args.generate) for _ in range(3)), key=lambda run: run[1])
    return tell(sent, got, alone, seconds)


def last_line(text: str) -> dict[str, Any]:
    return json.loads(text.strip().splitlines()[-1])


def tell(sent: dict[str, Any], got: dict[str, Any], alone: list[int], seconds: float) -> int:
    report = sent["report"]
    # The clocks are the same on one machine.
    first = got["ready"] - sent["begun"]
    print(f"text of the decode worker: {bytes(got['tokens'])!r}")
    print(
        f"cache: {report['raw_bytes']:,} bytes, sent {report['sent_bytes']:,}: {report['raw_bytes'] / report['sent_bytes']:.3f}x"
    )
    print(f"parts: {report['rank_parts']} rank, {report['top16_parts']} top16, {report['raw_parts']} raw")
    stages = ", ".join(f"{stage} {1e3 * report[stage + '_seconds']:.1f} ms" for stage in ("encode", "send", "decode"))
    print(f"stages, overlapping: prefill {1e3 * sent['prefill_seconds']:.1f} ms, {stages}")
    print(f"left to send when prefill was done: {1e3 * sent['tail_seconds']:.1f} ms")
    print(f"time to first token: {1e3 * first:.1f} ms from two processes, {1e3 * seconds:.1f} ms from one")
    equal = got["tokens"] == alone
    print(f"tokens equal those of one process: {'yes' if equal else 'NO'} ({len(alone)} tokens)")
    return 0 if equal else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "pair-cpu"))
    parser.add_argument("--model", default=str(TINYLM), help='a directory; with --device cuda also "random-llama-8b"')
    parser.add_argument("--prompt", default=str(PROMPT), help="a file whose bytes are the tokens")
    parser.add_argument("--tokens", type=int, default=1024, help="of the prompt")
    parser.add_argument("--generate", type=int, default=48, help="tokens")
    parser.add_argument("--codec", default="auto", choices=("auto", "raw", "top16", "rank"))
    parser.add_argument("--transport", default="tcp")
    parser.add_argument("--repeat", type=int, default=5, help="with --device cuda: requests of each kind")
    parser.add_argument("--json", type=Path, help="with --device cuda: writes the times there")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
