"""Learned steps: safeguards, any descent, and exact gradients whatever proposes the moves."""

import pytest
import torch

import bilevel
from bilevel.acceleration.learned_step import LearnedStep
from bilevel.implicit.strategies import Unrolled
from bilevel.problem import Energy, Residual
from bilevel.report import BilevelError
from bilevel.solvers import LBFGS, GradientDescent, Newton, PreconditionedGradient
from bilevel.solvers.evaluations import Tolerance
from bilevel.solvers.steps import BarzilaiBorwein, Constant

NODES = 12
START = torch.linspace(-1.0, 2.0, NODES, dtype=torch.float64)
ONE = torch.ones((), dtype=torch.float64)


def energy(u, params):
    """A ring of springs that stiffen."""
    return params * (
        ((u - u.roll(1)) ** 4).sum() / 4 + 0.05 * (u**2).sum() - (u * torch.sin(torch.arange(NODES))).sum()
    )


def scaled(factors):
    """Along the direction, by a factor for each unknown."""
    return lambda point, direction, last: factors * direction


def random(seed, spread=2.0):
    """Factors of any size and a share of the last move, as of an untrained network."""
    generator = torch.Generator().manual_seed(seed)

    def propose(point, direction, last):
        factors = (spread * torch.randn(NODES, generator=generator, dtype=torch.float64)).exp()
        return factors * direction + (0.0 if last is None else 0.5 * last)

    return propose


@pytest.mark.parametrize("solver", [Newton, LBFGS, GradientDescent])
@pytest.mark.parametrize("seed", range(2))
def test_any_descent_converges_whatever_is_proposed(solver, seed):
    fallback = BarzilaiBorwein() if solver is GradientDescent else solver().step
    step = LearnedStep(random(seed), fallback=fallback)
    expected = bilevel.argmin(energy, START, ONE, solver=Newton()).u
    solution = bilevel.argmin(energy, START, ONE, solver=solver(step=step))
    assert torch.allclose(solution.u, expected, atol=1e-7)
    counts = solution.report.counts
    assert counts.inferences >= solution.report.iterations - counts.fallbacks
    assert 0 < counts.fallbacks <= solution.report.iterations


def test_moves_work_along_preconditioned_gradients():
    def bowl(u, params):
        return params * (torch.logspace(-2.0, 2.0, NODES) * u.square()).sum() + 0.01 * u.pow(4).sum() - 2.0 * u.sum()

    step = LearnedStep(scaled(torch.linspace(0.7, 1.4, NODES, dtype=torch.float64)))
    found = bilevel.argmin(bowl, START, ONE, solver=PreconditionedGradient(step=step))
    torch.testing.assert_close(found.u, bilevel.argmin(bowl, START, ONE).u, rtol=1e-6, atol=1e-8)
    assert found.report.counts.inferences > 0


def test_the_direction_itself_is_the_full_newton_step():
    full = LearnedStep(scaled(1.0), safeguard=False)  # full steps may climb on the way
    learned = bilevel.argmin(energy, START, ONE, solver=Newton(step=full))
    plain = bilevel.argmin(energy, START, ONE, solver=Newton(step=Constant()))
    assert learned.report.history == pytest.approx(plain.report.history, rel=1e-12)
    assert learned.report.counts.fallbacks == 0


def test_factors_above_one_end_the_slow_contraction_of_newton():
    """On sum u^4 Newton contracts by 2/3 a step; all factors at p - 1 = 3 jump to the solution at once."""
    u0, tolerance = torch.linspace(1.0, 2.0, NODES, dtype=torch.float64), Tolerance(relative=1e-9)
    iterations = [
        bilevel.argmin(lambda u: (u**4).sum() / 4, u0, solver=solver).report.iterations
        for solver in (
            Newton(tolerance=tolerance, check_minimum=False),
            Newton(step=LearnedStep(scaled(3.0)), tolerance=tolerance, check_minimum=False),
        )
    ]
    assert iterations[0] > 10
    assert iterations[1] <= 3


def test_without_the_safeguard_bad_moves_diverge_and_with_it_none_does():
    loose = Newton(step=LearnedStep(scaled(8.0), safeguard=False), max_iterations=60)
    failed = bilevel.argmin(energy, START, ONE, solver=loose, on_fail="ignore").report
    assert not failed.converged
    assert failed.counts.fallbacks == 0
    assert bilevel.argmin(energy, START, ONE, solver=Newton(step=LearnedStep(scaled(8.0)))).report.converged


def test_a_root_problem_is_guarded_by_its_residual():
    skew = torch.diag(torch.ones(NODES - 1, dtype=torch.float64), 1)
    matrix = torch.eye(NODES, dtype=torch.float64) * 2 + skew - skew.mT

    def residual(u):
        return matrix @ u + u**3 - 1.0

    u0 = torch.full((NODES,), 3.0, dtype=torch.float64)
    solution = bilevel.root(Residual(residual), u0, solver=Newton(step=LearnedStep(random(1))))
    assert float(torch.linalg.vector_norm(residual(solution.u))) < 1e-7
    assert solution.report.counts.fallbacks > 0


def test_gradients_do_not_depend_on_the_step():
    def gradient(solver):
        stiffness = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
        solution = bilevel.argmin(lambda u, k: energy(u, k) + 0.3 * (u**2).sum(), START, stiffness, solver=solver)
        return torch.autograd.grad((solution.u**3).sum(), stiffness)[0]

    learned = gradient(Newton(step=LearnedStep(random(0, 1.0))))
    assert float(learned) == pytest.approx(float(gradient(Newton())), rel=1e-8)


def test_batches_and_unrolled_adjoints_are_refused():
    step = LearnedStep(scaled(1.0))
    batch = Energy(lambda u: (u**4).sum(-1), batch_dims=1)
    with pytest.raises(BilevelError, match="one problem at a time"):
        bilevel.argmin(batch, torch.ones(2, NODES, dtype=torch.float64), solver=Newton(step=step))
    with pytest.raises(BilevelError, match="unrolled adjoint"):
        bilevel.argmin(energy, START, ONE, solver=Newton(step=step), adjoint=Unrolled(last=3))
