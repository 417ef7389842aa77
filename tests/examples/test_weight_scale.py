"""The scale of weights is that of nobody's problem: the outer loop takes the same steps whatever it is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bilevel.calibrate import calibrate, load_study
from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.problem import CalibrationProblem

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
STUDIES = [
    "nist/misra1a/study.yml",
    "nist/hahn1/study.yml",
    "nist/kirby2/study.yml",
    "treloar/study_extended_tube.yml",
    "oude_korendijk/study.yml",
]


def heavier(problem: CalibrationProblem, factor: float) -> CalibrationProblem:
    experiments = [
        Experiment(e.name, e.model, replace(e.observations, weight=factor * e.observations.weight))
        for e in problem.experiments
    ]
    return CalibrationProblem(problem.parameters.parameters, experiments, problem.sweep)


@pytest.mark.parametrize("name", STUDIES)
def test_outer_iterations_do_not_depend_on_the_scale_of_weights(name):
    study = load_study(EXAMPLES / name)
    settings = replace(study.settings, verify=False)
    results = {f: calibrate(heavier(study.problem, f), settings=settings) for f in (1e-3, 1.0, 1e3, 1e6)}
    counts = {f: len(result.iterations) - 1 for f, result in results.items()}
    print(name, counts)
    assert max(counts.values()) - min(counts.values()) <= 1, counts
    for result in results.values():
        np.testing.assert_allclose(result.evaluation.t, results[1.0].evaluation.t, rtol=1e-6, atol=1e-8)
