"""Whether the scale of weights matters to a calibration: outer iterations and parameters with all weights times 1e-3 to 1e6."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.record import Record, at_most, stated
from bilevel.calibrate import calibrate
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.study.loading import load_study

LINE = "outer iterations of shipped studies with all weights times 1e-3, 1, 1e3 and 1e6"
DURATION = "2 minutes"

EXAMPLES = Path(__file__).parents[2] / "examples"
STUDIES = (
    "oude_korendijk/study.yml",
    "nist/kirby2/study.yml",
    "net3/study.yml",
    "dalem/study.yml",
    "treloar/study_extended_tube.yml",
    "treloar/study.yml",
)
FACTORS = (1.0, 1e-3, 1e3, 1e6)


def calibrated(name: str, factor: float) -> CalibrationResult:
    """A shipped study with all weights times a factor, to a relative offset of 1e-6."""
    study = load_study(EXAMPLES / name)
    problem = study.problem
    experiments = [
        replace(e, observations=replace(e.observations, weight=factor * e.observations.weight))
        for e in problem.experiments
    ]
    scaled = CalibrationProblem(problem.parameters.parameters, experiments, problem.sweep)
    return calibrate(scaled, settings=replace(study.settings, statistics=False, verify=False, tolerance=1e-6))


def run(quick: bool) -> list[Record]:
    records = []
    for name in STUDIES[:2] if quick else STUDIES:
        found = [calibrated(name, factor) for factor in FACTORS]
        counts = [len(result.iterations) - 1 for result in found]
        values = [np.concatenate([np.ravel(v) for v in result.values.values()]) for result in found]
        apart = max(float(np.abs(v / values[0] - 1.0).max()) for v in values)
        records += [
            stated(f"{name}: outer iterations, weights times {factor:g}", count)
            for factor, count in zip(FACTORS, counts, strict=True)
        ]
        records += [
            at_most(f"{name}: largest difference of iterations", max(counts) - min(counts), 1.0),
            at_most(f"{name}: largest relative difference of a parameter", apart, 1e-6),
            stated(f"{name}: not converged", sum(not result.converged for result in found)),
        ]
    return records
