#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test this machine can run in its short form (long forms: scripts/scoreboard.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh --test
jobs=$(nproc)

section() { printf '\n== %s\n' "$*"; }

section "release build"
# Where there is a CUDA toolkit: Hopper only; a release build has more.
cmake --preset release -DTERSOR_BUILD_TESTS=ON -DTERSOR_BUILD_EXAMPLES=ON -DTERSOR_BUILD_BENCH=ON \
  -DTERSOR_CUDA=AUTO -DTERSOR_CUDA_ARCHITECTURES="90a-real" >/dev/null
cmake --build --preset release -- -j"$jobs"

section "format and lint"
scripts/lint.sh build/release

section "address and undefined-behaviour sanitizers"
cmake --preset asan >/dev/null
asan_tests=(unit_test backend_test golden_test transfer_wire_test transfer_cut_test transfer_hostile_test transfer_failing_calls_test)
cmake --build --preset asan --target "${asan_tests[@]}" -- -j"$jobs"
for test in "${asan_tests[@]}"; do build/asan/bin/$test --gtest_brief=1; done

section "thread sanitizer"
cmake --preset tsan >/dev/null
cmake --build --preset tsan --target threads_test transfer_many_test transfer_kill_test -- -j"$jobs"
for test in threads_test transfer_many_test transfer_kill_test; do TSAN_OPTIONS=halt_on_error=1 build/tsan/bin/$test --gtest_brief=1; done

section "fuzz targets: committed corpus and a few seconds each"
scripts/fuzz.sh --short

section "other CPUs under emulation"
scripts/cross_test.sh aarch64 s390x

section "Python"
cmake --install build/release --prefix build/prefix >/dev/null
scripts/test_python.sh build/prefix

section "release tests"
ctest --preset release -j"$jobs" --output-on-failure
