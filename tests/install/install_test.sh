#!/usr/bin/env bash
# Installs the build into a scratch prefix and builds consumers against it: find_package, and pkg-config from plain C.
set -euo pipefail
build=$1
source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/prefix" >"$work/install.log"
cmake -S "$source/tests/install/consumer" -B "$work/consumer" -DCMAKE_PREFIX_PATH="$work/prefix" \
  -DEXAMPLES="$source/examples" >"$work/configure.log"
cmake --build "$work/consumer" >"$work/build.log"
"$work/consumer/consumer_cpp" | grep -q identical
"$work/consumer/consumer_c" | grep -q identical

if command -v pkg-config >/dev/null; then
  pc=$(dirname "$(find "$work/prefix" -name tersor.pc)")
  # shellcheck disable=SC2046  # the flags are words
  cc -std=c11 "$source/examples/encode_tensor.c" -o "$work/pc" $(PKG_CONFIG_PATH="$pc" pkg-config --cflags --libs tersor)
  "$work/pc" | grep -q identical
else
  echo "pkg-config is not installed; that half was not run"
fi
if [ -x "$work/prefix/bin/tersor" ]; then "$work/prefix/bin/tersor" --version; fi
echo "install test passed"
