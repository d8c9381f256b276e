#!/usr/bin/env bash
# Runs set-up, checks and the whole test suite. Arguments are passed to pytest: bash launch/test.sh -m 'not slow'
set -euo pipefail
. "$(dirname "$0")/environment.sh" requirements.txt requirements-ingest.txt tests/requirements.txt
ruff check .
ruff format --check .
pyright
exec python -m pytest "$@"
