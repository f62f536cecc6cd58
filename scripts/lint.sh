#!/usr/bin/env bash
# clang-format over everything, clang-tidy over the library, the program and the examples.
#   scripts/lint.sh [--deep] [BUILD]     BUILD has compile_commands.json (default build/release); --deep reads every check of .clang-tidy,
#                                        which takes many times as long
set -euo pipefail
cd "$(dirname "$0")/.."
# The quick list: what has found real faults and needs no path analysis. --deep reads the whole of .clang-tidy.
checks="-*,performance-*,-performance-no-int-to-ptr,bugprone-use-after-move,\
bugprone-dangling-handle,bugprone-integer-division,bugprone-narrowing-conversions,bugprone-undefined-memory-manipulation,\
bugprone-unused-raii,bugprone-infinite-loop,bugprone-unchecked-optional-access,readability-braces-around-statements,\
readability-duplicate-include,modernize-use-nullptr,modernize-use-override"
if [ "${1:-}" = "--deep" ]; then
  checks=""
  shift
fi
build=${1:-build/release}

if ! command -v clang-format >/dev/null || ! command -v clang-tidy >/dev/null; then
  echo "clang-format and clang-tidy are not installed; lint was not run" >&2
  exit 2
fi
mapfile -t sources < <(git ls-files '*.cpp' '*.hpp' '*.h' '*.c' '*.cu' '*.cuh')
clang-format --dry-run -Werror "${sources[@]}"
# The NEON backend needs an AArch64 compilation, which build/release has on such a machine only.
neon=':!src/cpu/neon.cpp'
if [ "$(uname -m)" = "aarch64" ]; then neon=':!src/cpu/avx*.cpp'; fi
# The Python sources are read by ruff where it is installed.
if command -v ruff >/dev/null; then
  ruff check --quiet .
  ruff format --quiet --check .
fi
# What stands in for an optional library is not compiled where the library is, and its empty bodies are no findings.
mapfile -t units < <(git ls-files 'src/*.cpp' 'cli/*.cpp' 'examples/*.cpp' "$neon" ':!*_none.cpp')
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! printf '%s\n' "${units[@]}" | xargs -P "$(nproc)" -n 4 clang-tidy -p "$build" --quiet --checks="$checks" \
    --extra-arg=-Wno-unknown-warning-option --warnings-as-errors='*' >"$log" 2>&1; then
  grep -vE 'warnings? generated' "$log" >&2
  exit 1
fi
echo "lint clean: ${#sources[@]} files formatted, ${#units[@]} read by clang-tidy"
