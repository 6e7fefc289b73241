#!/usr/bin/env bash
# Distils `water-student` from `water-teacher`. About an hour and a half on two cores; resumable.
#   run_scripts/recipes/water_student.sh ../shared/data/water64_pbe0ts_train.npz [work/student]
# SAMPLER=water-student in the environment: that student drives the sampling from the start, and none
# is trained in step 1; half an hour less.
# The data are the DFT frames (docs/models.md); only their positions matter here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
data=${1:?give the npz of DFT frames}
out=${2:-work/student}
PATH=$PWD/.venv/bin:$PATH
teacher=${TEACHER:-water-teacher}
export OMP_NUM_THREADS=1
python run_scripts/recipes/water_frames.py "$data" "$out"
dft=$out/dft_train.extxyz

# 1. The DFT frames and short runs of the teacher, and a first student from them.
dmts-ipi label --teacher "$teacher" --frames "$dft" --out "$out/dft.extxyz"
dmts-ipi label --teacher "$teacher" ${SAMPLER:+--sampler "$SAMPLER"} \
  --structure "$dft@::96" --temperatures-K 300 330 370 \
  --time-ps 1.2 --equilibrate-ps 0.1 --step-fs 2 --every-fs 24 --seed 11 --out "$out/teacher.extxyz"
sampler=${SAMPLER:-$out/first}
if [ -z "${SAMPLER:-}" ]; then
  dmts-ipi distill --labels "$out/dft.extxyz" "$out/teacher.extxyz" --teacher "$teacher" \
    --out "$out/first" --minutes 6 --threads 1
fi

# 2. Consecutive frames with velocities, for the predicted heating.
dmts-ipi label --teacher "$teacher" --structure "$dft@::96" --temperatures-K 300 --time-ps 0 \
  --bursts 4 --burst-frames 48 --burst-gap-fs 60 --equilibrate-ps 0.15 --seed 5 \
  --out "$out/bursts.extxyz"

# 3. The first student drives longer runs, the teacher labels them. Protons shared by two molecules
#    are rare there (one in 30 ps of 216 waters) and made by hand: a student without them is 4 eV/A off.
dmts-ipi label --teacher "$teacher" --sampler "$sampler" \
  --structure "$dft@5" "$dft@105" "$dft@205" --temperatures-K 285 300 330 370 --time-ps 2 \
  --equilibrate-ps 0.2 --step-fs 2 --every-fs 20 --friction-per-ps 5 --rattle-every 8 \
  --stretch-every 8 --share-every 4 --seed 21 --out "$out/samples.extxyz"
dmts-ipi label --teacher "$teacher" --sampler "$sampler" --structure "$dft@55" \
  --temperatures-K 310 --cell-scales 0.97 1.03 --time-ps 1.6 --equilibrate-ps 0.2 --step-fs 2 \
  --every-fs 20 --friction-per-ps 5 --rattle-every 8 --stretch-every 8 --share-every 4 --seed 22 \
  --out "$out/cells.extxyz"

# 4. The student that ships.
dmts-ipi distill --teacher "$teacher" --out "$out/water-student" --steps 48000 --threads 1 \
  --labels "$out"/{dft,teacher,samples,cells,bursts}.extxyz
dmts-ipi evaluate --model "$out/water-student" --labels "$out/bursts.extxyz"
