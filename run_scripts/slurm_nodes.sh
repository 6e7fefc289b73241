#!/usr/bin/env bash
# A run on several nodes under SLURM: i-PI and the watchdog on the first, the teacher on the second,
# the student beside i-PI, or with three nodes on the third.
#   sbatch run_scripts/slurm_nodes.sh FOLDER [-- OPTIONS OF dmts-ipi run]
#   sbatch --nodes=3 run_scripts/slurm_nodes.sh FOLDER
#   sbatch --array=0-3 run_scripts/slurm_nodes.sh FOLDER0 FOLDER1 FOLDER2 FOLDER3      replicas
# The student is asked at every inner step: every message costs the network's latency, so beside
# i-PI is best. A teacher that runs over MPI on many nodes: docs/clusters.md (LAMMPS).
# The run folder must be on a file system that all nodes share: addresses and keys are exchanged by
# its folder network/ (mode 0700). i-PI's ports have no password: use a network of the cluster.
# Stops before the time limit, is queued again and goes on, as slurm.sh does.
#SBATCH --job-name=dmts
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gres=gpu:1
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%A_%a.log
set -euo pipefail

# Of the first node, where i-PI listens: auto (what its host name stands for), or an interface.
network=${DMTS_NETWORK:-auto}
# SLURM runs a copy of this file; slurm.sh is taken from the directory of submission.
scripts=${DMTS_SCRIPTS:-${SLURM_SUBMIT_DIR:-$PWD}/run_scripts}
# Words for each srun: the GPU of a node, for example. Empty on nodes without.
each=${DMTS_SRUN---gres=gpu:1}

nodes=${SLURM_JOB_NUM_NODES:-1}
if [ "$nodes" -lt 2 ]; then
  echo "slurm_nodes.sh: $nodes node; submit it with sbatch --nodes=2 or more, or use slurm.sh" >&2
  exit 2
fi
if [ ! -f "$scripts/slurm.sh" ]; then
  echo "slurm_nodes.sh: $scripts/slurm.sh is not there; set DMTS_SCRIPTS to its folder" >&2
  exit 2
fi
student=0
[ "$nodes" -lt 3 ] || student=2
# --overlap: a step may use what the job script has; --relative: number of the node in the job.
step="srun --nodes=1 --ntasks=1 --overlap --input=none --cpus-per-task=${SLURM_CPUS_PER_TASK:-1} $each"

given=no
for word in "$@"; do [ "$word" != -- ] || given=yes; done
[ $given = yes ] || set -- "$@" --
exec bash "$scripts/slurm.sh" "$@" --network "$network" \
  --launch-teacher "$step --relative=1" --launch-student "$step --relative=$student"
