#!/usr/bin/env bash
# Runs a command in N processes of this machine; one that fails ends all in a minute. On GPUs, process i takes GPU i.
#   bash launch/local.sh 8 python -m cion_jax.pretrain --config=configs/vit_b.py --workdir=runs/vit_b
# Exits with the code of the first process that failed, or of one within 0.2 s of it. SIGTERM and Ctrl-C stop all of
# them, of which a training run saves first; a second Ctrl-C ends them at once.
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
# Processes in the background do not hear Ctrl-C. TERM lets training save; who presses again does not wait for that.
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
  wait $! # a signal is heard at once; `wait -n` forgets processes that end while one is passed on
  for place in "${!processes[@]}"; do
    kill -0 "${processes[place]}" 2> /dev/null && continue
    wait "${processes[place]}"
    code=$?
    unset "processes[place]"
    if [[ $code -ne 0 && $failed -eq 0 ]]; then
      failed=$code
      end=$((SECONDS + 45)) # until then the others mostly notice by themselves, and say so
    fi
  done
done
exit "$failed"
