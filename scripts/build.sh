#!/usr/bin/env bash
# Builds the release program: build/release/bin/tersor. Further arguments go to cmake.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
cmake --preset release -DTERSOR_BUILD_TESTS=OFF -DTERSOR_BUILD_EXAMPLES=OFF "$@" >/dev/null
cmake --build --preset release
echo "built build/release/bin/tersor" >&2
