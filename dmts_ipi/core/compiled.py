"""C sources compiled for this machine, and kept for the next process.

Where there is no compiler, a library of the same sources and flags may have come with the wheel
(``hatch_build.py`` makes it). It is compiled for a class of processors, not for this one, and only
for common sizes of students, which is why it is the second choice.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

LIMIT_S = 300
PREBUILT = Path(__file__).resolve().parent.parent / "prebuilt"
# Libraries in a wheel, the best first: flags, and what the processor must have for them. A student
# of 192 atoms took 3.1 ms compiled for the machine, 3.1 by the first and 12 by the second.
AVX512 = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
AVX2 = frozenset({"avx2", "fma", "bmi2"})  # since 2013
PORTABLE: dict[str, tuple[tuple[tuple[str, ...], frozenset[str]], ...]] = {
    "x86_64": (
        (("-march=x86-64-v4",), AVX512 | AVX2),
        (("-march=x86-64-v3", "-mtune=haswell"), AVX2),
    )
}
log = logging.getLogger(__name__)


class NotCompiled(Exception):
    """Why a compiled part is not available, such as for want of a compiler."""


def library(
    name: str, units: Sequence[Path], flags: Sequence[str], headers: Sequence[Path] = ()
) -> ctypes.CDLL:
    """The library of some sources: from the cache, compiled into it (1 or 2 s), or the wheel's.

    Args:
        name: of the file in the cache, in front of a hash of all that it depends on.
        units: C sources. flags: of the compiler, for each of them; -c among them.
        headers: what they include.

    Raises:
        NotCompiled: there is no compiler, it fails, or the result cannot be loaded.
    """
    try:
        return _native(name, units, flags, headers)
    except NotCompiled as error:
        for march, needed in _portable():
            file = PREBUILT / prebuilt_name(name, units, [*flags, *march], headers)
            if file.is_file() and needed <= _processor_flags():
                with contextlib.suppress(OSError):
                    loaded = ctypes.CDLL(str(file))
                    log.warning("%s: note: %s; the library of the wheel is used", name, error)
                    return loaded
        raise


def prebuilt_name(
    name: str, units: Sequence[Path], flags: Sequence[str], headers: Sequence[Path] = ()
) -> str:
    """The file name of a library in a wheel: it depends on all that the library depends on."""
    sources = b"".join(file.read_bytes() for file in (*headers, *units))
    key = hashlib.sha256("\n".join(flags).encode() + sources).hexdigest()
    return f"{name}-{key[:24]}.so"


def build_portable(
    folder: Path,
    name: str,
    units: Sequence[Path],
    flags: Sequence[str],
    headers: Sequence[Path] = (),
) -> list[Path]:
    """Compiles the libraries of some sources for a wheel.

    Raises:
        NotCompiled: there is no compiler, or it fails.
    """
    compiler, _ = _compiler()
    made = []
    for march, _ in _portable():
        some = [*flags, *march]
        made.append(folder / prebuilt_name(name, units, some, headers))
        _compile(compiler, some, units, made[-1])
    return made


def _portable() -> tuple[tuple[tuple[str, ...], frozenset[str]], ...]:
    return PORTABLE.get(platform.machine(), (((), frozenset()),))


def _processor_flags() -> set[str]:
    lines = [x.split() for x in _machine().splitlines() if x.startswith("flags")]
    return set.intersection(*map(set, lines)) if lines else set()


def _native(
    name: str, units: Sequence[Path], flags: Sequence[str], headers: Sequence[Path]
) -> ctypes.CDLL:
    compiler, version = _compiler()
    native = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
    flags = [*flags, native]
    sources = b"".join(file.read_bytes() for file in (*headers, *units))
    key = hashlib.sha256("\n".join([version, _machine(), *flags]).encode() + sources).hexdigest()
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError
    except (OSError, RuntimeError):  # no home, or one that is read-only
        folder = Path(tempfile.mkdtemp(prefix="dmts-ipi-"))
    file = folder / f"{name}-{key[:24]}.so"
    if not file.exists():
        _compile(compiler, flags, units, file)
    try:
        return ctypes.CDLL(str(file))
    except OSError as error:
        raise NotCompiled(f"{file} cannot be loaded ({error})") from error


def fits(library: ctypes.CDLL, size: str, record: type[ctypes.Structure]) -> None:
    """Checks a record of C's against its declaration here.

    Args:
        size: function of the library that returns the bytes of its record.

    Raises:
        NotCompiled: they differ.
    """
    function = getattr(library, size)
    function.restype = ctypes.c_int64
    if function() != ctypes.sizeof(record):
        raise NotCompiled(f"the record of {size} does not fit the compiled one")


def cache_folder() -> Path:
    """Where compiled files are kept: $DMTS_CACHE, or dmts-ipi in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("DMTS_CACHE") or Path(base) / "dmts-ipi")


@functools.cache
def _machine() -> str:
    """What -march=native depends on: a cache on a shared disk serves several kinds of node."""
    try:
        text = Path("/proc/cpuinfo").read_text()
        flags = [x for x in text.splitlines() if x.startswith(("flags", "Features", "model name"))]
        return "\n".join(sorted(set(flags)))
    except OSError:
        return platform.processor()


@functools.cache
def _compiler() -> tuple[str, str]:
    """The C compiler ($CC, cc, gcc, clang) and its version."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        path = shutil.which(name) if name else None
        if path is None:
            continue
        done = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return path, done.stdout
    raise NotCompiled("no C compiler was found (set CC, or install gcc)")


def _compile(compiler: str, flags: Sequence[str], units: Sequence[Path], file: Path) -> None:
    """Compiles next to the place and moves it there: two drivers may do it at the same time."""
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        objects = {unit: Path(scratch) / f"{unit.name}.o" for unit in units}
        made = Path(scratch) / "made.so"
        for command in (
            *([compiler, *flags, str(c), "-o", str(o)] for c, o in objects.items()),
            [compiler, "-shared", *(str(o) for o in objects.values()), "-o", str(made), "-lm"],
        ):
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, timeout=LIMIT_S, check=False
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise NotCompiled(f"{compiler} failed ({error})") from error
            if done.returncode:
                lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
                line = next((x for x in lines if "error" in x), lines[0])
                raise NotCompiled(f"{compiler} failed ({line})")
        with contextlib.suppress(FileExistsError):
            made.replace(file)
