"""A flexible strip on two layers of Mohr-Coulomb soil: loaded to 200 kPa or to its limit load, and calibrated."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import Record, at_most, stated
from bilevel.calibrate import calibrate, load_study
from bilevel.calibrate.study.study import Study
from bilevel.report import ConvergenceError
from physics.discretisation import Shape, rectangle
from physics.discretisation.write import write_gmsh

LINE = (
    "strip on two layers, Mohr-Coulomb, to 200 kPa or its limit load; E and phi of both layers from 6 points x 5 levels"
)
DURATION = "15 minutes"

CASES = [(cohesion, share) for cohesion in (2.0, 10.0) for share in (0.0, 0.5, 1.0)]
"""Cohesion in kPa, dilatancy over friction angle."""
TRUTH = {
    "youngs_modulus[upper]": 20.0,
    "youngs_modulus[lower]": 40.0,
    "friction_angle[upper]": 30.0,
    "friction_angle[lower]": 33.0,
}
START = [30.0, 60.0, 36.0, 38.0]
"""Of calibrations: 50 % off in E, 5 to 6 degrees in the angles."""
ASKED, BELOW = 200.0, 0.9
"""kPa; readings end there, or at this share of the limit load: at 0.9999 of it, settlements are metres."""
NOISE = 0.1
"""Standard deviation of a settlement, mm, which the study is told."""
DRAWS = (0, 1, 2)
"""Seeds of noise."""
POINTS = [(0.0, 6.0), (0.9, 6.0), (1.5, 6.0), (0.0, 5.0), (0.0, 3.5), (1.5, 4.5)]
STUDY = """\
title: Strip on two layers
model:
  kind: solid
  mesh: ground.msh
  kinematics: plane_strain
  law: mohr_coulomb
  spread: {{youngs_modulus: zones, friction_angle: zones, dilatancy_angle: zones}}
  supports:
    bottom: {{x: 0 m, y: 0 m}}
    left: {{x: 0 m}}
    right: {{x: 0 m}}
  loads: {{strip: {{pressure: {{file: load.csv, time: level, value: {{column: pressure, units: kPa}}}}}}}}
  geostatic: {{unit_weight: 18 kN/m3, k0: 0.5, surface: 6 m}}
  time: {{end: 5, steps: 5}}
parameters:
  - {{name: "youngs_modulus[upper]", value: {0}, units: MPa, lower: 2, upper: 500}}
  - {{name: "youngs_modulus[lower]", value: {1}, units: MPa, lower: 2, upper: 500}}
  - {{name: "friction_angle[upper]", value: {2}, units: deg, lower: 15, upper: 45}}
  - {{name: "friction_angle[lower]", value: {3}, units: deg, lower: 15, upper: 45}}
  - {{name: "dilatancy_angle[upper]", expr: "{share} * friction_angle[upper]", units: deg}}
  - {{name: "dilatancy_angle[lower]", expr: "{share} * friction_angle[lower]", units: deg}}
  - {{name: poissons_ratio, value: 0.3, fixed: true}}
  - {{name: cohesion, value: {cohesion}, units: kPa, fixed: true}}
observations:
  - file: u.csv
    value: {{column: u, units: mm}}
    columns: {{sensor: sensor, time: level, x: {{column: x, units: m}}, y: {{column: y, units: m}}}}
    std: {noise}
calibration: {{verify: false, tolerance: 0.05, noise: known}}
"""


def write_ground(folder: Path, cells: tuple[int, int]) -> None:
    """Half of the ground under a strip 2 m wide, layers meeting 2 m deep, as second-order triangles in gmsh's format."""
    mesh = rectangle(*cells, (8.0, 6.0), Shape.TRIANGLE, order=2)
    mesh = mesh.with_region("upper", lambda x: x[:, 1] > 4.0).with_region("lower", lambda x: x[:, 1] < 4.0)
    write_gmsh(
        folder / "ground.msh", mesh.with_boundary("strip", lambda x: (x[:, 1] > 6 - 1e-9) & (x[:, 0] < 1 + 1e-9))
    )


def strip(folder: Path, cohesion: float, share: float, start: list[float], top: float) -> Study:
    """The study with a load up to `top` kPa in five levels."""
    rows = [f"{level},{top * level / 5:.10g}" for level in range(6)]
    (folder / "load.csv").write_text("\n".join(["level,pressure", *rows]) + "\n")
    if not (folder / "u.csv").exists():
        write_readings(folder, np.zeros(5 * len(POINTS)))
    text = STUDY.format(*start, cohesion=cohesion, share=share, noise=NOISE)
    (folder / "study.yml").write_text(text)
    return load_study(folder / "study.yml")


def write_readings(folder: Path, values: np.ndarray) -> None:
    places = [(level, x, y) for level in range(1, 6) for x, y in POINTS]
    rows = [f"uy,{level},{x},{y},{value:.10g}" for (level, x, y), value in zip(places, values)]
    (folder / "u.csv").write_text("\n".join(["sensor,level,x,y,u", *rows]) + "\n")


def predicted(study: Study) -> np.ndarray:
    """Settlements in mm."""
    with torch.no_grad():
        return 1e3 * study.problem.predict(torch.as_tensor(study.problem.parameters.start())).numpy()


def limit_load(folder: Path, cohesion: float, share: float, top: float) -> tuple[float, np.ndarray | None]:
    """The pressure that the true ground carries, kPa, at most `top`; and where that is `top` its settlements."""
    try:
        return top, predicted(strip(folder, cohesion, share, list(TRUTH.values()), top))
    except ConvergenceError as error:
        found = re.search(r"load step (\d): the limit load is reached at ([\d.]+) %", str(error))
        if found is None:
            raise
        return top / 5 * (int(found[1]) - 1 + float(found[2]) / 100), None


def case(folder: Path, cohesion: float, share: float, draws: Sequence[int]) -> list[Record]:
    """To 200 kPa or the limit load; and calibrations from readings up to 200 kPa, or to 90 % of the limit load."""
    name = f"cohesion {cohesion:g} kPa, dilatancy {share:g} of friction"
    started = time.process_time()
    load, settlements = limit_load(folder, cohesion, share, ASKED)
    seconds = time.process_time() - started
    records = [stated(f"{name}: carries", load, "kPa", "200 or a limit load", seconds)]
    limit = load if settlements is None else limit_load(folder, cohesion, share, ASKED / BELOW)[0]
    top = min(ASKED, BELOW * limit)
    if settlements is None or top < ASKED:
        settlements = predicted(strip(folder, cohesion, share, list(TRUTH.values()), top))
    for draw in draws:
        noise = NOISE * np.random.default_rng(draw).standard_normal(len(settlements))
        write_readings(folder, settlements + noise)
        records += calibration(f"{name}, draw {draw}", strip(folder, cohesion, share, START, top))
    return records


def calibration(name: str, study: Study) -> list[Record]:
    """Least squares; how far from the truth, and how long it took."""
    started = time.process_time()
    result = calibrate(study.problem, settings=study.settings)
    seconds = time.process_time() - started
    found = {e.label: e for e in result.estimates}
    away = {n: (found[n].value - value) / found[n].std for n, value in TRUTH.items()}
    print(
        name, {n: f"{found[n].value:.4g} +- {found[n].std:.2g}, {far:+.1f} std" for n, far in away.items()}, flush=True
    )
    return [
        at_most(f"{name}: worst of E and phi from the truth", max(map(abs, away.values())), 2.0, "std"),
        at_most(f"{name}: calibration, processor time", seconds, 180.0, "s", seconds),
    ]


def run(quick: bool) -> list[Record]:
    records = []
    for cohesion, share in [(10.0, 0.5)] if quick else CASES:
        with tempfile.TemporaryDirectory() as name:
            write_ground(Path(name), (8, 6) if quick else (16, 12))
            records += case(Path(name), cohesion, share, DRAWS[:1] if quick else DRAWS)
    return records
