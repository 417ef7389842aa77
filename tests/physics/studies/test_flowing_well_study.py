"""`kind: pumping_test` with a well at a prescribed drawdown or head, calibrated from its discharge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mesh_studies import worst_derivative

from bilevel.calibrate import calibrate, load_study
from bilevel.report import InputError

STUDY = """\
title: A flowing well
model:
  kind: pumping_test
  aquifer: confined
  thickness: 10 m
  drawdown: 3 m
  well_radius: 0.1 m
  observation_wells: {well: 0 m, near: 20 m}
parameters:
  - {name: hydraulic_conductivity, value: 2, units: m/d, lower: 0.01, upper: 1000}
  - {name: specific_storage, value: 3.0e-5, units: 1/m, lower: 1.0e-7, upper: 1.0e-2}
observations:
  - file: discharge.csv
    value: {column: q, units: L/s}
    columns: {time: {column: minutes, units: min}, well: well}
    group: discharge
    std: 0.01
"""
DRAWDOWNS = """\
  - file: near.csv
    value: {column: s, units: cm}
    columns: {time: {column: minutes, units: min}, well: well}
    group: near
    std: 0.5
"""
MINUTES = (2, 10, 30, 90, 300)
PRESCRIBED = {
    "drawdown": ("", ""),
    "parameter": ("drawdown: 3 m", "drawdown: shut_in"),
    "steps": (
        "drawdown: 3 m",
        "drawdown: {file: levels.csv, time: {column: minutes, units: min}, value: {column: s, units: m}, between: hold}",
    ),
    "head": (
        "drawdown: 3 m",
        "rest_head: 12 m\n  head: {file: levels.csv, time: {column: minutes, units: min}, value: {column: level, units: m}}",
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = "".join(f"{m},well,1\n" for m in MINUTES)
    (tmp_path / "discharge.csv").write_text("minutes,well,q\n" + rows)
    (tmp_path / "near.csv").write_text("minutes,well,s\n" + "".join(f"{m},near,1\n" for m in MINUTES))
    (tmp_path / "levels.csv").write_text("minutes,s,level\n0,3,9\n45,2,10\n300,2.5,9.5\n")
    (tmp_path / "study.yml").write_text(STUDY + DRAWDOWNS)
    return tmp_path


def with_twin(folder: Path, text: str) -> None:
    """Readings that the model makes at K = 6 m/d, Ss = 1e-5 1/m and, where it is asked for, a drawdown of 3 m."""
    true = text.replace("value: 2, units: m/d", "value: 6, units: m/d").replace("value: 3.0e-5", "value: 1.0e-5")
    (folder / "study.yml").write_text(true.replace("value: 2, units: m,", "value: 3, units: m,"))
    problem = load_study(folder / "study.yml").problem
    found = problem.predict(torch.from_numpy(problem.parameters.start()))
    found = (found * torch.where(torch.arange(len(found)) < len(MINUTES), 1e3, 1e2)).tolist()
    for file, head, well in (("discharge.csv", "minutes,well,q", "well"), ("near.csv", "minutes,well,s", "near")):
        rows = [f"{m},{well},{found.pop(0)!r}" for m in MINUTES if found]
        if rows:
            (folder / file).write_text("\n".join([head, *rows, ""]))
    (folder / "study.yml").write_text(text)


@pytest.mark.slow
@pytest.mark.parametrize("prescribed", PRESCRIBED)
def test_a_twin_is_found_from_its_discharge(folder: Path, prescribed: str) -> None:
    text = STUDY.replace(*PRESCRIBED[prescribed]) if prescribed != "drawdown" else STUDY
    if prescribed == "parameter":  # known only together with readings elsewhere
        more = "  - {name: shut_in, value: 2, units: m, lower: 0.1, upper: 10}\n"
        text = text.replace("observations:", more + "observations:") + DRAWDOWNS
    with_twin(folder, text)
    loaded = load_study(folder / "study.yml")
    result = calibrate(loaded.problem, settings=loaded.settings)
    values = {estimate.label: estimate.value for estimate in result.estimates}
    truth = {"hydraulic_conductivity": 6.0, "specific_storage": 1e-5, "shut_in": 3.0}
    assert values == pytest.approx({name: truth[name] for name in values}, rel=1e-5)


def test_derivatives(folder: Path) -> None:
    (folder / "study.yml").write_text(STUDY.replace(*PRESCRIBED["steps"]))
    assert worst_derivative(load_study(folder / "study.yml")) < 1e-6


def test_a_head_is_what_is_left_of_the_rest_head(folder: Path) -> None:
    """Levels of 9, 10 and 9.5 m below 12 m are drawdowns of 3, 2 and 2.5 m."""
    found = []
    for text in (
        STUDY.replace(*PRESCRIBED["steps"]).replace(", between: hold", ""),
        STUDY.replace(*PRESCRIBED["head"]),
    ):
        (folder / "study.yml").write_text(text)
        problem = load_study(folder / "study.yml").problem
        found.append(problem.predict(torch.from_numpy(problem.parameters.start())))
    torch.testing.assert_close(*found)


def test_pictures_show_drawdowns_and_discharges(folder: Path) -> None:
    (folder / "study.yml").write_text(STUDY + DRAWDOWNS)
    problem = load_study(folder / "study.yml").problem
    (experiment,) = problem.experiments
    discharge, drawdown = experiment.model.figures(
        problem.arguments(experiment, torch.from_numpy(problem.parameters.start()))
    )
    assert (discharge.title, drawdown.title) == ("Discharge", "Drawdown")
    line = discharge.drawing().axes[0].lines[1]
    own = problem.predict(torch.from_numpy(problem.parameters.start()))[: len(MINUTES)].numpy() * 86400.0
    np.testing.assert_allclose(np.interp(np.array(MINUTES) / 1440.0, *line.get_data()), own, rtol=1e-3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("drawdown: 3 m", "drawdown: 3", "line 6: .*'3' has no units"),
        ("drawdown: 3 m", "drawdown: 3 d", "line 6: "),
        ("drawdown: 3 m", "head: 3 m", "rest_head before the test go together"),
        ("drawdown: 3 m", "drawdown: 3 m\n  discharge: 5 L/s", "give one of discharge, wells, drawdown"),
        (
            "drawdown: 3 m",
            "drawdown: 3 m\n  solution: closed_form",
            "line 6: .*does not go together with solution: closed_form",
        ),
        ("drawdown: 3 m", "drawdown: 3 m\n  wellbore_storage: true", "does not go together with wellbore_storage"),
        ("drawdown: 3 m", "discharge: 5 L/s", "discharge.csv, line 2: the discharge is prescribed"),
        ("well: 0 m", "well: 1 m", "discharge.csv, line 2: a discharge is read in the pumped well"),
        ("units: L/s", "units: kPa", "discharge.csv, line 2: .* a value in 'kPa' is neither"),
        ("column: q, units: L/s", "column: q", "discharge.csv, line 2: .* a value without units is neither"),
        (
            "drawdown: 3 m",
            "drawdown: {file: levels.csv, time: {column: minutes, units: s}, value: {column: s, units: m}}",
            "line 6: .*its table covers times",
        ),
    ],
)
def test_bad_input(folder: Path, old: str, new: str, message: str) -> None:
    assert old in STUDY
    (folder / "study.yml").write_text(STUDY.replace(old, new))
    with pytest.raises(InputError, match=message):
        load_study(folder / "study.yml")
