"""Small changes of C++ source text, one at a time, as a slip of the pen would make them."""

import random
import re
from dataclasses import dataclass

# Codec, formats, header parser, the reference backend and one vector backend.
SOURCES = {
    "src/codec/coding.cpp": 1, "src/codec/codebook.cpp": 2, "src/codec/frame.cpp": 5, "src/codec/frame_decode.cpp": 5,
    "src/codec/frame_encode.cpp": 4, "src/codec/raw_tile.cpp": 2, "src/codec/lanes.hpp": 1, "src/codec/digest.hpp": 1,
    "src/format/frame_header.cpp": 4, "src/safetensors/header.cpp": 3, "src/safetensors/header_sax.cpp": 4,
    "src/cpu/portable_tile.hpp": 5, "src/cpu/avx2_rank.hpp": 3, "src/cpu/avx2_codes.hpp": 2, "src/cpu/avx2_values.hpp": 2,
    "src/cpu/avx2_top16.hpp": 2,
}

# (what to look for, what it becomes). Operators stand between blanks in this code base.
RULES = [
    (r" < ", " <= "), (r" <= ", " < "), (r" > ", " >= "), (r" >= ", " > "), (r" == ", " != "), (r" != ", " == "),
    (r" \+ ", " - "), (r" - ", " + "), (r" \* ", " + "), (r" % ", " / "), (r" / ", " * "),
    (r" && ", " || "), (r" \|\| ", " && "), (r" & ", " | "), (r" \| ", " & "), (r" \^ ", " | "),
    (r" << ", " >> "), (r" >> ", " << "), (r"\breturn false;", "return true;"), (r"\breturn true;", "return false;"),
    (r"\bstd::min\b", "std::max"), (r"\bstd::max\b", "std::min"), (r" \+= ", " -= "), (r" \|= ", " &= "), (r" \^= ", " |= "),
    (r"(?<![\w.x'])([0-9]+)(?=[uU]?[\s,;)\]}])", lambda m: str(int(m.group(1)) + 1)),
    (r"\bif \((?!constexpr)(.*)\) (return|continue|break)\b", r"if (false && (\1)) \2"),
    (r"\bmemset\(", "(void)sizeof("),
]

# Text that changes speed or messages only, or nothing at run time.
NEUTRAL = re.compile(r"^\s*(//|///|#|template|static_assert|using |namespace)|kStreamBytes|kGroupChunks|\"[^\"]*\"|prefetch|"
                     r"reserve\(|alignas|yield|\binfo\.|noexcept;|consteval|stream\b|inline constexpr std::uint32_t kTail|"
                     r"memory_order|attribute|operator\(|#pragma|auto operator|\bclass |constexpr int k\w+Attempts")


@dataclass(frozen=True)
class mutant:
    path: str
    line: int
    before: str
    after: str

    def key(self):
        return (self.path, self.before.strip(), self.after.strip())


def of_file(path, text):
    found = []
    for number, line in enumerate(text.splitlines()):
        code = line.split("//")[0]
        if NEUTRAL.search(code) or not code.strip():
            continue
        for pattern, replacement in RULES:
            for match in re.finditer(pattern, code):
                if "<" in pattern and re.search(r"template|static_cast<[^>]*$", code[: match.start()]):
                    continue
                new = replacement(match) if callable(replacement) else match.expand(replacement)
                found.append(mutant(path, number, line, code[: match.start()] + new + code[match.end():]))
    return found


def choose(root, count, seed):
    """`count` mutants, spread over the sources by weight; the same ones for the same seed and text."""
    rng = random.Random(seed)
    pools = {}
    for path in SOURCES:
        file = root / path
        if file.exists():
            pools[path] = of_file(path, file.read_text(encoding="utf-8"))
            rng.shuffle(pools[path])
    total = sum(SOURCES[p] for p in pools)
    chosen, rest = [], []
    for path, pool in pools.items():
        share = max(1, round(count * SOURCES[path] / total))
        chosen += pool[:share]
        rest += pool[share:]
    rng.shuffle(chosen)
    rng.shuffle(rest)
    return chosen, rest
