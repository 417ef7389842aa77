"""Radial transient flow against Theis, Hantush and superposition; its derivatives against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import spsolve
from scipy.special import k0

from bilevel.report import BilevelError, InputError
from physics.flow.linear_march import LinearMarch
from physics.flow.pumping import Drawdown, PumpingTest
from physics.flow.radial import RadialFlow, RadialGrid
from physics.flow.time_stepping import BACKWARD_EULER, SDIRK2, SDIRK3
from physics.flow.time_steps import TimeSteps
from physics.flow.well_functions import hantush, superpose, theis

THICKNESS, RATE, CONDUCTIVITY, STORAGE, RESISTANCE = 7.0, 788.0, 66.09, 2.541e-5, 150.0
TRANSMISSIVITY, STORATIVITY = CONDUCTIVITY * THICKNESS, STORAGE * THICKNESS
PUMPING = PumpingTest(THICKNESS, [(0.0, RATE)])
TIMES = np.geomspace(7e-5, 0.6, 60)
WELLS = np.array([30.0, 90.0])


def everywhere(times, wells):
    return np.tile(times, len(wells)), np.repeat(wells, len(times))


def drawdown(test, time, distance, *more, **options):
    return Drawdown(test, time, distance, **options)(torch.tensor(CONDUCTIVITY), torch.tensor(STORAGE), *more).numpy()


def relative_error(found, exact):
    visible = exact > 0.01 * exact.max()
    return np.abs(found / exact - 1.0)[visible].max()


def test_theis():
    time, distance = everywhere(TIMES, WELLS)
    exact = theis(time, distance, TRANSMISSIVITY, STORATIVITY, RATE)
    found = drawdown(PUMPING, time, distance)
    assert relative_error(found, exact) < 1e-3
    assert np.abs(found - exact).max() < 5e-5


def test_hantush():
    time, distance = everywhere(np.geomspace(7e-5, 3.0, 60), WELLS)
    exact = hantush(time, distance, TRANSMISSIVITY, STORATIVITY, RESISTANCE, RATE)
    found = drawdown(PUMPING, time, distance, torch.tensor(RESISTANCE))
    assert relative_error(found, exact) < 1e-3


def test_changing_discharge_is_superposition():
    changes = [(0.0, RATE), (0.2, 0.3 * RATE), (0.34, 0.0)]
    test = PumpingTest(THICKNESS, changes)
    time = np.concatenate(
        (np.geomspace(1e-3, 0.2, 12), 0.2 + np.geomspace(1e-3, 0.14, 12), 0.34 + np.geomspace(1e-3, 0.5, 12))
    )
    for well in WELLS:
        unit = lambda t, r=well: theis(t, r, TRANSMISSIVITY, STORATIVITY, 1.0)  # noqa: E731
        exact = superpose(unit, time, changes)
        found = drawdown(test, time, np.full_like(time, well))
        assert np.abs(found - exact).max() < 1e-3 * exact.max()


@pytest.mark.parametrize(("scheme", "order"), [(BACKWARD_EULER, 1), (SDIRK2, 2), (SDIRK3, 3)])
def test_order_in_time(scheme, order):
    grid = RadialGrid.between(1.0, 3e3, 0.4)
    flow = RadialFlow(grid)
    matrices = flow.stiffness(torch.tensor(100.0), torch.tensor(20.0)), flow.capacity(torch.tensor(1e-2))
    start, count = torch.exp(-((grid.radius / 60.0) ** 2)), len(grid.radius)

    def final(steps, scheme):
        times = TimeSteps(np.linspace(0.0, 0.5, steps + 1))
        march = LinearMarch(flow.places, flow.places, sp.identity(count), times, scheme)
        stages = len(scheme.rows)
        heads = march(*matrices, torch.zeros(steps, stages, count), torch.zeros(steps, 1 + stages, count), start).heads
        return heads[-1, -1]

    exact = final(96, SDIRK3)
    errors = [float((final(steps, scheme) - exact).norm()) for steps in (6, 12)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.3)


def test_steady_leaky_cone_is_a_bessel_function():
    grid = RadialGrid.between(0.05, 1e5)
    flow = RadialFlow(grid)
    entries = flow.stiffness(torch.tensor(TRANSMISSIVITY), torch.tensor(RESISTANCE))
    matrix = sp.coo_matrix((entries.numpy(), flow.places)).tocsc()
    cone = grid.interpolation(WELLS.tolist()).numpy() @ spsolve(matrix, flow.force(torch.tensor(RATE)).numpy())
    exact = RATE / (2.0 * np.pi * TRANSMISSIVITY) * k0(WELLS / np.sqrt(TRANSMISSIVITY * RESISTANCE))
    np.testing.assert_allclose(cone, exact, rtol=1e-4)


@pytest.fixture(scope="module")
def coarse():
    """A cheap leaky test with a stop, for derivatives; parameters as logarithms."""
    time, distance = everywhere(np.array([2e-3, 1e-2, 0.1, 0.35, 0.5]), WELLS)
    test = PumpingTest(THICKNESS, [(0.0, RATE), (0.3, 0.0)])
    model = Drawdown(test, time, distance, spacing=0.5, per_decade=3)
    return lambda x: model(*torch.exp(x).unbind())


POINT = torch.log(torch.tensor([CONDUCTIVITY, STORAGE, RESISTANCE]))


def test_readings_at_the_moment_of_a_change_but_for_rounding():
    """300 s and 5 min are not the same number of days."""
    change = 300.0 / 86400.0
    test = PumpingTest(THICKNESS, [(change, RATE), (2.0 * change, 0.0)])
    model = lambda time: Drawdown(test, time, [30.0] * len(time))(torch.tensor(CONDUCTIVITY), torch.tensor(STORAGE))  # noqa: E731
    minutes = np.array([5.0, 10.0, 30.0]) * (1.0 / 1440.0)
    assert minutes[0] != change
    found = model(minutes)
    assert float(found[0]) == 0.0
    torch.testing.assert_close(found, model(np.array([change, 2.0 * change, 6.0 * change])))
    torch.testing.assert_close(found[1], model(minutes[1:2] * (1.0 - 1e-9))[0], rtol=1e-6, atol=0.0)


def test_forward_and_reverse_jacobians_agree_with_finite_differences(coarse):
    forward = torch.func.jacfwd(coarse)(POINT)
    x = POINT.clone().requires_grad_()
    y = coarse(x)
    reverse = torch.vmap(lambda c: torch.autograd.grad(y, x, c, retain_graph=True)[0])(torch.eye(len(y)))
    torch.testing.assert_close(forward, reverse, rtol=1e-9, atol=1e-11)
    step = 1e-4
    for k, e in enumerate(torch.eye(3)):
        difference = (coarse(POINT + step * e) - coarse(POINT - step * e)) / (2.0 * step)
        torch.testing.assert_close(forward[:, k], difference, rtol=1e-6, atol=1e-7)


def test_second_derivatives_agree_with_differences_of_gradients(coarse):
    def gradient(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(coarse(x).square().sum(), x)[0]

    x = POINT.clone().requires_grad_()
    (first,) = torch.autograd.grad(coarse(x).square().sum(), x, create_graph=True)
    direction = torch.tensor([0.5, -1.0, 0.3])
    (second,) = torch.autograd.grad(first @ direction, x)
    step = 1e-4
    difference = (gradient(POINT + step * direction) - gradient(POINT - step * direction)) / (2.0 * step)
    torch.testing.assert_close(second, difference, rtol=1e-5, atol=1e-8)


def test_a_cone_that_reaches_the_outer_radius_is_an_error():
    test = PumpingTest(THICKNESS, [(0.0, RATE)], outer_radius=500.0)
    with pytest.raises(BilevelError, match="outer_radius"):
        drawdown(test, [0.5], [30.0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PumpingTest(-1.0, [(0.0, 1.0)]), "thickness"),
        (lambda: PumpingTest(7.0, []), "at least one rate"),
        (lambda: PumpingTest(7.0, [(0.1, 1.0), (0.1, 0.0)]), "increase"),
        (lambda: PumpingTest(7.0, [(0.0, 0.0)]), "zero"),
        (lambda: Drawdown(PUMPING, [-0.1, 0.1], [30.0, 30.0]), "reading 1"),
        (lambda: Drawdown(PUMPING, [0.1], [0.01]), "radii"),
        (lambda: RadialGrid.between(2.0, 1.0), "radius"),
        (lambda: TimeSteps(np.array([0.0, 1.0, 1.0])), "increase"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_factors_of_all_stages_at_once_march_as_one_by_one(monkeypatch):
    time, distance = everywhere(np.array([2e-3, 1e-2, 0.1]), WELLS)
    at_once = drawdown(PUMPING, time, distance)
    monkeypatch.setattr("physics.flow.stage_matrices.KEPT_ENTRIES", 0)
    np.testing.assert_allclose(drawdown(PUMPING, time, distance), at_once, rtol=1e-10)


def test_a_storage_that_is_no_number_is_told():
    with pytest.raises(BilevelError):
        Drawdown(PUMPING, [0.1], [30.0])(torch.tensor(CONDUCTIVITY), torch.tensor(torch.nan))
