#!/usr/bin/env bash
# Runs this host's process of a multi-host command, under any scheduler or none:
#   COORDINATOR=node0:9731 HOSTS=4 HOST=2 bash launch/multihost.sh python -m cion_jax.pretrain --workdir=... ...
# COORDINATOR  address of host 0, with a port that is free there and reachable from the other hosts
# HOSTS, HOST  number of hosts, and index of this one, from 0
# The process uses all GPUs of its host. The workdir must be visible to all hosts at the same path.
# When a host dies, the others end within a minute; the same command on all hosts continues from the last checkpoint.
# The others wait five minutes for a host to start: the nodes of a large job come up one after another.
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
