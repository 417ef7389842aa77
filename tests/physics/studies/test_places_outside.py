"""A reading at a place that the mesh does not have is told by its name and row, with what the mesh has, in all kinds on meshes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bilevel.calibrate.study.loading import load_study
from bilevel.calibrate.study.template import write_template
from bilevel.report import InputError


@pytest.mark.parametrize(
    ("kind", "old", "new", "message"),
    [
        ("darcy", "B: {at: [150 m, 120 m]}", "B: {at: [150 km, 120 m]}", r"heads.csv, line \d+: 'B' at \(150000, 120\) m lies outside the mesh \(1 such points\), which is between \(0, 0\) and \(600, 400\) m"),
        ("heat", "at: [", "at: [9 m, ", "has 2 dimensions"),
    ],
)  # fmt: skip
def test_the_row_and_the_name_are_told(tmp_path: Path, kind: str, old: str, new: str, message: str) -> None:
    file = write_template(tmp_path / "mine", kind)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        load_study(file)


def test_places_of_rows_and_of_points(tmp_path: Path) -> None:
    (tmp_path / "wells.csv").write_text("well,x,y\nA,0.5,0.5\nB,500,500\n")
    (tmp_path / "readings.csv").write_text("sensor,x,y,value\ntemperature,0.1,0.1,300\ntemperature,0.1,1.2,300\n")
    text = """\
title: Plate
model:
  kind: heat
  mesh: {lengths: [1, 1], cells: [2, 2]}
  geometry: section
  boundaries: {left: {temperature: 300 K}, right: {temperature: 310 K}}
  points: {file: wells.csv, name: well, x: {column: x, units: m}, y: {column: y, units: m}}
parameters:
  - {name: thermal_conductivity, value: 1, units: W/(m K)}
observations:
  - file: readings.csv
    value: {column: value, units: K}
    columns: {sensor: sensor, x: {column: x, units: m}, y: {column: y, units: m}}
"""
    (tmp_path / "study.yml").write_text(text)
    with pytest.raises(InputError, match=r"readings.csv, line 3: 'temperature' at \(0.1, 1.2\) m lies outside"):
        load_study(tmp_path / "study.yml")
    (tmp_path / "readings.csv").write_text("sensor,value\nA,300\nB,300\n")
    (tmp_path / "study.yml").write_text(
        text[: text.index(", x: {column: x, units: m}, y: {column: y, units: m}}\n", 400)] + "}\n"
    )
    with pytest.raises(InputError, match=r"readings.csv, line 3: 'B' at \(500, 500\) m lies outside"):
        load_study(tmp_path / "study.yml")
