"""python3 -m tersor_ref decode FRAME -o OUT | decompress FILE -o OUT | dump FRAME

Exit codes: 0 done, 1 the data is wrong, 2 it could not be done."""

import argparse
import sys

from . import container, dump, frame, matrix
from .errors import DATA_ERRORS, TersorError


def run(argv):
    parser = argparse.ArgumentParser(prog="tersor_ref", description=__doc__.split("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, what in (("decode", "one frame or matrix frame to the bytes of its tensor"),
                       ("decompress", "a compressed .safetensors file to the plain one"),
                       ("dump", "annotated bytes of one frame")):
        sub = verbs.add_parser(verb, help=what)
        sub.add_argument("input")
        if verb != "dump":
            sub.add_argument("-o", "--output", required=True)
    args = parser.parse_args(argv)
    with open(args.input, "rb") as f:
        data = f.read()
    if args.verb == "dump":
        print("\n".join(dump.lines(data)))
        return 0
    out = decode(data) if args.verb == "decode" else container.decompress(data)
    with open(args.output, "wb") as f:
        f.write(out)
    return 0


def decode(data):
    return matrix.decode(data) if matrix.is_matrix(data) else frame.decode(data)


def main():
    try:
        return run(sys.argv[1:])
    except TersorError as e:
        print(f"tersor_ref: {e}", file=sys.stderr)
        return 1 if e.code in DATA_ERRORS else 2
    except OSError as e:
        print(f"tersor_ref: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
