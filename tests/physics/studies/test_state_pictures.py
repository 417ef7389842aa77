"""A report's pictures of fields: their standard deviations stand beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mesh_studies import study, write_rows

from bilevel.calibrate import calibrate
from bilevel.calibrate.report.pictures import model_pictures
from bilevel.calibrate.statistics.state_deviations import state_deviations
from physics.discretisation import rectangle
from physics.discretisation.write import write_gmsh
from physics.studies.on_mesh.map import draw_field

VALLEY = """\
title: Sand and clay
model:
  kind: darcy
  mesh: {file: site.msh, units: m}
  geometry: plan
  spread: {transmissivity: zones}
  boundaries: {left: {head: 10 m}, right: {head: 8 m}}
  recharge: {all: 1 mm/d}
parameters:
  - {name: "transmissivity[sand]", value: 100, units: m2/d}
  - {name: "transmissivity[clay]", value: 30, units: m2/d}
observations:
  - file: wells.csv
    value: {column: head, units: m}
    columns: {sensor: sensor, x: {column: x, units: m}, y: {column: y, units: m}}
    std: 0.02
"""


def shown(figure: Figure) -> np.ma.MaskedArray:
    """The values of a picture's cells."""
    values = figure.axes[0].collections[0].get_array()
    assert values is not None
    return np.ma.asarray(values)


def test_deviations_of_fields_stand_beside_them(tmp_path: Path) -> None:
    mesh = rectangle(6, 1, (400.0, 100.0))
    mesh = mesh.with_region("sand", lambda x: x[:, 0] < 200).with_region("clay", lambda x: x[:, 0] > 200)
    write_gmsh(tmp_path / "site.msh", mesh)
    write_rows(
        tmp_path / "wells.csv",
        "sensor,x,y,head",
        [("head", 60, 50, 9.99), ("head", 150, 50, 9.92), ("head", 260, 50, 9.45)],
    )
    loaded = study(tmp_path, VALLEY)
    result = calibrate(loaded.problem, settings=loaded.settings)
    experiment = result.problem.experiments[0]
    pictures = {p.title: p for p in model_pictures(result, experiment)}
    assert [(title, len(p.drawings)) for title, p in pictures.items()] == [
        ("Mesh", 1), ("Head", 2), ("Transmissivity", 2)
    ]  # fmt: skip
    deviations = state_deviations(result, experiment)
    head = np.asarray(shown(pictures["Head"].drawings[1]()))
    assert head == pytest.approx(deviations["head"].numpy()[mesh.corners].mean(1))
    assert 0 < head.max() < 0.2
    sand = float(deviations["transmissivity"].max())
    assert shown(pictures["Transmissivity"].drawings[1]()).max() == pytest.approx(sand)
    assert "Beside it its standard deviation" in pictures["Head"].caption
    assert "Beside" not in pictures["Mesh"].caption


def test_what_the_readings_do_not_tell_is_grey_and_sizes_of_vectors_are_shown() -> None:
    mesh = rectangle(2, 1)
    (figure,) = draw_field(mesh, torch.tensor([torch.inf, 2.0]), "conductivity", "m/s", deviation=True)
    assert np.ma.getmaskarray(shown(figure.figure)).tolist() == [True, False]
    assert draw_field(mesh, torch.full((2,), torch.inf), "conductivity", "m/s", deviation=True) == []
    moved = torch.tensor([3.0, 4.0]).expand(len(mesh.coordinates), 2)
    (figure,) = draw_field(mesh, moved, "displacement", "m")
    assert np.asarray(shown(figure.figure)) == pytest.approx([5.0, 5.0])
