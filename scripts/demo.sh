#!/usr/bin/env bash
# Builds Tersor and does its main job on a real model: compress, verify, restore, compare, inspect, measure.
#   scripts/demo.sh                 the bundled 1.7 M parameter language model
#   scripts/demo.sh MODEL           any .safetensors file or model directory
set -euo pipefail
cd "$(dirname "$0")/.."
model=${1:-tests/data/tinylm-2m}
if [ ! -e "$model" ]; then
  echo "demo: no such file or directory: $model" >&2
  exit 2
fi
model=$(realpath "$model")
# The GPU's code only for a GPU that is here: for all of them the kernels take minutes to build.
gpu=()
if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
  scripts/build.sh -DTERSOR_CUDA=AUTO -DTERSOR_CUDA_ARCHITECTURES=native
  gpu=(cuda:0)
else
  scripts/build.sh -DTERSOR_CUDA=OFF
fi
tersor=$PWD/build/release/bin/tersor
out=$PWD/build/demo
rm -rf "$out" && mkdir -p "$out"

step() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }

if [ -d "$model" ]; then small=$out/model-tersor back=$out/model; else small=$out/model.tersor.safetensors back=$out/model.safetensors; fi
step "$tersor" compress "$model" -o "$small"
step "$tersor" verify "$small" --against "$model"
step "$tersor" decompress "$small" -o "$back"
if [ -d "$model" ]; then step diff -r "$model" "$back"; else step cmp "$model" "$back"; fi
echo "identical, byte for byte"
step "$tersor" inspect "$small"
step "$tersor" analyze "$model" --report "$out/report.html" -q

input=$model
if [ -d "$model" ]; then input=$(find "$model" -maxdepth 1 -name '*.safetensors' | sort | head -n 1); fi
step "$tersor" bench codec --device cpu --threads 1 --input "$input"
for device in "${gpu[@]}"; do
  if "$tersor" doctor | grep -q "$device"; then step "$tersor" bench codec --device "$device" --graph; fi
done
printf '\nThe report of the model, figures and all: %s\n' "$out/report.html"
