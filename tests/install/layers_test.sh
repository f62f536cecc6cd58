#!/usr/bin/env bash
# The rooms may include only what docs/architecture.md allows. Prints each forbidden include and fails if there is one.
set -euo pipefail
cd "$1"
declare -A allowed=(
  [core]="core"
  [format]="core format"
  [safetensors]="core safetensors"
  [codec]="core format codec"
  [cpu]="core format codec cpu"
  [cuda]="core format codec cuda"
  [model]="core format codec cpu safetensors model"
  [transfer]="core codec cpu safetensors transfer"
  [c_api]="c_api"
)
bad=0
for room in "${!allowed[@]}"; do
  while IFS=: read -r file line text; do
    target=$(sed -E 's/.*#include "([a-z0-9_]+)\/.*/\1/' <<<"$text")
    if ! grep -qw "$target" <<<"${allowed[$room]}"; then
      echo "$file:$line: $room must not include $target/"
      bad=1
    fi
  done < <(grep -rnE '^#include "[a-z0-9_]+/' "src/$room" --include='*.hpp' --include='*.cpp' --include='*.cuh' --include='*.cu' || true)
done
# The program uses the public API only.
if grep -rnE '^#include "(core|format|codec|cpu|cuda|safetensors|model|transfer)/' cli; then
  echo "cli/ must use <tersor/...> only"
  bad=1
fi
# Inline assembly stands nowhere but in src/cuda/ptx.
if grep -rnE '\basm( volatile)? ?\(' src include cli | grep -v '^src/cuda/ptx/'; then bad=1; fi
exit $bad
