#!/usr/bin/env bash
# i-PI and its drivers on this machine, by hand: three processes, without the watchdog's rewinds.
# `dmts-ipi run FOLDER` does more; this shows what there is to start, for systems of your own.
#   run_scripts/local.sh FOLDER                 a folder made by dmts-ipi init
# Goes on from RESTART if i-PI left one. Ctrl-C or SIGTERM stops all; logs are in FOLDER/logs.
set -euo pipefail
folder=${1:-}
if [ ! -x "$folder/start_ipi.sh" ]; then
  echo "local.sh: ${folder:-no folder}: give a run folder, made by dmts-ipi init" >&2
  exit 2
fi
cd "$folder"
mkdir -p logs
input=input.xml
[ ! -f RESTART ] || input=RESTART

# The student may use all cores while the teacher waits, and the other way round: i-PI asks for one
# force at a time. On two GPUs: dmts-ipi init --student-device cuda:1.
drivers=()
for name in teacher student; do
  [ -x "start_$name.sh" ] || continue # single time steps have no student
  "./start_$name.sh" >>"logs/$name.log" 2>&1 &
  drivers+=($!)
done
./start_ipi.sh "$input" >>logs/i-pi.log 2>&1 &
ipi=$!
trap 'kill -TERM "$ipi" 2>/dev/null || true' TERM INT
trap 'kill -TERM "${drivers[@]}" 2>/dev/null || true; wait' EXIT

# Drivers reconnect, but do not start themselves again: without one i-PI would wait for ever.
while kill -0 "$ipi" 2>/dev/null; do
  for pid in "${drivers[@]}"; do
    if ! kill -0 "$pid" 2>/dev/null && kill -0 "$ipi" 2>/dev/null; then
      echo "local.sh: a driver ended; see $folder/logs; i-PI is stopped" >&2
      kill -TERM "$ipi" 2>/dev/null || true
      wait "$ipi" || true
      exit 4
    fi
  done
  sleep 1 &
  wait $! || true
done
wait "$ipi"
