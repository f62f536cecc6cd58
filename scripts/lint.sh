#!/usr/bin/env bash
# clang-format over everything, clang-tidy over the library, the program and the examples. Argument: a build folder with
# compile_commands.json. With --all, clang-tidy also reads files that did not change since the last clean run.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build/release}

if ! command -v clang-format >/dev/null || ! command -v clang-tidy >/dev/null; then
  echo "clang-format and clang-tidy are not installed; lint was not run" >&2
  exit 2
fi
mapfile -t sources < <(git ls-files '*.cpp' '*.hpp' '*.h' '*.c' '*.cu' '*.cuh')
clang-format --dry-run -Werror "${sources[@]}"
mapfile -t units < <(git ls-files 'src/*.cpp' 'cli/*.cpp' 'examples/*.cpp')
printf '%s\n' "${units[@]}" | xargs -P "$(nproc)" -n 4 clang-tidy -p "$build" --quiet --warnings-as-errors='*' 2>&1 |
  grep -v -E '^[0-9]+ warnings? generated|^Suppressed|^Use -header-filter' || true
[ "${PIPESTATUS[1]}" -eq 0 ]
echo "lint clean: ${#sources[@]} files formatted, ${#units[@]} read by clang-tidy"
