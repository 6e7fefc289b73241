"""The one parsed object of a run's physics: every tag of every template is read from it."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from analysis_runs import water_box, write_folder
from dmts_ipi.analysis.run_data import read_run
from dmts_ipi.core.errors import InputError
from dmts_ipi.ipi.input_xml import differences, missing_columns, parse_xml, read_input, single_step
from dmts_ipi.ipi.run_folder.config import RunConfig, beyond_options, config_of, option_words
from dmts_ipi.ipi.run_folder.folder import BEGUN, RunFolder
from dmts_ipi.ipi.run_folder.resources import inputs_folder
from dmts_ipi.ipi.thermostats import THERMOSTATS, Thermostat
from run_tools import call, make, summary

TEMPLATES = sorted(p.stem for p in inputs_folder().glob("*.xml"))

# A physical tag of a template, another value, and what the object says then.
EDITS = {
    "temperature": (r"<temperature units='kelvin'>300", "<temperature units='kelvin'>350"),
    "timestep": (r"(<timestep units='femtosecond'>)[0-9.]+", r"\g<1>2.5"),
    "nmts": (r"<nmts>\[1, [0-9]+\]", "<nmts>[1, 3]"),
    "tau": (r"(<thermostat mode='\w+'>\s*<tau units='femtosecond'>)1000", r"\g<1>100"),
    "svr": (r"<thermostat mode='langevin'>", "<thermostat mode='svr'>"),
    "local_tau": (r"(<local_tau names='H' units='femtosecond'>)100", r"\g<1>50"),
    "bonds": (r"(<bonds names='O, H'>\s*<tau units='femtosecond'>)20", r"\g<1>40"),
    "pressure": (r"(<pressure units='bar'>)1<", r"\g<1>1000<"),
    "barostat": (r"(<barostat mode='isotropic'>\s*<tau units='femtosecond'>)2000", r"\g<1>500"),
    "fixcom": (r"<fixcom>False", "<fixcom>True"),
    "seed": (r"<seed>1<", "<seed>7<"),
    "total_steps": (r"<total_steps>[0-9]+", "<total_steps>123"),
    "splitting": (r"(<dynamics mode='\w+' splitting=)'baoab-respa'", r"\g<1>'obabo'"),
    "nbeads": (r"nbeads='1'", "nbeads='2'"),
}


def edited(text: str, name: str) -> str | None:
    """A template with one tag changed; None where it has no such tag."""
    pattern, value = EDITS[name]
    new, count = re.subn(pattern, value, text, count=1)
    if (name == "svr" and "<bonds" in text + new) or (name == "svr" and "<local_tau" in text):
        return None  # svr takes neither: refused, which another test looks at
    return new if count else None


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("name", EDITS)
def test_an_edit_of_any_physical_tag_is_seen_by_everything(
    template: str, name: str, tmp_path: Path
) -> None:
    """The object differs, and so does what analysis and printed commands are made from."""
    text = (inputs_folder() / f"{template}.xml").read_text()
    new = edited(text, name)
    if new is None:
        return
    for file, content in (("before.xml", text), ("now.xml", new)):
        (tmp_path / file).write_text(content)
    before, now = read_input(tmp_path / "before.xml"), read_input(tmp_path / "now.xml")
    assert now != before
    found = differences(parse_xml(tmp_path / "before.xml"), parse_xml(tmp_path / "now.xml"))
    assert len(found) == 1
    settings = settings_of(template)
    one, two = (config_of(s, settings) for s in (before, now))
    if name in ("fixcom", "nbeads", "bonds"):
        assert name in beyond_options(now)
        assert name not in beyond_options(before)
        return
    assert two != one
    assert option_words(two) != option_words(one)
    if name == "tau" and before.thermostat is not None:
        slow, fast = before.thermostat.friction_per_ps, now.thermostat.friction_per_ps
        assert fast == pytest.approx(10 * slow)
    if name == "svr":
        assert now.one_langevin_friction_per_ps is None


def settings_of(template: str):
    from dmts_ipi.ipi.run_folder.settings import RunSettings

    models = {"teacher": {"model": "water-teacher"}}
    if "dmts" in template:
        models["student"] = {"model": "water-student"}
    return RunSettings.model_validate({"models": models})


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_options_that_are_printed_make_the_same_input(template: str, tmp_path: Path) -> None:
    """D4: init with the printed words writes the template again, but for sockets and places."""
    spec = read_input(inputs_folder() / f"{template}.xml")
    words = option_words(config_of(spec, settings_of(template)))
    done = call(
        *("init", tmp_path / "again", "--structure", inputs_folder() / "water64.extxyz"),
        *words,
        "--no-model-check",
    )
    assert done.returncode == 0, done.stderr
    found = differences(
        parse_xml(inputs_folder() / f"{template}.xml"), parse_xml(tmp_path / "again" / "input.xml")
    )
    places = ("ffsocket", "system/initialize/file", "simulation safe_stride")
    left = [d for d in found if not d.path.startswith(places)]
    # strides count steps: of the times between outputs they are the nearest multiples
    left = [d for d in left if not d.path.endswith("stride") and "total_steps" not in d.path]
    # ranges of bonds come from the structure's own bond lengths
    left = [d for d in left if not d.path.endswith("/range")]
    assert left == []


def test_thermostat_edits_reach_summary_report_and_commands(tmp_path: Path) -> None:
    """D1: tau 1000 to 100 fs is another heating, error floor and verdict; svr has none."""
    folder = write_folder(tmp_path / "a", water_box(), mode="dmts", n_inner=5)
    before = read_run(folder)
    file = folder / "input.xml"
    text = file.read_text()
    file.write_text(re.sub(r"(femtosecond'?\"?>)1000<", r"\g<1>100<", text, count=1))
    after = read_run(folder)
    assert before.langevin_per_ps == pytest.approx(1.0)
    assert after.langevin_per_ps == pytest.approx(10.0)
    assert "--friction-per-ps" in after.init_words
    assert after.init_words[after.init_words.index("--friction-per-ps") + 1] == "10"
    from dmts_ipi.analysis.measure import measure
    from dmts_ipi.analysis.observables.conserved import CONSERVED
    from dmts_ipi.ipi.run_folder.summary import write_summary

    def heating_K(run: object) -> float:
        return CONSERVED.of(measure(run)).heating_K.mean

    assert heating_K(after) == pytest.approx(heating_K(before) / 10)
    assert write_summary(RunFolder(folder), "finished", 800)["friction_per_ps"] == pytest.approx(10)
    file.write_text(re.sub("mode=(['\"])langevin", r"mode=\1svr", text, count=1))
    svr = read_run(folder)
    assert svr.langevin_per_ps is None
    assert svr.init_words[svr.init_words.index("--thermostat") + 1] == "svr"
    assert measure(svr).floor_K == 0.0


def status(folder: Path) -> str:
    return call("status", folder).stdout


EDITS_OF_A_BEGUN_RUN = [
    (r"<temperature units=(.)kelvin\1>60<", r"<temperature units='kelvin'>90<", "temperature = 90"),
    (r"(<tau units=.femtosecond.>)1000", r"\g<1>100", "thermostat = langevin, tau 100 fs"),
    (r"mode=(.)langevin\1", "mode='svr'", "thermostat = svr"),
    (r"<fixcom>False", "<fixcom>True", "fixcom = True"),
    (r"</fixcom>", "</fixcom><fixatoms>[0, 1]</fixatoms>", "fixatoms = [0, 1]"),
    (r"<seed>1<", "<seed>2<", "prng/seed = 2"),
    (r"(<velocities [^>]*>)60", r"\g<1>80", "system/initialize/velocities = 80"),
    (r"</ensemble>", "<kspring>1</kspring></ensemble>", "system/ensemble/kspring = 1"),
    (r"potential\{electronvolt\}", "potential{electronvolt}, volume", "output/properties properti"),
]


@pytest.mark.parametrize(("old", "new", "message"), EDITS_OF_A_BEGUN_RUN)
def test_an_edit_of_a_begun_run_is_refused_and_nothing_is_written(
    old: str, new: str, message: str, unbroken: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(unbroken, tmp_path / "run"))
    text = (folder / "input.xml").read_text()
    changed, count = re.subn(old, new, text, count=1)
    assert count == 1
    (folder / "input.xml").write_text(changed)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and ".lock" not in p.name}
    done = call("run", folder, "--time-ps", 0.8)
    assert done.returncode == 2, done.stderr
    assert f"input.xml: {message}" in done.stderr
    assert "put it back, or make a new folder" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and ".lock" not in p.name}
    assert after == before
    # what ran is what is analysed, and the edit is named
    assert "edited in input.xml since the run began, and not followed" in status(folder)
    assert RunFolder(folder).ran_spec() == RunFolder(unbroken).ran_spec()
    assert RunFolder(folder).unfollowed_edits()


def test_an_edit_without_any_effect_on_the_physics_is_named(unbroken: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(unbroken, tmp_path / "run"))
    file = folder / "input.xml"
    text = file.read_text()
    file.write_text(re.sub("verbosity=(.)low", r"verbosity=\1medium", text).replace("0.1", "0.1"))
    done = call("run", folder, "--time-ps", 0.48)
    assert done.returncode == 0, done.stderr
    assert "simulation verbosity low -> medium: not followed by a run that has begun" in done.stderr
    assert summary(folder)["time_ps"] == pytest.approx(0.48)


def test_a_folder_of_version_1_is_read_and_runs(made: Path, tmp_path: Path) -> None:
    """run.yaml of the version before repeated the physics; input.xml says it now."""
    folder = Path(shutil.copytree(made, tmp_path / "run"))
    import yaml

    now = yaml.safe_load((folder / "run.yaml").read_text())
    models = now.pop("models")
    old = {
        **{"version": 1, "ensemble": "nvt", "mode": "dmts", "inner_step_fs": 1.0, "n_inner": 9},
        **{"time_ps": 77.0, "temperature_K": 1.0, "splitting": "baoab", "thermostat": "svr"},
        **{"friction_per_ps": 5.0, "friction_by_element_per_ps": {}, "bond_friction_per_ps": 0.0},
        **{"pressure_bar": 1.0, "barostat_tau_fs": 2000.0, "hmr_added_amu": now.pop("hmr_amu")},
        **{"seed": 5, "properties_every_fs": 10.0, "frames_every_fs": 50.0, "resident": False},
        **{"checkpoints_every_fs": 1000.0, "trajectory_format": "xyz"},
        **{k: v for k, v in now.items() if k not in ("version", "no_patches")},
        **models,
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(old))
    run = RunFolder(folder)
    assert list(run.settings.models) == ["teacher", "student"]
    assert (run.config.n_inner, run.config.temperature_K, run.config.seed) == (4, 60.0, 1)
    done = call("run", folder, "--time-ps", 0.04)
    assert done.returncode == 0, done.stderr
    assert summary(folder)["n_inner"] == 4


def test_physics_in_run_yaml_is_refused(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "run"))
    with open(folder / "run.yaml", "a") as stream:
        stream.write("temperature_K: 310\n")
    with pytest.raises(InputError, match=r"temperature_K is set in input\.xml: edit it there"):
        RunFolder(folder)


def test_what_is_not_known_is_passed_on_and_named(tmp_path: Path) -> None:
    text = (inputs_folder() / "nvt_dmts.xml").read_text()
    file = tmp_path / "input.xml"
    file.write_text(text.replace("</system>", "<normal_modes/></system>").replace(
        "</simulation>", "<smotion mode='dummy'/></simulation>"))  # fmt: skip
    spec = read_input(file)
    assert spec.not_analysed == ("system/normal_modes", "smotion")
    assert read_input(inputs_folder() / "nvt_dmts.xml").not_analysed == ()


@pytest.mark.parametrize("column", ["step, ", "time{picosecond}, ", "conserved{electronvolt}, "])
def test_a_run_without_a_column_that_is_needed_is_refused(
    column: str, made: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "run"))
    file = folder / "input.xml"
    head, tag, rest = file.read_text().partition("<properties")
    assert column in rest
    file.write_text(head + tag + rest.replace(column, "", 1))
    done = call("run", folder)
    assert done.returncode == 2
    assert f"lacks {column.strip(', ')}" in done.stderr
    assert not (folder / "md.properties").exists()


def test_another_file_of_properties_may_come_first(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "run"))
    file = folder / "input.xml"
    more = "<properties filename='vol' stride='7'>[step, volume]</properties>"
    file.write_text(re.sub("(<properties )", more + r"\1", file.read_text(), count=1))
    spec = RunFolder(folder).spec()
    assert spec.output("properties").filename == "md.properties"
    assert missing_columns(spec.outputs[0]) != []
    done = call("run", folder)
    assert done.returncode == 0, done.stderr
    assert call("run", folder, "--time-ps", 0.8).returncode == 0
    assert len(RunFolder(folder).properties()["step"]) > 1


def test_the_start_file_must_have_the_drivers_atoms(made: Path, tmp_path: Path) -> None:
    from ase.io import read, write

    folder = Path(shutil.copytree(made, tmp_path / "run"))
    atoms = read(folder / "structure.extxyz")
    atoms.numbers[3] = 10
    write(folder / "other.extxyz", atoms)
    file = folder / "input.xml"
    file.write_text(file.read_text().replace(">structure.extxyz<", ">other.extxyz<"))
    done = call("run", folder)
    assert done.returncode == 2
    assert "has other elements, or another order of atoms, than structure.extxyz" in done.stderr
    assert not (folder / BEGUN).exists()


def test_bias_forces_survive_a_resume(made: Path, tmp_path: Path) -> None:
    """The weights of <forces> are edited for a resume; a force of <bias> has none."""
    folder = Path(shutil.copytree(made, tmp_path / "run"))
    file = folder / "input.xml"
    bias = (
        "<ffdirect name='wall' pbc='False'><pes>harmonic</pes>"
        "<parameters>{k1: 0.0001}</parameters></ffdirect>\n<system>"
    )
    text = file.read_text().replace("<system>", bias, 1)
    inside = "<bias><force forcefield='wall'/></bias></ensemble>"
    file.write_text(text.replace("</ensemble>", inside, 1))
    assert RunFolder(folder).spec().bias == ("wall",)
    assert call("run", folder).returncode == 0
    done = call("run", folder, "--time-ps", 0.8)
    assert done.returncode == 0, done.stderr
    assert summary(folder)["time_ps"] == pytest.approx(0.8)


def test_single_time_steps_are_the_sums_of_the_weights() -> None:
    assert single_step([1.0, 0.0]) == (0.0, 1.0)
    assert single_step([-1.0, 1.0]) == (0.0, 0.0)
    assert single_step([0.0, -1.0, 1.0]) == (0.0, 0.0, 0.0)
    assert single_step([1.0]) == (1.0,)


class Femtoseconds:
    def quantity(self, element: ET.Element, to: str) -> float:
        assert element.get("units") == to == "femtosecond"
        return float(element.text)


def test_thermostats_are_read_and_written_alike() -> None:
    for name in THERMOSTATS.names():
        row = THERMOSTATS.get(name)
        made = row(250.0, {"H": 100.0} if row.takes_local_tags else {}, {}, (), name)
        element = ET.fromstring(made.to_xml())

        assert row.from_xml(element, Femtoseconds()) == made
    assert isinstance(made, Thermostat)


def test_frictions_of_atoms() -> None:
    row = THERMOSTATS.get("langevin")(1000.0, {"H": 100.0}, {"0, 2": 500.0}, (), "langevin")
    np.testing.assert_allclose(row.frictions_per_ps(np.array([8, 1, 1])), [2.0, 10.0, 2.0])
    assert row.one_langevin_friction_per_ps is None
    assert THERMOSTATS.get("svr")(100.0, {}, {}, (), "svr").frictions_per_ps(np.ones(3)) is None


def test_three_levels_are_written_and_read(tmp_path: Path) -> None:
    folder = make(
        tmp_path / "run",
        *("--levels", "teacher=1,student=3,small=2", "--no-model-check"),
        *("--model", 'small=ase:run_tools.Pair {"strength": 0.98}'),
    )
    run = RunFolder(folder)
    spec = run.spec()
    assert [(x.steps, dict(x.forces)) for x in spec.levels] == [
        (1, {"teacher": 1.0, "student": -1.0}),
        (3, {"student": 1.0, "small": -1.0}),
        (2, {"small": 1.0}),
    ]
    assert (spec.n_inner, spec.outer_fs, spec.reference) == (6, 6.0, "teacher")
    assert spec.comparisons == (("teacher", "student"), ("student", "small"))
    assert sorted(spec.sockets) == ["small", "student", "teacher"]
    assert list(run.settings.models) == ["teacher", "student", "small"]
    assert (folder / "start_small.sh").is_file()
    assert "--name small" in (folder / "start_small.sh").read_text()
    assert config_of(spec, run.settings) == RunConfig.model_validate(run.config.model_dump())
    record = json.dumps(run.config.model_dump(mode="json"))
    assert "small" in record


@pytest.mark.parametrize(
    ("old", "new"), [('filename="checkpoint"', 'filename="chk"'), ('prefix="md"', 'prefix="out"')]
)
def test_a_run_that_was_killed_does_not_begin_anew_under_other_names(
    old: str, new: str, unbroken: Path, tmp_path: Path
) -> None:
    """Without RESTART the checkpoints are found by the names that they had when the run began."""
    folder = Path(shutil.copytree(unbroken, tmp_path / "run"))
    (folder / "RESTART").unlink(missing_ok=True)
    (folder / "resume.xml").unlink(missing_ok=True)
    file = folder / "input.xml"
    text = file.read_text().replace("'", '"')
    assert old in text
    file.write_text(text.replace(old, new, 1))
    lines = (folder / "md.properties").read_bytes()
    done = call("run", folder, "--time-ps", 0.8)
    assert done.returncode == 2, done.stderr
    assert "put it back, or make a new folder" in done.stderr
    assert (folder / "md.properties").read_bytes() == lines
    assert len(RunFolder(folder).properties()["step"]) > 2  # what ran is still read


def test_a_damaged_summary_is_no_traceback(unbroken: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(unbroken, tmp_path / "run"))
    (folder / "summary.json").write_text("{")
    assert call("status", folder).returncode in (0, 3)
    done = call("run", folder, "--time-ps", 0.04)  # less than was done
    assert done.returncode == 0, done.stderr
    assert "more than the" in done.stderr
    assert summary(folder)["exit"] == "finished"


def test_a_session_that_was_killed_is_not_taken_for_finished(
    unbroken: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(unbroken, tmp_path / "run"))
    events = folder / "events.jsonl"
    text = events.read_text().splitlines(True)
    start = next(x for x in text if '"start"' in x)
    events.write_text("".join(text) + start)  # a second session, which left no end
    done = call("status", folder)
    assert done.returncode == 3
    assert "ended without a word" in done.stdout


def test_another_model_in_a_begun_run_is_refused_or_named(unbroken: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(unbroken, tmp_path / "run"))
    file = folder / "run.yaml"
    text = file.read_text()
    pair = 'model: \'ase:run_tools.Pair {"strength": '
    edit = (f"{pair}1.0", f"{pair}3.0")
    file.write_text(text.replace(*edit, 1))
    assert file.read_text() != text
    done = call("run", folder, "--time-ps", 0.8)
    assert done.returncode == 2, done.stderr
    assert "run.yaml: models.teacher.model" in done.stderr
    assert "another potential would be sampled" in done.stderr
    edit = (f"{pair}0.9", f"{pair}0.8")
    file.write_text(text.replace(*edit, 1))
    assert file.read_text() != text
    done = call("run", folder, "--time-ps", 0.04)  # nothing left to do
    assert done.returncode == 0, done.stderr
    assert "models.student.model is not the one that the run was made with" in done.stderr


@pytest.mark.parametrize(
    ("mode", "old", "new"),
    [
        ("sts", r"(<timestep [^>]*>)1<", r"\g<1>25<"),
        ("dmts", r"<nmts>\[1, 4\]", "<nmts>[1, 200]"),
        ("dmts", r"<nmts>\[1, 4\]", "<nmts>[2, 4]"),
    ],
)
def test_inputs_beyond_the_limits_of_init_are_read(
    mode: str, old: str, new: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    make(folder, *(("--mode", "sts", "--n-inner", 1) if mode == "sts" else ()))
    file = folder / "input.xml"
    text, count = re.subn(old, new, file.read_text(), count=1)
    assert count == 1
    file.write_text(text)
    config = RunFolder(folder).config
    assert config.n_inner == RunFolder(folder).spec().n_inner
    assert config.inner_fs == pytest.approx(RunFolder(folder).spec().inner_fs)
