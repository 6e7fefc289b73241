"""Tables 1 to 7 of DMTS-NC (DOI 10.1021/acs.jctc.6c00653) for our runs, beside the published."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dmts_ipi.core.units import KCAL_PER_MOL_IN_EV

from .cell import Result
from .pool import Pool, Value, best, pools, ratio, reference_of

KCAL_PER_MEV = 1e-3 / KCAL_PER_MOL_IN_EV
NAMES = {"sts": "STS", "dmts": "DMTS", "dmts-nc": "DMTS-NC", "hhf": "HHF", "hhf-ffl": "HHF+FFL"}
HHF = ("hhf", "hhf-ffl", "bond")
Pools = dict[tuple[str, str], Pool]


@dataclass
class Table:
    """``head`` and ``rows`` are text; ``ours`` columns are measured here, the rest published."""

    number: int
    title: str
    head: list[str]
    rows: list[list[str]]
    ours: int
    notes: list[str] = field(default_factory=list)


@cache
def published() -> dict[str, Any]:
    """``published.yaml``."""
    tables = yaml.safe_load((Path(__file__).parent / "published.yaml").read_text())
    assert isinstance(tables, dict)
    return tables


def number(value: float | None, digits: int = 3) -> str:
    """A figure with some digits; ``-`` where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:.0f}"


def pair(value: Value, decimals: int) -> str:
    """Mean and its error."""
    if not math.isfinite(value[0]):
        return "-"
    error = f"{value[1]:.{decimals}f}" if math.isfinite(value[1]) else "?"
    return f"{value[0]:.{decimals}f} +- {error}"


def _spread(mean: float | None, std: float | None, decimals: int) -> str:
    if mean is None or not math.isfinite(mean):
        return "-"
    known = std is not None and math.isfinite(std)
    return f"{mean:.{decimals}f} (std {std:.{decimals}f})" if known else f"{mean:.{decimals}f}"


def _published_label(row: dict[str, Any]) -> str:
    if row["kind"] == "sts":
        return f"STS{'-HMR' if row.get('hmr') else ''} {row['inner_fs']:g} fs"
    return f"{NAMES[row['kind']]} {row['inner_fs']:g}–{row['outer_fs']:g} fs"


def all_tables(results: Sequence[Result]) -> list[Table]:
    """Every table for which something was run."""
    pooled = pools(results)
    made = [
        _speeds(pooled, results, 1, "water", "Bulk water: ns/day (ratio to STS)"),
        _speeds(pooled, results, 2, "solvated", "Solvated molecules: ns/day (ratio to STS)"),
        _averages(pooled, 3, "Temperature, K, and potential energy, kcal/mol/atom", ["dmts-nc"]),
        _damped_speeds(pooled),
        _averages(pooled, 5, "The same with HHF or the bond thermostat", HHF),
        _other_teacher(pooled),
        _diffusion(pooled),
    ]
    return [t for t in made if t is not None]


def _systems(pooled: Pools, group: str | None = None) -> list[str]:
    names = dict.fromkeys(s for s, _ in pooled)
    return [
        n
        for n in names
        if group is None or next(p for (s, _), p in pooled.items() if s == n).cell.group == group
    ]


def _atoms(pooled: Pools, system: str) -> int:
    return next(p.cell.atoms for (s, _), p in pooled.items() if s == system)


def _speeds(
    pooled: Pools, results: Sequence[Result], which: int, group: str, title: str
) -> Table | None:
    """Tables 1 and 2: a row for each integrator, a column for each system."""
    systems = _systems(pooled, group)
    if not systems:
        return None
    columns = published()[group]
    rows: dict[str, list[str]] = {}
    labels = {r.cell.label: r.cell.key for r in results if r.cell.group == group}
    theirs = {_key(row): row for row in published()[f"table{which}"]}
    for label, key in labels.items():
        cells, words = [], []
        for system in systems:
            pool = pooled.get((system, label))
            cells.append(_speed(pool, reference_of(pooled, system)))
            if pool is not None:
                words.append((system, pool))
        row = theirs.pop(key, None) if "HMR" not in label else None
        rows[label] = [label, *cells, _reasons(words), *_published_speeds(row, len(columns))]
    for row in theirs.values():
        label = _published_label(row)
        empty = ["-"] * len(systems)
        rows.setdefault(label, [label, *empty, "not run", *_published_speeds(row, len(columns))])
    body = list(rows.values())
    for what, kinds, base in (("DMTS-NC/DMTS", ("dmts-nc",), "dmts"), ("DMTS-NC/STS", ("dmts-nc",), "sts")):  # noqa: E501  # fmt: skip
        values = [_best_ratio(pooled, s, kinds, base) for s in systems]
        paper = published()[f"table{which}_best"][what.lower()]
        body.append([f"max. {what}", *(number(v) for v in values), "", *map(number, paper), ""])
    head = ["integrator", *(f"{s}: {_atoms(pooled, s)} atoms" for s in systems), "instabilities"]
    head += [f"[{n}]" for n in columns] + ["[instab.]"]
    return Table(which, title, head, body, len(systems) + 2, [_ratio_note(), _brackets()])


def _key(row: dict[str, Any]) -> tuple[str, float, float]:
    return row["kind"], float(row["inner_fs"]), float(row["outer_fs"])


def _speed(pool: Pool | None, reference: Pool | None) -> str:
    if pool is None or not math.isfinite(pool.ns_per_day):
        return "-"
    text = number(pool.ns_per_day)
    middle, low, high = ratio(pool, reference)
    if reference is None or pool is reference or not math.isfinite(middle):
        return text
    spread = f", {low:.2f} to {high:.2f}" if high > low else ""
    return f"{text} ({middle:.2f}{spread})"


def _reasons(pools_of: Sequence[tuple[str, Pool]]) -> str:
    """One word where all systems agree, else by system; rewinds are counted."""
    words = [p.instabilities for _, p in pools_of]
    if not words:
        return "-"
    rewinds = sum(p.rewinds for _, p in pools_of)
    tail = f"; {rewinds} rewind{'s' if rewinds > 1 else ''}" if rewinds else ""
    if len(set(words)) == 1:
        return words[0] + tail
    return "; ".join(f"{s}: {w}" for (s, _), w in zip(pools_of, words, strict=True)) + tail


def _published_speeds(row: dict[str, Any] | None, columns: int) -> list[str]:
    if row is None:
        return [""] * (columns + 1)
    return [*(number(v, 4) for v in row["ns_per_day"]), row["instabilities"]]


def _best_ratio(pooled: Pools, system: str, kinds: Sequence[str], base: str) -> float:
    top = best(pooled, system, kinds)
    reference = reference_of(pooled, system) if base == "sts" else best(pooled, system, (base,))
    if top is None or reference is None:
        return math.nan
    return ratio(top, reference)[0]


def _averages(pooled: Pools, which: int, title: str, kinds: Sequence[str]) -> Table | None:
    """Tables 3 and 5: STS and the fastest stable of some kinds, with what the paper has."""
    rows = []
    paper = published()[f"table{which}"]
    for system in _systems(pooled):
        reference, atoms = reference_of(pooled, system), _atoms(pooled, system)
        if kinds == HHF:
            chosen = [p for k in HHF if (p := best(pooled, system, (k,))) is not None]
        else:
            chosen = [p for p in [best(pooled, system, kinds)] if p is not None]
        if not chosen:
            continue
        for pool in [*([reference] if reference else []), *chosen]:
            theirs = paper.get(atoms, {}).get(pool.cell.kind, [None] * 4)
            rows.append([f"{system}: {atoms} atoms", *_average_cells(pool, reference), *(
                _spread(theirs[0], theirs[1], 2), _spread(theirs[2], theirs[3], 3))])  # fmt: skip
    if not rows:
        return None
    head = ["system", "integrator", "T", "expected", "potential energy", "minus STS, meV/atom"]
    head += ["[T]", "[potential energy]"]
    notes = [
        "T: mean +- standard error (standard deviation over time). Energies of two teachers do not "
        "compare; their standard deviations do."
    ]
    return Table(which, title, head, rows, 6, [*notes, _brackets()])


def _average_cells(pool: Pool, reference: Pool | None) -> list[str]:
    t, e = pool.kelvin(), pool.potential_meV
    std = pool.std(lambda r: r.kelvin_std)
    kelvin = pair(t, 1) + (f" (std {std:.1f})" if math.isfinite(std) else "")
    wide = pool.std(lambda r: r.potential_std_meV)
    energy = _spread(e[0] * KCAL_PER_MEV, wide * KCAL_PER_MEV, 3)
    difference = "-"
    if reference is not None and pool is not reference:
        base = reference.potential_meV
        difference = pair((e[0] - base[0], math.hypot(e[1], base[1])), 2)
    return [pool.cell.label, kelvin, number(pool.expected_K(), 4), energy, difference]


def _damped_speeds(pooled: Pools) -> Table | None:
    """Table 4: HHF, HHF+FFL and the bond thermostat against DMTS-NC and STS."""
    rows = []
    for system in _systems(pooled):
        reference, plain = reference_of(pooled, system), best(pooled, system, ("dmts-nc",))
        theirs = published()["table4"].get(_atoms(pooled, system), {})
        for kind in HHF:
            pool = best(pooled, system, (kind,))
            if pool is None:
                continue
            rows.append(
                [
                    f"{system}: {_atoms(pooled, system)} atoms",
                    number(reference.ns_per_day if reference else None),
                    f"{plain.cell.label}: {number(plain.ns_per_day)}" if plain else "-",
                    f"{pool.cell.label}: {number(pool.ns_per_day)}",
                    number(ratio(pool, plain)[0]) if plain else "-",
                    number(ratio(pool, reference)[0]),
                    *_cells(theirs if kind == "hhf" else {},
                            ("sts", "dmts-nc", "hhf", "hhf/dmts-nc", "hhf/sts")),
                ]
            )  # fmt: skip
    if not rows:
        return None
    head = ["system", "STS", "DMTS-NC", "damped", "to DMTS-NC", "to STS"]
    head += ["[STS]", "[DMTS-NC]", "[HHF]", "[to DMTS-NC]", "[to STS]"]
    title = "Damped hydrogens and bonds: ns/day, and ratio"
    return Table(4, title, head, rows, 6, [_ratio_note(), _brackets()])


def _cells(row: dict[str, Any], keys: Iterable[str]) -> list[str]:
    return [number(row.get(k), 4) if row else "" for k in keys]


def _other_teacher(pooled: Pools) -> Table | None:
    """Table 6: the fastest stable DMTS-NC against STS, beside the paper's second teacher."""
    rows = []
    for system in _systems(pooled):
        reference, top = reference_of(pooled, system), best(pooled, system, ("dmts-nc",))
        if reference is None or top is None:
            continue
        theirs = published()["table6"].get(_atoms(pooled, system), {})
        rows.append(
            [
                f"{system}: {_atoms(pooled, system)} atoms",
                number(reference.ns_per_day),
                f"{top.cell.label}: {number(top.ns_per_day)}",
                number(ratio(top, reference)[0]),
                *_cells(theirs, ("sts", "dmts-nc", "acceleration")),
            ]
        )
    if not rows:
        return None
    head = ["system", "STS", "DMTS-NC", "acceleration", "[STS]", "[DMTS-NC]", "[acceleration]"]
    title = "The fastest stable DMTS-NC: ns/day (published: MACE-OFF23(S))"
    return Table(6, title, head, rows, 4, [_ratio_note()])


def _diffusion(pooled: Pools) -> Table | None:
    """Table 7: every integrator with a diffusion coefficient, and its loss against STS."""
    rows = []
    theirs = list(published()["table7"])
    for (system, label), pool in pooled.items():
        d, reference = pool.diffusion, reference_of(pooled, system)
        if not math.isfinite(d[0]):
            continue
        loss = "-"
        if reference is not None and reference is not pool and reference.diffusion[0] > 0:
            base = reference.diffusion
            change = 1 - d[0] / base[0]
            error = d[0] / base[0] * math.hypot(d[1] / d[0], base[1] / base[0])
            loss = pair((100 * change, 100 * error), 0)
        same = _same_row(pool, theirs)
        published_cells = ["", ""]
        if same is not None:
            published_cells = [pair((same["D_A2_per_ps"][0], same["D_A2_per_ps"][1]), 4),
                               number(same["loss"])]  # fmt: skip
        text = f"{system}: {pool.cell.atoms} atoms"
        rows.append([text, label, pair(d, 3), loss, f"{pool.ps:.0f}", *published_cells])
    if not rows:
        return None
    head = ["system", "integrator", "D, A^2/ps", "loss vs STS, %", "ps", "[D, 4800 atoms]"]
    notes = [
        "D without finite-size correction. STS has no HMR unless it says so: HMR alone lowers D."
    ]
    return Table(7, "Diffusion", [*head, "[loss, %]"], rows, 5, [*notes, _brackets()])


def _same_row(pool: Pool, rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    test: Callable[[dict[str, Any]], bool] = lambda row: (  # noqa: E731
        _key(row) == pool.cell.key and row["hmr"] == (pool.cell.hmr_amu > 0)
    )
    return next((row for row in rows if test(row)), None)


def _ratio_note() -> str:
    return (
        "Ratios: median, and range, over rounds and seeds, each against STS of the same round. "
        "Unstable integrators enter no maximum."
    )


def _brackets() -> str:
    return f"In [brackets]: {published()['source']}."
