#!/bin/sh
# The whole GPU measurement: gpu_bench.sh TERSOR RESULTS [WEIGHTS] [KV]. TERSOR is the program, RESULTS a directory, WEIGHTS and KV are
# safetensors files (or directories) of BF16 tensors. DEVICE (cuda:0) and COMMIT (unknown) come from the environment, and options of
# nvcomp_bench.py from NVCOMP_OPTIONS.
set -eu
here=$(dirname "$0")
program=$1
out=$2
weights=${3:-}
kv=${4:-}
mkdir -p "$out"

bench() {
  "$program" bench codec --device "${DEVICE:-cuda:0}" --commit "${COMMIT:-unknown}" --graph -q "$@"
}

peers=
# shellcheck disable=SC2086
if python3 "$here/../peers/nvcomp_bench.py" ${NVCOMP_OPTIONS:-} >"$out/peers-nvcomp.json"; then
  peers="--peer-json $out/peers-nvcomp.json"
else
  rm -f "$out/peers-nvcomp.json"
  echo "gpu_bench.sh: no peers; nvcomp_bench.py did not run" >&2
fi
# shellcheck disable=SC2086
bench --dtype bf16,f16,e4m3,e5m2 --pages --output "$out/codec-gpu.json" $peers
if [ -n "$weights" ]; then bench --input "$weights" --output "$out/codec-gpu-weights.json"; fi
if [ -n "$kv" ]; then bench --input "$kv" --pages --output "$out/codec-gpu-kv.json"; fi
