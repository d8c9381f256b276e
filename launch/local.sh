#!/usr/bin/env bash
# Runs a command in N processes on this machine; if one fails, all end within a minute. Process i uses GPU i.
#   bash launch/local.sh 8 python -m cion_jax.pretrain --config=configs/vit_b.py --workdir=runs/vit_b
# Exits with the code of the first process that failed, or of one that failed within 0.2 s of it. SIGTERM and Ctrl-C
# stop all processes (training saves a checkpoint first); a second Ctrl-C kills them immediately.
set -uo pipefail
if [[ $# -lt 2 || ! $1 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: bash launch/local.sh NUMBER_OF_PROCESSES COMMAND..." >&2
  exit 2
fi
. "$(dirname "$0")/gpu.sh"
count=$1
shift
free_port='import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])'
export CION_COORDINATOR_ADDRESS=${CION_COORDINATOR_ADDRESS:-localhost:$(python3 -c "$free_port")}
export CION_NUM_PROCESSES=$count

processes=()
trap 'kill -TERM "${processes[@]}" 2>/dev/null' TERM
# Background processes do not receive Ctrl-C. TERM lets training save first; a second Ctrl-C does not wait for that.
stop=TERM
trap 'kill -"$stop" "${processes[@]}" 2>/dev/null; stop=KILL' INT
for ((index = 0; index < count; index++)); do
  CION_PROCESS_ID=$index JAX_LOCAL_DEVICE_IDS=${JAX_LOCAL_DEVICE_IDS:-$index} "$@" &
  processes+=($!)
done

failed=0
while [[ ${#processes[@]} -gt 0 ]]; do
  if [[ $failed -ne 0 && $SECONDS -ge $end ]]; then
    echo "local.sh: a process failed with exit code $failed; ending the other ${#processes[@]}" >&2
    kill -KILL "${processes[@]}" 2> /dev/null # TERM would wait for a training step that never comes
  fi
  sleep 0.2 &> /dev/null &
  wait $! # signals interrupt this at once; `wait -n` loses processes that end while a signal is forwarded
  for place in "${!processes[@]}"; do
    kill -0 "${processes[place]}" 2> /dev/null && continue
    wait "${processes[place]}"
    code=$?
    unset "processes[place]"
    if [[ $code -ne 0 && $failed -eq 0 ]]; then
      failed=$code
      end=$((SECONDS + 45)) # by then the others have usually noticed and reported the failure themselves
    fi
  done
done
exit "$failed"
