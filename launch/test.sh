#!/usr/bin/env bash
# Runs set-up, checks and the whole test suite. Arguments are passed to pytest: bash launch/test.sh -m 'not slow'
# With --gpu-compile: compiles the GPU programs only, for which no GPU is needed but some 4 GB of NVIDIA's packages.
set -euo pipefail
if [[ ${1:-} == --gpu-compile ]]; then
  shift
  . "$(dirname "$0")/environment.sh" benchmarks/gpu/requirements.txt tests/requirements.txt
  JAX_PLATFORMS=cpu exec python -m pytest -n 0 tests/test_gpu_compile.py "$@"
fi
. "$(dirname "$0")/environment.sh" requirements.txt requirements-ingest.txt tests/requirements.txt
ruff check .
ruff format --check .
pyright
exec python -m pytest "$@"
