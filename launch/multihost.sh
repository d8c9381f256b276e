#!/usr/bin/env bash
# Runs this host's process of a command that several hosts run, under any scheduler or none:
#   COORDINATOR=node0:9731 HOSTS=4 HOST=2 bash launch/multihost.sh python -m cion_jax.pretrain --workdir=... ...
# COORDINATOR  address of host 0, with a port that is free there and open to the others
# HOSTS, HOST  how many hosts there are, and which one this is, from 0
# The process takes all GPUs of its host. The workdir must be one that all hosts see, at the same path.
# When a host dies, the others end within a minute; the same command on all hosts continues from the last checkpoint.
# One that never starts is waited for five minutes: nodes of a large job come up one after the other.
set -euo pipefail
for name in COORDINATOR HOSTS HOST; do
  if [[ -z ${!name:-} ]]; then
    echo "multihost.sh: $name is not set; see the comment at the top of $0" >&2
    exit 2
  fi
done
. "$(dirname "$0")/gpu.sh"
export CION_COORDINATOR_ADDRESS=$COORDINATOR CION_NUM_PROCESSES=$HOSTS CION_PROCESS_ID=$HOST
exec "$@"
