#!/bin/sh
# Builds the codec for other CPUs and runs tests/cross under qemu-user.
#   scripts/cross_test.sh [aarch64] [s390x] [riscv64]     (default: aarch64 s390x)
# aarch64 is the NEON backend, s390x the other byte order. Needs g++-<cpu>-linux-gnu, qemu-user and tl::expected.
# CROSS_BUILD names the build directory (default: build/cross), EXPECTED the directory that holds tl/expected.hpp.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=${CROSS_BUILD:-$root/build/cross}
expected=${EXPECTED:-/usr/include}
[ $# -gt 0 ] || set -- aarch64 s390x

# Only this header, and nothing else of the host's, may be seen by the cross compilers.
mkdir -p "$build/headers"
ln -sfn "$expected/tl" "$build/headers/tl"

for cpu in "$@"; do
  toolchain=$root/cmake/toolchains/$cpu-linux-gnu.cmake
  [ -f "$toolchain" ] || { echo "cross_test.sh: no toolchain file for '$cpu'" >&2; exit 2; }
  for tool in "$cpu-linux-gnu-g++" "qemu-$cpu"; do
    command -v "$tool" >/dev/null || { echo "cross_test.sh: $tool is missing" >&2; exit 2; }
  done
  echo "== $cpu"
  cmake -S "$root/tests/cross" -B "$build/$cpu" -DCMAKE_BUILD_TYPE=Release -DCMAKE_TOOLCHAIN_FILE="$toolchain" \
    -DTERSOR_HEADERS="$build/headers" ${CMAKE_ARGS:-} >"$build/$cpu.log" || { cat "$build/$cpu.log" >&2; exit 1; }
  cmake --build "$build/$cpu" -j "$(nproc)" >"$build/$cpu.log" 2>&1 || { cat "$build/$cpu.log" >&2; exit 1; }
  "qemu-$cpu" -L "/usr/$cpu-linux-gnu" "$build/$cpu/bin/cross_test" "$root/spec/vectors"
done
