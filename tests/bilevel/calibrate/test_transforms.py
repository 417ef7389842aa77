"""Transforms: there and back, slopes against finite differences, bounds."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bilevel.calibrate.settings import Transform
from bilevel.calibrate.transforms import Coordinate

COORDINATES = [Coordinate(), Coordinate(Transform.LOG, 0.0, 1e9), Coordinate(Transform.LOGIT, -2.0, 5.0)]


@pytest.mark.parametrize("coordinate", COORDINATES, ids=lambda c: c.transform.value)
@given(share=st.floats(1e-6, 1 - 1e-6))
def test_there_and_back(coordinate, share):
    low = max(coordinate.lower, -10.0)
    value = torch.tensor(low + share * (min(coordinate.upper, 10.0) - low))
    t = coordinate.to_coordinate(value)
    assert float(coordinate.to_natural(t)) == pytest.approx(float(value), rel=1e-9, abs=1e-9)
    assert coordinate.bounds()[0] <= float(t) <= coordinate.bounds()[1]


@pytest.mark.parametrize("coordinate", COORDINATES, ids=lambda c: c.transform.value)
@given(t=st.floats(-3, 3))
def test_slope_is_the_derivative(coordinate, t):
    h, point = 1e-5, torch.tensor(t)
    difference = (coordinate.to_natural(point + h) - coordinate.to_natural(point - h)) / (2 * h)
    assert float(coordinate.slope(point)) == pytest.approx(float(difference), rel=1e-8)


def test_log_bounds_with_zero_and_infinity():
    assert Coordinate(Transform.LOG, 0.0, math.inf).bounds() == (-math.inf, math.inf)
    assert Coordinate(Transform.LOG, 1.0, math.e).bounds() == (0.0, 1.0)
