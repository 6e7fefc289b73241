#!/usr/bin/env bash
# A run on one node under SLURM: i-PI, both drivers and the watchdog in one job.
#   sbatch run_scripts/slurm.sh FOLDER [-- OPTIONS OF dmts-ipi run]
#   sbatch --array=0-3 run_scripts/slurm.sh FOLDER0 FOLDER1 FOLDER2 FOLDER3      replicas
#   bash run_scripts/slurm.sh FOLDER                                             without SLURM
# Before the time limit SLURM sends SIGTERM (--signal): the run writes a checkpoint and stops, the
# job is queued again, and goes on there. Edit the lines below for your cluster.
# Both models share the GPU; for two: --gres=gpu:2 and `dmts-ipi init --student-device cuda:1`.
# Sockets are unix sockets in /tmp of the node; nothing listens on the network.
# Drivers on other nodes: slurm_nodes.sh, which comes back here.
#SBATCH --job-name=dmts
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%A_%a.log
set -euo pipefail

# Folders up to --, options after it.
folders=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  folders+=("$1")
  shift
done
[ $# -eq 0 ] || shift
if [ ${#folders[@]} -eq 0 ]; then
  echo "slurm.sh: give a run folder, made by dmts-ipi init" >&2
  exit 2
fi
index=${SLURM_ARRAY_TASK_ID:-0}
if [ "$index" -ge ${#folders[@]} ]; then
  echo "slurm.sh: array index $index: only ${#folders[@]} folders are given (0 to $((${#folders[@]} - 1)))" >&2
  exit 2
fi
folder=${folders[$index]}

# The environment of the package: DMTS_VENV, or .venv in the directory of submission.
venv=${DMTS_VENV:-${SLURM_SUBMIT_DIR:-$PWD}/.venv}
if [ -f "$venv/bin/activate" ]; then
  # shellcheck disable=SC1091
  . "$venv/bin/activate"
fi

dmts-ipi run "$folder" --report-every-s 600 "$@" &
run=$!
asked=no
# shellcheck disable=SC2317,SC2329  # called by the trap
stop() {
  asked=yes
  kill -TERM "$run" 2>/dev/null || true
}
trap stop TERM INT

# A signal interrupts wait: then wait again, for the end of the run.
status=0
while :; do
  wait "$run" && status=0 || status=$?
  kill -0 "$run" 2>/dev/null || break
done

if [ "$asked" = yes ] && [ "$status" -eq 143 ] && [ -n "${SLURM_JOB_ID:-}" ]; then
  echo "slurm.sh: $folder is not finished: job $SLURM_JOB_ID is queued again"
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$status"
