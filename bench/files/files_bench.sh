#!/bin/sh
# Whole-program speed of compress and decompress, page cache to page cache, beside cp and the codec alone.
#
#   files_bench.sh PROGRAM [GiB] [MODEL] [WORKDIR]
#
# GiB may be a fraction (default 4). MODEL is a safetensors file or a directory of them whose BF16 tensors are repeated to that size.
# WORKDIR (default: a new directory below TMPDIR) needs three times the size. JSON on standard output; ROUNDS (default 3) and THREADS
# (default: all cores) come from the environment. The target: the program's time <= 1.5 x (cp + codec). Tersor syncs its output
# before it gives it its name and cp does not, so cp is also timed with `sync`, and both quotients are printed.
set -eu
program=$(realpath "$1")
gib=${2:-4}
here=$(dirname "$(realpath "$0")")
model=$(realpath "${3:-$here/../../tests/data/tinylm-2m}")
made=
work=${4:-}
if [ -z "$work" ]; then
  work=$(mktemp -d "${TMPDIR:-/tmp}/tersor-files.XXXXXX")
  made=$work
fi
cleanup() {
  for name in big packed back copy; do rm -f "$work/$name.safetensors"; done
  [ -z "$made" ] || rmdir "$made"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
python3 -B "$here/files_bench.py" "$program" "$gib" "$model" "$work"
