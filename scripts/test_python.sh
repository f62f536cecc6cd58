#!/usr/bin/env bash
# Builds the wheel, tries it in a fresh environment, and runs the Python tests against it.
#   scripts/test_python.sh [PREFIX]    PREFIX: an installed library; without it the wheel builds its own (TERSOR_CUDA=OFF)
# Environments are kept in build/venv-*. torch and transformers come from PyPI, some 3 GB: TERSOR_TEST_TORCH=0 leaves them and
# the tests that need them out. PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
  echo "test_python.sh: Python 3.10 or newer is needed; nothing was run" >&2
  exit 2
fi
options=(-C "cmake.define.TERSOR_CUDA=OFF")
if [ -n "${1:-}" ]; then
  options=(-C "cmake.define.TERSOR_PYTHON_ONLY=ON" -C "cmake.define.tersor_ROOT=$(realpath "$1")")
fi
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

[ -x build/venv-test/bin/python ] || "$python" -m venv build/venv-test
rm -rf build/wheel build/venv-fresh
build/venv-test/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel . "${options[@]}"

"$python" -m venv build/venv-fresh
build/venv-fresh/bin/python -m pip install --quiet --no-deps build/wheel/tersor-*.whl
build/venv-fresh/bin/python tests/python/fresh_install.py

wanted=(-r tests/python/requirements.txt)
if [ "${TERSOR_TEST_TORCH:-1}" != 0 ]; then wanted+=(torch==2.13.0 transformers==5.17.0 accelerate); fi
build/venv-test/bin/python -m pip install --quiet "${wanted[@]}"
build/venv-test/bin/python -m pip install --quiet --no-deps --force-reinstall build/wheel/tersor-*.whl
HF_HUB_OFFLINE=1 OMP_NUM_THREADS=$(nproc) build/venv-test/bin/python -m pytest -p no:cacheprovider tests/python
