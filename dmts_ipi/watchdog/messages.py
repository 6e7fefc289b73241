"""Messages between drivers and a listener: a JSON header, then raw arrays. No pickles.

A message is a list of frames: a topic (``dmts-ipi.1``, which carries the version), a header of at
most 64 kB, and the arrays that the header announces, each of float64 in native byte order.
``docs/telemetry.md`` lists the fields.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np

SCHEMA = 1
TOPIC = b"dmts-ipi.%d" % SCHEMA
MAX_HEADER_BYTES = 1 << 16
MAX_ATOMS = 10_000_000
ARRAYS = ("positions_A", "cell_A", "forces_eV_per_A")

# Fields that a header of a kind must have, and their types; None stands for an absent energy.
NUMBER = (int, float)
FIELDS: dict[str, dict[str, tuple[type, ...]]] = {
    "evaluation": {
        "role": (str,),
        "pid": (int,),
        "host": (str,),
        "connection": (int,),
        "evaluation": (int,),
        "digest": (str,),
        "n_atoms": (int,),
        "energy_eV": (int, float, type(None)),
        "force_max_eV_per_A": NUMBER,
        "force_max_atom": (int,),
        "force_rms_eV_per_A": NUMBER,
        "evaluation_s": NUMBER,
        "memory_MB": NUMBER,
        "device": (str,),
        "dropped": (int,),
        "time_unix_s": NUMBER,
    },
    "ask_forces": {"digest": (str,)},
    "forces": {
        "digest": (str,),
        "found": (bool,),
        "energy_eV": (int, float, type(None)),
    },
    "ask_status": {},
    "status": {
        "role": (str,),
        "pid": (int,),
        "connection": (int,),
        "evaluation": (int,),
        "evaluating_s": (int, float, type(None)),
        "memory_MB": NUMBER,
    },
}


FORCES = (
    f'{{"schema": {SCHEMA}, "kind": "forces", "digest": "%s", "found": true, "energy_eV": %s, '
    '"arrays": [["forces_eV_per_A", %d]]}'
)


class BadMessage(ValueError):
    """A message of a wrong size, version or type: it is dropped and counted."""


@dataclass(frozen=True)
class Message:
    """A message that passed every check. ``arrays`` are read-only views of shape (n, 3)."""

    kind: str
    fields: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def digest(positions_bohr: np.ndarray) -> str:
    """Name of a structure: equal for equal positions, bit by bit as i-PI sends them.

    CRC-32 of the bytes and the sum of the 64-bit words: 0.15 ms for 12,000 atoms, where a
    cryptographic hash takes 0.7. It tells frames of one run apart; it is no signature.

    Args:
        positions_bohr: (n, 3) float64, contiguous.
    """
    words = positions_bohr.reshape(-1).view(np.uint64)
    return f"{zlib.crc32(words.data):08x}{int(np.add.reduce(words)):016x}"


def encode(
    kind: str, fields: Mapping[str, object], arrays: Mapping[str, np.ndarray] | None = None
) -> list[bytes]:
    """Frames of a message, topic first. Numbers that are not finite travel as text."""
    named = arrays or {}
    header = {
        "schema": SCHEMA,
        "kind": kind,
        **{k: str(float(v)) if _not_finite(v) else v for k, v in fields.items()},
        "arrays": [[name, len(a)] for name, a in named.items()],
    }
    data = [np.ascontiguousarray(a, np.float64).tobytes() for a in named.values()]
    return [TOPIC, json.dumps(header).encode(), *data]


def encode_forces(name: str, energy_eV: float | None, forces: np.ndarray) -> list[bytes]:
    """The same as ``encode`` of a ``forces`` message that was found, in a fraction of its time.

    Args:
        name: digest of the positions.
        energy_eV: None where the model has none.
        forces: (n, 3), eV/A.
    """
    if energy_eV is None:
        energy = "null"
    else:
        energy = repr(energy_eV) if math.isfinite(energy_eV) else f'"{energy_eV}"'
    header = FORCES % (name, energy, len(forces))
    return [TOPIC, header.encode(), forces.astype(np.float64).tobytes()]


def decode(frames: Sequence[bytes]) -> Message:
    """The message in some frames.

    Raises:
        BadMessage: anything about it is not as it should be.
    """
    if len(frames) < 2 or frames[0] != TOPIC:
        raise BadMessage("not a message of this version")
    if len(frames[1]) > MAX_HEADER_BYTES:
        raise BadMessage("header too long")
    try:
        header = json.loads(frames[1])
    except (ValueError, RecursionError) as error:
        raise BadMessage("header is no JSON") from error
    if not isinstance(header, dict) or header.pop("schema", None) != SCHEMA:
        raise BadMessage("another schema")
    kind = header.pop("kind", None)
    wanted = FIELDS.get(kind) if isinstance(kind, str) else None
    if wanted is None:
        raise BadMessage("unknown kind")
    announced = header.pop("arrays", [])
    fields = {name: _typed(header, name, types) for name, types in wanted.items()}
    return Message(kind, fields, _arrays(announced, frames[2:]))


def _typed(header: dict[str, Any], name: str, types: tuple[type, ...]) -> Any:
    value = header.get(name, _ABSENT)
    if isinstance(value, str) and float in types and value in ("nan", "inf", "-inf"):
        return float(value)
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise BadMessage(f"field {name}")
    return value


_ABSENT = object()


def _arrays(announced: object, frames: Sequence[bytes]) -> dict[str, np.ndarray]:
    if not isinstance(announced, list) or len(announced) != len(frames):
        raise BadMessage("number of arrays")
    arrays: dict[str, np.ndarray] = {}
    for entry, data in zip(announced, frames, strict=True):
        if not (isinstance(entry, list) and len(entry) == 2):
            raise BadMessage("announced array")
        name, rows = entry
        if name not in ARRAYS or name in arrays or type(rows) is not int:
            raise BadMessage("announced array")
        if not 0 < rows <= MAX_ATOMS or len(data) != 24 * rows:
            raise BadMessage(f"size of {name}")
        arrays[name] = np.frombuffer(data, np.float64).reshape(rows, 3)
    return arrays


def _not_finite(value: object) -> TypeGuard[float]:
    return isinstance(value, float) and not math.isfinite(value)
