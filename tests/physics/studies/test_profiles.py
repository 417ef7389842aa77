"""A leaky aquifer whose data see no leakage: its resistance has a lower bound and no upper one, as brute force finds."""

from __future__ import annotations

import numpy as np
from scipy import stats
from scipy.optimize import brentq, least_squares

from bilevel.calibrate import Noise, Settings, calibrate, load_study, profiles
from physics.flow.well_functions import hantush, theis

RADIUS, THICKNESS, DISCHARGE, SIGMA = 30.0, 10.0, 500.0, 0.02
TIMES = np.geomspace(2e-3, 0.5, 12)  # days; leakage of c = 1e5 d would show later
STUDY = """\
title: No leakage is seen
model:
  kind: pumping_test
  aquifer: leaky
  solution: closed_form
  thickness: 10 m
  discharge: 500 m3/d
  observation_wells: {P30: 30 m}
parameters:
  - {name: hydraulic_conductivity, value: 30, lower: 1, upper: 1000, units: m/d}
  - {name: specific_storage, value: 1.0e-5, lower: 1.0e-7, upper: 1.0e-2, units: 1/m}
  - {name: aquitard_resistance, value: 3000, lower: 1, upper: 1.0e+6, units: d}
observations:
  - file: readings.csv
    value: {column: drawdown, units: m}
    columns: {time: {column: time, units: d}, well: well}
    std: 0.02
calibration: {noise: known, verify: false}
profiles: [aquitard_resistance]
"""


def least_phi(resistance: float, readings: np.ndarray) -> float:
    def residual(logs: np.ndarray) -> np.ndarray:
        conductivity, storage = np.exp(logs)
        drawdown = hantush(TIMES, RADIUS, conductivity * THICKNESS, storage * THICKNESS, resistance, DISCHARGE)
        return (drawdown - readings) / SIGMA

    return 2 * least_squares(residual, np.log([25.0, 2e-5]), x_scale="jac", xtol=1e-12, ftol=1e-12).cost


def test_the_resistance_is_only_bounded_from_below(tmp_path):
    readings = theis(TIMES, RADIUS, 250.0, 2e-4, DISCHARGE)
    readings = readings + SIGMA * np.random.default_rng(3).normal(size=len(TIMES))
    rows = "\n".join(f"{t!r},P30,{s!r}" for t, s in zip(TIMES.tolist(), readings.tolist()))
    (tmp_path / "readings.csv").write_text(f"time,well,drawdown\n{rows}\n")
    (tmp_path / "study.yml").write_text(STUDY)
    study = load_study(tmp_path / "study.yml")
    settings = Settings(noise=Noise.KNOWN, verify=False)
    result = calibrate(study.problem, settings=settings)
    (found,) = profiles(study.problem, result.evaluation, study.profiles, settings=settings)
    threshold = min(
        least_phi(c, readings) for c in (1e6, float(result.values["aquitard_resistance"]))
    ) + stats.chi2.ppf(0.95, 1)
    lower = brentq(lambda log: least_phi(np.exp(log), readings) - threshold, np.log(3.0), np.log(1e6), xtol=1e-4)
    assert found.bounded == (True, False)
    assert abs(found.lower / np.exp(lower) - 1) < 0.01
    assert "aquitard_resistance is only bounded from below, by" in found.sentence
    assert "d: up to 1e+06 d phi rises by" in found.sentence
