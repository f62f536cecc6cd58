"""Exponent statistics of a model's KV cache over text: `python -m tersor.analyze --model DIR --dataset TEXT`.

The function for files is `tersor.analyze_files`; docs/python-analysis.md describes options and JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ._errors import Error, error
from ._report import Counted, analysis_document, codebook_document

DEFAULT_TOP_K = (3, 6, 9, 16)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return int(text)


def _top_k(text: str) -> tuple[int, ...]:
    """`1..16`, `3,6,9` or `8`."""
    chosen: list[int] = []
    for part in text.split(","):
        first, dots, last = part.partition("..")
        if not first.isdecimal() or (dots and not last.isdecimal()):
            raise argparse.ArgumentTypeError(f"'{text}' is not like 8, 3,6,9 or 1..16")
        chosen += range(int(first), int(last if dots else first) + 1)
    if not chosen or not all(1 <= k <= 16 for k in chosen):
        raise argparse.ArgumentTypeError(f"'{text}' is not within 1..16")
    return tuple(sorted(set(chosen)))


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and as JSON where JSON was asked for."""

    as_json = False

    def error(self, message: str):
        _fail(error("invalid_argument", message), self.as_json)
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m tersor.analyze",
        description="Runs a model over text and reports exponent entropy, coverage and expected ratio of its KV cache.",
        epilog="exit codes: 0 ok, 2 usage or could not",
    )
    add = parser.add_argument
    add("--model", required=True, help="model directory, or a name on the hub")
    add("--dataset", required=True, help=".txt, .jsonl, .parquet, .npy of token ids, random:N, or a name on the hub")
    add("--dataset-config", metavar="NAME", help="configuration of a data set of the hub")
    add("--split", default="test", help="split of a data set of the hub (default: %(default)s)")
    add("--text-field", default="text", metavar="NAME", help="field or column with the text (default: %(default)s)")
    add("--revision", help="branch, tag or commit of a model of the hub")
    add("--tokens", type=_positive, default=65536, metavar="N", help="tokens to run at most (default: %(default)s)")
    add("--seq-len", type=_positive, metavar="N", help="tokens a sequence (default: 2048, or what the model can)")
    add("--batch", type=_positive, default=1, metavar="N", help="sequences at a time (default: %(default)s)")
    add("--device", help="cpu, cuda, cuda:N, or auto to spread the model (default: cuda if there is one)")
    add("--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32", "auto"), help="default: %(default)s")
    add("--top-k", type=_top_k, default=DEFAULT_TOP_K, metavar="K", help="like 1..16 or 3,6,9 (default: 3,6,9,16)")
    add("--weights", action="store_true", help="also the weights, in the dtype they were loaded in")
    add("-o", "--output", type=Path, metavar="DIR", help="write analysis.json and figures into DIR")
    add("--no-figures", action="store_true", help="only the JSON into DIR")
    add("--calibrate", type=Path, metavar="OUT.json", help="write codebooks by layer, for tersor compress --codebook")
    add("--json", action="store_true", help="the JSON alone on standard output, errors included")
    add("-q", "--quiet", action="store_true", help="no progress")
    return parser


def _fail(e: Error, as_json: bool) -> None:
    members = ("code", "name", "message", "file", "tensor", "byte_offset", "chunk")
    if as_json:
        print(json.dumps({"error": {member: getattr(e, member, None) for member in members}}))
    text = " ".join(str(e).split())
    print(f"tersor.analyze: error: {text}", file=sys.stderr)


def _layers(tensors: Sequence[dict], top_k: Sequence[int]) -> list[dict]:
    """Keys against values by layer, for tables."""
    layers: dict[int, dict] = {}
    for row in tensors:
        _, number, letter = row["name"].split(".")
        members = ("values", "entropy", "ideal_ratio", "rank_ratio", "top16_ratio")
        summary = {member: row[member] for member in members}
        summary["coverage"] = {str(k): row["coverage"][k] for k in top_k}
        layer = layers.setdefault(int(number), {"layer": int(number)})
        layer["keys" if letter == "k" else "values"] = summary
    return [layers[number] for number in sorted(layers)]


def _mean(numbers: Sequence[float], weights: Sequence[int]) -> float:
    return sum(n * w for n, w in zip(numbers, weights, strict=True)) / (sum(weights) or 1)


def _table(document: dict, top_k: Sequence[int]) -> str:
    """The figures by layer as text."""
    heads = ["layer", "", "entropy", *(f"top {k}" for k in top_k), "rank", "top16", "ideal"]
    rows = [heads]
    for layer in document["layers"]:
        for kind in ("keys", "values"):
            if kind not in layer:
                continue
            s = layer[kind]
            shares = [f"{100 * s['coverage'][str(k)]:.3f}%" for k in top_k]
            ratios = [f"{s[name]:.3f}" for name in ("rank_ratio", "top16_ratio", "ideal_ratio")]
            rows.append([str(layer["layer"]), kind, f"{s['entropy']:.3f}", *shares, *ratios])
    for name, part in (("KV cache", document), ("weights", document["weights"])):
        if part is None:
            continue
        tensors = part["tensors"]
        weights = [row["values"] for row in tensors]
        shares = [f"{100 * _mean([row['coverage'][k] for row in tensors], weights):.3f}%" for k in top_k]
        ratios = [f"{part['total'][key]:.3f}" for key in ("rank_ratio", "top16_ratio", "ideal_ratio")]
        rows.append([name, "mean", f"{_mean([row['entropy'] for row in tensors], weights):.3f}", *shares, *ratios])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _write(path: Path, text: str) -> None:
    """The file appears under its name only when it is complete."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as e:
        part.unlink(missing_ok=True)
        raise error("io_error", e.strerror or str(e), file=str(path)) from None


def _check_outputs(args: argparse.Namespace) -> None:
    """Finds out before the model runs what could not be written afterwards."""
    if args.output is not None:
        try:
            args.output.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise error("io_error", e.strerror or str(e), file=str(args.output)) from None
        if not args.no_figures:
            try:
                import matplotlib  # noqa: F401
            except ImportError:
                raise error("unsupported", "figures need matplotlib: pip install matplotlib, or --no-figures") from None
    if args.calibrate is not None and (args.calibrate.is_dir() or not args.calibrate.parent.is_dir()):
        raise error("not_found", "not a file in an existing directory", file=str(args.calibrate))


def _progress(args: argparse.Namespace):
    if args.quiet or not sys.stderr.isatty():
        return None
    return lambda done: print(f"\r{done:,} of {args.tokens:,} tokens", end="", file=sys.stderr, flush=True)


def _run(args: argparse.Namespace) -> tuple[dict, list[Counted]]:
    try:
        import numpy  # noqa: F401
        import torch
        import transformers
    except ImportError as e:
        raise error("unsupported", f"running a model needs numpy, torch and transformers: {e}") from None
    from . import _activations, _tokens

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    _activations.check_device(device)
    config = _activations.load_config(args.model, args.revision)
    longest = getattr(config, "max_position_embeddings", None) or args.seq_len or 2048
    seq_len = args.seq_len or min(2048, longest)
    if seq_len > longest:
        raise error("invalid_argument", f"--seq-len {seq_len}: the model takes at most {longest} tokens")
    needs_text = not (args.dataset.startswith("random:") or args.dataset.endswith(".npy"))
    tokenizer = _activations.load_tokenizer(args.model, args.revision) if needs_text else None
    pieces = _tokens.token_pieces(
        args.dataset,
        vocab_size=config.vocab_size,
        tokenizer=tokenizer,
        config=args.dataset_config,
        split=args.split,
        text_field=args.text_field,
    )
    batches = _tokens.token_batches(pieces, args.tokens, seq_len, args.batch)
    # What is wrong with the data set shows before a large model is loaded.
    first = next(batches, None)
    if first is None:
        raise error("invalid_argument", f"the data set '{args.dataset}' holds no tokens")
    batches = itertools.chain([first], batches)
    model = _activations.load_model(args.model, dtype=args.dtype, device=device, revision=args.revision)
    start, progress = time.monotonic(), _progress(args)
    tensors, n_tokens = _activations.count_kv(model, batches, progress)
    seconds = time.monotonic() - start
    if progress is not None:
        print(file=sys.stderr)
    document = analysis_document(tensors, file=args.model, n_files=0)
    document["layers"] = _layers(document["tensors"], args.top_k)
    document["weights"] = None
    if args.weights:
        counted, others, other_bytes = _activations.count_weights(model)
        document["weights"] = analysis_document(
            counted, file=args.model, n_files=0, other_tensors=others, other_bytes=other_bytes
        )
    encoding = "ids" if not needs_text else "bytes" if tokenizer is None else "tokenizer"
    run = {"model": args.model, "dataset": args.dataset, "split": args.split, "text_as": encoding, "tokens": n_tokens}
    run |= {"seq_len": seq_len, "batch": args.batch, "device": device, "dtype": str(model.dtype).removeprefix("torch.")}
    run |= {"torch": torch.__version__, "transformers": transformers.__version__, "seconds": seconds}
    return {"command": "analyze", "run": run} | document, tensors


def _write_figures(document: dict, directory: Path) -> None:
    from . import plot

    for prefix, part in (("kv", document), ("weights", document["weights"])):
        for name, figure in plot.figures(part).items() if part is not None else ():
            figure.savefig(directory / f"{prefix}-{name}.png", dpi=150)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = _parser()
    parser.as_json = "--json" in (sys.argv[1:] if arguments is None else arguments)
    args = parser.parse_args(arguments)
    try:
        _check_outputs(args)
        document, tensors = _run(args)
        text = json.dumps(document, indent=1) + "\n"
        if args.output is not None:
            _write(args.output / "analysis.json", text)
            if not args.no_figures:
                _write_figures(document, args.output)
        if args.calibrate is not None:
            _write(args.calibrate, json.dumps(codebook_document(tensors), indent=1) + "\n")
    except Error as e:
        _fail(e, args.json)
        return 2
    except KeyboardInterrupt:
        print("\ntersor.analyze: interrupted", file=sys.stderr)
        return 2
    if args.json:
        sys.stdout.write(text)
    else:
        run = document["run"]
        print(f"{run['model']}: KV cache of {run['tokens']:,} tokens, {run['dtype']}\n")
        print(_table(document, args.top_k))
    return 0


if __name__ == "__main__":
    sys.exit(main())
