"""Two aquifers with an aquitard: the closed form, the radial model, and a Laplace transform inverted by Talbot's contour."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch

from physics.flow.pumping import OTHER, PUMPED, LeakyDrawdown, PumpingTest
from physics.flow.well_functions import hantush, theis
from physics.flow.wells.closed_form import ClosedForm
from physics.flow.wells.layout import ObservationPoint, PumpedWell
from physics.flow.wells.two_aquifers import TwoAquifers, _aquitard

THICKNESS, RATE = 10.0, 500.0
TIMES = np.geomspace(1e-3, 30.0, 5)
NAMES = (
    "hydraulic_conductivity",
    "specific_storage",
    "other_transmissivity",
    "other_storativity",
    "aquitard_resistance",
    "aquitard_storativity",
)
SETS = [
    (20.0, 1e-4, 80.0, 2e-3, 200.0, 1e-2),
    (5.0, 1e-5, 200.0, 1e-4, 50.0, 0.0),
    (40.0, 3e-5, 100.0, 5e-4, 1000.0, 3e-3),
    (10.0, 1e-4, 100.0, 1e-3, 100.0, 1e-4),
]
"""K [m/d], Ss [1/m]; T [m2/d] and S of the other aquifer (like the pumped one in the last set); c [d] and S' of the aquitard."""


def params(case, **changed):
    return {name: torch.tensor(value) for name, value in {**dict(zip(NAMES, case)), **changed}.items()}


def closed_form(case, radius, other, **changed):
    well = PumpedWell((0.0, 0.0), ((0.0, RATE),))
    points = [ObservationPoint((radius, 0.0), other=other)] * len(TIMES)
    return ClosedForm(THICKNESS, [well], TIMES, points)(params(case, **changed)).numpy()


def by_talbot(case, radius, other):
    """Neuman and Witherspoon's equations at Laplace's p, by eigenvectors in 20 digits."""
    mpmath.mp.dps = 20
    t1, s1, t2, s2, c, stored = (mpmath.mpf(v) for v in case)
    t1, s1 = t1 * THICKNESS, s1 * THICKNESS

    def transform(p):
        m = mpmath.sqrt(stored * c * p)
        own, across = (m * mpmath.coth(m), m / mpmath.sinh(m)) if stored else (mpmath.mpf(1), mpmath.mpf(1))
        a = mpmath.matrix([[(s1 * p + own / c) / t1, -across / c / t1], [-across / c / t2, (s2 * p + own / c) / t2]])
        values, vectors = mpmath.eig(a)
        parts = vectors**-1 * mpmath.matrix([1, 0])
        k = [mpmath.besselk(0, mpmath.sqrt(v) * radius) for v in values]
        return RATE / (2 * mpmath.pi * t1 * p) * sum(vectors[int(other), j] * k[j] * parts[j] for j in range(2))

    return np.array([float(mpmath.invertlaplace(transform, t, method="talbot", degree=16).real) for t in TIMES])


@pytest.mark.parametrize("case", [*(pytest.param(s, marks=pytest.mark.slow) for s in SETS[:-1]), SETS[-1]])
def test_both_solutions_are_neuman_and_witherspoon(case) -> None:
    """To 0.5 % of the largest drawdown, in both aquifers."""
    test = PumpingTest(THICKNESS, ((0.0, RATE),), screen=PUMPED)
    time, places = np.tile(TIMES, 4), [(r, end) for r in (10.0, 100.0) for end in (PUMPED, OTHER)]
    distance, screens = zip(*(place for place in places for _ in TIMES))
    model = LeakyDrawdown(test, time, distance, screens)
    numerical = model.of(TwoAquifers.of(params(case), THICKNESS)).numpy().reshape(4, -1)
    exact = np.array([by_talbot(case, r, end is OTHER) for r, end in places])
    closed = np.array([closed_form(case, r, end is OTHER) for r, end in places])
    for pair in (slice(0, 2), slice(2, 4)):
        scale = np.abs(exact[pair]).max()
        assert np.abs(closed[pair] - exact[pair]).max() < 0.005 * scale
        assert np.abs(numerical[pair] - exact[pair]).max() < 0.005 * scale
    assert exact[1].max() > 0.01 * exact[0].max()


def test_limits_are_theis_and_hantush() -> None:
    t, s = SETS[0][0] * THICKNESS, SETS[0][1] * THICKNESS
    tight = closed_form(SETS[0], 20.0, False, aquitard_resistance=1e12, aquitard_storativity=0.0)
    assert tight == pytest.approx(theis(TIMES, 20.0, t, s, RATE), rel=5e-3)
    lake = closed_form(SETS[0], 20.0, False, other_storativity=1e8, aquitard_storativity=0.0)
    assert lake == pytest.approx(hantush(TIMES, 20.0, t, s, 200.0, RATE), rel=5e-3)


def test_the_aquitard_is_exact_with_and_without_storage() -> None:
    """sqrt(y) coth sqrt(y), sqrt(y) / sinh sqrt(y) and their slopes, on both sides of where their series end."""
    y = torch.tensor([1e-9, 5e-4, 9.99e-4, 1.001e-3, 1.0, 50.0, 9e3, 2e4])
    for which, exact in enumerate(
        (lambda x: mpmath.sqrt(x) * mpmath.coth(mpmath.sqrt(x)), lambda x: mpmath.sqrt(x) / mpmath.sinh(mpmath.sqrt(x)))
    ):
        found, slope = torch.func.jvp(lambda x, k=which: _aquitard(x)[k], (y,), (torch.ones_like(y),))
        mpmath.mp.dps = 30
        known = [float(exact(mpmath.mpf(x))) for x in y.tolist()]
        slopes = [float(mpmath.diff(exact, mpmath.mpf(x))) for x in y.tolist()]
        assert found.tolist() == pytest.approx(known, rel=1e-12, abs=1e-40)
        assert slope[:-1].tolist() == pytest.approx(slopes[:-1], rel=1e-8, abs=1e-40)


def test_jacobian_against_differences() -> None:
    """To the rounding of the inversion."""
    start = torch.tensor(SETS[0])
    points = [ObservationPoint((30.0, 0.0), other=k % 2 == 1) for k in range(len(TIMES))]
    model = ClosedForm(THICKNESS, [PumpedWell((0.0, 0.0), ((0.0, RATE), (1.0, 0.0)))], TIMES, points)

    def function(x):
        return model(dict(zip(NAMES, x.unbind())))

    jacobian = torch.func.jacfwd(function)(start)
    for k, value in enumerate(SETS[0]):
        step = torch.zeros(len(start))
        step[k] = 1e-3 * value
        difference = (function(start + step) - function(start - step)) / (2 * step[k])
        assert (difference - jacobian[:, k]).abs().max() < 1e-4 * jacobian[:, k].abs().max()


def test_derivative_of_the_radial_model() -> None:
    """In a direction that moves all parameters."""
    test = PumpingTest(THICKNESS, ((0.0, RATE),), screen=PUMPED, outer_radius=1e4)
    model = LeakyDrawdown(test, [0.01, 0.1, 0.1], [30.0] * 3, [PUMPED, PUMPED, OTHER])
    start = torch.tensor(SETS[0])
    along = start * torch.tensor([1.0, -0.5, 0.7, 0.4, -0.9, 0.6])

    def function(x):
        return model.of(TwoAquifers.of(dict(zip(NAMES, x.unbind())), THICKNESS))

    exact = torch.func.jvp(function, (start,), (along,))[1]
    difference = (function(start + 1e-4 * along) - function(start - 1e-4 * along)) / 2e-4
    assert (difference - exact).abs().max() < 1e-6 * exact.abs().max()
