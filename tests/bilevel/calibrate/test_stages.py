"""Calibration in stages: what each frees and fits, the joint report, resume, and bad names."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from bilevel.calibrate import (
    CalibrationProblem,
    Experiment,
    ObservationTable,
    Parameter,
    Settings,
    Stage,
    calibrate,
    staged,
)
from bilevel.calibrate.function_problem import FunctionModel
from bilevel.report import ConvergenceError, InputError

X = torch.linspace(0.0, 1.0, 6)
FIRST, SECOND = 2.0 * X + 0.05 * torch.sin(9 * X), 2.5 * X + 3.0 * X**2
STAGES = (Stage("slope", ("a",), ("first",)), Stage("curve", ("b",), ("second",)))


def problem() -> CalibrationProblem:
    """Group `first` is a x; group `second`, a x + b x^2, would rather have another a."""
    table = ObservationTable(torch.cat([FIRST, SECOND]), torch.ones(12), ("first",) * 6 + ("second",) * 6)

    def model(p):
        return torch.cat([p["a"] * X, p["a"] * X + p["b"] * X**2])

    start = [Parameter("a", 1.0, lower=0.1, upper=9.0, transform="log"), Parameter("b", 0.0, lower=-10, upper=10)]
    return CalibrationProblem(start, [Experiment("both", FunctionModel(table, model), table)])


def test_stages_are_the_sequence_of_linear_regressions() -> None:
    result = staged(problem(), STAGES, settings=Settings(tolerance=1e-10))
    a = ((X @ FIRST) / (X @ X)).item()
    b = ((X**2 @ (SECOND - a * X)) / (X**2 @ X**2)).item()
    assert result.converged
    assert result.values == pytest.approx({"a": a, "b": b}, rel=1e-9)
    assert [e.start for e in result.estimates] == [1.0, 0.0]
    assert "stage 'slope' converged" in result.status
    assert "stage 'curve' converged" in result.status


def test_the_report_covers_all_groups_and_parameters() -> None:
    whole = problem()
    result = staged(whole, STAGES)
    point = torch.tensor([np.log(result.values["a"]), result.values["b"]])
    misfit = (whole.predict(point) - whole.value).square().sum().item()
    assert result.phi == pytest.approx(misfit, rel=1e-12)
    assert [i.number for i in result.iterations] == list(range(len(result.iterations)))
    assert result.iterations[0].evaluation.phi == pytest.approx(whole.evaluate(whole.parameters.start()).phi)
    joint = calibrate(problem().__class__(whole.parameters.with_start(_arrays(result.values)).parameters, whole.experiments),
                      settings=Settings(noptmax=-1))  # fmt: skip
    assert [e.std for e in result.estimates] == pytest.approx([e.std for e in joint.estimates], rel=1e-9)


def _arrays(values: dict) -> dict[str, np.ndarray]:
    return {label: np.asarray(value) for label, value in values.items()}


def test_a_last_stage_of_everything_is_the_joint_fit() -> None:
    together = calibrate(problem())
    result = staged(problem(), [*STAGES, Stage("all")])
    assert result.values == pytest.approx(together.values, rel=1e-6)
    assert result.phi == pytest.approx(together.phi, rel=1e-9)
    assert not any("joint ones" in note for note in result.notes)


def test_a_stage_that_does_not_converge_is_told() -> None:
    with pytest.raises(ConvergenceError, match="stage 'slope' NOT CONVERGED"):
        staged(problem(), STAGES, settings=Settings(noptmax=1, tolerance=1e-12))


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Stage("one", ("c",)), "stage 'one': there is no free parameter 'c'; there are a, b"),
        (Stage("one", ("a",), ("frist",)), "there is no group 'frist'; did you mean 'first'"),
    ],
)
def test_unknown_names(stage: Stage, message: str) -> None:
    with pytest.raises(InputError, match=message):
        staged(problem(), [stage])


STUDY_STAGES = """\
stages:
  - {name: early, parameters: [amplitude], groups: [a]}
  - {name: late, parameters: [rate], groups: [b]}
  - {name: all}
"""


def with_stages(study):
    study.path.write_text(study.path.read_text() + STUDY_STAGES)
    return study


@pytest.mark.usefixtures("no_pictures")
def test_a_study_in_stages_resumes_after_any_evaluation(fresh_study) -> None:
    whole = with_stages(fresh_study())
    assert whole.call("run").code == 0
    expected = json.loads((whole.results / "result.json").read_text())
    assert expected["status"].count("converged in") == 3
    points = sorted((whole.results / "checkpoint").glob("*.npz"))
    for kept in range(0, len(points), 4):
        cut = with_stages(fresh_study())
        shutil.copytree(whole.results / "checkpoint", cut.results / "checkpoint")
        for point in points[kept:]:
            (cut.results / "checkpoint" / point.name).unlink()
        assert cut.call("resume").code == 0
        found = json.loads((cut.results / "result.json").read_text())
        for key in ("parameters", "phi", "iterations", "evaluations", "counts"):
            assert found[key] == expected[key]


def test_study_says_which_line_has_the_unknown_group(study) -> None:
    study.path.write_text(study.path.read_text() + STUDY_STAGES.replace("[b]", "[c]"))
    outcome = study.call("check")
    assert outcome.code == 2
    assert "study.yml, line 14" in outcome.err
    assert "stage 'late': there is no group 'c'" in outcome.err
