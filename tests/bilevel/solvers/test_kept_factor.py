"""Steps by a factorisation that is kept: the same solutions as Newton's for fewer factorisations, and none that do not lead on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import bilevel
from bilevel.linalg import AMGCG
from bilevel.linalg.registry import Automatic
from bilevel.problem import Energy, Residual
from bilevel.solvers import Newton, Tolerance
from bilevel.solvers.evaluations import Evaluations
from bilevel.solvers.kept_factor import steps_by
from physics.discretisation import rectangle
from physics.discretisation.constraints import Dirichlet
from physics.solids import Kinematics, NeoHookean, Solid

SIZE = 30
SPRINGS = torch.diag(torch.full((SIZE,), 2.0, dtype=torch.float64))
SPRINGS -= torch.diag(torch.ones(SIZE - 1, dtype=torch.float64), 1) + torch.diag(
    torch.ones(SIZE - 1, dtype=torch.float64), -1
)
LOADS = torch.linspace(0.2, 1.0, SIZE, dtype=torch.float64)


def energy(u, p):
    return 0.5 * (u * (u @ SPRINGS)).sum(-1) + 0.25 * p["a"] * (u**4).sum(-1) - u @ LOADS


def residual(u, p):
    """As of the energy, carried along by a stream, so that no energy has it."""
    return SPRINGS @ u + p["a"] * u**3 + 0.5 * (u - torch.roll(u, 1)) - LOADS


@pytest.mark.parametrize(("solve", "function"), [(bilevel.argmin, energy), (bilevel.root, residual)])
def test_fewer_factorisations_lead_to_the_same_solution(solve, function):
    start, params = torch.zeros(SIZE, dtype=torch.float64), {"a": torch.tensor(0.3, dtype=torch.float64)}
    newton = Newton(tolerance=Tolerance(1e-13))
    exact = solve(function, start, params, solver=newton)
    kept = solve(function, start, params, solver=replace(newton, keeps_factors=True))
    torch.testing.assert_close(kept.u, exact.u, rtol=1e-11, atol=1e-12)
    assert kept.report.counts.factorisations <= 0.7 * exact.report.counts.factorisations
    assert kept.report.iterations == len(kept.report.history) >= exact.report.iterations


@pytest.mark.parametrize("problem", [Energy(energy), Residual(residual)])
def test_updates_converge_faster_than_the_bare_factor(problem):
    start, params = torch.zeros(SIZE, dtype=torch.float64), {"a": torch.tensor(0.05, dtype=torch.float64)}
    problem = problem.for_unknown(start)
    evaluations = Evaluations(problem, params, Automatic())
    with torch.no_grad():
        point = evaluations.point(Newton().solve(problem, start, params).u + 0.3)
        factor = evaluations.factor(point.u)
        walked = steps_by(factor, evaluations, point, 1e-8 * point.norm, torch.tensor(True))
        bare = [point]
        for _ in walked:
            bare.append(evaluations.point(bare[-1].u - factor.solve(bare[-1].residual)))
    assert walked[-1].norm < 1e-2 * bare[-1].norm


def test_on_a_linear_system_broydens_updates_are_as_published():
    """With a factor of a nearby matrix, at most 2 n steps (Gay 1979); here the steps that the updated matrix itself gives."""
    generator = torch.Generator().manual_seed(3)
    matrix = torch.eye(4, dtype=torch.float64) + 0.3 * torch.randn(4, 4, generator=generator, dtype=torch.float64)
    load = torch.randn(4, generator=generator, dtype=torch.float64)
    problem = Residual(lambda u, p: matrix @ u - load).for_unknown(load)
    evaluations = Evaluations(problem, {}, Automatic())
    near = matrix + 0.05 * torch.randn(4, 4, generator=generator, dtype=torch.float64)
    other = Evaluations(Residual(lambda u, p: near @ u).for_unknown(load), {}, Automatic())
    with torch.no_grad():
        point = evaluations.point(torch.zeros_like(load))
        walked = steps_by(other.factor(load), evaluations, point, 1e-10 * point.norm, torch.tensor(True))
    assert len(walked) >= 3
    u, r, updated = point.u, point.residual, near.clone()
    for one in walked:
        step = -torch.linalg.solve(updated, r)
        u, before, r = u + step, r, matrix @ (u + step) - load
        torch.testing.assert_close(one.u, u, rtol=1e-9, atol=1e-11)
        updated += torch.outer(r - before - updated @ step, step) / (step @ step)


def test_an_indefinite_factor_leads_nowhere_and_the_minimum_is_found():
    """From between two wells the tangent there would lead up to the hill between them."""
    wells = Energy(lambda u: ((u**2 - 1.0) ** 2).sum() + 0.1 * (u[1:] - u[:-1]).square().sum())
    start = torch.linspace(0.05, 0.2, 5, dtype=torch.float64)
    found = bilevel.argmin(wells, start, solver=Newton(keeps_factors=True))
    torch.testing.assert_close(found.u, torch.ones(5, dtype=torch.float64), rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("start", [0.2, 0.3, 0.4, 0.5])
def test_a_column_that_buckles_on_the_way_is_not_left_straight(start):
    """Where steps by the factor of the straight column go on for long, it says nothing of the column that they lead to."""

    def column(u):
        short, bent = u[0], u[1]
        return 0.5 * (short - 1.2) ** 2 + 0.3 * short**4 + 0.5 * (0.6 - short) * bent**2 + 0.25 * bent**4

    found = bilevel.argmin(column, torch.tensor([start, 0.0], dtype=torch.float64), solver=Newton(keeps_factors=True))
    short, bent = found.u.tolist()
    assert bent**2 == pytest.approx(short - 0.6, rel=1e-8)
    assert short - 1.2 + 1.2 * short**3 == pytest.approx(0.5 * bent**2, rel=1e-8)


def test_samples_of_a_batch_are_as_alone():
    a = torch.tensor([0.05, 0.6, 3.0], dtype=torch.float64)
    batch = Energy(energy, batch_dims=1)
    solver = Newton(keeps_factors=True, tolerance=Tolerance(1e-13))
    start = torch.zeros(3, SIZE, dtype=torch.float64)
    together = bilevel.argmin(batch, start, {"a": a}, solver=solver)
    for k in range(3):
        alone = bilevel.argmin(energy, start[k], {"a": a[k]}, solver=solver)
        torch.testing.assert_close(together.u[k], alone.u, rtol=1e-10, atol=1e-12)


def test_steps_between_factorisations_do_not_count_against_the_limit():
    start, params = torch.zeros(SIZE, dtype=torch.float64), {"a": torch.tensor(0.3, dtype=torch.float64)}
    found = bilevel.argmin(energy, start, params, solver=Newton(keeps_factors=True, max_iterations=3))
    assert found.report.iterations > 3


def test_an_unrolled_adjoint_records_newtons_steps():
    a = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    slopes = []
    for adjoint in (bilevel.Exact(), bilevel.Unrolled()):
        solver = Newton(keeps_factors=True)
        found = bilevel.argmin(energy, torch.zeros(SIZE, dtype=torch.float64), {"a": a}, solver=solver, adjoint=adjoint)
        slopes.append(torch.autograd.grad(found.u.sum(), a)[0])
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-6, atol=0.0)


def test_an_iterative_factor_is_asked_for_negative_curvature_and_not_made_again():
    """Conjugate gradients learn of it only when they meet it; the factor at hand can look as well as one at the end."""
    mesh = rectangle(8, 8)
    right = Dirichlet("right", mesh.nodes_on("right"), value=torch.tensor([0.2, 0.0]))
    body = Solid(mesh, NeoHookean(), Kinematics.PLANE_STRAIN, [mesh.fixed("left"), right])
    params = {
        "material": {
            "mu": torch.tensor(1.0, dtype=torch.float64),
            "lame_lambda": torch.tensor(2.0, dtype=torch.float64),
        }
    }
    solver = Newton(linear=AMGCG())
    cold = solver.solve(body, body.start(), params)
    generator = torch.Generator().manual_seed(0)
    near = cold.u + 1e-3 * torch.randn(body.n, generator=generator, dtype=torch.float64)
    warm = replace(solver, keeps_factors=True).solve(body, near, params)
    torch.testing.assert_close(warm.u, cold.u, rtol=0.0, atol=1e-9)
    assert warm.report.converged
    assert warm.report.counts.factorisations == 1
