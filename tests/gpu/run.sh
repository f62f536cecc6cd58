#!/usr/bin/env bash
# Runs the GPU tests on a machine that has a GPU: the full run, then the quick one under compute-sanitizer. Builds nothing.
#   tests/gpu/run.sh GPU_TEST [OUT_DIR] [--no-full] [--no-sanitizer] [--commit TEXT] [--vectors DIR]
# Writes OUT_DIR/gpu.json (the full run), OUT_DIR/sanitizer.json (hazards per tool) and the logs beside them. Exit code 1
# if a check failed or a tool found a hazard.
set -uo pipefail

usage() { sed -n '2,5p' "$0" >&2; exit 2; }
[ $# -ge 1 ] || usage
program=$1; shift
out=gpu-results; vectors=$(cd "$(dirname "$0")/../.." && pwd)/spec/vectors
full=1; sanitizer=1; commit=$(git -C "$(dirname "$0")" rev-parse --short HEAD 2>/dev/null || echo unknown)
if [ $# -ge 1 ] && [ "${1#--}" = "$1" ]; then out=$1; shift; fi
while [ $# -gt 0 ]; do
  case $1 in
    --no-full) full=0 ;;
    --no-sanitizer) sanitizer=0 ;;
    --commit) [ $# -ge 2 ] || usage; commit=$2; shift ;;
    --vectors) [ $# -ge 2 ] || usage; vectors=$2; shift ;;
    *) usage ;;
  esac
  shift
done
[ -x "$program" ] || { echo "run.sh: no program $program" >&2; exit 2; }
mkdir -p "$out" || exit 2
failed=0

if [ $full = 1 ]; then
  timeout 540 "$program" --vectors "$vectors" --commit "$commit" --json "$out/gpu.json" 2>&1 | tee "$out/gpu.log"
  [ "${PIPESTATUS[0]}" = 0 ] || failed=1
fi

# One tool; appends its object to $rows. Exit code 99 says that the tool found something, any other that the tests failed.
rows=""
sanitize() {
  local tool=$1; shift
  local log=$out/$tool.log begin=$SECONDS code hazards ended verdict=clean
  timeout "${TERSOR_SANITIZER_SECONDS:-240}" compute-sanitizer --tool "$tool" --error-exitcode 99 \
    --print-limit 20 "$@" "$program" --quick --watchdog 120 --vectors "$vectors" "${bare[@]}" >"$log" 2>&1
  code=$?
  ended=$(grep -cE 'ERROR SUMMARY|RACECHECK SUMMARY' "$log")
  hazards=$(grep -E 'ERROR SUMMARY|RACECHECK SUMMARY' "$log" |
    sed -E 's/.*SUMMARY: ([0-9]+).*/\1/' | awk '{n += $1} END {print n + 0}')
  # A run that was stopped, or whose summary is missing, has not shown anything.
  if [ "$hazards" != 0 ] || [ $code = 99 ]; then verdict=hazards
  elif [ $code = 124 ]; then verdict=timeout
  elif [ "$ended" = 0 ]; then verdict="no summary"
  elif [ $code != 0 ]; then verdict="tests failed"
  fi
  [ "$verdict" = clean ] || failed=1
  echo "$tool: $verdict, $hazards hazards, exit code $code, $((SECONDS - begin)) s"
  rows="$rows${rows:+,}
    {\"tool\": \"$tool\", \"verdict\": \"$verdict\", \"hazards\": $hazards, \"exit_code\": $code, \"seconds\": $((SECONDS - begin))}"
}

if [ $sanitizer = 1 ]; then
  if command -v compute-sanitizer >/dev/null; then
    bare=()
    sanitize memcheck --leak-check no
    # The kernels have an mbarrier for each slot of each CTA, more than these tools track unasked.
    sanitize racecheck --racecheck-report all --num-cuda-barriers 16384
    # Nothing is filled in advance here, so that a read of what the library did not write shows.
    bare=(--bare)
    sanitize initcheck
    bare=()
    sanitize synccheck --num-cuda-barriers 16384
  else
    echo "run.sh: compute-sanitizer is not installed" >&2
    failed=1
  fi
  printf '{\n  "commit": "%s",\n  "suppressions": 0,\n  "tools": [%s\n  ]\n}\n' "$commit" "$rows" >"$out/sanitizer.json"
fi
exit $failed
