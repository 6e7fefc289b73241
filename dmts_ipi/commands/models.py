"""``dmts-ipi models``: what ships with the package, and what else can be named."""

from __future__ import annotations

import argparse
import json
from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    from dmts_ipi.models.registry import table_of_specs

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "Accepted wherever a command takes a model:\n\n"
        f"{table_of_specs()}\n\n"
        "A path that ends in .fnx or .model needs no prefix. Keywords are JSON after the spec."
    )
    parser.add_argument("names", nargs="*", help="names, folders or specs; default: all shipped")
    parser.add_argument("--json", action="store_true", help="print the cards as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints a table, or JSON."""
    from dmts_ipi.models.load import read_record, shipped

    cards = [summary(read_record(name)) for name in args.names or shipped()]
    if args.json:
        print(json.dumps(cards))
        return 0
    if not cards:
        print("no models ship with this installation")
        return 0
    for card in cards:
        elements = " ".join(card["elements"] or ["any"])
        cutoff = "-" if card["cutoff_A"] is None else f"{card['cutoff_A']:g} A"
        mae = card["force_mae_eV_per_A"]
        error = "-" if mae is None else f"MAE {1e3 * mae:.1f} meV/A"
        teacher = f"  of {card['teacher']}" if card["teacher"] else ""
        print(f"{card['name']:18s}{card['kind']:9s}{elements:8s}{cutoff:8s}{error}{teacher}")
        print(f"{'':18s}{card['identity'][:16]}  {card['source']}")
    return 0


def summary(record: dict[str, Any]) -> dict[str, Any]:
    """One model's card, flat, from its record (``models.load.read_record``)."""
    from ase.data import chemical_symbols

    architecture = record.get("architecture") or {}
    card = record.get("card") or {}
    numbers = record.get("elements") or architecture.get("elements")
    cutoff = record.get("cutoff_A", architecture.get("r_max_A"))
    errors = record.get("errors") or card.get("held_out") or {}
    teacher = record.get("teacher") or {}
    return {
        "name": record["name"],
        "kind": "student" if record["format"] == "dmts-ipi-student" else "teacher",
        "format": record["format"],
        "elements": [e if isinstance(e, str) else chemical_symbols[e] for e in numbers]
        if numbers
        else None,
        "cutoff_A": cutoff,
        "force_mae_eV_per_A": find_mae(errors),
        "errors": errors,
        "teacher": teacher.get("name") if isinstance(teacher, dict) else teacher,
        "trained_on": card.get("trained_on"),
        "identity": record["identity"],
        "source": record["source"],
    }


def find_mae(errors: dict[str, Any]) -> float | None:
    """The force MAE of a record of errors, held out where there is a choice."""
    for part in (errors, errors.get("held_out"), errors.get("validation")):
        if isinstance(part, dict) and isinstance(part.get("force_mae_eV_per_A"), (int, float)):
            return float(part["force_mae_eV_per_A"])
    return None
