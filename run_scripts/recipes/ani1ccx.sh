#!/usr/bin/env bash
# A teacher that none of us trained: label, distill, run, for liquid water and gas-phase ethanol.
# usage: run_scripts/recipes/ani1ccx.sh ani1ccx_model0.fnx OUTPUT_FOLDER
# Needs pip install 'dmts-ipi[fennol]'. About an hour and a half on one core. Every part resumes.
# docs/ani1ccx.md has the figures that it gives.
set -euo pipefail
teacher=$(realpath "${1:?path of ani1ccx_model0.fnx}")
out=${2:?output folder}
water=$(realpath "$(dirname "$0")/../../ipi_inputs/water64.extxyz")
mkdir -p "$out" && cd "$out"

ase build CH3CH2OH ethanol.extxyz

dmts-ipi label --teacher "$teacher" --structure "$water" --out water-labels.extxyz \
  --temperatures-K 300 350 --time-ps 1.5 --every-fs 10 --bursts 4
dmts-ipi label --teacher "$teacher" --structure ethanol.extxyz --out ethanol-labels.extxyz \
  --temperatures-K 300 400 500 --time-ps 3 --every-fs 5 --bursts 8

run() { # system, structure, n_inner, training steps, bursts to test on, ps of DMTS and of STS
  if [ ! -e "ani-$1-student/training/curve.png" ]; then
    dmts-ipi distill --labels "$1-labels.extxyz" --teacher "$teacher" --out "ani-$1-student" \
      --steps "$4" --heating-at-fs "$3"
  fi
  dmts-ipi label --teacher "$teacher" --structure "$2" --out "$1-test.extxyz" \
    --temperatures-K 300 --time-ps 0 --bursts "$5" --seed 7
  dmts-ipi evaluate --model "ani-$1-student" --labels "$1-test.extxyz" --outer-fs 2 3 4 5 6 8 \
    --plot "$1-evaluate.png"
  if [ ! -e "ani-$1" ]; then
    dmts-ipi init "ani-$1" --structure "$2" --teacher "$teacher" --student "ani-$1-student" \
      --n-inner "$3" --time-ps "$6"
  fi
  if [ ! -e "ani-$1-sts" ]; then
    dmts-ipi init "ani-$1-sts" --structure "$2" --teacher "$teacher" --mode sts --time-ps "$7"
  fi
  dmts-ipi run "ani-$1"
  dmts-ipi run "ani-$1-sts"
  dmts-ipi analyze "ani-$1-sts" "ani-$1" --out "$1.html"
}
run water "$water" 3 5000 3 6 3
run ethanol ethanol.extxyz 4 4000 8 40 20

for model in "$teacher" water-teacher; do
  dmts-ipi evaluate --model "$model" --teacher-smoothness "$water"
done
# Our own pair beside it: bursts of water-teacher that water-student was not trained on.
dmts-ipi label --teacher water-teacher --structure "$water" --out mace-test.extxyz \
  --time-ps 0 --bursts 4 --burst-gap-fs 100 --seed 7
dmts-ipi evaluate --model water-student --labels mace-test.extxyz --outer-fs 2 3 4 5 6 8
