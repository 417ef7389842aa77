"""The learned first guess as a solver: which field Newton's method starts from, and what takes over where that fails."""

import math

import pytest
import torch

from bilevel.acceleration.learned_guess import LearnedGuess, guess_solver
from bilevel.linalg import SuperLU, registry
from bilevel.problem import Energy
from bilevel.report import SingularError
from bilevel.solvers import Newton, Tolerance
from bilevel.solvers.cellwise.problem import CellwiseProblem, Guess
from bilevel.solvers.solver import Solver
from physics.families.denoised_volumes import DenoisedVolumes
from physics.families.large_strain import LargeStrain
from physics.families.p_laplacian import PLaplacianFlow
from physics.families.power_law import PowerLawFlow

START = torch.tensor([2.0], dtype=torch.float64)


class Fields(CellwiseProblem):
    """Systems whose solutions are known in advance; None is one that cannot be solved."""

    def __init__(self, fields):
        self.fields = list(fields)

    def begin(self, start):
        return Guess(start)

    def solve(self, guess, outputs=None):
        found = self.fields.pop(0)
        if found is None:
            raise SingularError("no solution")
        return Guess(torch.tensor([found], dtype=torch.float64), counts=guess.counts)


class Seen(Solver):
    """Newton's method that remembers where it was started."""

    tolerance = Tolerance(1e-10)

    def __init__(self, iterations=50):
        self.iterations, self.starts = iterations, []

    def solve(self, problem, u0, params, record=False):
        self.starts.append(float(u0))
        newton = Newton(tolerance=self.tolerance, max_iterations=self.iterations, check_minimum=False)
        return newton.solve(problem, u0, params)


def guessed(fields, iterations=50):
    problem = Energy(lambda u, params: (params * u**2 + u**4).sum()).for_unknown(START)
    inner, after = Seen(iterations), Seen()
    solver = LearnedGuess(lambda problem, params: Fields(fields), [None] * len(fields), inner, otherwise=(after,))
    return solver.solve(problem, START, torch.ones(())), inner.starts, after.starts


@pytest.mark.parametrize(
    ("fields", "start", "acts"),
    [
        ([0.5, 0.1], 0.1, 0),
        ([0.5, 1.0], 1.0, 0),  # lower than the start is enough: nobody asks for the energies in between
        ([0.1, 3.0, math.nan], 0.1, 1),
        ([3.0, math.nan], 2.0, 1),
        ([0.3, None, 0.1], 0.3, 1),
        ([None], 2.0, 1),
    ],
)
def test_newton_starts_from_the_last_field_or_from_the_lowest_where_that_is_no_good(fields, start, acts):
    outcome, starts, after = guessed(fields)
    assert outcome.report.converged
    assert abs(float(outcome.u)) < 1e-9
    assert starts == pytest.approx([start])
    assert outcome.report.counts.fallbacks == acts
    assert not after


def test_what_takes_over_begins_at_the_users_start():
    outcome, _, after = guessed([0.5], iterations=1)
    assert outcome.report.converged
    assert after == [2.0]
    assert outcome.report.counts.fallbacks == 1
    assert "took over" in outcome.report.notes[-1]


class Counting(SuperLU):
    """A linear solver that counts what it factorises."""

    def __init__(self):
        self.factorised = 0

    def factor(self, A, on_fail="raise"):
        self.factorised += 1
        return super().factor(A, on_fail)


FAMILIES = [
    (PowerLawFlow(exponent=3.0), 60),
    (PLaplacianFlow(exponent=3.0), 60),
    (LargeStrain(), 40),
    (DenoisedVolumes(), 64),
]


@pytest.mark.parametrize(("family", "size"), FAMILIES, ids=lambda value: getattr(value, "name", ""))
def test_the_linear_solver_of_newtons_method_factorises_the_systems_of_the_guess(family, size, monkeypatch):
    """Every factorisation of the solve is its own: the table that picks a solver is not asked."""
    instance = family.instance(size, 2)
    linear = Counting()

    def no_other(*_):
        raise AssertionError("a solver was picked beside the chosen one")

    monkeypatch.setattr(registry, "pick", no_other)
    newton = Newton(linear=linear, tolerance=Tolerance(1e-8), max_iterations=2, check_minimum=False)
    guess = LearnedGuess(lambda problem, params: instance.cellwise, [None] * 2, newton)
    report = guess.solve(instance.problem, instance.start, instance.params).report
    assert linear.factorised == report.counts.factorisations >= 2
    assert guess_solver([None], guess.make, Tolerance(1e-8), path=instance.path, linear=linear).solver.linear is linear
