#!/usr/bin/env bash
# From a fresh clone to a report: liquid water, 64 molecules, 300 K, with the shipped models.
# Runs the teacher alone (STS) and DMTS-NC under i-PI, then compares them in one HTML page.
# Under ten minutes on two CPU cores. Stopped half-way and started again, it goes on.
#   run_scripts/quickstart.sh [FOLDER]          default: work/quickstart
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${1:-work/quickstart}
case $folder in /*) ;; *) [ $# -eq 0 ] || folder=$here/$folder ;; esac
run_scripts/install.sh mace
export MPLBACKEND=Agg PATH=$PWD/.venv/bin:$PATH
mkdir -p "$folder"

if [ ! -f "$folder/sts/run.yaml" ]; then
  dmts-ipi init "$folder/sts" --mode sts --inner-fs 1 --time-ps 1.2 --seed 1
fi
if [ ! -f "$folder/dmts/run.yaml" ]; then
  dmts-ipi init "$folder/dmts" --mode dmts --inner-fs 1 --n-inner 6 --time-ps 6 --seed 2
fi
dmts-ipi run "$folder/sts"
dmts-ipi run "$folder/dmts"
dmts-ipi analyze "$folder/sts" "$folder/dmts" --out "$folder/report.html"
echo
echo "Open $folder/report.html in a browser."
