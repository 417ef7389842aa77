"""A flexible strip on two layers of Mohr-Coulomb soil: loaded to 200 kPa or to its limit load, and calibrated."""

from __future__ import annotations

import re
import tempfile
import time
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
NOISE = 0.1
"""Standard deviation of a settlement, mm."""
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
calibration: {{verify: false, tolerance: 1e-5}}
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


def carried(folder: Path, cohesion: float, share: float) -> tuple[float, np.ndarray]:
    """The pressure that the true ground carries, kPa, at most 200; and settlements at five levels up to 90 % of it."""
    top, truth = 200.0, list(TRUTH.values())
    try:
        return top, predicted(strip(folder, cohesion, share, truth, top))
    except ConvergenceError as error:
        found = re.search(r"load step (\d): the limit load is reached at ([\d.]+) %", str(error))
        if found is None:
            raise
        limit = top / 5 * (int(found[1]) - 1 + float(found[2]) / 100)
        return limit, predicted(strip(folder, cohesion, share, truth, 0.9 * limit))


def case(folder: Path, cohesion: float, share: float, seed: int, fit: bool) -> list[Record]:
    name = f"cohesion {cohesion:g} kPa, dilatancy {share:g} of friction"
    started = time.process_time()
    load, settlements = carried(folder, cohesion, share)
    seconds = time.process_time() - started
    records = [stated(f"{name}: carries", load, "kPa", "200 or a limit load", seconds)]
    if not fit:
        return records
    write_readings(folder, settlements + NOISE * np.random.default_rng(seed).standard_normal(len(settlements)))
    study = strip(folder, cohesion, share, [30.0, 60.0, 36.0, 38.0], load if load == 200.0 else 0.9 * load)
    started = time.process_time()
    result = calibrate(study.problem, settings=study.settings)
    seconds = time.process_time() - started
    found = {e.label: e for e in result.estimates}
    away = max(abs(found[n].value - value) / found[n].std for n, value in TRUTH.items())
    print(name, {n: (round(found[n].value, 3), round(found[n].std, 3)) for n in TRUTH}, flush=True)
    return [
        *records,
        at_most(f"{name}: worst of E and phi from the truth", away, 2.0, "std"),
        at_most(f"{name}: calibration, processor time", seconds, 180.0, "s", seconds),
    ]


def run(quick: bool) -> list[Record]:
    records = []
    for seed, (cohesion, share) in enumerate([(10.0, 0.5)] if quick else CASES):
        with tempfile.TemporaryDirectory() as name:
            write_ground(Path(name), (8, 6) if quick else (16, 12))
            records += case(Path(name), cohesion, share, seed, fit=True)
    return records
