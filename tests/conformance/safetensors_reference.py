"""Compares the strict reader's verdicts with those of the reference implementation.

    safetensors_corpus_test --dump DIR
    python safetensors_reference.py DIR

Needs the `safetensors` package. Exits with 1 if a verdict differs where the corpus does not say so, or agrees
where the corpus says that it differs.
"""

import argparse
import collections
import pathlib
import sys

import safetensors


def reference_accepts(data: bytes) -> bool:
    try:
        safetensors.deserialize(data)
    except safetensors.SafetensorError:
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=pathlib.Path)
    directory = parser.parse_args().directory

    equal = 0
    differs = collections.Counter()
    surprises = []
    for line in (directory / "verdicts.tsv").read_text(encoding="utf-8").splitlines():
        file, name, verdict, reason = line.split("\t")
        ours = verdict == "ok"
        theirs = reference_accepts((directory / file).read_bytes())
        if ours == theirs:
            equal += 1
        else:
            differs[("ours rejects: " if theirs else "ours accepts: ") + (reason or "?")] += 1
        if (ours != theirs) != bool(reason):
            surprises.append(f"{name}: ours {verdict}, reference {'ok' if theirs else 'error'}")

    print(f"safetensors {safetensors.__version__}: {equal + sum(differs.values())} files, {equal} equal verdicts")
    for reason, count in sorted(differs.items()):
        print(f"  {count:3d} {reason}")
    for surprise in surprises:
        print("unexpected:", surprise)
    return 1 if surprises or equal == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
