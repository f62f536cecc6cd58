#!/usr/bin/env bash
# Runs the rows of the reliability scoreboard that this machine can run and rewrites docs/reliability.md and
# bench/results/scoreboard.json: `scoreboard.sh [--short|--long] [ROW ...]`. Rows that are not run keep their last figure.
set -euo pipefail
cd "$(dirname "$0")/.."
exec python3 -B tests/faults/scoreboard.py "$@"
