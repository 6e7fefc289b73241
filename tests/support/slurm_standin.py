"""Stands for SLURM's ``sbatch``, ``srun`` and ``scontrol``: jobs run here, in the foreground.

``python slurm_standin.py sbatch|srun|scontrol WORDS``. Options that SLURM 22.05 does not have are
refused. SIGUSR1 to ``sbatch`` is the coming time limit: the script of the job gets the signal that
``--signal=B:`` names. A job that asks to be queued again runs again at once. What was asked of srun
and scontrol is appended to ``slurm.log`` in the folder ``SLURM_STANDIN``.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

SBATCH = {
    *("job-name", "nodes", "ntasks", "ntasks-per-node", "cpus-per-task", "gres", "time", "signal"),
    *("requeue", "open-mode", "output", "array", "export", "partition", "account", "mem"),
}
SRUN = {
    *("nodes", "ntasks", "overlap", "input", "cpus-per-task", "gres", "relative", "exact"),
    *("cpu-bind", "mem", "export"),
}
WORK = Path(os.environ["SLURM_STANDIN"])
AGAIN = WORK / "requeue"
LIMIT = 4  # runs of one job


def options(words: list[str], known: set[str], program: str) -> tuple[dict[str, str], list[str]]:
    """Options before the first other word, and the rest."""
    found: dict[str, str] = {}
    while words and words[0].startswith("--"):
        name, _, value = words.pop(0)[2:].partition("=")
        if name not in known:
            sys.exit(f"{program}: unrecognized option '--{name}'")
        found[name] = value
    return found, words


def note(*words: object) -> None:
    with open(WORK / "slurm.log", "a") as stream:
        stream.write(" ".join(map(str, words)) + "\n")


def sbatch(words: list[str]) -> int:
    given, (script, *rest) = options(words, SBATCH, "sbatch")
    lines = re.findall(r"^#SBATCH (\S+)$", Path(script).read_text(), re.M)
    asked, left = options(lines, SBATCH, "sbatch")
    assert not left
    asked |= given
    copy = WORK / "slurm_script"  # SLURM runs a copy, elsewhere
    shutil.copy(script, copy)
    print("Submitted batch job 42", flush=True)
    first, _, last = asked.get("array", "").partition("-")
    indices = range(int(first), int(last or first) + 1) if first else [None]
    return max(job(copy, rest, asked, index) for index in indices)


def job(copy: Path, words: list[str], asked: dict[str, str], index: int | None) -> int:
    env = {
        **os.environ,
        "SLURM_JOB_ID": "42",
        "SLURM_JOB_NUM_NODES": asked["nodes"],
        "SLURM_CPUS_PER_TASK": asked["cpus-per-task"],
        "SLURM_SUBMIT_DIR": os.getcwd(),
        **({} if index is None else {"SLURM_ARRAY_TASK_ID": str(index)}),
    }
    number = signal.Signals["SIG" + re.fullmatch(r"B:(\w+)@\d+", asked["signal"])[1]]
    for _ in range(LIMIT):
        AGAIN.unlink(missing_ok=True)
        process = subprocess.Popen(["bash", str(copy), *words], env=env)
        signal.signal(signal.SIGUSR1, lambda *_, p=process: p.send_signal(number))
        status = process.wait()
        if not AGAIN.exists():
            return status
    return 99


def srun(words: list[str]) -> int:
    asked, command = options(words, SRUN, "srun")
    node = int(asked.get("relative", 0))
    if node >= int(os.environ["SLURM_JOB_NUM_NODES"]):
        sys.exit("srun: error: relative node is outside of the job")
    note("srun", node, *command)
    os.environ["SLURM_NODEID"] = str(node)
    os.execvp(command[0], command)


def scontrol(words: list[str]) -> int:
    note("scontrol", *words)
    AGAIN.touch()
    return 0


if __name__ == "__main__":
    sys.exit({"sbatch": sbatch, "srun": srun, "scontrol": scontrol}[sys.argv[1]](sys.argv[2:]))
