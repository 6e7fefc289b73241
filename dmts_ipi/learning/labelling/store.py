"""The output of ``label``: an extended XYZ file that only grows, and the state to resume from."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import write

from dmts_ipi.core.errors import InputError, RunFault
from dmts_ipi.core.files import replace_file
from dmts_ipi.core.frames import Frame

STATE_VERSION = 2


class LabelStore:
    """Appends frames, and stores a state that goes with the length of the file.

    What was written before the state was stored is never touched; what came after is cut off at
    the next start, so that a resumed run writes every frame once.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        """Opens or creates the file, and cuts it back to the stored state.

        Raises:
            InputError: the folder is not writable, or the file belongs to other options.
        """
        self.path, self._fingerprint = path, fingerprint
        self.state_path = path.with_name(path.name + ".state.npz")
        self.state: dict[str, Any] = {}
        self.arrays: dict[str, np.ndarray] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                self._reopen()
            else:
                path.touch()
            with open(path, "ab"):
                pass
        except OSError as error:
            raise InputError("out", path, f"cannot be written ({error.strerror})") from error

    def _reopen(self) -> None:
        if not self.state_path.exists():
            if self.path.stat().st_size == 0:
                return
            raise InputError("out", self.path, "exists and was not made by label; choose another")
        try:
            with np.load(self.state_path, allow_pickle=False) as stored:
                self.arrays = {k: stored[k] for k in stored.files if k != "record"}
                self.state = json.loads(str(stored["record"]))
        except (ValueError, KeyError, OSError, json.JSONDecodeError) as error:
            raise InputError("out", self.state_path, "is damaged; delete it and the labels") from (
                error
            )
        if self.state.get("version") != STATE_VERSION or (
            self.state.get("fingerprint") != self._fingerprint
        ):
            raise InputError(
                "out",
                self.path,
                "was begun with another teacher, structure, options or version of dmts-ipi; choose "
                "another name",
            )
        length = int(self.state["bytes"])
        if self.path.stat().st_size < length:
            raise InputError("out", self.path, "is shorter than when it was left; delete it")
        os.truncate(self.path, length)

    def append(self, frames: Sequence[Frame]) -> None:
        """Writes frames at the end of the file.

        Raises:
            RunFault: the disk is full; the file ends with the last whole frame.
        """
        if not frames:
            return
        text = io.StringIO()
        write(text, [f.to_atoms() for f in frames], format="extxyz")
        length = self.path.stat().st_size
        try:
            with open(self.path, "ab") as stream:
                stream.write(text.getvalue().encode())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            os.truncate(self.path, length)
            raise self._fault(error) from error

    def save(self, state: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Stores a state for the file as it is now, atomically.

        Raises:
            RunFault: the disk is full.
        """
        self.state = {
            **state,
            "version": STATE_VERSION,
            "fingerprint": self._fingerprint,
            "bytes": self.path.stat().st_size,
        }
        self.arrays = arrays
        packed = io.BytesIO()
        np.savez(packed, record=np.array(json.dumps(self.state)), **arrays)  # type: ignore[arg-type]
        try:
            replace_file(self.state_path, packed.getvalue(), sync=True)
        except OSError as error:
            raise self._fault(error) from error

    def _fault(self, error: OSError) -> RunFault:
        return RunFault(
            f"{self.path} cannot be written ({error.strerror}); the frames in it are whole: "
            "free some space and give the same command again"
        )
