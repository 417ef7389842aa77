"""Closed forms of well hydraulics against the integrals and series of their authors, and the radial model against them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import j0, j1, y0, y1

from bilevel.report import BilevelError, InputError
from physics.flow.pumping import Drawdown, PumpingTest
from physics.flow.well_functions import hantush, hantush_well_function, superpose, theis
from physics.flow.wells.closed_form import ClosedForm
from physics.flow.wells.layout import Boundary, ObservationPoint, PumpedWell

THICKNESS, RATE = 10.0, 500.0
TIMES = np.geomspace(1e-4, 2.0, 25)
SETS = [(20.0, 1e-4), (2.0, 1e-5), (100.0, 1e-3)]
"""K [m/d] and Ss [1/m]."""


def values(**given):
    return {name: torch.tensor(value) for name, value in given.items()}


def closed_form(time, radius, *, screen=None, seen=None, well=0.1, slug=None, **params):
    wells = [PumpedWell((0.0, 0.0), ((0.0, RATE),) if slug is None else ((0.0, 1.0),), well, screen)]
    points = [ObservationPoint((radius, 0.0), seen)] * len(time)
    return ClosedForm(THICKNESS, wells, time, points, slug=slug)(values(**params)).numpy()


def close(found, exact, part=0.005):
    assert np.abs(found - exact).max() < part * np.abs(exact).max()


@pytest.mark.parametrize(("conductivity", "storage"), SETS)
def test_theis_and_hantush(conductivity, storage):
    known = {"hydraulic_conductivity": conductivity, "specific_storage": storage}
    t, s = conductivity * THICKNESS, storage * THICKNESS
    for radius in (10.0, 60.0):
        close(closed_form(TIMES, radius, **known), theis(TIMES, radius, t, s, RATE), 1e-3)
        leaky = closed_form(TIMES, radius, aquitard_resistance=50.0, **known)
        close(leaky, hantush(TIMES, radius, t, s, 50.0, RATE), 2e-3)


def papadopulos_cooper(time, radius, well, casing, t, s):
    """Papadopulos and Cooper 1967, Water Resour. Res. 3, 241, equation 14, by a dense sum over ln(beta)."""
    alpha, rho, u = well**2 * s / casing**2, radius / well, radius**2 * s / (4.0 * t * time)[:, None]
    ends = np.linspace(np.log(1e-9), np.log(60.0), 60001)
    x = np.exp(ends)
    first, second = x * j0(x) - 2.0 * alpha * j1(x), x * y0(x) - 2.0 * alpha * y1(x)
    numerator = -np.expm1(-(x**2) * rho**2 / (4.0 * u)) * (j0(x * rho) * second - y0(x * rho) * first)
    integrand = numerator / (x * (first**2 + second**2))  # d beta / beta^2 = d ln(beta) / beta
    return RATE / (4.0 * np.pi * t) * 8.0 * alpha / np.pi * np.trapezoid(integrand, ends, axis=1)


CASINGS = [(20.0, 1e-4, 0.15), (2.0, 1e-5, 0.3), (100.0, 1e-3, 0.1)]


@pytest.mark.parametrize(("conductivity", "storage", "casing"), CASINGS)
@pytest.mark.parametrize("radius", [0.1, 1.0, 10.0])
def test_wellbore_storage_is_papadopulos_and_cooper(conductivity, storage, casing, radius):
    exact = papadopulos_cooper(TIMES, radius, 0.1, casing, conductivity * THICKNESS, storage * THICKNESS)
    known = {"hydraulic_conductivity": conductivity, "specific_storage": storage, "casing_radius": casing}
    close(closed_form(TIMES, radius, **known), exact)
    test = PumpingTest(THICKNESS, [(0.0, RATE)], 0.1)
    model = Drawdown(test, TIMES, np.full_like(TIMES, radius))
    found = model(torch.tensor(conductivity), torch.tensor(storage), casing_radius=torch.tensor(casing))
    close(found.numpy(), exact)


def slug_integral(time, well, casing, t, s):
    """Cooper, Bredehoeft and Papadopulos 1967, Water Resour. Res. 3, 263, equation 9."""
    alpha = well**2 * s / casing**2
    ends = np.linspace(np.log(1e-10), np.log(50.0), 40001)
    x = np.exp(ends)
    delta = (x * j0(x) - 2.0 * alpha * j1(x)) ** 2 + (x * y0(x) - 2.0 * alpha * y1(x)) ** 2
    decay = np.exp(-(t * time / casing**2)[:, None] * x**2 / alpha)
    return 8.0 * alpha / np.pi**2 * np.trapezoid(decay / delta, ends, axis=1)


@pytest.mark.parametrize(
    ("conductivity", "storage", "casing"), [(0.5, 1e-4, 0.1), (0.05, 1e-5, 0.05), (2.0, 1e-3, 0.08)]
)
def test_slug_is_cooper_bredehoeft_and_papadopulos(conductivity, storage, casing):
    time = np.geomspace(1e-5, 1e-2, 20)
    exact = 0.7 * slug_integral(time, 0.1, casing, conductivity * THICKNESS, storage * THICKNESS)
    known = {"hydraulic_conductivity": conductivity, "specific_storage": storage, "casing_radius": casing}
    close(closed_form(time, 0.1, slug=0.7, **known), exact)
    test = PumpingTest(THICKNESS, [(0.0, 0.0)], 0.1, slug=0.7)
    found = Drawdown(test, time, np.full_like(time, 0.1))(
        torch.tensor(conductivity), torch.tensor(storage), casing_radius=torch.tensor(casing)
    )
    close(found.numpy(), exact)


def hantush_1964(time, radius, t, s, anisotropy, screen, seen):
    """Hantush 1964, Advances in Hydroscience 1, 281: the series of leaky well functions; heights above the bottom."""
    u = radius**2 * s / (4.0 * t * time)
    total = theis(time, radius, t, s, 1.0) * 4.0 * np.pi * t
    for n in range(1, 80):
        a = n * np.pi / THICKNESS
        pumped = (np.sin(a * screen[1]) - np.sin(a * screen[0])) / (a * (screen[1] - screen[0]))
        observed = (
            np.cos(a * seen)
            if np.isscalar(seen)
            else (np.sin(a * seen[1]) - np.sin(a * seen[0])) / (a * (seen[1] - seen[0]))
        )
        total = total + 2.0 * pumped * observed * hantush_well_function(u, np.sqrt(anisotropy) * a * radius)
    return RATE / (4.0 * np.pi * t) * total


@pytest.mark.parametrize(
    ("conductivity", "storage", "anisotropy", "radius", "screen", "seen"),
    [
        (20.0, 1e-4, 1.0, 5.0, (6.0, 10.0), 2.0),
        (2.0, 1e-5, 0.1, 8.0, (0.0, 3.0), (5.0, 9.0)),
        (100.0, 1e-3, 0.5, 3.0, (2.0, 4.0), (0.0, 10.0)),
    ],
)  # fmt: skip
def test_partial_penetration_is_hantush_1964(conductivity, storage, anisotropy, radius, screen, seen):
    exact = hantush_1964(TIMES, radius, conductivity * THICKNESS, storage * THICKNESS, anisotropy, screen, seen)
    known = {"hydraulic_conductivity": conductivity, "specific_storage": storage, "anisotropy": anisotropy}
    ends = (seen, seen) if np.isscalar(seen) else seen
    close(closed_form(TIMES, radius, screen=screen, seen=ends, **known), exact)
    test = PumpingTest(THICKNESS, [(0.0, RATE)], screen=screen)
    close(Drawdown(test, TIMES, np.full_like(TIMES, radius), [ends] * len(TIMES))(**values(**known)).numpy(), exact)


def neuman(time, radius, t, s, specific_yield, anisotropy, modes=12):
    """Neuman 1974, Water Resour. Res. 10, 303, equations 1, 4, 5 (means over the height): roots by bracketing, a sum over y."""
    sigma, beta = s / specific_yield, anisotropy * radius**2 / THICKNESS**2
    scaled = t * time / (s * radius**2)
    points, weights = np.polynomial.legendre.leggauss(8)
    edges = np.concatenate([[0.0], np.geomspace(1e-6, 60.0 / np.sqrt(beta), 70)])
    middle, half = 0.5 * (edges[1:] + edges[:-1])[:, None], 0.5 * np.diff(edges)[:, None]
    y, w = (middle + half * points).ravel(), (half * weights).ravel()
    total = np.zeros_like(time)
    for yi, wi in zip(y, w):
        f0 = lambda g, yi=yi: sigma * g * np.tanh(g) - (yi**2 - g**2)  # noqa: E731
        g = brentq(f0, 0.0, yi)
        rate = yi**2 - g**2
        inner = -np.expm1(-scaled * beta * rate) * np.tanh(g) / ((yi**2 + (1 + sigma) * g**2 - rate**2 / sigma) * g)
        for n in range(1, modes + 1):
            fn = lambda g, yi=yi: sigma * g * np.sin(g) + (yi**2 + g**2) * np.cos(g)  # noqa: E731
            g = brentq(fn, (n - 0.5) * np.pi, n * np.pi)
            rate = yi**2 + g**2
            inner = inner - np.expm1(-scaled * beta * rate) * np.tan(g) / (
                (yi**2 - (1 + sigma) * g**2 - rate**2 / sigma) * g
            )
        total += wi * 4.0 * yi * j0(yi * np.sqrt(beta)) * inner
    return RATE / (4.0 * np.pi * t) * total


@pytest.mark.parametrize(
    ("conductivity", "storage", "specific_yield", "anisotropy", "radius"),
    [(20.0, 1e-3, 0.2, 0.1, 15.0), (5.0, 1e-4, 0.05, 1.0, 10.0), (50.0, 1e-3, 0.3, 0.3, 20.0)],
)
def test_delayed_yield_is_neuman_1974(conductivity, storage, specific_yield, anisotropy, radius):
    time = np.geomspace(1e-3, 5.0, 6)
    exact = neuman(time, radius, conductivity * THICKNESS, storage * THICKNESS, specific_yield, anisotropy)
    known = {
        "hydraulic_conductivity": conductivity,
        "specific_storage": storage,
        "specific_yield": specific_yield,
        "anisotropy": anisotropy,
    }
    close(closed_form(time, radius, **known), exact)
    test = PumpingTest(THICKNESS, [(0.0, RATE)], outer_radius=1e4, free_surface=True)
    close(Drawdown(test, time, np.full_like(time, radius))(**values(**known)).numpy(), exact)


@pytest.mark.parametrize("fixed_head", [False, True])
@pytest.mark.parametrize(("conductivity", "storage"), SETS)
def test_image_wells(fixed_head, conductivity, storage):
    """A river or wall on the line x = 50 m; on it nothing is drawn down, or the drawdown is doubled."""
    line = Boundary((50.0, 7.0), (0.0, -2.0), fixed_head)
    points = [ObservationPoint((20.0, 10.0))] * 12 + [ObservationPoint((50.0, 30.0))] * 13
    wells = [PumpedWell((10.0, 0.0), ((0.0, RATE), (0.3, 0.0)))]
    found = ClosedForm(THICKNESS, wells, TIMES, points, [line])(
        values(hydraulic_conductivity=conductivity, specific_storage=storage)
    ).numpy()
    t, s, sign = conductivity * THICKNESS, storage * THICKNESS, -1.0 if fixed_head else 1.0
    own, image = np.repeat([np.hypot(10.0, 10.0), 50.0], (12, 13)), np.repeat([np.hypot(70.0, 10.0), 50.0], (12, 13))
    exact = np.array(
        [
            superpose(lambda x, a=a, b=b: theis(x, a, t, s, 1.0) + sign * theis(x, b, t, s, 1.0), [time], [(0.0, RATE), (0.3, 0.0)])[0]
            for time, a, b in zip(TIMES, own, image)
        ]
    )  # fmt: skip
    close(found, exact, 1e-3)
    if fixed_head:
        assert np.abs(found[12:]).max() < 1e-12


def test_two_boundaries_have_three_images():
    corner = [Boundary((0.0, 0.0), (1.0, 0.0), True), Boundary((0.0, 0.0), (0.0, 1.0), False)]
    wells = [PumpedWell((20.0, 30.0), ((0.0, RATE),))]
    found = ClosedForm(THICKNESS, wells, TIMES, [ObservationPoint((40.0, 10.0))] * 25, corner)(
        values(hydraulic_conductivity=20.0, specific_storage=1e-4)
    )
    at = lambda x, y: theis(TIMES, np.hypot(40.0 - x, 10.0 - y), 200.0, 1e-3, RATE)  # noqa: E731
    close(found.numpy(), at(20, 30) - at(20, -30) + at(-20, 30) - at(-20, -30), 1e-3)


def test_skin_is_a_jump_at_the_wall_of_the_well():
    """Late in the test the pumped well is lower by skin * Q / (2 pi T), and the aquifer does not feel it (Agarwal et al. 1970)."""
    known = {"hydraulic_conductivity": 20.0, "specific_storage": 1e-4, "casing_radius": 0.1}
    late = np.array([5.0])
    apart = closed_form(late, 0.1, skin=3.0, **known) - closed_form(late, 0.1, **known)
    np.testing.assert_allclose(apart, 3.0 * RATE / (2.0 * np.pi * 200.0), rtol=1e-3)
    np.testing.assert_allclose(closed_form(late, 10.0, skin=3.0, **known), closed_form(late, 10.0, **known), rtol=1e-3)


@pytest.mark.parametrize("more", [{}, {"specific_yield": 0.1, "anisotropy": 0.3}, {"casing_radius": 0.2, "skin": 1.0}])
def test_jacobian_against_differences(more):
    known = {"hydraulic_conductivity": 20.0, "specific_storage": 1e-4, **more}
    wells, time = [PumpedWell((0.0, 0.0), ((0.0, RATE),))], np.geomspace(1e-3, 1.0, 4)
    form = ClosedForm(THICKNESS, wells, time, [ObservationPoint((5.0, 0.0))] * 4)
    model = lambda logs: form(dict(zip(known, logs.exp().unbind())))  # noqa: E731
    at = torch.tensor(list(known.values())).log()
    forward = torch.func.jacfwd(model)(at)
    tracked = at.clone().requires_grad_()
    reverse = torch.autograd.functional.jacobian(model, tracked)
    torch.testing.assert_close(forward, reverse, rtol=1e-6, atol=1e-6)
    for k, direction in enumerate(torch.eye(len(at))):
        near = [model(at + m * 3e-3 * direction) for m in (-2, -1, 1, 2)]
        difference = (8.0 * (near[2] - near[1]) - (near[3] - near[0])) / (12.0 * 3e-3)
        torch.testing.assert_close(forward[:, k], difference, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PumpedWell((0.0, 0.0), ()), "at least one rate"),
        (lambda: PumpedWell((0.0, 0.0), ((0.0, 1.0),), -1.0), "radius of a well"),
        (lambda: closed_form(TIMES, 5.0, seen=(3.0, 11.0), hydraulic_conductivity=1.0, specific_storage=1.0), "not within the 10 m"),
        (lambda: closed_form(np.array([-1.0]), 5.0, hydraulic_conductivity=1.0, specific_storage=1.0), "earlier than pumping"),
        (lambda: closed_form(TIMES, 5.0, slug=1.0, hydraulic_conductivity=1.0, specific_storage=1e-4), "casing_radius"),
        (
            lambda: closed_form(TIMES, 5.0, screen=(0.0, 2.0), casing_radius=0.1, hydraulic_conductivity=1.0, specific_storage=1e-4),
            "closed form here only where they penetrate the whole",
        ),
        (
            lambda: ClosedForm(10.0, [PumpedWell((5.0, 5.0), ((0.0, 1.0),))], [1.0], [ObservationPoint((1.0, 1.0))], [Boundary((0.0, 0.0), (1.0, 0.0), True), Boundary((0.0, 9.0), (1.0, 0.0), True)]),
            "perpendicular",
        ),
    ],
)  # fmt: skip
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_reading_too_near_a_partial_screen_is_refused():
    with pytest.raises(BilevelError, match="modes over the height do not end"):
        closed_form(
            TIMES,
            0.1,
            screen=(4.0, 4.5),
            seen=(4.2, 4.2),
            hydraulic_conductivity=1.0,
            specific_storage=1e-4,
            anisotropy=1e-3,
        )
