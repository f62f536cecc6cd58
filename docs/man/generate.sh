#!/bin/sh
# Writes the man pages from the program's own help: generate.sh PROGRAM [DIRECTORY]. Needs help2man.
set -eu
program=$(realpath "$1")
out=${2:-$(dirname "$0")}
version=$("$program" --version | cut -d' ' -f2)
export LC_ALL=C

page() { # page, one line, command
  help2man --no-info --section=1 --manual="Tersor" --source="Tersor $version" --version-string="$1 $version" --name="$2" "$3" |
    sed -e '/^\.\\" DO NOT MODIFY/d' -e "s|^tersor \\\\- |$1 \\\\- |" \
      -e "s|^\.TH .*|.TH $(echo "$1" | tr 'a-z' 'A-Z') 1 \"\" \"Tersor $version\" \"Tersor\"|" >"$out/$1.1"
}

page tersor "lossless compression of LLM weights and KV caches" "$program"
for verb in compress pack decompress verify inspect analyze calibrate kv-send kv-recv tune doctor; do
  page "tersor-$verb" "$("$program" --help | sed -n "s/^  $verb  *//p")" "$program $verb"
done
page tersor-bench "measure codecs beside memcpy, zstd and lz4" "$program bench codec"
page tersor-bench-gemm "measure products from packed weights beside cuBLASLt" "$program bench gemm"
