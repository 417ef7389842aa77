"""Which linear solver is picked, found by name, and used: the chosen one on every path, another package's as well."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from packages import write_package
from problems import SparseChain

import bilevel
from bilevel.linalg import (
    CG,
    Automatic,
    Dense,
    Factor,
    LinearOperator,
    LinearSolver,
    Structure,
    SuperLU,
    linear_solver,
    pick,
    registry,
)
from bilevel.linalg.preconditioner import Jacobi
from bilevel.report import InputError, OnFail
from bilevel.solvers import LBFGS, Anderson, GradientDescent, LoadStepping, Newton, NonlinearCG, PreconditionedGradient
from bilevel.solvers.evaluations import Tolerance
from bilevel.solvers.solver import Solver
from bilevel.solvers.steps import Armijo, BarzilaiBorwein, Constant, StrongWolfe, TrustRegion, Wolfe

CHAIN = SparseChain(12)


@dataclass(frozen=True)
class Counting(LinearSolver):
    """SuperLU that counts its factorisations."""

    made: list[int] = field(default_factory=list)

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        self.made.append(A.n)
        return SuperLU().factor(A, on_fail)


@pytest.fixture
def nothing_is_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any linear system that the chosen solver does not see is an error."""

    def refuse() -> None:
        raise AssertionError("a linear solver was picked where one was chosen")

    monkeypatch.setattr(registry, "_table", refuse)


def minimise(solver: Solver, params: dict[str, torch.Tensor] | None = None, start: float = 0.3) -> bilevel.Solution:
    return bilevel.argmin(CHAIN, start * torch.ones(CHAIN.n), params or CHAIN.params(), solver=solver)


STEPS = [Armijo(), Wolfe(), StrongWolfe(), Constant(), TrustRegion(), BarzilaiBorwein()]


@pytest.mark.usefixtures("nothing_is_picked")
@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
def test_newton_uses_the_chosen_solver_under_every_step_rule(step) -> None:
    chosen = Counting()
    report = minimise(Newton(step=step, linear=chosen)).report
    assert len(chosen.made) == report.counts.factorisations > 0


@pytest.mark.usefixtures("nothing_is_picked")
def test_the_check_for_a_minimum_and_the_way_off_a_saddle_use_it() -> None:
    chosen = Counting()
    found = minimise(Newton(linear=chosen), CHAIN.params(b=-1.0, load=0.0), start=0.0)
    assert "met a saddle point and left it along negative curvature" in found.report.notes
    assert len(chosen.made) > found.report.iterations + 1


@pytest.mark.usefixtures("nothing_is_picked")
@pytest.mark.parametrize("step", [Armijo(), TrustRegion()], ids=lambda step: type(step).__name__)
def test_negative_curvature_on_the_way_uses_it(step) -> None:
    chosen = Counting()
    minimise(Newton(step=step, linear=chosen), CHAIN.params(b=-1.0, load=0.2), start=0.1)
    assert chosen.made


FIRST_ORDER = {
    "LBFGS": lambda linear: LBFGS(linear=linear),
    "GradientDescent": lambda linear: GradientDescent(linear=linear),
    "NonlinearCG": lambda linear: NonlinearCG(linear=linear),
    "PreconditionedGradient": lambda linear: PreconditionedGradient(preconditioner=Jacobi(), linear=linear),
}


@pytest.mark.usefixtures("nothing_is_picked")
@pytest.mark.parametrize("name", FIRST_ORDER)
@pytest.mark.parametrize("loose", [False, True])
def test_the_adjoint_of_methods_without_a_factorisation_uses_it(name: str, loose: bool) -> None:
    chosen = Counting()
    solver = FIRST_ORDER[name](chosen)
    if loose:  # then the certificate needs Newton's method
        solver.tolerance, solver.check_minimum = Tolerance(1e-1), False
    params = {key: value.clone().requires_grad_() for key, value in CHAIN.params().items()}
    found = minimise(solver, params)
    before = len(chosen.made)
    found.u.square().sum().backward()
    assert found.gradient is not None
    assert found.gradient.relative_error < 1.0
    assert before > 0 or len(chosen.made) > 0


@pytest.mark.usefixtures("nothing_is_picked")
@pytest.mark.parametrize("transform", ["jacrev", "jacfwd", "hessian", "gradient"])
def test_derivatives_use_it(transform: str) -> None:
    chosen = Counting()

    def misfit(k: torch.Tensor) -> torch.Tensor:
        return minimise(LBFGS(linear=chosen, tolerance=Tolerance(1e-12)), CHAIN.params() | {"k": k}).u.square().sum()

    if transform == "gradient":
        assert bilevel.gradient(misfit, torch.tensor(2.0)).report.relative_error < 1e-6
    else:
        getattr(torch.func, transform)(misfit)(torch.tensor(2.0))
    assert chosen.made


@pytest.mark.usefixtures("nothing_is_picked")
def test_many_right_hand_sides_use_it() -> None:
    chosen = Counting()

    def profile(load: torch.Tensor) -> torch.Tensor:
        large = SparseChain(40)
        return bilevel.argmin(large, torch.zeros(40), large.params() | {"load": load}, solver=Newton(linear=chosen)).u

    torch.func.jacrev(profile)(torch.linspace(-1.0, 1.0, 40))
    assert chosen.made


@pytest.mark.usefixtures("nothing_is_picked")
def test_load_steps_and_their_predictor_use_it() -> None:
    chosen = Counting()
    solver = LoadStepping(
        lambda p, t: p | {"load": t * p["load"]}, Newton(linear=chosen), predict=True, first=0.5, growth=1.0
    )
    report = minimise(solver).report
    assert len(chosen.made) == report.counts.factorisations


@pytest.mark.usefixtures("nothing_is_picked")
def test_chains_use_it_on_the_way_forward_and_back() -> None:
    chosen = Counting()

    def step(old, params, load, start):
        p = {"k": params, "b": torch.tensor(1.0), "load": load + old}
        return bilevel.argmin(CHAIN, start, p, solver=Newton(linear=chosen)).u

    k = torch.tensor(2.0, requires_grad=True)
    found = bilevel.chain(step, torch.zeros(12), k, torch.ones(3, 12), observe=lambda new, params, load: new[0])
    before = len(chosen.made)
    found.final.sum().backward()
    assert len(chosen.made) > before > 0


@pytest.mark.usefixtures("nothing_is_picked")
def test_roots_and_fixed_points_use_it() -> None:
    chosen, p = Counting(), torch.tensor(0.5, requires_grad=True)
    solver = Newton(linear=CountingDense(chosen))
    bilevel.root(lambda u, p: u**3 + u - p, torch.ones(2), p, solver=solver).u.sum().backward()
    before = len(chosen.made)
    assert before > 0
    map_solver = Anderson(linear=CountingDense(chosen))
    bilevel.fixed_point(lambda u, p: torch.cos(p * u), torch.ones(2), p, solver=map_solver).u.sum().backward()
    assert len(chosen.made) > before


class CountingDense(LinearSolver):
    """Counts, and solves dense systems."""

    def __init__(self, counting: Counting) -> None:
        self.counting = counting

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        self.counting.made.append(A.n)
        return linear_solver("dense_lu").factor(A, on_fail)


THIRD_PARTY = """
    from dataclasses import dataclass
    from bilevel.linalg import Dense, DenseLU, LinearSolver, Sparse

    calls = []

    @dataclass(frozen=True)
    class Tiny(LinearSolver):
        precedence = 10

        def suits(self, A, right_hand_sides):
            return isinstance(A, Sparse) and A.n == 12

        def factor(self, A, on_fail="raise"):
            calls.append(A.n)
            import torch
            dense = Dense(torch.from_numpy(A.csr().toarray()), A.structure)
            factor = DenseLU().factor(dense, on_fail)
            factor.positive_definite = True
            return factor
"""


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[int]]]:
    """The calls seen by a linear solver of another package that is installed for the test."""
    write_package(tmp_path, "tiny_solver", THIRD_PARTY, {registry.GROUP: {"tiny": "tiny_solver:Tiny"}})
    monkeypatch.syspath_prepend(tmp_path)
    registry._table.cache_clear()
    yield lambda: sys.modules["tiny_solver"].calls
    registry._table.cache_clear()
    sys.modules.pop("tiny_solver", None)


def test_a_third_partys_solver_is_found_by_name_and_picked_where_it_suits(third_party) -> None:
    found = linear_solver("tiny")
    report = minimise(Newton(linear=found)).report
    assert len(third_party()) == report.counts.factorisations
    assert type(pick(CHAIN.tangent(torch.zeros(12), CHAIN.params()))).__name__ == "Tiny"
    before = len(third_party())
    minimise(Newton())
    assert len(third_party()) > before


@dataclass(frozen=True)
class Unknowing(LinearSolver):
    """SuperLU that cannot tell whether a matrix is positive definite."""

    def factor(self, A: LinearOperator, on_fail: OnFail = "raise") -> Factor:
        factor = SuperLU().factor(A, on_fail)
        factor.positive_definite = factor.negative_eigenvalues = None
        return factor


def test_a_minimum_is_recognised_where_the_factor_cannot_tell() -> None:
    assert torch.allclose(minimise(Newton(linear=Unknowing())).u, minimise(Newton()).u, atol=1e-10)


def test_a_name_that_is_not_installed_is_an_error_that_lists_what_is() -> None:
    with pytest.raises(InputError, match=r"'mumps'; installed are .*superlu"):
        linear_solver("mumps")


def test_solvers_that_suit_nothing_are_never_picked() -> None:
    assert isinstance(pick(Dense(torch.eye(2), Structure(symmetric=True))), linear_solver("dense_cholesky").__class__)
    assert not CG().suits(Dense(torch.eye(2)), 1)
    assert Automatic().resolve(Dense(torch.eye(2))) == linear_solver("dense_lu")
