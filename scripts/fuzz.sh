#!/usr/bin/env bash
# Fuzzes every target from the committed corpus: `fuzz.sh --short` (5 s each), `fuzz.sh --seconds N`, then names of targets or all.
# New inputs stay in build/fuzz/found; a crash is kept there too and makes the script fail.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=5
case "${1:-}" in
  --short) shift ;;
  --seconds) seconds=$2; shift 2 ;;
esac
build=${TERSOR_FUZZ_BUILD:-build/fuzz}
if [[ -z ${TERSOR_FUZZ_BUILD:-} ]]; then
  cmake --preset fuzz >/dev/null
  cmake --build --preset fuzz
fi
targets=("$@")
if [[ ${#targets[@]} -eq 0 ]]; then
  for dir in tests/fuzz/corpus/*/; do targets+=("$(basename "$dir")"); done
fi

fuzz_one() {
  local target=$1 found=$2/found/$1 log=$2/found/$1.log
  mkdir -p "$found"
  if ! "$2/bin/fuzz_$target" -max_total_time="$3" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 -verbosity=0 \
      -artifact_prefix="$2/found/$target-" "$found" "tests/fuzz/corpus/$target" >"$log" 2>&1; then
    echo "fuzz_$target failed:" >&2
    tail -n 30 "$log" >&2
    return 1
  fi
}
export -f fuzz_one
failed=0
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'fuzz_one "$@"' _ {} "$build" "$seconds" || failed=1

executions=0
for target in "${targets[@]}"; do
  n=$(sed -n 's/^stat::number_of_executed_units: *//p' "$build/found/$target.log")
  echo "$target: ${n:-0} executions"
  executions=$((executions + ${n:-0}))
done
figure="{\"row\":4,\"what\":\"${#targets[@]} targets, ASan and UBSan, ${seconds} s each\",\"count\":$executions,\"wrong\":$failed,\"unit\":\"executions\"}"
echo "figure $figure"
[[ -z ${TERSOR_FIGURES:-} ]] || echo "$figure" >>"$TERSOR_FIGURES"
exit "$failed"
