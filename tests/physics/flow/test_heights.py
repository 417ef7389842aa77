"""Quadratic elements over an aquifer's height: integrals and means of polynomials, and screens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bilevel.report import InputError
from physics.flow.heights import Heights


def nodal(heights: Heights, power: int) -> torch.Tensor:
    """z to a power at the nodes."""
    edges = heights.edges
    z = np.sort(np.concatenate((edges, 0.5 * (edges[1:] + edges[:-1]))))
    return torch.from_numpy(z**power)


def test_matrices_and_means_of_quadratic_drawdowns() -> None:
    heights = Heights.refined(10.0, [(6.0, 9.5), None, (2.0, 2.0)])
    assert {6.0, 9.5, 2.0} <= set(heights.edges)
    one, z, square = (nodal(heights, k) for k in range(3))
    assert float(square @ heights.mass @ square) == pytest.approx(10.0**5 / 5, rel=1e-12)
    assert float(square @ heights.slope @ square) == pytest.approx(4 * 10.0**3 / 3, rel=1e-12)
    assert float((heights.slope @ one).abs().max()) < 1e-13
    assert float(heights.top @ z) == 10.0
    assert float(heights.mean((6.0, 9.5)) @ square) == pytest.approx((9.5**3 - 6.0**3) / 3 / 3.5, rel=1e-12)
    assert float(heights.mean((6.3, 7.1)) @ square) == pytest.approx((7.1**3 - 6.3**3) / 3 / 0.8, rel=1e-12)
    assert float(heights.mean((2.0, 2.0)) @ square) == pytest.approx(4.0, rel=1e-12)
    assert float(heights.mean(None) @ square) == pytest.approx(100 / 3, rel=1e-12)


def test_a_uniform_height_is_one_function() -> None:
    heights = Heights.uniform(7.0)
    assert (heights.mass.item(), heights.slope.item(), heights.mean(None).item()) == (7.0, 0.0, 1.0)


def test_screens_beyond_the_aquifer_are_refused() -> None:
    with pytest.raises(InputError, match="from 8 to 12 m is not within the 10 m"):
        Heights.refined(10.0, [(8.0, 12.0)])
