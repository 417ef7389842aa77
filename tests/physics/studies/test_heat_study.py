"""`kind: heat` against closed forms: a slab with convection, a fin, a cooling sphere."""

from __future__ import annotations

import math
import re
import textwrap
from pathlib import Path

import meshio
import numpy as np
import pytest
from mesh_studies import misfit, study, worst_derivative, write_rows
from scipy.optimize import brentq

from bilevel.calibrate.study.loading import load_study
from bilevel.report import InputError

OBSERVED = """\
observations:
          - file: readings.csv
            value: {column: value, units: K}
            columns: {sensor: sensor, x: {column: x, units: m}, y: {column: y, units: m}}
"""


def test_slab_between_two_fluids(tmp_path: Path) -> None:
    """k T' is constant: T1 - T0 over the sum of resistances 1/h0 + L/k + 1/h1; with a source, a parabola."""
    k, h0, h1, length, source = 2.0, 25.0, 10.0, 0.1, 4000.0
    # T = c1 + c2 x - s x^2 / (2 k); at 0: -k c2 = h0 (T0 - c1); at L: -k (c2 - s L / k) = h1 (T(L) - T1)
    matrix = np.array([[h0, -k], [h1, k + h1 * length]])
    right = np.array([h0 * 400.0, h1 * 300.0 + source * length + h1 * source * length**2 / (2 * k)])
    c1, c2 = np.linalg.solve(matrix, right)
    x = np.linspace(0.0, length, 6)
    exact = c1 + c2 * x - source * x**2 / (2 * k)
    write_rows(
        tmp_path / "readings.csv", "sensor,x,y,value", [("temperature", *p) for p in zip(x, 0 * x + 0.01, exact)]
    )
    loaded = study(
        tmp_path,
        """\
        title: Slab
        model:
          kind: heat
          mesh: {lengths: [0.1, 0.02], cells: [8, 1], order: 2}
          geometry: section
          boundaries:
            left: {convection: {coefficient: film, temperature: 400 K}}
            right: {convection: {coefficient: 10 W/(m2 K), temperature: 300 K}}
          sources: {all: 4 kW/m3}
        parameters:
          - {name: thermal_conductivity, value: 2, units: W/(m K)}
          - {name: film, value: 25, units: W/(m2 K)}
        """
        + OBSERVED,
    )
    assert misfit(loaded) < 1e-4 * np.ptp(exact)
    assert worst_derivative(loaded) < 1e-6


def test_fin_that_gives_off_heat_at_its_sides(tmp_path: Path) -> None:
    """T - T0 = (Tb - T0) cosh(m (L - x)) / cosh(m L), m^2 = 2 h / (k t), for a thin fin with a tip that is not cooled."""
    k, h, t, length = 200.0, 20.0, 0.001, 0.1
    m = math.sqrt(2 * h / (k * t))
    x = np.linspace(0.0, length, 6)
    exact = 300.0 + 60.0 * np.cosh(m * (length - x)) / math.cosh(m * length)
    write_rows(
        tmp_path / "readings.csv", "sensor,x,y,value", [("temperature", *p) for p in zip(x, 0 * x + t / 2, exact)]
    )
    loaded = study(
        tmp_path,
        """\
        title: Fin
        model:
          kind: heat
          mesh: {lengths: [100, 1], cells: [40, 2], order: 2, units: mm}
          geometry: section
          boundaries:
            left: {temperature: 360 K}
            top: {convection: {coefficient: film, temperature: 300 K}}
            bottom: {convection: {coefficient: film, temperature: 300 K}}
        parameters:
          - {name: thermal_conductivity, value: 200, units: W/(m K), fixed: true}
          - {name: film, value: 20, units: W/(m2 K)}
        """
        + OBSERVED,
    )
    assert misfit(loaded) < 1e-4 * 60.0


def test_sphere_that_cools_by_convection(tmp_path: Path) -> None:
    """Carslaw & Jaeger 1959, section 9.4: sums of sin(b r) / r exp(-D b^2 t) with b R cot(b R) = 1 - Bi."""
    k, c, h, radius = 0.5, 2.0e6, 30.0, 0.02
    biot, diffusivity = h * radius / k, k / c
    roots = [
        brentq(lambda x: x * math.cos(x) - (1 - biot) * math.sin(x), n * math.pi + 1e-9, (n + 1) * math.pi - 1e-9)
        for n in range(30)
    ]

    def exact(r: float, t: float) -> float:
        total = 0.0
        for x in roots:
            weight = 2 * (math.sin(x) - x * math.cos(x)) / (x - math.sin(x) * math.cos(x))
            shape = math.sin(x * r / radius) / (x * r / radius) if r else 1.0
            total += weight * shape * math.exp(-diffusivity * (x / radius) ** 2 * t)
        return 290.0 + 70.0 * total

    rows = [(f"r{n}", t, exact(r, t)) for n, r in enumerate((0.0, 0.01, 0.018)) for t in (100.0, 300.0, 600.0, 1200.0)]
    write_rows(tmp_path / "readings.csv", "sensor,t,value", rows)
    loaded = study(
        tmp_path,
        _sphere_text(tmp_path),
    )
    assert misfit(loaded) < 1e-4 * 70.0


def _sphere_text(folder: Path) -> str:
    """The study of a quarter of a disc, swept around the axis; its round side has the group `skin`."""
    radius, n, layers = 0.02, 12, 16
    angles = np.linspace(0.0, math.pi / 2, n + 1)
    radii = radius * np.linspace(0.0, 1.0, layers + 1)[1:]
    points = [(0.0, 0.0), *((r * math.cos(a), r * math.sin(a)) for r in radii for a in angles)]

    def number(layer: int, angle: int) -> int:
        return 1 + layer * (n + 1) + angle

    triangles = [(0, number(0, a), number(0, a + 1)) for a in range(n)]
    for layer in range(layers - 1):
        for a in range(n):
            one, two, three, four = (
                number(layer, a),
                number(layer + 1, a),
                number(layer + 1, a + 1),
                number(layer, a + 1),
            )
            triangles += [(one, two, three), (one, three, four)]
    skin = [(number(layers - 1, a), number(layers - 1, a + 1)) for a in range(n)]
    cells = [("triangle", np.array(triangles)), ("line", np.array(skin))]
    curved, data = _curved(np.array(points), cells, radius)
    tags = [np.full(len(data[0][1]), 1), np.full(len(data[1][1]), 2)]
    mesh = meshio.Mesh(curved, data, cell_data={"gmsh:physical": tags, "gmsh:geometrical": tags})
    mesh.field_data = {"ball": np.array([1, 2]), "skin": np.array([2, 1])}
    mesh.write(folder / "ball.msh", file_format="gmsh22")
    return """\
    title: Sphere
    model:
      kind: heat
      mesh: ball.msh
      geometry: axisymmetric
      time: {end: 1200 s, first_step: 1 s, growth: 1.05}
      initial: 360 K
      boundaries:
        skin: {convection: {coefficient: 30 W/(m2 K), temperature: 290 K}}
      sensors:
        r0: {at: [0 m, 0 m]}
        r1: {at: [0 cm, 1 cm]}
        r2: {at: [0 mm, 18 mm]}
    parameters:
      - {name: thermal_conductivity, value: 0.5, units: W/(m K)}
      - {name: heat_capacity, value: 2, units: MJ/(m3 K)}
    observations:
      - file: readings.csv
        value: {column: value, units: K}
        columns: {sensor: sensor, time: {column: t, units: s}}
    """


def _curved(points: np.ndarray, cells: list, radius: float) -> tuple[np.ndarray, list]:  # type: ignore[type-arg]
    """The same cells of second order, with the middles of the skin's edges on the sphere."""
    points = [tuple(p) for p in points]
    middles: dict[tuple[int, int], int] = {}

    def middle(a: int, b: int) -> int:
        key = (min(a, b), max(a, b))
        if key not in middles:
            middles[key] = len(points)
            x = (np.array(points[a]) + np.array(points[b])) / 2
            ends = [math.hypot(*points[i]) for i in (a, b)]
            if min(ends) > 0.999 * radius:
                x = x * radius / math.hypot(*x)
            points.append(tuple(x))
        return middles[key]

    triangles = [(*t, middle(t[0], t[1]), middle(t[1], t[2]), middle(t[2], t[0])) for t in cells[0][1]]
    lines = [(*e, middle(e[0], e[1])) for e in cells[1][1]]
    flat = np.array(points)
    return np.pad(flat, ((0, 0), (0, 1))), [("triangle6", np.array(triangles)), ("line3", np.array(lines))]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("360 K", "360", r"study.yml, line 7: model.initial: expected a text"),
        ("360 K", "3 m", r"line 7: model.initial: units 'm' \(m\) do not convert to 'K'"),
        (
            "skin: {conv",
            "sking: {conv",
            r"line 9: model.boundaries.sking: the mesh has no boundary 'sking'; it has .*skin",
        ),
        ("coefficient: 30 W/(m2 K)", "coefficient: 30 W/m2", r"line 9: .*coefficient: units 'W/m2'"),
        ("end: 1200 s", "end: 600 s", r"readings.csv, line 5: is at time 1200 s, and the model runs from 0 to 600"),
        ("end: 1200 s", "end: 0 s", r"line 6: model.time.end: the end, 0 s, must come after the start"),
        ("[0 m, 0 m]", "[0 m]", r"line 11: model.sensors.r0.at: .*at least 2 items"),
        ("[0 m, 0 m]", "[0 m, 0 m, 0 m]", r"line 11: .*the mesh has 2 dimensions, the point has 3"),
        ("r2: {at", "q2: {at", r"readings.csv, line 10: there is no sensor 'r2'"),
        ("axisymmetric", "space", r"line 5: model.geometry: 'space' does not go with a mesh in 2 dimensions"),
        ("ball.msh", "bell.msh", r"line 4: model.mesh: mesh file .*bell.msh does not exist"),
        ("units: K}", "units: kPa}", r"readings.csv, line 2: units 'kPa'"),
        ("sensor: sensor, time", "sensor: sensor, x", r"units"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    rows = [(f"r{n}", t, 300.0) for n in range(3) for t in (100.0, 300.0, 600.0, 1200.0)]
    write_rows(tmp_path / "readings.csv", "sensor,t,value", rows)
    text = textwrap.dedent(_sphere_text(tmp_path))
    assert old in text
    (tmp_path / "study.yml").write_text(text.replace(old, new))
    with pytest.raises(InputError) as error:
        load_study(tmp_path / "study.yml")
    assert re.search(sentence, str(error.value)), error.value
