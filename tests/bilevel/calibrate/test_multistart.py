"""Several starts find the deeper of two minima, alike with and without an executor."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from bilevel.calibrate.fit.executors import Workers
from bilevel.calibrate.fit.multistart import multistart
from bilevel.calibrate.parameter import Parameter
from bilevel.calibrate.problem import problem_from_function
from bilevel.calibrate.settings import Starts
from bilevel.report import InputError

X = torch.linspace(0.0, 6.0, 40)


def wave(p):
    return torch.sin(p["frequency"] * X)


def test_the_right_frequency_is_found_from_a_start_that_is_trapped():
    problem = problem_from_function([Parameter("frequency", 7.0, 0.5, 8.0)], wave, torch.sin(2.3 * X))
    alone = multistart(problem, Starts(12))
    assert float(alone[0].values["frequency"]) == pytest.approx(2.3, rel=1e-8)
    assert alone[0].phi < 1e-12
    assert alone[-1].phi > 1.0
    with ThreadPoolExecutor(2) as pool:
        pooled = multistart(problem, Starts(12), workers=Workers(pool))
    np.testing.assert_allclose([o.phi for o in pooled], [o.phi for o in alone], rtol=1e-9, atol=1e-20)


def test_bounds_are_needed():
    with pytest.raises(InputError, match="several starts need a lower and an upper bound"):
        multistart(problem_from_function([Parameter("frequency", 7.0)], wave, X), Starts(3))
