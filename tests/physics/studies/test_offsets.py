"""Offsets of readings in kinds whose predictions are of several quantities: their units are those of the readings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bilevel.calibrate.study.loading import load_study
from bilevel.report import InputError

STUDY = """\
title: A wall
model:
  kind: heat
  mesh: {lengths: [1, 1], cells: [2, 1]}
  geometry: section
  boundaries: {left: {temperature: 10 degC}, right: {temperature: 20 degC}}
  sensors: {a: {at: [500 mm, 500 mm]}}
parameters:
  - {name: thermal_conductivity, value: 1, units: W/(m K), fixed: true}
  - {name: shift, value: 0.3, units: K}
observations:
  - file: readings.csv
    value: {column: value, units: degC}
    columns: {sensor: sensor}
    offset: shift
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "readings.csv").write_text("sensor,value\na,15.3\n")
    (tmp_path / "study.yml").write_text(STUDY)
    return tmp_path


def test_an_offset_is_read_in_its_units_and_added_in_those_of_the_predictions(folder: Path) -> None:
    problem = load_study(folder / "study.yml").problem
    predicted = problem.predict(torch.from_numpy(problem.parameters.start()))
    np.testing.assert_allclose(predicted, [273.15 + 15.3], rtol=1e-12)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        (", units: degC", "difference of temperatures has the units K"),
        (", units: mm", "'mm' .* do not convert to 'K'"),
        ("", "units are missing; the model works in K"),
    ],
)
def test_offsets_of_other_dimensions_are_refused(folder: Path, units: str, message: str) -> None:
    (folder / "study.yml").write_text(STUDY.replace(", units: K}", units + "}"))
    with pytest.raises(InputError, match=message):
        load_study(folder / "study.yml")
