"""`kind: darcy`: a tide, an aquifer with pilot points and wells, balances of water, a study of one's own mesh."""

from __future__ import annotations

import math
from pathlib import Path

import meshio
import numpy as np
import pytest
import torch
from mesh_studies import misfit, study, worst_derivative, write_rows

from bilevel.calibrate.fit.run import calibrate
from bilevel.calibrate.study.loading import load_study
from bilevel.calibrate.study.study import Study


def test_tide_at_a_boundary(tmp_path: Path) -> None:
    """exp(-p x) sin(w t - p x), p = sqrt(w S / 2 T) (Ferris 1951): 40 cells, 20 steps a period, after four periods."""
    w, p = 2 * math.pi / 0.5, math.sqrt(2 * math.pi / 0.5 * 0.05 / (2 * 100.0))
    times = np.linspace(0.0, 3.0, 481)
    write_rows(tmp_path / "tide.csv", "t,h", zip(times, np.sin(w * times)))
    rows = [
        ("head", x, 2.5, t, math.exp(-p * x) * math.sin(w * t - p * x))
        for x in (5.0, 10.0, 20.0, 40.0)
        for t in np.linspace(2.0, 3.0, 21)
    ]
    write_rows(tmp_path / "heads.csv", "sensor,x,y,t,h", rows)
    loaded = study(
        tmp_path,
        """\
        title: Tide
        model:
          kind: darcy
          mesh: {lengths: [200, 5], cells: [40, 1]}
          geometry: plan
          time: {end: 3 d, steps: 120}
          initial: 0 m
          boundaries:
            left: {head: {file: tide.csv, time: {column: t, units: d}, value: {column: h, units: m}}}
        parameters:
          - {name: transmissivity, value: 100, units: m2/d}
          - {name: storativity, value: 0.05}
        observations:
          - file: heads.csv
            value: {column: h, units: m}
            columns:
              sensor: sensor
              time: {column: t, units: d}
              x: {column: x, units: m}
              y: {column: y, units: m}
        """,
    )
    error = misfit(loaded)
    print("largest error of the tide", error)
    assert error <= 0.02


AQUIFER = """\
title: Aquifer with a river and two wells
model:
  kind: darcy
  mesh: {lengths: [1000, 800], cells: [20, 16]}
  geometry: plan
  spread:
    transmissivity:
      layout: pilot_points
      points: {file: pilots.csv, name: name, x: {column: x, units: m}, y: {column: y, units: m}}
      correlation_length: 500 m
      reference: 150 m2/d
      std: 1.0
  boundaries:
    left: {head: {file: river.csv, time: {column: t, units: d}, value: {column: stage, units: m}}}
    right: {river: {coefficient: 0.5 m/d, head: 12 m}}
  recharge: {all: 0.4 mm/d}
  wells:
    W1: {at: [430 m, 310 m], rate: {file: W1.csv, time: {column: t, units: d}, value: {column: q, units: m3/h, sign: -1}}}
    W2: {at: [700 m, 620 m], rate: -400 m3/d}
  time: {end: 40 d, steps: 40}
  points: {file: wells.csv, name: name, x: {column: x, units: m}, y: {column: y, units: m}}
parameters:
  - {name: transmissivity, value: {file: pilots.csv, column: start}, units: m2/d}
  - {name: storativity, value: 0.003}
observations:
  - file: heads.csv
    value: {column: head, units: m}
    columns: {sensor: well, time: {column: t, units: d}}
    std: 0.01
calibration: {noise: known, verify: false}
"""


def aquifer(folder: Path) -> tuple[Study, np.ndarray]:
    """A twin of 30 observation wells; the study, and the true transmissivity of the 16 pilot points."""
    generator = np.random.default_rng(3)
    x, y = (grid.ravel() for grid in np.meshgrid(np.linspace(100, 900, 4), np.linspace(80, 720, 4)))
    truth = 150 * np.exp(0.6 * np.sin(x / 250) * np.cos(y / 300) + 0.15 * generator.standard_normal(16))
    write_rows(folder / "pilots.csv", "name,x,y,start", [(f"p{k}", *row) for k, row in enumerate(zip(x, y, truth))])
    places = generator.uniform((60, 60), (940, 740), (30, 2))
    write_rows(folder / "wells.csv", "name,x,y", [(f"o{k}", *place) for k, place in enumerate(places)])
    times = np.linspace(0.0, 40.0, 81)
    write_rows(folder / "river.csv", "t,stage", zip(times, 10 + 0.8 * np.sin(times / 6)))
    write_rows(folder / "W1.csv", "t,q", [(0, 0), (5, 25), (20, 0), (30, 40)])
    readings = [(f"o{k}", t, 0.0) for k in range(30) for t in (0.5, 5.5, 8.0, 15.0, 22.0, 33.0, 39.0)]
    write_rows(folder / "heads.csv", "well,t,head", readings)
    twin = study(folder, AQUIFER).problem
    heads = twin.evaluate(twin.parameters.start(), with_jacobian=False).prediction
    heads = heads + 0.01 * generator.standard_normal(len(heads))
    write_rows(folder / "heads.csv", "well,t,head", [(*row[:2], head) for row, head in zip(readings, heads)])
    write_rows(folder / "pilots.csv", "name,x,y,start", [(f"p{k}", *row, 150.0) for k, row in enumerate(zip(x, y))])
    return load_study(folder / "study.yml"), truth


def test_jacobian_of_an_aquifer_with_pilot_points(tmp_path: Path) -> None:
    loaded, _ = aquifer(tmp_path)
    worst = worst_derivative(loaded)
    print("Jacobian against differences", worst)
    assert worst < 1e-6


@pytest.mark.slow
def test_aquifer_with_pilot_points_is_recovered(tmp_path: Path) -> None:
    loaded, truth = aquifer(tmp_path)
    result = calibrate(loaded.problem, settings=loaded.settings)
    found = np.array([e.value for e in result.estimates[:16]])
    std = np.array([e.std / e.value for e in result.estimates[:16]])
    score = np.abs(np.log(found / truth)) / std
    print("phi", result.phi, "deviations over std", np.round(score, 2), "std", np.round(std, 3))
    assert result.phi == pytest.approx(210, rel=0.35)
    assert (score < 3.5).all()
    assert (score < 2).mean() >= 0.8
    assert np.median(std) < 0.3


def test_water_that_comes_in_goes_out_or_is_stored(tmp_path: Path) -> None:
    """Boundaries, recharge and a well balance, in steady state, in an anisotropic section of two zones."""
    write_rows(tmp_path / "flows.csv", "sensor,q", [("west", 0.0), ("east", 0.0)])
    loaded = study(
        tmp_path,
        """\
        title: Balance
        model:
          kind: darcy
          mesh: {lengths: [100, 20], cells: [10, 4], order: 2, triangles: true}
          geometry: section
          anisotropic: true
          direction: 20 deg
          boundaries:
            left: {head: 11 m}
            right: {river: {coefficient: 0.2 1/d, head: 10 m}}
            top: {inflow: 2 mm/d}
          wells: {W: {at: [40 m, 8 m], rate: -0.35 m2/d}}
          sensors: {west: {through: left}, east: {through: right}}
        parameters:
          - {name: hydraulic_conductivity, value: 5, units: m/d}
          - {name: anisotropy, value: 0.1}
        observations:
          - {file: flows.csv, value: {column: q, units: m2/d}, columns: {sensor: sensor}}
        """,
    )
    problem = loaded.problem
    flows = problem.evaluate(problem.parameters.start()).prediction * 86400
    assert flows.sum() == pytest.approx(0.35 - 0.2, rel=1e-8)
    assert abs(flows[0]) > 0.1
    assert worst_derivative(loaded) < 1e-6


def test_flow_through_a_boundary_in_time_counts_what_is_stored(tmp_path: Path) -> None:
    """After the head at one end has jumped, what came in is what the aquifer stores."""
    rows = [("flow", t, 0.0) for t in np.linspace(0.5, 10, 20)]
    write_rows(tmp_path / "flows.csv", "sensor,t,q", rows)
    loaded = study(
        tmp_path,
        """\
        title: Filling
        model:
          kind: darcy
          mesh: {lengths: [50, 10], cells: [25, 1], order: 2}
          geometry: plan
          boundaries: {left: {head: 3 m}}
          time: {end: 10 d, steps: 400}
          initial: base
          sensors: {flow: {through: left}}
        parameters:
          - {name: transmissivity, value: 40, units: m2/d}
          - {name: storativity, value: 0.1}
          - {name: base, value: 200, units: cm}
        observations:
          - {file: flows.csv, value: {column: q, units: m3/d}, columns: {sensor: sensor, time: {column: t, units: d}}}
        """,
    )
    model = loaded.problem.experiments[0].model
    arguments = loaded.problem.arguments(
        loaded.problem.experiments[0], torch.as_tensor(loaded.problem.parameters.start())
    )
    with torch.no_grad():
        fields, rates, params = model._fields(arguments)
        inflow = model.read(fields, rates, params)[:, 0]
    times = torch.from_numpy(model.history.steps.times)
    weights = model.mesh.operator(gradient=False, value=True)
    stored = [
        0.1 * float((weights.weights() * (weights.apply(f[:, None])[..., 0, 0] - 2.0)).sum())
        for f in fields[[200, 400]]
    ]
    came = float(torch.trapezoid(inflow[200:], times[200:]))
    assert came == pytest.approx(stored[1] - stored[0], rel=1e-4)


NEWCOMER = """\
title: Sand and clay
model:
  kind: darcy
  mesh: {file: site.msh, units: m}
  geometry: plan
  spread: {transmissivity: zones}
  boundaries:
    river: {head: 10 m}
    canal: {head: 8 m}
  recharge: {all: 1 mm/d}
  points: {file: wells.csv, name: well, x: {column: x, units: m}, y: {column: y, units: m}}
parameters:
  - {name: "transmissivity[sand]", value: 100, units: m2/d}
  - {name: "transmissivity[clay]", value: 10, units: m2/d}
observations:
  - file: heads.csv
    value: {column: head, units: m}
    columns: {sensor: well}
    std: 0.02
"""


def site(folder: Path) -> None:
    """A mesh of two zones with groups by name, and a twin's readings."""
    x, y = np.meshgrid(np.linspace(0, 400, 21), np.linspace(0, 200, 11))
    points = np.stack((x.ravel(), y.ravel(), 0 * x.ravel()), 1)
    corner = np.arange(20)[None] + 21 * np.arange(10)[:, None]
    cells = np.stack((corner, corner + 1, corner + 22, corner + 21), -1).reshape(-1, 4)
    zone = np.where(points[cells].mean(1)[:, 0] < 200, 1, 2)
    left, right = ([[21 * k + at, 21 * (k + 1) + at] for k in range(10)] for at in (0, 20))
    tags = [zone, np.full(10, 3), np.full(10, 4)]
    mesh = meshio.Mesh(
        points,
        [("quad", cells), ("line", np.array(left)), ("line", np.array(right))],
        cell_data={"gmsh:physical": tags, "gmsh:geometrical": tags},
        field_data={
            "sand": np.array([1, 2]),
            "clay": np.array([2, 2]),
            "river": np.array([3, 1]),
            "canal": np.array([4, 1]),
        },
    )
    mesh.write(folder / "site.msh", file_format="gmsh22")
    wells = [("A", 60, 50), ("B", 150, 120), ("C", 260, 80), ("D", 340, 150)]
    write_rows(folder / "wells.csv", "well,x,y", wells)
    write_rows(folder / "heads.csv", "well,head", [(name, 0.0) for name, *_ in wells])
    (folder / "study.yml").write_text(NEWCOMER.replace("value: 100", "value: 240").replace("value: 10,", "value: 35,"))
    problem = load_study(folder / "study.yml").problem
    heads = problem.evaluate(problem.parameters.start()).prediction
    write_rows(folder / "heads.csv", "well,head", [(well[0], head) for well, head in zip(wells, heads)])
    (folder / "study.yml").write_text(NEWCOMER)


def test_from_a_mesh_and_a_table_to_a_report(tmp_path: Path) -> None:
    from bilevel.calibrate.study.session import Session

    site(tmp_path)
    assert len(NEWCOMER.splitlines()) <= 25
    loaded = load_study(tmp_path / "study.yml")
    result = Session.beside(loaded).run()
    values = [e.value for e in result.estimates]
    assert values == pytest.approx([240, 35], rel=1e-5)
    assert not [note for note in result.notes if "could not" in note]
    assert "Mesh" in (tmp_path / "results" / "report.html").read_text()
    fields = meshio.read(next((tmp_path / "results" / "state").rglob("*.vtu")))
    assert set(fields.point_data) == {"head"}
    assert sorted(set(np.round(fields.cell_data["transmissivity"][0], 2))) == [35.0, 240.0]
