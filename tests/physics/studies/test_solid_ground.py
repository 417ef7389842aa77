"""`kind: solid` as ground at rest under its own weight, then under a strip."""

from __future__ import annotations

from pathlib import Path

import pytest
from mesh_studies import misfit, study, worst_derivative, write_rows

from physics.discretisation import rectangle
from physics.discretisation.write import write_gmsh

FOOTING = """\
title: Flexible strip on ground at rest
model:
  kind: solid
  mesh: {lengths: [6, 4], cells: [4, 3], order: 2}
  kinematics: plane_strain
  law: mohr_coulomb
  supports:
    bottom: {x: 0 m, y: 0 m}
    left: {x: 0 m}
    right: {x: 0 m}
  loads: {top: {pressure: {file: load.csv, time: t, value: {column: p, units: kPa}}}}
  geostatic: {unit_weight: weight, k0: k0, surface: 4 m}
  time: {end: 1, steps: 2}
parameters:
  - {name: youngs_modulus, value: 20, units: MPa}
  - {name: poissons_ratio, value: 0.3}
  - {name: friction_angle, value: 30, units: deg}
  - {name: dilatancy_angle, value: 5, units: deg}
  - {name: cohesion, value: 5, units: kPa}
  - {name: weight, value: 18, units: kN/m3}
  - {name: k0, value: 0.5}
observations:
  - file: u.csv
    value: {column: u, units: mm}
    columns: {sensor: sensor, time: t, x: {column: x, units: m}, y: {column: y, units: m}}
"""


def test_ground_at_rest_stays_there_and_settles_as_a_column(tmp_path: Path) -> None:
    """Without a load nothing moves; under a wide one, u = p H (1 + nu) (1 - 2 nu) / ((1 - nu) E), while it is elastic."""
    write_rows(tmp_path / "load.csv", "t,p", [(0, 0), (0.5, 0), (1, 20)])
    settled = -20e3 * 4 * 1.3 * 0.4 / (0.7 * 20e6) * 1e3
    write_rows(
        tmp_path / "u.csv", "sensor,t,x,y,u", [("uy", 0.5, 3, 4, 0), ("ux", 0.5, 3, 2, 0), ("uy", 1, 3, 4, settled)]
    )
    assert misfit(study(tmp_path, FOOTING)) < 1e-9


@pytest.mark.slow
def test_derivatives_of_a_strip_that_yields_in_ground_at_rest(tmp_path: Path) -> None:
    write_rows(tmp_path / "load.csv", "t,p", [(0, 0), (1, 90)])
    write_rows(tmp_path / "u.csv", "sensor,t,x,y,u", [("uy", 1, 0, 4, 0), ("uy", 1, 3, 4, 0), ("ux", 1, 2, 3, 0)])
    mesh = rectangle(4, 3, (6.0, 4.0), order=2)
    mesh = mesh.with_boundary("strip", lambda x: (x[:, 1] > 4 - 1e-9) & (x[:, 0] < 1.5))
    write_gmsh(tmp_path / "ground.msh", mesh)
    text = FOOTING.replace("mesh: {lengths: [6, 4], cells: [4, 3], order: 2}", "mesh: ground.msh").replace(
        "{top:", "{strip:"
    )
    assert worst_derivative(study(tmp_path, text), (1e-4, 2e-5)) < 1e-4
