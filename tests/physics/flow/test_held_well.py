"""A well at a prescribed drawdown against Jacob and Lohman's flowing well, superposition, and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import j0, y0

from bilevel.report import BilevelError, InputError
from physics.flow.held_well import HeldWell
from physics.flow.pumping import Drawdown, PumpingTest

THICKNESS, CONDUCTIVITY, STORAGE, HELD = 10.0, 5.0, 1e-5, 3.0


def flowing_well(time, radius: float) -> np.ndarray:
    """Q = 2 pi T s G, G = 4 / pi^2 integral of exp(-a u^2) / (u (J0^2 + Y0^2)) du, a = T t / (S r^2).

    Jacob and Lohman 1952; Carslaw and Jaeger 1959, section 13.5. Over v = ln u; below v = -30 the integrand is
    1 / (1 + (2/pi (v - ln 2 + gamma))^2), whose integral is an arctangent.
    """
    transmissivity, storativity = THICKNESS * CONDUCTIVITY, THICKNESS * STORAGE
    slope = 2.0 / np.pi
    found = []
    for t in np.atleast_1d(time):
        a = transmissivity * t / (storativity * radius**2)
        v = np.linspace(-30.0, np.log(12.0 / np.sqrt(a)), 20001)
        u = np.exp(v)
        body = np.trapezoid(np.exp(-a * u**2) / (j0(u) ** 2 + y0(u) ** 2), v)
        tail = (np.arctan(slope * (-30.0 - np.log(2.0) + np.euler_gamma)) + np.pi / 2.0) / slope
        found.append(2.0 * np.pi * transmissivity * HELD * 4.0 / np.pi**2 * (body + tail))
    return np.array(found)


def discharges(test: PumpingTest, time, prescribed, **options) -> torch.Tensor:
    time = np.asarray(time)
    model = HeldWell(test, time, np.full(time.shape, test.well_radius), discharges=[True] * len(time), **options)
    return model.at(prescribed(torch.from_numpy(model.times)), torch.tensor(CONDUCTIVITY), torch.tensor(STORAGE))


def constant(times: torch.Tensor) -> torch.Tensor:
    return torch.full_like(times, HELD)


@pytest.mark.parametrize("radius", [0.05, 0.1, 0.5])
def test_jacob_and_lohmans_flowing_well(radius: float) -> None:
    time = np.geomspace(1e-4, 2.0, 9)
    found = discharges(PumpingTest(THICKNESS, well_radius=radius, changes=[0.0]), time, constant)
    np.testing.assert_allclose(found, flowing_well(time, radius), rtol=2e-4)


@pytest.mark.slow
def test_drawdown_around_it_is_that_of_the_discharge_it_takes() -> None:
    """Once it hardly changes, the discharge prescribed in its place makes almost the same cone."""
    time, distance = np.array([1.0, 1.0, 2.0]), np.array([0.1, 30.0, 30.0])
    held = HeldWell(PumpingTest(THICKNESS, changes=[0.0]), time, distance)
    found = held.at(constant(torch.from_numpy(held.times)), torch.tensor(CONDUCTIVITY), torch.tensor(STORAGE))
    assert float(found[0]) == pytest.approx(HELD, rel=1e-9)
    starts = np.concatenate(([0.0], np.geomspace(1e-5, 1.9, 80)))
    middles = np.sqrt(np.maximum(starts, 3e-6) * np.append(starts[1:], 2.1))
    rates = flowing_well(middles, 0.1)
    pumped = Drawdown(PumpingTest(THICKNESS, list(zip(starts.tolist(), rates.tolist()))), time, distance)
    again = pumped(torch.tensor(CONDUCTIVITY), torch.tensor(STORAGE))
    torch.testing.assert_close(found, again, rtol=5e-3, atol=0.0)


def test_steps_are_superposition() -> None:
    """2 m at once, 1 m more after 0.1 d: the responses to each add up."""
    test = PumpingTest(THICKNESS, changes=[0.0, 0.1])
    found = discharges(test, [0.05, 0.15, 1.0], lambda t: torch.where(t > 0.1, 3.0, 2.0))
    expected = 2.0 / HELD * flowing_well([0.05, 0.15, 1.0], 0.1)
    expected[1:] += 1.0 / HELD * flowing_well([0.05, 0.9], 0.1)
    np.testing.assert_allclose(found, expected, rtol=5e-4)


def test_a_ramp_is_an_integral_of_steps() -> None:
    """Drawdown that grows by 30 m/d: Q(t) = 30 m/d / 3 m integral of the step's Q, by Gauss in the logarithm."""
    found = discharges(PumpingTest(THICKNESS, changes=[0.0]), [0.01, 0.1], lambda t: 30.0 * t)
    xi, weight = np.polynomial.legendre.leggauss(40)
    for q, end in zip(found, (0.01, 0.1)):
        v = np.log(1e-9) + (np.log(end) - np.log(1e-9)) * (xi + 1.0) / 2.0
        integral = (weight * np.exp(v) * flowing_well(np.exp(v), 0.1)).sum() * (np.log(end) - np.log(1e-9)) / 2.0
        assert float(q) == pytest.approx(10.0 * integral, rel=2e-3)


@pytest.mark.slow
def test_a_flowing_well_under_a_water_table_and_through_a_screen() -> None:
    """A short screen yields less than a whole well, a water table more."""
    whole = discharges(PumpingTest(THICKNESS, changes=[0.0]), [0.5], constant)
    test = PumpingTest(THICKNESS, changes=[0.0], screen=(2.0, 5.0))
    short = discharges(test, [0.5], constant, screens=[None], per_decade=6)
    assert 0.3 < float(short / whole) < 0.9
    table = HeldWell(PumpingTest(THICKNESS, changes=[0.0], free_surface=True), [0.5], [0.1], discharges=[True])
    given = constant(torch.from_numpy(table.times)), torch.tensor(CONDUCTIVITY), torch.tensor(STORAGE)
    yielding = table.at(*given, specific_yield=torch.tensor(0.1), anisotropy=torch.tensor(1.0))
    assert float(yielding) > 1.2 * float(whole)


def test_derivatives() -> None:
    """In conductivity, storage, leakage and the prescribed drawdown, forwards and backwards; and second ones."""
    test = PumpingTest(THICKNESS, changes=[0.0, 0.2])
    model = HeldWell(test, [0.1, 0.5, 0.5], [0.1, 0.1, 20.0], discharges=[True, True, False], spacing=0.4, per_decade=4)
    rising = torch.from_numpy(model.times)

    def readings(p):
        return model.at(p[3] * (1.0 + rising), p[0], 1e-5 * p[1], 100.0 * p[2])

    at = torch.tensor([5.0, 1.0, 2.0, 3.0])
    forward, backward = torch.func.jacfwd(readings)(at), torch.func.jacrev(readings)(at)
    torch.testing.assert_close(forward, backward, rtol=1e-9, atol=1e-9)
    steps = 1e-4 * torch.diag(at)
    difference = torch.stack([(readings(at + h) - readings(at - h)) / (2.0 * h.sum()) for h in steps], 1)
    torch.testing.assert_close(forward, difference, rtol=1e-6, atol=1e-7)
    second = torch.func.jacfwd(torch.func.jacrev(lambda p: readings(p).square().sum()))(at)
    slope = torch.func.grad(lambda p: readings(p).square().sum())
    difference = torch.stack([(slope(at + h) - slope(at - h)) / (2.0 * h.sum()) for h in steps], 1)
    torch.testing.assert_close(second, difference, rtol=1e-5, atol=1e-4)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="increase"):
        PumpingTest(THICKNESS, changes=[1.0, 0.5])
    with pytest.raises(InputError, match="earlier than pumping"):
        HeldWell(PumpingTest(THICKNESS, changes=[1.0]), [0.5], [0.1])
    with pytest.raises(BilevelError, match="outer radius of 50 m"):
        discharges(PumpingTest(THICKNESS, changes=[0.0], outer_radius=50.0), [1.0], constant)
