#!/usr/bin/env bash
# Tests python/tersor/integrations against the real packages, on the CPU. They come from PyPI without what they depend on, into
# folders of their own; an environment with vLLM has most of that, and is made by scripts/test_vllm.sh if it is not there (6 GB).
#   scripts/test_integrations.sh [FOLDER OF THAT ENVIRONMENT] [lmcache] [sglang] [nixl] [vllm]     all four without a name
# TERSOR_PACKAGE: a folder that holds a built package tersor; without it this checkout is built and installed there.
# LMCACHE_VERSION, SGLANG_VERSION, NIXL_VERSION name other releases.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-build/vllm}
shift || true
wanted=("$@")
if [ ${#wanted[@]} -eq 0 ]; then wanted=(lmcache sglang nixl vllm); fi
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

if [ ! -x "$venv/bin/python" ]; then scripts/test_vllm.sh "$venv" --collect-only -q >/dev/null; fi
python=$venv/bin/python
if [ -z "${TERSOR_PACKAGE:-}" ]; then "$python" -m pip install --quiet --no-deps .; fi

# NAME PACKAGES...: into build/integrations/NAME, once.
fetch() {
  local folder=build/integrations/$1
  shift
  [ -e "$folder/.complete" ] && return
  rm -rf "$folder"
  "$python" -m pip install --quiet --no-deps --no-compile --target "$folder" "$@"
  touch "$folder/.complete"
}

for name in "${wanted[@]}"; do
  case $name in
    lmcache) fetch lmcache "lmcache==${LMCACHE_VERSION:-0.5.6}" sortedcontainers aiofiles ;;
    sglang) fetch sglang "sglang==${SGLANG_VERSION:-0.5.23}" orjson ipython traitlets gguf ;;
    nixl) fetch nixl "nixl==${NIXL_VERSION:-1.5.1}" "nixl-cu13==${NIXL_VERSION:-1.5.1}" ;;
    vllm) mkdir -p build/integrations/vllm ;;
    *)
      echo "test_integrations.sh: unknown integration $name" >&2
      exit 2
      ;;
  esac
  printf '\n== %s\n' "$name"
  # NIXL 1.5.1 brings a libnl that crashes when its process exits: the process ends before that.
  PYTHONPATH="${TERSOR_PACKAGE:+$TERSOR_PACKAGE:}build/integrations/$name${PYTHONPATH:+:$PYTHONPATH}" "$python" -c '
import os, sys
import pytest

code = pytest.main(sys.argv[1:])
sys.stdout.flush()
os._exit(code)
' -p no:cacheprovider -W ignore -rs tests/python/test_integrations_"$name"*.py
done
