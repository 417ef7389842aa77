"""The results folder: nothing of anyone else's is removed, nothing of ours is lost, numbers come before pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from bilevel.calibrate import Model, load_study, register_model
from bilevel.calibrate.report.outputs import _folder_names
from bilevel.calibrate.study.manifest import Manifest

FOREIGN = ["state/mine.vtu", "pictures/mine.png", "notes.txt", "sub/result.json"]


def with_foreign_files(study):
    for name in FOREIGN:
        path = study.results / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")


@pytest.mark.parametrize("options", [(), ("--force",)])
def test_foreign_files_and_folders_stay(study, no_pictures, options):
    with_foreign_files(study)
    assert study.call("run", *options).code == 0
    assert study.call("run", "--force").code == 0
    assert [(study.results / name).read_text() for name in FOREIGN] == ["mine"] * len(FOREIGN)


@pytest.mark.parametrize("options", [(), ("--force",)])
def test_a_foreign_checkpoint_is_refused(study, no_pictures, options):
    (study.results / "checkpoint").mkdir(parents=True)
    (study.results / "checkpoint" / "weights.pt").write_text("mine")
    outcome = study.call("run", *options)
    assert outcome.code == 2
    assert "a folder 'checkpoint' that no run made" in outcome.err
    assert (study.results / "checkpoint" / "weights.pt").read_text() == "mine"


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.mark.parametrize("what", ["raise ValueError('no')", "return float('nan') *", "raise KeyboardInterrupt"])
def test_force_keeps_earlier_results_until_the_new_run_works(study, no_pictures, what):
    assert study.call("run").code == 0
    before = contents(study.results)
    sound = (study.folder / "model.py").read_text()
    study.edit("return ", f"{what} " if what.startswith("return") else f"{what}; return ", "model.py")
    outcome = study.call("run", "--force")
    assert outcome.code == (130 if "Keyboard" in what else 1)
    assert contents(study.results) == before
    (study.folder / "model.py").write_text(sound)
    assert study.call("uncertainty").code == 0


def test_force_removes_what_the_earlier_run_wrote_and_the_new_one_does_not(study, no_pictures):
    assert study.call("run").code == 0
    assert (study.results / "case.jac.npz").exists()
    assert study.call("run", "--force", "--noptmax", "0").code == 0
    assert not (study.results / "case.jac.npz").exists()


def test_a_list_cannot_reach_out_of_its_folder(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "keep.txt").write_text("mine")
    (tmp_path / "results" / ".bilevel.json").write_text(json.dumps({"files": ["../keep.txt", "/", "../", "."]}))
    Manifest(tmp_path / "results").remove_files()
    assert (tmp_path / "keep.txt").read_text() == "mine"


@pytest.mark.parametrize("command", ["uncertainty", "plot"])
def test_an_interrupted_run_is_not_finished_in_silence(study, no_pictures, command):
    study.call("run")
    (study.results / "result.json").unlink()
    outcome = study.call(command)
    assert outcome.code == 2
    assert "was interrupted; finish it with bilevel resume" in outcome.err
    assert not (study.results / "result.json").exists()


def test_more_iterations_by_resume(study, no_pictures):
    assert study.call("run", "--noptmax", "1").code == 1
    outcome = study.call("resume", "--noptmax", "50")
    assert outcome.code == 0, outcome
    assert "converged" in outcome.out


def test_settings_edited_since_hold_for_resume_and_a_title_does_not_matter(study, no_pictures):
    study.edit("title: Decay", "title: Decay\ncalibration: {noptmax: 1}")
    assert study.call("run").code == 1
    study.edit("noptmax: 1", "noptmax: 30")
    study.edit("title: Decay", "title: Decay of a wave")
    assert study.call("resume").code == 0


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [("study.yml", "lower: 0.1", "lower: 0.2"), ("data.csv", "98", "99"), ("helper.py", "1.0", "1.1")],
)
def test_what_changes_the_answer_is_named(study, no_pictures, file, old, new, monkeypatch):
    monkeypatch.syspath_prepend(str(study.folder))
    monkeypatch.delitem(sys.modules, "helper", raising=False)
    (study.folder / "helper.py").write_text("FACTOR = 1.0\n")
    study.edit("import torch", "import torch, helper", "model.py")
    assert study.call("run").code == 0
    study.edit(old, new, file)
    outcome = study.call("resume")
    assert outcome.code == 2
    assert f"changed since this run began ({file})" in outcome.err


def test_other_studies_of_a_folder_have_results_of_their_own(study, no_pictures):
    other = study.folder / "other.yml"
    other.write_text(study.path.read_text())
    assert study.call("run").code == 0
    from typer.testing import CliRunner

    from bilevel.cli import app

    assert CliRunner().invoke(app, ["run", str(other)]).exit_code == 0
    assert (study.results / "other" / "result.json").exists()


class Troubled(Model):
    """Predicts well, and fails at everything else."""

    def simulate(self, parameters):
        return parameters["amplitude"] * (-parameters["rate"] * self.observations.columns["time"]).exp()

    def figures(self, parameters):
        raise RuntimeError("no ink")

    def write_state(self, parameters, folder):
        (folder / "half.vtu").write_text("half")
        raise OSError("no paper")


register_model("test_troubled", Troubled)
TROUBLED = "{kind: test_troubled}"


def test_numbers_come_before_pictures(study):
    study.edit("{kind: python, file: model.py, name: decay}", TROUBLED)
    outcome = study.call("run")
    assert outcome.code == 0, outcome
    assert json.loads((study.results / "result.json").read_text())["converged"]
    page = (study.results / "report.html").read_text()
    for said in ("RuntimeError: no ink", "OSError: no paper"):
        assert said in page
        assert said in outcome.out
    assert page.count("data:image/svg+xml") >= 6  # all other pictures
    assert study.call("plot").code == 0


def test_a_page_that_cannot_be_written_is_a_note(study, monkeypatch):
    def write(*arguments):
        raise TypeError("no template")

    monkeypatch.setattr("bilevel.calibrate.study.session.write_report", write)
    outcome = study.call("run")
    assert outcome.code == 0
    assert "report.html could not be written: TypeError: no template" in outcome.out
    assert (study.results / "result.json").exists()


NASTY = ["$\\frac$", "_hidden", "a$b", "名前", "<b>", "{{ 7 * 7 }}", "50 % & more", "x" * 300]


def test_users_texts_are_never_parsed(study):
    table = ["t,gauge,height", *(f'{k},"{name}",{100 - 5 * k}' for k, name in enumerate(NASTY))]
    (study.folder / "data.csv").write_text("\n".join(table))
    study.edit("title: Decay", "title: 'Decay $\\frac$ {{ 7 * 7 }}'")
    outcome = study.call("run")
    assert "could not be drawn" not in outcome.out, outcome
    page = (study.results / "report.html").read_text()
    assert "{{ 7 * 7 }}" in page
    assert "49" not in page.split("<body>")[1].split("</header>")[0]
    assert page.count("data:image/svg+xml") >= 6


def test_the_report_shows_the_study_as_it_was_when_the_run_began(study):
    study.edit(
        "return ",
        "import pathlib; p = pathlib.Path(__file__).with_name('study.yml'); "
        "p.write_text(p.read_text().replace('title: Decay', 'title: Edited')); return ",
        "model.py",
    )
    study.call("run")
    page = (study.results / "report.html").read_text()
    assert "title: Decay" in page
    assert "Edited" not in page


EXPERIMENTS = """\
title: Decay
model: {kind: test_stateful}
parameters:
  - {name: amplitude, value: 1, lower: 0.1, upper: 10, units: m}
  - {name: rate, value: 1, lower: 0.01, upper: 100, units: 1/h}
experiments:
  - {name: ../../x, observations: [{file: data.csv, value: {column: height, units: cm}, columns: {time: {column: t, units: h}}, where: {gauge: a}}]}
  - {name: a/b, observations: [{file: data.csv, value: {column: height, units: cm}, columns: {time: {column: t, units: h}}, where: {gauge: b}}]}
"""


class Stateful(Troubled):
    """Has a warm start and writes a state."""

    seen = 0.0

    def state(self):
        import torch

        return {"kept/value": torch.tensor(self.seen)}

    def restore(self, state):
        self.seen = float(state["kept/value"])
        assert self.seen == 1.0

    def simulate(self, parameters):
        self.seen = 1.0
        return super().simulate(parameters)

    def write_state(self, parameters, folder):
        (folder / "state.vtu").write_text(self.observations.group[0])
        return [folder / "state.vtu"]

    figures = Model.figures


register_model("test_stateful", Stateful)


def test_names_of_experiments_stay_in_the_folder_and_keep_their_state(study, no_pictures):
    study.path.write_text(EXPERIMENTS)
    before = {p.name for p in study.folder.parent.iterdir()}
    outcome = study.call("run")
    assert outcome.code == 0, outcome
    assert {p.name for p in study.folder.parent.iterdir()} == before
    found = sorted(p.relative_to(study.results).as_posix() for p in study.results.rglob("*.vtu"))
    assert found == ["state/_.._x/state.vtu", "state/a_b/state.vtu"]
    (study.results / "result.json").unlink()
    for problem in [load_study(study.path).problem]:
        assert [e.model.seen for e in problem.experiments] == [0.0, 0.0]
    assert study.call("resume").code == 0


def test_folders_of_experiments_are_told_apart():
    assert _folder_names(["a/b", "a_b", "A_B", "..", "", "/etc/passwd", "x" * 200]) == [
        "a_b", "a_b_2", "A_B_3", "experiment", "experiment_5", "_etc_passwd", "x" * 80,
    ]  # fmt: skip


def call(study, *arguments, **options):
    command = [sys.executable, "-m", "bilevel", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, cwd=study.folder, text=True, **options)


def test_a_closed_standard_error_stops_nothing(study):
    done = call(study, "run", "study.yml", "--noptmax", "0", preexec_fn=lambda: os.close(2))
    assert done.returncode == 0
    assert "report:" in done.stdout
    assert (study.results / "result.json").exists()


def test_a_reader_that_went_away_stops_nothing(study):
    command = f"{sys.executable} -m bilevel run study.yml --noptmax 0 | head -c 0; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=study.folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (study.results / "result.json").exists()
