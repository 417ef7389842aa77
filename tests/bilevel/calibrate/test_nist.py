"""NIST StRD: certified parameters and standard deviations, from both official starts of each problem."""

from pathlib import Path

import numpy as np
import pytest

from bilevel.calibrate.fit.run import calibrate
from bilevel.calibrate.settings import Method, Settings
from bilevel.calibrate.study.loading import load_study

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "nist"

# name: (second start, certified parameters, certified standard deviations, certified residual sum of squares)
CERTIFIED = {
    "misra1a": (
        [250.0, 5e-4],
        [2.3894212918e02, 5.5015643181e-04],
        [2.7070075241e00, 7.2668688436e-06],
        1.2455138894e-01,
    ),
    "hahn1": (
        [1.0, -0.1, 0.005, -1e-6, -0.005, 1e-4, -1e-7],
        [
            1.0776351733e00,
            -1.2269296921e-01,
            4.0863750610e-03,
            -1.4262662514e-06,
            -5.7609940901e-03,
            2.4053735503e-04,
            -1.2314450199e-07,
        ],
        [
            1.7070154742e-01,
            1.2000289189e-02,
            2.2508314937e-04,
            2.7578037666e-07,
            2.4712888219e-04,
            1.0449373768e-05,
            1.3027335327e-08,
        ],
        1.5324382854e00,
    ),
    "kirby2": (
        [1.5, -0.15, 0.0025, -0.0015, 2e-5],
        [1.6745063063e00, -1.3927397867e-01, 2.5961181191e-03, -1.7241811870e-03, 2.1664802578e-05],
        [8.7989634338e-02, 4.1182041386e-03, 4.1856520458e-05, 5.8931897355e-05, 2.0129761919e-07],
        3.9050739624e00,
    ),
}


def digits(found, certified):
    """Correct digits of the worst entry (log relative error)."""
    return float(-np.log10(np.max(np.abs(np.asarray(found) / np.asarray(certified) - 1))))


@pytest.mark.parametrize("start", [1, 2])
@pytest.mark.parametrize("name", CERTIFIED)
def test_least_squares_reaches_the_certified_digits(name, start):
    second, certified, deviations, squares = CERTIFIED[name]
    problem = load_study(EXAMPLES / name / "study.yml").problem
    if start == 2:
        values = {f"b{k}": np.array(v) for k, v in enumerate(second, 1)}
        problem.parameters = problem.parameters.with_start(values)
    result = calibrate(problem)
    found = [
        digits([e.value for e in result.estimates], certified),
        digits([e.std for e in result.estimates], deviations),
    ]
    print(f"{name} start {start}: {found[0]:.1f} digits of parameters, {found[1]:.1f} of standard deviations")
    assert result.converged
    assert min(found) >= 7.5
    assert result.phi == pytest.approx(squares, rel=1e-9)
    assert result.jacobian_error < 1e-8
    assert not result.identifiability.sentences


@pytest.mark.parametrize("name", ["misra1a", "kirby2"])
def test_lbfgsb_goes_to_the_same_minimum(name):
    _, certified, deviations, _ = CERTIFIED[name]
    problem = load_study(EXAMPLES / name / "study.yml").problem
    result = calibrate(problem, settings=Settings(method=Method.LBFGSB, noptmax=1000, tolerance=1e-9))
    assert digits([e.value for e in result.estimates], certified) >= 5
    assert digits([e.std for e in result.estimates], deviations) >= 5
