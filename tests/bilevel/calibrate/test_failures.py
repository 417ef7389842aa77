"""Models that fail: a second try, the three policies, the table of failed points; and a run that is asked to stop."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from bilevel.calibrate import CalibrationProblem, ObservationTable, Parameter, Settings, calibrate
from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.fit.executors import run_tasks
from bilevel.calibrate.fit.stop import Stopped, stoppable
from bilevel.calibrate.function_problem import FunctionModel
from bilevel.calibrate.settings import Failures
from bilevel.report import BilevelError, ConvergenceError, NoSolutionError

X = torch.linspace(0.1, 1, 8, dtype=torch.float64)
pytestmark = pytest.mark.usefixtures("no_pictures")


class Fragile(FunctionModel):
    """exp(rate x); fails where `fails` says, at the first try or at both."""

    def __init__(self, table, fails, both):
        super().__init__(table, lambda p: torch.exp(p["rate"] * X))
        self.fails, self.both, self.calls = fails, both, 0

    def simulate(self, parameters):
        self.calls += 1
        if self.fails(float(parameters["rate"].detach())) and (self.both or not self.cautious):
            raise BilevelError("the inner solve did not converge")
        return super().simulate(parameters)


class Plain(FunctionModel):
    def __init__(self, table, factor=1.0):
        super().__init__(table, lambda p: torch.exp(factor * p["rate"] * X))


def table(rate=2.0, noise=0.0):
    data = torch.exp(rate * X) + noise * torch.as_tensor(np.random.default_rng(0).normal(size=len(X)))
    return ObservationTable(data, torch.full((len(X),), 10.0, dtype=torch.float64), ("data",) * len(X))


def fragile(fails, both=True, other=False):
    one = table(noise=0.02)
    experiments = [Experiment("fragile", Fragile(one, fails, both), one)]
    if other:
        second = table(2.1, noise=0.02)
        experiments.append(Experiment("sound", Plain(second), second))
    return CalibrationProblem([Parameter("rate", 0.5)], experiments)


def test_the_second_try_is_cautious_and_noted():
    found = calibrate(fragile(lambda rate: 1.0 < rate < 1.9, both=False))
    whole = calibrate(fragile(lambda rate: False))
    assert found.values["rate"] == whole.values["rate"]
    assert found.failed
    assert {f.end for f in found.failed} == {"second try"}
    assert 1.0 < float(found.failed[0].values["rate"]) < 1.9
    assert any("did not at the second try" in note for note in found.notes)


def test_reject_steps_back():
    found = calibrate(fragile(lambda rate: rate > 2.03))
    assert found.values["rate"] == pytest.approx(calibrate(fragile(lambda rate: False)).values["rate"], rel=1e-6)
    assert {f.end for f in found.failed} == {"failed again"}
    assert found.failed[0].first == found.failed[0].second == "the inner solve did not converge"


def test_what_has_no_solution_is_not_tried_again():
    """A second try would cost as much, and end in the same sentence."""
    cautious = []

    class Bounded(FunctionModel):
        def simulate(self, parameters):
            cautious.append(self.cautious)
            if float(parameters["rate"].detach()) > 2.03:
                raise NoSolutionError("the limit load is reached")
            return super().simulate(parameters)

    one = table(noise=0.02)
    model = Bounded(one, lambda p: torch.exp(p["rate"] * X))
    found = calibrate(CalibrationProblem([Parameter("rate", 0.5)], [Experiment("bounded", model, one)]))
    assert {f.first for f in found.failed} == {"the limit load is reached"}
    assert {f.end for f in found.failed} == {"rejected"}
    assert not any(cautious)


def test_drop_goes_on_without_the_experiment():
    problem = fragile(lambda rate: rate > 1.2, other=True)
    with pytest.raises(ConvergenceError, match="no step reduced phi further"):
        calibrate(problem)
    found = calibrate(problem, settings=Settings(failures=Failures.DROP))
    second = table(2.1, noise=0.02)
    alone = calibrate(CalibrationProblem([Parameter("rate", 0.5)], [Experiment("sound", Plain(second), second)]))
    assert found.values["rate"] == pytest.approx(alone.values["rate"], rel=1e-9)
    assert [e.name for e in found.problem.experiments] == ["sound"]
    assert any("experiment 'fragile' was dropped" in note for note in found.notes)


def test_drop_at_the_start_and_never_the_last():
    problem = fragile(lambda rate: True, other=True)
    assert calibrate(problem, settings=Settings(failures=Failures.DROP)).converged
    with pytest.raises(BilevelError, match="did not converge"):
        calibrate(fragile(lambda rate: True), settings=Settings(failures=Failures.DROP))


def test_penalise_lets_the_others_lead_but_never_ends_there():
    """The sound experiment wants what the fragile one cannot bear: no fit may rest there in silence."""
    problem = fragile(lambda rate: rate > 1.9, other=True)
    with pytest.raises(ConvergenceError, match="no step reduced phi further"):
        calibrate(problem, settings=Settings(failures=Failures.PENALISE))
    found = calibrate(fragile(lambda rate: rate > 2.1, other=True), settings=Settings(failures=Failures.PENALISE))
    whole = calibrate(fragile(lambda rate: False, other=True))
    assert found.values["rate"] == pytest.approx(whole.values["rate"], rel=1e-6)
    assert {f.end for f in found.failed} == {"penalised"}


DECAY = """\
import torch
from bilevel.calibrate import Model
from bilevel.report import BilevelError

class Decay(Model):
    failed = 0

    def simulate(self, parameters):
        if abs(float(parameters["rate"].detach()) * 3600 - 1) > 0.1 and Decay.failed < 2:
            Decay.failed += 1
            raise BilevelError("too slow, it says")
        return parameters["amplitude"] * torch.exp(-parameters["rate"] * self.observations.columns["time"])
"""


def test_the_table_of_failed_points(fresh_study):
    study = fresh_study()
    (study.folder / "model.py").write_text(DECAY)
    study.edit("name: decay", "name: Decay")
    assert study.call("run").code == 0
    rows = list(csv.DictReader((study.results / "case.failed.csv").read_text().splitlines()))
    assert rows
    assert set(rows[0]) == {"experiment", "end", "first", "second", "amplitude", "rate"}
    assert rows[0]["first"] == "too slow, it says"
    assert len(rows) == 1
    assert rows[0]["end"] == "failed again"
    assert 0.1 < abs(float(rows[0]["rate"]) - 1) < 1  # in the study's units, 1/h


STOPPING = """\
import pathlib
import torch
from bilevel.calibrate import Model

class Decay(Model):
    def simulate(self, parameters):
        if STOPS and abs(float(parameters["rate"].detach()) * 3600 - 1) > 0.1:
            (pathlib.Path(__file__).parent / "results" / "case.stop").touch()
            (pathlib.Path(__file__).parent / "stopped").touch()
        return parameters["amplitude"] * torch.exp(-parameters["rate"] * self.observations.columns["time"])
"""


def answer(study):
    result = json.loads((study.results / "result.json").read_text())
    return [x for p in result["parameters"].values() for x in (p["value"], p["std"])], result["iterations"]


def test_a_file_ends_a_run_with_its_report_and_resume_goes_on(fresh_study):
    whole = fresh_study()
    (whole.folder / "model.py").write_text(STOPPING.replace("STOPS", "False"))
    whole.edit("name: decay", "name: Decay")
    assert whole.call("run").code == 0
    study = fresh_study()
    (study.folder / "model.py").write_text(
        STOPPING.replace("STOPS", "not (pathlib.Path(__file__).parent / 'stopped').exists()")
    )
    study.edit("name: decay", "name: Decay")
    ran = study.call("run")
    assert ran.code == 1
    assert "STOPPED after" in ran.out + ran.err
    stopped = json.loads((study.results / "result.json").read_text())
    assert not stopped["converged"]
    assert stopped["iterations"] < answer(whole)[1]
    assert (study.results / "report.html").exists()
    assert study.call("resume").code == 0
    assert not (study.results / "case.stop").exists()
    assert answer(study) == answer(whole)


def _task(path, number):
    if number == 2:
        open(path, "w").close()
    return number


def test_tasks_that_are_done_are_kept_when_a_run_stops(tmp_path):
    file, keep = tmp_path / "case.stop", tmp_path / "tasks"
    keys = [f"task {k}" for k in range(6)]
    with stoppable(file), pytest.raises(Stopped):
        run_tasks(_task, [(str(file), k) for k in range(6)], keep=keep, keys=keys)
    assert len(list(keep.glob("*.json"))) == 3
    assert run_tasks(_task, [(str(file), k) for k in range(6)], keep=keep, keys=keys) == list(range(6))
