#!/usr/bin/env bash
# A teacher that none of us trained: label, distill, run, for liquid water and gas-phase ethanol.
# usage: run_scripts/recipes/ani1ccx.sh ani1ccx_model0.fnx OUTPUT_FOLDER [MINUTES_OF_TRAINING]
# Needs pip install 'dmts-ipi[fennol]'. About an hour on two cores. Every part resumes.
set -euo pipefail
teacher=$(realpath "${1:?path of ani1ccx_model0.fnx}")
out=${2:?output folder}
minutes=${3:-10}
water=$(realpath "$(dirname "$0")/../../ipi_inputs/water64.extxyz")
mkdir -p "$out" && cd "$out"

ase build CH3CH2OH ethanol.extxyz

dmts-ipi label --teacher "$teacher" --structure "$water" --out water-labels.extxyz \
  --temperatures-K 300 350 --time-ps 1.5 --every-fs 10 --bursts 4
dmts-ipi label --teacher "$teacher" --structure ethanol.extxyz --out ethanol-labels.extxyz \
  --temperatures-K 300 400 500 --time-ps 3 --every-fs 5 --bursts 8

run() { # system, structure, n_inner
  if [ ! -e "ani-$1-student/model.json" ]; then
    dmts-ipi distill --labels "$1-labels.extxyz" --teacher "$teacher" --out "ani-$1-student" \
      --minutes "$minutes" --heating-at-fs "$3"
  fi
  dmts-ipi evaluate --model "ani-$1-student" --labels "$1-labels.extxyz" --plot "$1-evaluate.png"
  if [ ! -e "ani-$1" ]; then
    dmts-ipi init "ani-$1" --structure "$2" --teacher "$teacher" --student "ani-$1-student" \
      --mode dmts --inner-fs 1 --n-inner "$3" --time-ps 10
  fi
  if [ ! -e "ani-$1-sts" ]; then
    dmts-ipi init "ani-$1-sts" --structure "$2" --teacher "$teacher" --mode sts --inner-fs 1 --time-ps 5
  fi
  dmts-ipi run "ani-$1"
  dmts-ipi run "ani-$1-sts"
  dmts-ipi analyze "ani-$1-sts" "ani-$1" --out "$1.html"
}
run water "$water" 3
run ethanol ethanol.extxyz 4

for model in "$teacher" water-teacher; do
  dmts-ipi evaluate --model "$model" --teacher-smoothness "$water"
done
