"""Nonlinear conjugate gradients, and load steps along the tangent of their path."""

import pytest
import torch

from bilevel.problem import Energy
from bilevel.solvers import LoadStepping, Newton, NonlinearCG, Tolerance


def ready(energy, n):
    return Energy(energy).for_unknown(torch.zeros(n, dtype=torch.float64))


def test_ends_on_a_quadratic_in_about_as_many_iterations_as_unknowns():
    values = torch.linspace(1.0, 50.0, 8, dtype=torch.float64)
    problem = ready(lambda u, p: 0.5 * (values * u**2).sum() - p @ u, 8)
    load = torch.ones(8, dtype=torch.float64)
    outcome = NonlinearCG(tolerance=Tolerance(1e-8)).solve(problem, torch.zeros(8, dtype=torch.float64), load)
    assert outcome.report.converged
    assert outcome.report.iterations <= 30
    torch.testing.assert_close(outcome.u, load / values, rtol=1e-6, atol=1e-8)


def test_finds_the_minimum_of_rosenbrock():
    problem = ready(lambda u, p: p * (u[1] - u[0] ** 2) ** 2 + (1 - u[0]) ** 2, 2)
    start = torch.tensor([-1.2, 1.0], dtype=torch.float64)
    outcome = NonlinearCG(tolerance=Tolerance(1e-9)).solve(problem, start, torch.tensor(100.0, dtype=torch.float64))
    assert outcome.report.converged
    torch.testing.assert_close(outcome.u, torch.ones(2, dtype=torch.float64), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("from_rest", [False, True])
def test_predicted_load_steps_reach_the_same_solution_in_fewer_iterations(from_rest):
    def energy(u, load):
        stretch = torch.cat((u[:1], u.diff()))
        return (stretch.exp() - stretch).sum() - load @ u

    problem = ready(energy, 6)
    load = torch.linspace(0.5, 2.0, 6, dtype=torch.float64)
    start = torch.full((6,), 3.0 if from_rest else 0.0, dtype=torch.float64)

    def solve(predict):
        stepping = LoadStepping(lambda p, t: t * p, Newton(tolerance=Tolerance(1e-11)), predict=predict)
        stepping.from_rest = from_rest
        return stepping.solve(problem, start, load)

    plain, predicted = solve(False), solve(True)
    assert predicted.report.converged
    torch.testing.assert_close(predicted.u, plain.u, rtol=1e-8, atol=1e-9)
    assert predicted.report.counts.values < plain.report.counts.values
    assert predicted.report.counts.factorisations <= plain.report.counts.factorisations
