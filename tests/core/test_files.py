"""Files that others read while they are written."""

from __future__ import annotations

import json
import math
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from dmts_ipi.core import files, recorder
from dmts_ipi.core.config import read_fields
from dmts_ipi.core.errors import InputError
from dmts_ipi.core.files import read_lines, read_record, replace_file, write_json


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path, contents = tmp_path / "x", {"a" * 100_000, "b" * 200_000}
    replace_file(path, "a" * 100_000)
    over = threading.Event()

    def write() -> None:
        for k in range(60):
            replace_file(path, sorted(contents)[k % 2])
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not over.is_set():
        seen.add(path.read_text())
    writer.join()
    assert seen <= contents
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    replace_file(path, b"old", sync=True)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new", sync=True)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_records_are_read_as_far_as_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    assert read_record(path) == {}
    write_json(path, {"a": math.nan, "b": [1.0, math.inf], "c": np.arange(2)})
    assert read_record(path) == {"a": None, "b": [1.0, None], "c": [0, 1]}
    path.write_text("[1, 2]")
    assert read_record(path) == {}
    lines = tmp_path / "l.jsonl"
    assert read_lines(lines) == []
    lines.write_text('{"a": 1}\n{"a": \n3\n{"a": 2}\n{"a"')
    assert [r["a"] for r in read_lines(lines)] == [1, 2]


def test_two_threads_write_one_profile_after_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver's thread for signals ends the process after its own ``write``."""
    inside, first, go_on = threading.Semaphore(1), threading.Event(), threading.Event()
    alone = []

    def slow(path: Path, content: str) -> None:
        alone.append(inside.acquire(blocking=False))
        first.set()
        go_on.wait(20)
        files.replace_file(path, content)
        inside.release()

    monkeypatch.setattr(recorder, "replace_file", slow)
    found = recorder.Recorder("student", tmp_path)
    found.recorded(lambda: None, "model")()
    writers = [threading.Thread(target=found.write) for _ in range(2)]
    writers[0].start()
    assert first.wait(20)
    writers[1].start()
    writers[1].join(0.2)
    assert writers[1].is_alive()  # it waits: to end the process now would lose the file
    go_on.set()
    for writer in writers:
        writer.join(20)
    assert alone == [True, True]
    (file,) = tmp_path.iterdir()
    assert [name for name, *_ in json.loads(file.read_text())["spans"]] == ["model"]


def test_a_field_that_is_written_twice_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("a: {x: 1}\nb: 2\na: 3\n")
    with pytest.raises(InputError, match=r"a is given twice \(line 3\)"):
        read_fields(file)
    file.write_text("common: &c {x: 1}\na: {<<: *c, x: 2}\nb: {<<: *c}\n")
    assert read_fields(file)["a"] == {"x": 2}
