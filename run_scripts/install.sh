#!/usr/bin/env bash
# Makes .venv in the repository and installs dmts-ipi into it. Sourced or run:
#   run_scripts/install.sh [EXTRAS]        EXTRAS such as mace or mace,dev (default: mace)
# Does nothing when it has been done before with the same pyproject.toml and extras.
# DMTS_PYTHON: interpreter (default python3).  DMTS_TORCH: torch requirement.
# DMTS_TORCH_INDEX: where CPU builds of torch are; set it empty to use only your own pip setup.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
extras=${1:-mace}
python=${DMTS_PYTHON:-python3}
torch=${DMTS_TORCH:-torch==2.13.0}
index=${DMTS_TORCH_INDEX-https://download.pytorch.org/whl/cpu}
venv=$root/.venv

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
  echo "install: $("$python" --version) is too old: set DMTS_PYTHON to Python 3.10 or newer" >&2
  exit 2
}
mark=$venv/.dmts-installed-${extras//,/-}
want=$(cat "$root/pyproject.toml" <(echo "$torch") | cksum)
if [ -f "$mark" ] && [ "$(cat "$mark")" = "$want" ]; then
  exit 0
fi
echo "install: making $venv with dmts-ipi[$extras] (a minute or two; once)"
"$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)
log=$venv/install.log
try() {
  "$@" >>"$log" 2>&1 || {
    tail -n 15 "$log" >&2
    echo "install: failed; the whole log is $log" >&2
    exit 1
  }
}
: >"$log"
if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
  if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then
    try "${pip[@]}" install "$torch"
  else # the CPU build is higher in pip's order (2.x.y+cpu), so it wins where both are seen
    try "${pip[@]}" install --retries 1 --timeout 30 ${index:+--extra-index-url "$index"} "$torch"
  fi
fi
try "${pip[@]}" install -e "${root}[${extras}]"
echo "$want" >"$mark"
echo "install: done; source $venv/bin/activate, then dmts-ipi --help"
