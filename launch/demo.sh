#!/usr/bin/env bash
# Runs the whole method on rendered people: set-up, then about ten minutes on two cores.
# Arguments are passed to the program: bash launch/demo.sh --config.street.seed=5 --workdir=runs/another
set -euo pipefail
. "$(dirname "$0")/environment.sh" requirements.txt
exec python -m cion_jax.main --config=configs/demo.py --workdir=runs/demo "$@"
