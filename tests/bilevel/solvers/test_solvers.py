"""Solvers find minima, notice saddles, count their work and say how they ended."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import chain_energy, chain_params, rosenbrock_chain

import bilevel
from bilevel import (
    FIRE,
    LBFGS,
    Anderson,
    Armijo,
    BarzilaiBorwein,
    Constant,
    GradientDescent,
    LoadStepping,
    Newton,
    Picard,
    Status,
    Tolerance,
    TrustRegion,
    Wolfe,
)

ROSENBROCK = {"steepness": torch.tensor(100.0), "centre": torch.ones(10)}
MINIMISERS = {
    "newton-armijo": Newton(),
    "newton-wolfe": Newton(step=Wolfe()),
    "newton-trust-region": Newton(step=TrustRegion()),
    "lbfgs": LBFGS(),
    "lbfgs-armijo": LBFGS(step=Armijo()),
    "gradient-bb": GradientDescent(max_iterations=100_000),
    "fire": FIRE(time_step=0.02, max_iterations=5_000),
}


@pytest.mark.parametrize("name", MINIMISERS)
def test_rosenbrock_from_the_usual_start(name):
    start = torch.tensor([-1.2, 1.0] * 5)
    solution = bilevel.argmin(rosenbrock_chain, start, ROSENBROCK, solver=MINIMISERS[name])
    assert float(solution.report.residual) <= float(solution.report.tolerance)
    # The chain has a second minimum near u0 = -1; both are minima, and a solver may find either.
    if float(solution.u[0]) > 0:
        torch.testing.assert_close(solution.u, torch.ones(10), rtol=1e-6, atol=1e-6)
    hessian = torch.func.hessian(lambda u: rosenbrock_chain(u, ROSENBROCK))(solution.u)
    assert float(torch.linalg.eigvalsh(hessian)[0]) > 0


@pytest.mark.parametrize("name", MINIMISERS)
def test_a_saddle_is_left_for_a_minimum(name):
    """u = 0 is stationary for the double well; Newton started there must not stay."""

    def double_well(u, p):
        return 0.25 * (u[0] ** 2 - p) ** 2 + 0.5 * u[1] ** 2

    solution = bilevel.argmin(double_well, torch.zeros(2), torch.tensor(4.0), solver=MINIMISERS[name])
    torch.testing.assert_close(solution.u.abs(), torch.tensor([2.0, 0.0]), rtol=1e-8, atol=1e-8)
    assert any("saddle" in note for note in solution.report.notes)


@pytest.mark.parametrize("name", MINIMISERS)
def test_a_maximum_of_an_energy_without_minimum_is_refused(name):
    with pytest.raises(bilevel.ConvergenceError):
        bilevel.argmin(lambda u: -(u**2).sum(), torch.zeros(2), solver=MINIMISERS[name])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_newton_ends_at_minima_of_random_quartics(seed):
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(4, 4, generator=g)
    p = {"a": a + a.T, "b": torch.randn(4, generator=g)}

    def energy(u, q):
        return 0.25 * (u**4).sum() + 0.5 * u @ q["a"] @ u - q["b"] @ u

    for solver in (Newton(), Newton(step=TrustRegion())):
        u = bilevel.argmin(energy, torch.randn(4, generator=g), p, solver=solver).u
        hessian = torch.func.hessian(lambda v: energy(v, p))(u)
        assert float(torch.linalg.eigvalsh(hessian)[0]) > -1e-6
        assert float((torch.func.grad(lambda v: energy(v, p))(u)).norm()) < 1e-6


def test_newton_converges_quadratically():
    report = bilevel.argmin(chain_energy, torch.zeros(6), chain_params()).report
    orders = [math.log(b) / math.log(a) for a, b in zip(report.history, report.history[1:], strict=False) if b < 1e-2]
    assert orders
    assert all(order > 1.7 for order in orders[:2])


def test_newton_finds_a_linear_problem_in_one_iteration_with_one_factorisation():
    matrix = torch.diag(torch.tensor([1.0, 2.0, 5.0]))
    solution = bilevel.argmin(lambda u, b: 0.5 * u @ matrix @ u - b @ u, torch.zeros(3), torch.ones(3))
    assert solution.report.iterations == 1
    assert solution.report.counts.factorisations == 1


def test_trust_region_handles_the_hard_case():
    """The gradient is orthogonal to the lowest eigenvector (Conn, Gould & Toint 2000, section 7.3.1.3)."""

    def energy(u):
        return -(u[0] ** 2) + 0.5 * u[1] ** 2 + u[1] + 0.25 * u[0] ** 4

    u = bilevel.argmin(energy, torch.zeros(2), solver=Newton(step=TrustRegion(radius=0.5))).u
    torch.testing.assert_close(u.abs(), torch.tensor([2**0.5, 1.0]), rtol=1e-8, atol=1e-8)


def test_an_energy_that_is_infinite_beyond_a_barrier_is_not_crossed():
    solution = bilevel.argmin(lambda u, p: p * u - torch.log(u), torch.tensor(5.0), torch.tensor(3.0))
    torch.testing.assert_close(solution.u, torch.tensor(1 / 3), rtol=1e-10, atol=0)


def test_a_start_outside_the_domain_says_so():
    with pytest.raises(bilevel.ConvergenceError, match="NaN or infinite"):
        bilevel.argmin(lambda u: u - torch.log(u), torch.tensor(-1.0))


@pytest.mark.parametrize("step", [Armijo(), Wolfe(), BarzilaiBorwein(), Constant(0.3)])
def test_gradient_descent_reaches_the_minimum_with_every_step(step):
    scale = torch.tensor([1.0, 3.0, 5.0])
    solver = GradientDescent(step=step, max_iterations=5000)
    u = bilevel.argmin(lambda u, p: 0.5 * (scale * (u - p) ** 2).sum(), torch.zeros(3), torch.ones(3), solver=solver).u
    torch.testing.assert_close(u, torch.ones(3), rtol=1e-8, atol=1e-8)


def test_anderson_needs_fewer_maps_than_picard():
    rates = torch.linspace(-0.9, 0.95, 20)
    counts = {}
    for solver in (Anderson(), Picard()):
        solution = bilevel.fixed_point(lambda u, p: rates * u + p, torch.zeros(20), torch.ones(20), solver=solver)
        torch.testing.assert_close(solution.u, 1 / (1 - rates), rtol=1e-7, atol=0)
        counts[type(solver).__name__] = solution.report.iterations
    assert counts["Anderson"] < 0.5 * counts["Picard"]


def test_a_map_that_expands_is_reported():
    with pytest.raises(bilevel.ConvergenceError):
        bilevel.fixed_point(
            lambda u, p: p * u + 1.0, torch.zeros(2), torch.tensor(2.0), solver=Picard(max_iterations=3000)
        )


def test_solvers_refuse_problems_they_are_not_made_for():
    with pytest.raises(bilevel.BilevelError, match="use Newton for a residual"):
        bilevel.root(lambda u, p: u - p, torch.zeros(2), torch.ones(2), solver=LBFGS())
    with pytest.raises(bilevel.BilevelError, match="iterates a map"):
        bilevel.argmin(lambda u, p: ((u - p) ** 2).sum(), torch.zeros(2), torch.ones(2), solver=Picard())
    with pytest.raises(bilevel.BilevelError, match="trust region needs an energy"):
        bilevel.root(lambda u, p: u - p, torch.zeros(2), torch.ones(2), solver=Newton(step=TrustRegion()))


def test_load_stepping_reaches_what_one_step_cannot():
    """A root behind a fold of Newton's basin: arctan diverges from far away."""

    def residual(u, p):
        return torch.atan(20 * (u - p["load"]))

    params = {"load": torch.tensor([1.0], requires_grad=True)}
    plain = Newton(step=Constant(), max_iterations=30)
    with pytest.raises(bilevel.ConvergenceError):
        bilevel.root(residual, torch.zeros(1), params, solver=plain)
    stepping = LoadStepping(path=lambda p, t: {"load": t * p["load"]}, solver=plain, first=1.0)
    solution = bilevel.root(residual, torch.zeros(1), params, solver=stepping)
    torch.testing.assert_close(solution.u.detach(), torch.ones(1))
    assert "cutbacks" in solution.report.notes[-1]
    solution.u.sum().backward()
    torch.testing.assert_close(params["load"].grad, torch.ones(1))


def test_the_report_speaks_in_sentences():
    with pytest.warns(RuntimeWarning, match="raise max_iterations"):
        solution = bilevel.argmin(
            rosenbrock_chain, torch.zeros(10), ROSENBROCK, solver=Newton(max_iterations=2), on_fail="warn"
        )
    assert solution.report.status == [Status.MAX_ITERATIONS]
    assert solution.report.iterations == 2
    assert solution.report.counts.factorisations >= 2


def test_single_precision_works_when_asked_for():
    p = torch.tensor([1.0, 2.0], dtype=torch.float32, requires_grad=True)
    u = bilevel.argmin(
        lambda u, q: ((u - q) ** 4).sum() + ((u - q) ** 2).sum(), torch.zeros(2, dtype=torch.float32), p
    ).u
    assert u.dtype == torch.float32
    torch.testing.assert_close(u, p, rtol=1e-5, atol=1e-5)


def test_tolerances_must_make_sense():
    with pytest.raises(ValueError, match="not both 0"):
        Tolerance(relative=0.0, absolute=0.0)


def test_a_stiff_problem_ends_at_the_rounding_level_of_its_residual():
    """Stiff springs in a ring of soft ones: the terms of the residual cancel to far below their own rounding error."""
    n = 40

    def energy(u, p):
        stretch = torch.diff(u, prepend=torch.zeros(1))
        return 0.5 * (p * stretch**2).sum() - u[-1]

    solution = bilevel.argmin(energy, torch.zeros(n), torch.full((n,), 1e7), solver=Newton(tolerance=Tolerance(1e-15)))
    torch.testing.assert_close(solution.u, 1e-7 * torch.arange(1.0, n + 1), rtol=1e-9, atol=0)
    assert solution.report.iterations <= 5


def test_a_saddle_without_curvature_is_left_too():
    """The monkey saddle, held by a quartic: its Hessian vanishes at the origin."""

    def monkey(u):
        return u[0] ** 3 - 3 * u[0] * u[1] ** 2 + 0.25 * (u @ u) ** 2

    solution = bilevel.argmin(monkey, torch.zeros(2))
    assert float(monkey(solution.u)) == pytest.approx(-27 / 4, rel=1e-8)
    assert any("degenerate saddle" in note for note in solution.report.notes)


def test_a_flat_minimum_is_kept():
    solution = bilevel.argmin(lambda u: (u[0] - 1.0) ** 2, torch.zeros(2), solver=LBFGS())
    torch.testing.assert_close(solution.u, torch.tensor([1.0, 0.0]), rtol=1e-8, atol=1e-8)
    assert any("not unique" in note for note in solution.report.notes)
