"""Newton's full steps: the same way as the careful solver's, and the careful solver where they do not lead on."""

from __future__ import annotations

import pytest
import torch

import bilevel
from bilevel.report import ConvergenceError
from bilevel.solvers import UndampedNewton


def circle(u, radius):
    """The circle and the parabola y = x^2 meet."""
    return torch.stack((u[0] ** 2 + u[1] ** 2 - radius**2, u[1] - u[0] ** 2))


def test_the_way_is_newtons_own():
    start, radius = torch.tensor([2.0, 1.0]), torch.tensor(1.5)
    careful = bilevel.root(circle, start, radius)
    quick = bilevel.root(circle, start, radius, solver=UndampedNewton())
    torch.testing.assert_close(quick.u, careful.u, rtol=1e-14, atol=0.0)
    assert quick.report.history == pytest.approx(careful.report.history)
    assert quick.report.iterations == careful.report.iterations
    for name in ("residuals", "factorisations", "back_substitutions"):
        assert getattr(quick.report.counts, name) == getattr(careful.report.counts, name)


def test_derivatives():
    solved = lambda radius: bilevel.root(circle, torch.tensor([2.0, 1.0]), radius, solver=UndampedNewton()).u  # noqa: E731
    slope = torch.func.jacrev(solved)(torch.tensor(1.5))
    step = 1e-5
    difference = (solved(torch.tensor(1.5 + step)) - solved(torch.tensor(1.5 - step))) / (2 * step)
    torch.testing.assert_close(slope, difference, rtol=1e-8, atol=1e-8)


def test_the_careful_solver_goes_on_where_a_full_step_overshoots():
    """Newton's full steps on arctan diverge from |u| > 1.39."""
    far = torch.tensor([3.0])
    found = bilevel.root(lambda u, p: torch.atan(u - p), far, torch.zeros(1), solver=UndampedNewton())
    assert float(found.u) == pytest.approx(0.0, abs=1e-9)
    assert found.report.history == pytest.approx(
        bilevel.root(lambda u, p: torch.atan(u - p), far, torch.zeros(1)).report.history
    )


@pytest.mark.parametrize(
    ("residual", "start"),
    [(lambda u: torch.exp(-u), 0.0), (lambda u: u**2 + 1.0, 0.5), (lambda u: u.sqrt() + 1.0, -1.0)],
    ids=["runs away", "no root", "not a number"],
)
def test_what_has_no_root_is_refused_as_by_newton(residual, start):
    start = torch.tensor([start])
    with pytest.raises(ConvergenceError) as careful:
        bilevel.root(residual, start)
    with pytest.raises(ConvergenceError) as quick:
        bilevel.root(residual, start, solver=UndampedNewton())
    assert str(quick.value).split("(")[0] == str(careful.value).split("(")[0]


def test_a_singular_tangent_at_the_solution_is_refused():
    """Two equations that say the same have a line of roots: no step shows it, the last matrix does."""
    twice = lambda u: torch.stack((u.sum() - 1.0, 2.0 * u.sum() - 2.0)) + 1e-3 * (u.sum() - 1.0) ** 2  # noqa: E731
    for solver in (bilevel.Newton(), UndampedNewton()):
        with pytest.raises(ConvergenceError, match="singular"):
            bilevel.root(twice, torch.zeros(2), solver=solver)


def test_energies_and_batches_are_the_careful_solvers():
    energy = bilevel.argmin(lambda u: (u**4).sum() + u.sum(), torch.ones(2), solver=UndampedNewton())
    torch.testing.assert_close(energy.u, torch.full((2,), -(0.25 ** (1 / 3))))
    batch = bilevel.Residual(lambda u, p: u**3 - p, batch_dims=1)
    found = bilevel.root(batch, torch.ones(3, 1), torch.tensor([[1.0], [8.0], [27.0]]), solver=UndampedNewton())
    torch.testing.assert_close(found.u, torch.tensor([[1.0], [2.0], [3.0]]))
