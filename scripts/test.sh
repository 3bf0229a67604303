#!/usr/bin/env bash
# Sets everything up and runs all checks: style, types, tests.
#   scripts/test.sh [ARGUMENTS FOR PYTEST]
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/venv.sh test,prompts
source scripts/chromium.sh
echo "== ruff"
ruff check .
ruff format --check .
echo "== mypy"
mypy
echo "== shellcheck"
find . \( -name .venv -o -name .git -o -name work \) -prune \
    -o \( -name '*.sh' -o -name '*.sbatch' -o -path ./.ci/run \) -print0 |
    xargs -0 shellcheck --external-sources
echo "== pytest"
# Two processes, each test file in one of them; threads would only get in each other's way.
OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" pytest --numprocesses 2 --dist loadfile "$@"
