#!/usr/bin/env bash
# Style checks and quick tests; --all adds the slow tests. Other arguments are passed to pytest: bash run_tests.sh -k resume
set -euo pipefail
EXTRA_REQUIREMENTS=requirements-dev.txt
. "$(dirname "$0")/scripts/setup.sh"
cd "$here"
which=(-m "not slow")
if [ "${1:-}" = --all ]; then which=(); shift; fi
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
exec "$PYTHON" -m pytest --numprocesses auto --maxprocesses 4 "${which[@]}" "$@"
