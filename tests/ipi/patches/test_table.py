"""The table of patches: complete, ordered, each optional, and without them the same run."""

from __future__ import annotations

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from dmts_ipi.core.errors import DmtsError, InputError
from dmts_ipi.ipi.patches import install, switches, table
from dmts_ipi.ipi.patches.install import fault_of, install_patches, numbers_of, wanted_off
from dmts_ipi.ipi.version import REMEDY
from integrator_tools import BAROSTAT, HHF, LANGEVIN, simulation_xml, thermostat
from places import ROOT
from run_tools import call, make

PACKAGE = ROOT / "dmts_ipi" / "ipi"
OURS = [
    *sorted((PACKAGE / "patches").glob("*.py")),
    *sorted((PACKAGE / "motion").glob("*.py")),
    PACKAGE / "process.py",
]
# Rooms of i-PI whose classes we touch.
ROOMS = ("ipi.engine", "ipi.inputs", "ipi.interfaces", "ipi.utils")
# Attributes that are called as i-PI's are and are those of our own classes, of NumPy or of Python.
NOT_IPI = {
    # Python, NumPy, sockets
    *("append", "insert", "copy", "flatten", "reshape", "update", "items", "get", "values"),
    *("strip", "split", "join", "close", "write", "read", "open", "send", "start", "stop"),
    *("clear", "shape", "data", "sum", "max", "min", "any", "T", "name", "names", "lock", "sort"),
    *("remove", "bind", "step", "dtype", "buffer", "shutdown", "exit", "state", "size"),
    *("random", "daemon"),
    "_event_done",  # an attribute that i-PI sets on a request, a dict, when it is queued
}


@pytest.mark.parametrize("patch", table.PATCHES, ids=lambda p: p.name)
def test_the_installed_ipi_is_as_expected(patch: table.Patch) -> None:
    assert fault_of(patch) == ""
    assert patch.why.endswith(".")
    for name in patch.replaces:  # what is replaced is there
        module, _, path = name.partition(":")
        owner = importlib.import_module(module)
        for part in path.partition("[")[0].split("."):
            assert install.has_name(owner, part), name
            owner = getattr(owner, part, None)


def ipi_names() -> set[str]:
    """Attributes of instances and classes of i-PI that are not those of every object."""
    names: set[str] = set()
    for room in ROOMS:
        package = importlib.import_module(room)
        for info in pkgutil.walk_packages(package.__path__, f"{room}."):
            spec = importlib.util.find_spec(info.name)  # type: ignore[attr-defined]
            if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
                continue
            for node in ast.walk(ast.parse(Path(spec.origin).read_text())):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                    names.add(node.attr)
                elif isinstance(node, ast.ClassDef):
                    names |= {f.name for f in node.body if isinstance(f, ast.FunctionDef)}
                    names |= {
                        t.id
                        for a in node.body
                        if isinstance(a, ast.Assign)
                        for t in a.targets
                        if isinstance(t, ast.Name)
                    }
                elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "dproperties":
                    names |= {c.value for c in ast.walk(node) if isinstance(c, ast.Constant)}
    return {n for n in names if isinstance(n, str) and not n.startswith("__")}


def own_names(trees: Iterable[ast.Module]) -> set[str]:
    """What our own classes have: methods, fields, and what they set on themselves."""
    names: set[str] = set()
    for node in (n for tree in trees for n in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names |= {node.attr} if getattr(node.value, "id", "") == "self" else set()
    return names


def test_every_attribute_of_ipi_that_we_use_is_expected() -> None:
    """What is called as an attribute of i-PI is expected by a row, or is ours, or Python's."""
    trees = {path: ast.parse(path.read_text()) for path in OURS}
    known = {name.rpartition(".")[2].rpartition(":")[2] for name in install.expected_names()}
    known |= NOT_IPI | own_names(trees.values())
    wanted = ipi_names() - known
    missing = {
        node.attr: f"{path.name}:{node.lineno}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in wanted
    }
    assert missing == {}


def test_three_wrap_run_step_in_the_order_of_the_table() -> None:
    wrapping = [p.name for p in table.PATCHES if any("run_step" in r for r in p.replaces)]
    assert wrapping == ["lockstep", "single-steps", "profiler"]


@pytest.mark.parametrize(
    ("number", "supported"),
    [
        *(("3.2.9", False), ("3.3.0", False), ("3.3.1", True), ("3.3.1.post2", True)),
        *(("3.3.7", True), ("3.4.0", False), ("3.4", False), ("4.0", False)),
    ],
)
def test_versions(number: str, supported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "version", lambda package: number)
    for patch in table.PATCHES:
        fault = fault_of(patch)
        assert fault == ("" if supported else "supported is 3.3.1 up to, not including, 3.4")
    if not supported:
        remedy = rf"i-PI = {number}: supported is .*; pip install 'ipi>=3\.3\.1,<3\.4'"
        with pytest.raises(InputError, match=remedy):
            install_patches(used={"integrators": ()})


def test_the_supported_versions_are_those_that_are_installed_with_the_package() -> None:
    """3.3.0 lacks ``Simulation._run_loop``: the lower bound is a version that runs."""
    low, high = (".".join(map(str, v)) for v in table.SUPPORTED)
    assert f'"ipi>={low},<{high}"' in (ROOT / "pyproject.toml").read_text()
    assert f"ipi>={low},<{high}" in REMEDY
    assert numbers_of(install.ipi_version()) >= table.SUPPORTED[0]


def test_a_missing_name_switches_one_patch_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says which one and what is slower; the others are installed, and stock i-PI
    goes on."""
    from ipi.engine.outputs import CheckpointOutput
    from ipi.engine.simulation import Simulation

    installed: list[str] = []
    monkeypatch.setattr(
        table.Patch, "install", lambda self, *arguments: installed.append(self.name)
    )
    monkeypatch.delattr(Simulation, "_run_loop")
    monkeypatch.setattr(CheckpointOutput, "write", lambda self, store=True, more=None: None)
    lines: list[str] = []
    install_patches(log=lines.append)
    off = {"deferred-outputs", "output-sync"}
    assert not any(switches.is_on(name) for name in off)
    asked = {p.name for p in table.PATCHES if p.on_request}
    assert set(installed) == {p.name for p in table.PATCHES} - off - asked
    assert lines == [
        "dmts-ipi i-pi: patch deferred-outputs is off (ipi.engine.simulation."
        "Simulation._run_loop is missing): they are written before the next step begins; slower: "
        f"{table.DEFERRED_OUTPUTS.gain}",
        "dmts-ipi i-pi: patch output-sync is off (ipi.engine.outputs.CheckpointOutput.write has "
        "other arguments): each line is synced when it is written; slower: "
        f"{table.OUTPUT_SYNC.gain}",
    ]
    monkeypatch.undo()
    for name in off:
        switches.switch_on(name)


def test_our_tags_are_required_where_the_input_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import ipi.engine.motion.dynamics as dynamics

    monkeypatch.setattr(table.Patch, "install", lambda self, *arguments: None)
    monkeypatch.setattr(dynamics.NVEIntegrator, "mtsprop", lambda self, depth=0: None)
    with pytest.raises(InputError, match=r"NVEIntegrator\.mtsprop has other arguments"):
        install_patches(used={"integrators": ()})
    monkeypatch.delattr(dynamics.NVEIntegrator, "mtsprop")
    with pytest.raises(DmtsError, match=r"NVEIntegrator\.mtsprop is missing; pip install"):
        install_patches(used={"integrators": ()})
    lines: list[str] = []
    install_patches(log=lines.append)
    assert len(lines) == 1
    assert lines[0].startswith("dmts-ipi i-pi: patch integrators is off")
    switches.switch_on("integrators")


def test_names_that_no_instance_has_are_missing() -> None:
    from ipi.engine.forcefields import FFSocket
    from ipi.engine.motion.dynamics import Dynamics

    for owner, name in ((FFSocket, "iactive"), (Dynamics, "integrator"), (Dynamics, "nmts")):
        assert install.has_name(owner, name)
        assert not install.has_name(owner, f"{name}_of_another_version")


def test_wanted_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wanted_off("") == set()
    assert wanted_off("all") == set(table.OPTIONAL)
    assert wanted_off("fast-xyz, lockstep") == {"fast-xyz", "lockstep"}
    monkeypatch.setenv(install.VARIABLE, "output-sync")
    assert wanted_off("fast-xyz") == {"fast-xyz", "output-sync"}
    with pytest.raises(InputError, match="no-patches = integrators: must be all, or of array-loop"):
        wanted_off("integrators")


OUTPUT = (
    "<properties filename='properties' stride='1'>[ step, conserved, temperature{kelvin}, "
    "potential, pressure_cv ]</properties><trajectory filename='pos' stride='2'>positions"
    "</trajectory><trajectory filename='vel' stride='2'>velocities</trajectory>"
    "<checkpoint filename='chk' stride='6' overwrite='False'/>"
)


def run_ipi(folder: Path, text: str, *options: str, **environment: str) -> dict[str, bytes]:
    """Outputs by name; of checkpoints what comes after the comment, which holds the date."""
    folder.mkdir()
    (folder / "input.xml").write_text(
        text.replace("<checkpoint filename='chk' stride='1000000'/>", OUTPUT)
    )
    done = subprocess.run(
        [sys.executable, "-m", "dmts_ipi.cli", "i-pi", "input.xml", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    files = {p.name: p.read_bytes() for p in folder.glob("md.*")}
    assert len(files) >= 5
    return {n: b.partition(b"-->")[2] if "chk" in n else b for n, b in files.items()}


@pytest.mark.parametrize(
    ("inside", "options"),
    [
        (thermostat(HHF), {}),
        ("", {"mode": "nve"}),
        (LANGEVIN + BAROSTAT, {"mode": "npt"}),
        (LANGEVIN, {"splitting": "baoab"}),
        (LANGEVIN.replace("langevin", "svr"), {}),
    ],
)
def test_a_run_without_patches_is_the_same(tmp_path: Path, inside: str, options: dict) -> None:
    """Byte for byte, but for the loop on arrays, whose sums have another order."""
    text = simulation_xml(inside, total=18, **options)
    plain = run_ipi(tmp_path / "all", text)
    exact = ",".join(p.name for p in table.PATCHES if p.optional and p.same == table.SAME_BYTES)
    assert run_ipi(tmp_path / "exact", text, "--no-patches", exact) == plain
    without = run_ipi(tmp_path / "none", text, **{install.VARIABLE: "all"})
    assert without.keys() == plain.keys()
    for name in ("md.properties", "md.pos_0.xyz", "md.vel_0.xyz"):
        new, old = (
            np.array([[float(x) for x in row] for row in numbers(files[name])])
            for files in (without, plain)
        )
        np.testing.assert_allclose(new, old, rtol=2e-5 if "xyz" in name else 1e-9, atol=1e-11)


def numbers(text: bytes) -> list[list[str]]:
    rows = [row.split() for row in text.decode().splitlines() if not row.startswith("#")]
    return [row[1:] if row[0].isalpha() else row for row in rows if len(row) > 3]


def test_the_page_has_the_table() -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    assert table.markdown() in page


def test_the_command_refuses_an_unknown_patch(tmp_path: Path) -> None:
    (tmp_path / "input.xml").write_text(simulation_xml(LANGEVIN))
    done = call("i-pi", tmp_path / "input.xml", "--no-patches", "warp")
    assert done.returncode == 2
    assert done.stderr.startswith("dmts-ipi i-pi: error: no-patches = warp: must be all, or of ")


def test_a_template_with_drivers_runs_without_patches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names reach i-PI by the environment: with i-PI's poll thread, outputs, checkpoints and
    objects the trajectory of the template is the same."""
    plain, without = make(tmp_path / "plain"), make(tmp_path / "without")
    exact = make(tmp_path / "exact")
    names = ",".join(p.name for p in table.PATCHES if p.optional and p.same == table.SAME_BYTES)
    for folder, off in ((plain, ""), (exact, names), (without, "all")):
        monkeypatch.setenv(install.VARIABLE, off)
        done = call("run", folder, "--no-watchdog")
        assert done.returncode == 0, done.stderr
    for name in ("md.properties", "md.positions_0.xyz", "md.velocities_0.xyz"):
        files = [(folder / name).read_bytes() for folder in (plain, exact, without)]
        assert files[0] == files[1]
        old, new = (np.array(numbers(text), float) for text in (files[0], files[2]))
        np.testing.assert_allclose(new, old, rtol=2e-5 if "xyz" in name else 1e-9, atol=1e-11)
