"""Well functions against published tables and adaptive quadrature."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import k0

from physics.flow.well_functions import hantush, hantush_well_function, superpose, theis, theis_well_function


@pytest.mark.parametrize(("u", "value"), [(1.0, 0.2194), (0.1, 1.8229), (1e-2, 4.0379), (1e-6, 13.2383)])
def test_theis_against_the_printed_table(u, value):
    assert float(theis_well_function(u)) == pytest.approx(value, abs=6e-5)  # Kruseman and de Ridder, annex 3.1


@pytest.mark.parametrize("u", [1e-8, 1e-4, 1e-2, 0.3, 2.0, 8.0])
@pytest.mark.parametrize("beta", [1e-4, 0.05, 0.5, 2.0])
def test_hantush_against_adaptive_quadrature(u, beta):
    def integrand(x):
        return np.exp(-np.exp(x) - beta**2 / (4.0 * np.exp(x)))

    low = np.log(u)
    expected = quad(integrand, low, np.log(60.0), epsabs=0.0, epsrel=1e-12, limit=500, points=[np.log(max(u, 0.5))])[0]
    assert float(hantush_well_function(u, beta)) == pytest.approx(expected, rel=1e-9)


def test_hantush_lies_between_theis_and_the_steady_cone():
    time = np.geomspace(1e-3, 1e4, 30)
    confined = theis(time, 60.0, 500.0, 1e-3, 800.0)
    leaky = hantush(time, 60.0, 500.0, 1e-3, 200.0, 800.0)
    steady = 800.0 / (2.0 * np.pi * 500.0) * k0(60.0 / np.sqrt(500.0 * 200.0))
    assert np.all(leaky <= confined)
    assert leaky[-1] == pytest.approx(steady, rel=1e-9)


def test_superposition_of_a_stop_is_the_difference_of_two_pumpings():
    time = np.array([0.1, 0.5, 0.7])
    unit = lambda t: theis(t, 30.0, 400.0, 1e-4, 1.0)  # noqa: E731
    total = superpose(unit, time, [(0.0, 788.0), (0.4, 0.0)])
    assert total[0] == pytest.approx(788.0 * unit(0.1))
    assert total[2] == pytest.approx(788.0 * (unit(0.7) - unit(0.3)))
