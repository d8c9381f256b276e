#!/usr/bin/env bash
# Runs a command in N processes of this machine; one that fails ends all in a minute. On GPUs, process i takes GPU i.
#   bash launch/local.sh 8 python -m cion_jax.pretrain --config=configs/vit_b.py --workdir=runs/vit_b
# Needs bash 5.1. Exits with the code of the first process that failed. SIGTERM and Ctrl-C stop all of them: a training
# run saves first. A second Ctrl-C ends them at once.
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
timer=
while [[ ${#processes[@]} -gt 0 ]]; do
  ended=
  wait -n -p ended "${processes[@]}" $timer
  code=$?
  [[ -z ${ended:-} ]] && continue # a signal came to this script and was passed on; nothing has ended
  if [[ $ended == "$timer" ]]; then
    echo "local.sh: a process failed with exit code $failed; ending the other ${#processes[@]}" >&2
    kill -KILL "${processes[@]}" 2>/dev/null # TERM would wait for a training step that never comes
    timer=
    continue
  fi
  for place in "${!processes[@]}"; do
    [[ ${processes[place]} == "$ended" ]] && unset "processes[place]"
  done
  if [[ $code -ne 0 && $failed -eq 0 ]]; then
    failed=$code
    sleep 45 &> /dev/null & # until then the others mostly notice by themselves, and say so
    timer=$!
  fi
done
[[ -n $timer ]] && kill "$timer" 2>/dev/null
exit "$failed"
