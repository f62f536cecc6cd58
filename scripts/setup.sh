#!/usr/bin/env bash
# Installs what Tersor needs to build and test, where it is missing. Debian and its derivatives; elsewhere it says what to install.
#   scripts/setup.sh          what the build and the demo need
#   scripts/setup.sh --test   what the tests need as well
set -euo pipefail

build_packages=(g++ cmake ninja-build libcli11-dev nlohmann-json3-dev libexpected-dev libfmt-dev libzstd-dev liblz4-dev libssl-dev
  liburing-dev libucx-dev)
test_packages=(libgtest-dev python3 python3-dev python3-venv pkg-config clang clang-tidy clang-format libclang-rt-14-dev qemu-user
  g++-aarch64-linux-gnu g++-s390x-linux-gnu)

wanted=("${build_packages[@]}")
if [ "${1:-}" = "--test" ]; then wanted+=("${test_packages[@]}"); fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  cat >&2 <<EOT
This is not a Debian-like system, so nothing was installed. Tersor needs a C++20 compiler (GCC >= 12 or clang >= 14),
CMake >= 3.25, ninja, and the headers of CLI11, nlohmann-json >= 3.11, tl::expected and fmt; zstd and lz4 (rows of the benchmark),
OpenSSL 3, liburing and UCX (KV transfer) are optional; the tests also need GoogleTest and Python 3. Install them with your package manager and run
scripts/build.sh.
EOT
  command -v cmake >/dev/null && command -v c++ >/dev/null
  exit
fi

missing=()
for package in "${wanted[@]}"; do
  state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  # A package may be there under another version's name (libclang-rt-*).
  [ "$state" = "installed" ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

echo "installing: ${missing[*]}" >&2
sudo=""
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "these packages are missing and there is neither root nor sudo: ${missing[*]}" >&2
    exit 2
  fi
  sudo="sudo"
fi
$sudo apt-get update -qq
available=()
for package in "${missing[@]}"; do
  if apt-cache show "$package" >/dev/null 2>&1; then available+=("$package"); else echo "not offered here: $package" >&2; fi
done
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${available[@]}" >/dev/null
