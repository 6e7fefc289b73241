"""Options of every command that reads labels: their names and units in files of other programs."""

from __future__ import annotations

import argparse

from dmts_ipi.core.label_files import LABEL_UNITS, LabelFormat


def add_label_options(parser: argparse.ArgumentParser) -> None:
    """Adds them."""
    add = parser.add_argument
    add("--forces-key", metavar="NAME", help="column of the forces in --labels (default: forces, "
        "REF_forces or force)")  # fmt: skip
    add("--energy-key", metavar="NAME", help="field of the energy in --labels (default: energy or "
        "REF_energy)")  # fmt: skip
    add("--label-units", choices=list(LABEL_UNITS), default="eV/A", help="of energies and forces "
        "in --labels; positions are in Angstrom (default: eV/A)")  # fmt: skip


def label_format(args: argparse.Namespace) -> LabelFormat:
    """The format that they describe."""
    return LabelFormat(args.forces_key, args.energy_key, args.label_units)
