"""Large problems with assembled tangents: right ones serve the adjoint, wrong ones only precondition it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import bilevel
from bilevel.implicit.linearised_solve import MANY
from bilevel.linalg import LinearOperator, Sparse, SparsePattern, Structure, factorise
from bilevel.linalg.direct.condition import random_signs
from bilevel.linalg.solver import Factor, LinearSolver
from bilevel.problem import DENSE_LIMIT, EnergyProblem, Params
from bilevel.report import OnFail

N = DENSE_LIMIT + 200


class Chain(EnergyProblem):
    """Springs with stiffness k to their neighbours and a quartic to the ground; `error` falsifies the tangent."""

    structure = Structure(symmetric=True)

    def __init__(self, error: float) -> None:
        self.error = error
        i = torch.arange(N)
        rows, columns = torch.cat([i, i[1:], i[:-1]]).numpy(), torch.cat([i, i[:-1], i[1:]]).numpy()
        self.pattern, scatter = SparsePattern.from_pairs(rows, columns, N)
        self.scatter = torch.from_numpy(scatter)

    def value(self, u: Tensor, params: Params) -> Tensor:
        return 0.5 * params["k"] * (u[1:] - u[:-1]).square().sum() + 0.5 * (u**2).sum() + (u**4).sum() / 4 - u.sum()

    def tangent(self, u: Tensor, params: Params) -> LinearOperator:
        k = params["k"].detach()
        diagonal = 2 * k + 1 + 3 * u.detach() ** 2 * (1.0 + self.error)
        diagonal[0] -= k
        diagonal[-1] -= k
        entries = torch.cat([diagonal, (-k).expand(2 * (N - 1))])
        return Sparse(self.pattern, self.pattern.accumulate(self.scatter, entries), self.structure)


def gradient(error: float) -> tuple[float, float]:
    k = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    start = torch.linspace(0.0, 1.0, N, dtype=torch.float64)
    # A misfit of the whole profile: u = const solves the problem for every k, so push it off by a fixed weight.
    solution = bilevel.argmin(Pushed(error), start, {"k": k})
    (solution.u * start).sum().backward()
    assert solution.gradient is not None
    assert k.grad is not None
    return float(k.grad), solution.gradient.relative_error


class Pushed(Chain):
    def value(self, u: Tensor, params: Params) -> Tensor:
        push = torch.linspace(-1.0, 1.0, N, dtype=torch.float64) * torch.cos(torch.arange(N, dtype=torch.float64))
        return super().value(u, params) - (push * u).sum()


@pytest.mark.parametrize("error", [0.0, 0.3])
def test_the_gradient_is_that_of_the_energy_whatever_the_assembled_tangent_says(error: float) -> None:
    step, start = 1e-4, torch.linspace(0.0, 1.0, N, dtype=torch.float64)

    def misfit(k: float) -> float:
        u = bilevel.argmin(Pushed(0.0), start, {"k": torch.tensor(k, dtype=torch.float64)}).u
        return float((u * start).sum())

    found, estimate = gradient(error)
    assert found == pytest.approx((misfit(2.0 + step) - misfit(2.0 - step)) / (2 * step), rel=1e-5)
    assert estimate < 1e-8


@pytest.mark.parametrize("adjoint", [None, bilevel.Neumann(terms=30)])
def test_rows_of_a_jacobian_are_the_first_to_need_random_numbers(adjoint: bilevel.Adjoint | None) -> None:
    """Nothing was drawn before: the check of the tangent, and Neumann's norm, must not ask torch for it under vmap."""
    random_signs.cache_clear()
    k = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    start = torch.zeros(N, dtype=torch.float64)
    u = bilevel.argmin(Pushed(0.0), start, {"k": k}, adjoint=adjoint, on_fail="ignore").u
    seen = u[[3, 100, N - 5]]
    (rows,) = torch.autograd.grad(seen, k, torch.eye(3, dtype=torch.float64), is_grads_batched=True, retain_graph=True)
    alone = torch.stack([torch.autograd.grad(value, k, retain_graph=True)[0] for value in seen])
    torch.testing.assert_close(rows, alone, rtol=1e-9, atol=1e-12)


class Watched(LinearSolver):
    """The picked solver, and the matrices that it was given."""

    def __init__(self) -> None:
        self.given: list[Sparse] = []

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        assert isinstance(A, Sparse)
        self.given.append(A)
        return factorise(A, on_fail=on_fail)


@pytest.mark.parametrize("rows", [2, 20])
def test_many_right_hand_sides_have_a_factor_of_their_own_tangent(rows: int) -> None:
    """A few are refined with the solver's last factor, which is that of a tangent one step away; derivatives are the same."""
    watched, problem = Watched(), Pushed(0.0)
    start, k = torch.linspace(0.0, 1.0, N, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)
    found: list[Tensor] = []

    def seen(k: Tensor) -> Tensor:
        u = bilevel.argmin(problem, start, {"k": k}, solver=bilevel.Newton(linear=watched)).u
        found.append(u.detach())
        return u[:rows]

    forward = torch.func.jvp(seen, (k,), (torch.ones_like(k),))[1]
    watched.given.clear()
    (reverse,) = torch.autograd.grad(
        seen(at := k.clone().requires_grad_()), at, torch.eye(rows, dtype=torch.float64), is_grads_batched=True
    )
    torch.testing.assert_close(reverse, forward, rtol=1e-8, atol=1e-12)
    own = problem.tangent(found[-1], {"k": k}).values  # type: ignore[attr-defined]
    assert torch.equal(watched.given[-1].values, own) == (rows > MANY)
