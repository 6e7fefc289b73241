"""Messages of telemetry for tests: a right one, and wrong ones."""

from __future__ import annotations

import json

import numpy as np

from dmts_ipi.watchdog.messages import SCHEMA, encode

EVALUATION = {
    "role": "teacher",
    "pid": 1,
    "host": "h",
    "connection": 1,
    "evaluation": 2,
    "digest": "ab",
    "n_atoms": 3,
    "energy_eV": -1.5,
    "force_max_eV_per_A": 2.0,
    "force_max_atom": 1,
    "force_rms_eV_per_A": 1.0,
    "evaluation_s": 0.1,
    "memory_MB": 10.0,
    "device": "cpu",
    "dropped": 0,
    "time_unix_s": 1.0,
}


def wrong_messages() -> dict[str, list[bytes]]:
    arrays = {"positions_A": np.zeros((3, 3))}
    topic, head, data = encode("evaluation", EVALUATION, arrays)

    def edited(**changes: object) -> list[bytes]:
        fields = {k: v for k, v in {**json.loads(head), **changes}.items() if v is not None}
        return [topic, json.dumps(fields).encode(), data]

    return {
        "empty": [],
        "topic": [b"dmts-ipi.2", head, data],
        "no JSON": [topic, b"\x80\x04pickle", data],
        "not an object": [topic, b"[1]", data],
        "too long": [topic, b" " * 70_000 + head, data],
        "nested": [topic, b"[" * 60_000, data],
        "schema": edited(schema=SCHEMA + 1),
        "kind": edited(kind="pickle"),
        "kind type": edited(kind=["evaluation"]),
        "type": edited(pid="1"),
        "flag for a number": edited(pid=True),
        "absent": edited(digest=None),
        "array missing": [topic, head],
        "array short": [topic, head, data[:-8]],
        "array unknown": edited(arrays=[["x", 3]]),
        "array rows": edited(arrays=[["positions_A", -1]]),
        "array text": edited(arrays="positions_A"),
        "two arrays": [topic, head, data, data],
    }
