"""Tokens a second, prefill time and memory of a model with plain and with packed weights, in the same run.

    python bench/python/decode_bench.py --model llama-3.1-8b --commit $(git rev-parse --short HEAD) -o result.json

Decoding: greedy, static cache, one CUDA graph a step, embedding to argmax. Both models share everything but the weights
of their linear layers and are measured in turns. What stands between the products is fused for both (fused.py), if not
``--eager``."""

from __future__ import annotations

import argparse
import copy
import gc

import torch
from fused import lean
from measure import alternate, capture, machine, write
from models import CONFIGS, build
from transformers import DynamicCache, StaticCache

import tersor.torch
from tersor.torch.fused import merge_siblings


def sharing_copy(model):
    """The same modules over the same parameters."""
    return copy.deepcopy(model, memo={id(p): p for p in model.parameters()})


def packed_copy(model, **options):
    """The same model with packed linear layers; all other parameters are shared."""
    other = sharing_copy(model)
    report = tersor.torch.compress_module(other, **options)
    gc.collect()
    torch.cuda.empty_cache()
    return other, report


class Decoder:
    """One greedy step of a model for a batch, and the graph of it."""

    def __init__(self, model, batch: int, context: int, room: int):
        self.context = context
        self.cache = StaticCache(config=model.config, max_cache_len=context + room)
        self.tokens = torch.randint(0, model.config.vocab_size, (batch, 1), device="cuda")
        self.model = model
        config = model.config
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.cache.early_initialization(batch, config.num_key_value_heads, head_dim, torch.bfloat16, "cuda")
        self.rewind()
        with torch.inference_mode():
            self.graph = capture(self.step)

    def step(self) -> None:
        logits = self.model(self.tokens, past_key_values=self.cache, logits_to_keep=1).logits
        self.tokens.copy_(logits[:, -1].argmax(-1, keepdim=True))

    def rewind(self) -> None:
        """Back to ``context`` tokens in the cache."""
        for layer in self.cache.layers:
            layer.cumulative_length.fill_(self.context)


def measure_decoding(models: dict, batches: list[int], context: int) -> list[dict]:
    rows = []
    for batch in batches:
        decoders = {name: Decoder(model, batch, context, room=64) for name, model in models.items()}

        def rewind(all_decoders=decoders):
            for decoder in all_decoders.values():
                decoder.rewind()

        seconds = alternate({n: d.graph.replay for n, d in decoders.items()}, times=20, rounds=5, between=rewind)
        row = {"batch": batch} | {f"{n}_tokens_s": round(batch / s, 1) for n, s in seconds.items()}
        row |= {f"{n}_ms": round(1e3 * s, 4) for n, s in seconds.items()}
        row["speedup"] = {
            f"{fast} over {slow}": round(seconds[slow] / seconds[fast], 4)
            for fast, slow in (("tersor", "bf16"), ("tersor_fused", "bf16_fused"), ("tersor_fused", "bf16"))
            if fast in seconds and slow in seconds
        }
        rows.append(row)
        print("decode", row, flush=True)
        del decoders, rewind
        gc.collect()
        torch.cuda.empty_cache()
    return rows


def measure_prefill(models: dict, lengths: list[int]) -> list[dict]:
    rows = []
    for length in lengths:
        graphs = {}
        for name, model in models.items():
            tokens = torch.randint(0, model.config.vocab_size, (1, length), device="cuda")

            def step(model=model, tokens=tokens):
                return model(tokens, past_key_values=DynamicCache(config=model.config), logits_to_keep=1).logits

            with torch.inference_mode():
                graphs[name] = capture(step, warmups=2)
        seconds = alternate({n: g.replay for n, g in graphs.items()}, times=5)
        row = {"tokens": length} | {f"{n}_ms": round(1e3 * s, 3) for n, s in seconds.items()}
        row["slower"] = round(seconds["tersor"] / seconds["bf16"] - 1, 4)
        rows.append(row)
        print("prefill", row, flush=True)
        del graphs
        gc.collect()
        torch.cuda.empty_cache()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=CONFIGS, default="llama-3.1-8b")
    parser.add_argument("--layers", type=int, default=0, help="fewer layers than the model has")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 4, 8, 16, 32, 64])
    parser.add_argument("--prefill", type=int, nargs="*", default=[512, 4096])
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--eager", action="store_true", help="Transformers' code as it is between the products")
    parser.add_argument("--fuse", action="store_true", help="also with Q, K, V and gate, up as one product each")
    parser.add_argument("--commit", default="")
    parser.add_argument("-o", "--output")
    options = parser.parse_args()

    model = build(options.model, options.layers)
    if not options.eager:
        lean(model)
    packed, report = packed_copy(model)
    models = {"bf16": model, "tersor": packed}
    if options.fuse:
        models["bf16_fused"] = sharing_copy(model)
        merge_siblings(models["bf16_fused"])
        models["tersor_fused"], _ = packed_copy(model, fuse=True)
    print(f"linear weights: {report.plain_bytes / 1e9:.3f} -> {report.stored_bytes / 1e9:.3f} GB", flush=True)
    document = {
        "what": "decode and prefill of a model with plain and packed weights",
        "machine": machine(options.commit),
        "model": options.model,
        "layers": model.config.num_hidden_layers,
        "context": options.context,
        "lean": not options.eager,
        "linear_weight_bytes": {"bf16": report.plain_bytes, "tersor": report.stored_bytes},
        "model_bytes": {
            name: sum(p.numel() * p.element_size() for p in m.parameters())
            for name, m in {"bf16": model, "tersor": packed}.items()
        },
    }
    total = torch.cuda.mem_get_info()[1]
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_token = 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * head_dim
    document["kv_cache"] = {
        "bytes_a_token": per_token,
        "tokens_beside_the_weights": {
            name: (total - size) // per_token for name, size in document["model_bytes"].items()
        },
        "of_gpu_bytes": total,
    }
    document["prefill"] = measure_prefill({"bf16": model, "tersor": packed}, options.prefill)
    document["decode"] = measure_decoding(models, options.batches, options.context)
    write(options.output, document)


if __name__ == "__main__":
    main()
