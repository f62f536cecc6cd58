"""Greedy tokens of a model with plain and with packed weights, side by side: exact mode must give the same logits, bit for bit,
at every step; the default differs by the order of sums only, so its tokens are counted until they part.

    python bench/python/exact_tokens.py --model llama-3.1-8b --tokens 1000 -o result.json
    python bench/python/exact_tokens.py --path tests/data/tinylm-2m --tokens 1000

The plain model speaks twice, as a control that it repeats itself."""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA starts: products that repeat themselves

import torch
from decode_bench import packed_copy, sharing_copy
from fused import lean
from measure import capture, machine, write
from models import CONFIGS, build
from transformers import AutoModelForCausalLM, DynamicCache, StaticCache


class Speaker:
    """A model that speaks one token a call; it reads its prompt in the same way."""

    def __init__(self, model, prompt: torch.Tensor, room: int):
        self.model = model
        self.prefill = model(prompt, past_key_values=DynamicCache(config=model.config)).logits
        self.tokens = prompt[:, :1].clone()
        self.cache = StaticCache(config=model.config, max_cache_len=prompt.shape[1] + room + 8)
        self.graph = capture(self._step)
        for layer in self.cache.layers:
            layer.cumulative_length.zero_()
            layer.keys.zero_()
            layer.values.zero_()
        for token in prompt.T:
            self.tokens.copy_(token[:, None])
            self.graph.replay()

    def _step(self) -> None:
        self.logits = self.model(self.tokens, past_key_values=self.cache, logits_to_keep=1).logits
        self.tokens.copy_(self.logits[:, -1].argmax(-1, keepdim=True))

    def speak(self) -> torch.Tensor:
        self.graph.replay()
        return self.logits


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.view(torch.int16), b.view(torch.int16))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=CONFIGS, default="llama-3.1-8b")
    parser.add_argument("--path", help="a model directory instead")
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--default", action="store_true", help="also without exact mode")
    parser.add_argument("--commit", default="")
    parser.add_argument("-o", "--output")
    options = parser.parse_args()
    if options.path:
        model = AutoModelForCausalLM.from_pretrained(options.path, dtype=torch.bfloat16).cuda().eval()
    else:
        model = build(options.model)
    lean(model)  # attention by batched products: fused attention to a static cache adds in another order each time
    room = options.tokens
    limit = getattr(model.config, "max_position_embeddings", 0)
    if options.path and limit and options.prompt + room > limit:
        print(f"positions beyond the {limit} of the configuration are used", flush=True)
    torch.manual_seed(7)
    prompt = torch.randint(0, model.config.vocab_size, (1, options.prompt), device="cuda")
    if model.config.vocab_size == 256:  # a model of bytes
        text = (__doc__ * (1 + options.prompt // len(__doc__)))[: options.prompt]
        prompt = torch.tensor([list(text.encode())], device="cuda")
    models = {
        "bf16": model,
        "control": sharing_copy(model),
        "exact": packed_copy(model, exact=True)[0],
    }
    if options.default:
        models["default"] = packed_copy(model)[0]
    with torch.inference_mode():
        speakers = {name: Speaker(m, prompt, room) for name, m in models.items()}
        right = speakers["bf16"]
        same_prefill = same_bits(right.prefill, speakers["exact"].prefill)
        wrong_logits = wrong_tokens = wrong_control = 0
        parted, together, distinct = None, 0, set()
        for step in range(options.tokens):
            logits = {name: s.speak() for name, s in speakers.items()}
            tokens = {name: int(s.tokens) for name, s in speakers.items()}
            wrong_logits += not same_bits(logits["bf16"], logits["exact"])
            wrong_control += not same_bits(logits["bf16"], logits["control"])
            wrong_tokens += tokens["bf16"] != tokens["exact"]
            distinct.add(tokens["bf16"])
            if tokens.get("default", tokens["bf16"]) == tokens["bf16"]:
                together += 1
            elif parted is None:
                parted = step
    document = {
        "what": "greedy tokens with packed weights beside those with plain weights",
        "machine": machine(options.commit),
        "model": options.path or options.model,
        "tokens": options.tokens,
        "distinct_tokens": len(distinct),
        "control_steps_with_other_logits": wrong_control,
        "exact": {
            "prefill_logits_equal": same_prefill,
            "steps_with_other_logits": wrong_logits,
            "other_tokens": wrong_tokens,
        },
    }
    if options.default:
        document["default"] = {"first_other_token": parted, "equal_tokens": together}
    print(document, flush=True)
    write(options.output, document)
    raise SystemExit(0 if same_prefill and not wrong_logits and not wrong_tokens else 1)


if __name__ == "__main__":
    main()
