"""The fault campaign: one short run for every fault, injected at a random time.

    python tests/faults/campaign.py --faults 200 --seed 1 [--plain] [--kinds hand_ipi,nan_student]
    python tests/faults/campaign.py --work DIR --table benchmarks/results/faults.txt  # resumes

For each it is checked that the run recovered or stopped with the right cause and status, that
every step is in the outputs exactly once and in order, that the trajectory equals an unbroken
one (1e-10) where the event allows it, and that no process is left. Prints a table; exit status 0
only if every row is good. With ``--work`` the result of each fault is kept in ``DIR/faults.jsonl``:
the same call goes on where it was stopped. Time and place of a fault follow from the seed and its
number alone. The code that is tested is that of the repository around this file.
``tests/test_run_watchdog.py`` holds the part that is run every time.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent / "support"), str(ROOT), str(ROOT / "benchmarks")]

from common import header  # noqa: E402
from injection import KINDS, OPTIONS, Failed, check, one, prepare, start  # noqa: E402


@dataclass(frozen=True)
class Row:
    """What became of a fault. ``number``: in the campaign, from 0."""

    seed: int
    number: int
    kind: str
    plain: bool
    good: bool
    words: str
    seconds: float

    @property
    def key(self) -> tuple[object, ...]:
        """Which fault it was."""
        return self.seed, self.number, self.kind, self.plain


def known(file: Path) -> dict[tuple[object, ...], Row]:
    """Results of earlier calls; one that was being written counts as none."""
    found = {}
    for line in file.read_text().splitlines() if file.exists() else []:
        try:
            row = Row(**json.loads(line))
        except (ValueError, TypeError):
            continue
        found[row.key] = row
    return found


def table(rows: list[Row]) -> str:
    """A line for each kind, a line for each fault that was not survived, and the sum."""
    lines = [f"{'fault':16} {'times':>5} {'good':>5} {'s':>6}  what became of it (times)"]
    for name in dict.fromkeys(r.kind for r in rows):
        of = [r for r in rows if r.kind == name]
        words = [r.words for r in of if r.good]
        counts = sorted(((words.count(w), w) for w in set(words)), reverse=True)
        told = "; ".join(f"{w} ({n})" for n, w in counts)
        mean = sum(r.seconds for r in of) / len(of)
        lines.append(f"{name:16} {len(of):5} {sum(r.good for r in of):5} {mean:6.1f}  {told}")
    bad = [r for r in rows if not r.good]
    lines += [f"FAILED: number {r.number}, {r.kind}, seed {r.seed}: {r.words}" for r in bad]
    seeds = ", ".join(sorted({f"{r.seed}{' under plain i-pi' * r.plain}" for r in rows}))
    lines += [
        "",
        f"{len(rows)} faults, seed {seeds}: {len(rows) - len(bad)} good, {len(bad)} failed",
    ]
    return "\n".join(lines)


def unbroken(work: Path, plain: bool) -> Path:
    """The reference run; made unless an earlier call did.

    Raises:
        Failed: it does not finish.
    """
    folder = work / f"reference{'-plain' * plain}"
    if not (folder / "summary.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        status, output = start(prepare(folder)).end()
        if status != 0:
            raise Failed(f"the reference run: status {status}\n{output}")
    check(folder, None)
    return folder


def tried(number: int, name: str, work: Path, reference: Path, args: argparse.Namespace) -> Row:
    """Runs one fault of the campaign."""
    folder, begin = work / f"{number}-{name}", time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)  # of a call that was stopped
    (work / f"{folder.name}-once").unlink(missing_ok=True)
    good, rng = True, random.Random(f"{args.seed}/{number}/{name}")
    try:
        words = one(KINDS[name], folder, reference, rng)
    except Failed as error:
        good, words = False, " ".join(str(error).split())
    seconds = round(time.monotonic() - begin, 1)
    if good or not args.keep:
        shutil.rmtree(folder, ignore_errors=True)
    return Row(args.seed, number, name, args.plain, good, words, seconds)


def options() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=200, help="how many, all kinds by turns")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", default="", help=f"only these, of {', '.join(KINDS)}")
    parser.add_argument("--keep", action="store_true", help="keep the folders of failed runs")
    parser.add_argument("--work", type=Path, default=None, help="resumed; none: a temporary one")
    parser.add_argument("--table", type=Path, default=None, help="write the table there as well")
    parser.add_argument(
        "--plain", action="store_true", help="i-PI's own BAOAB under plain i-pi, not ours"
    )
    args = parser.parse_args()
    if unknown := [k for k in args.kinds.split(",") if k and k not in KINDS]:
        parser.error(f"no such kind: {', '.join(unknown)}")
    return args


def main() -> int:
    """Runs the campaign."""
    args = options()
    if args.plain:
        OPTIONS.extend(["--splitting", "baoab"])
    names = [k for k in args.kinds.split(",") if k] or list(KINDS)
    work = args.work or Path(tempfile.mkdtemp(prefix="dmts-faults-"))
    work.mkdir(parents=True, exist_ok=True)
    reference = unbroken(work, args.plain)
    results, rows = known(work / "faults.jsonl"), []
    for k in range(args.first, args.first + args.faults):
        name = names[k % len(names)]
        row = results.get((args.seed, k, name, args.plain))
        if row is None:
            row = tried(k, name, work, reference, args)
            with open(work / "faults.jsonl", "a") as stream:
                stream.write(json.dumps(asdict(row)) + "\n")
            word = "ok" if row.good else "FAILED"
            print(f"{k:4} {name:16} {word:6} {row.seconds:5.1f} s  {row.words}", flush=True)
        rows.append(row)
        if args.table:
            args.table.write_text(f"{header()}\n{table(rows)}\n")
    print(f"\n{table(rows)}")
    bad = any(not r.good for r in rows)
    if args.work is None and not (bad and args.keep):
        shutil.rmtree(work, ignore_errors=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
