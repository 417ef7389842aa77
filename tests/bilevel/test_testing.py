"""The public checks: every solver and problem of ours passes them, and what is wrong on purpose does not."""

from __future__ import annotations

import copy

import pytest
import torch
from problems import (
    SparseChain,
    chain_energy,
    chain_params,
    contraction,
    contraction_params,
    skew_params,
    skew_residual,
)

from bilevel.extensions import installed
from bilevel.linalg import Dense, DenseCholesky, DenseLU, LinearSolver, MatrixFree, Structure, SuperLU, linear_solver
from bilevel.linalg.direct import pardiso_library
from bilevel.linalg.registry import GROUP
from bilevel.problem import Energy, FixedPoint, Residual
from bilevel.report import UndeclaredTensorError
from bilevel.testing import check_linear_solver, check_problem, sparse_operator


def by_products(matrix: torch.Tensor, structure: Structure) -> MatrixFree:
    dense = Dense(matrix)
    return MatrixFree(dense.n, dense.matmul, dense.matmul_transposed, structure, dense.batch)


SYMMETRIC, BATCHES = ("definite", "indefinite"), ((), (3,), (2, 2))
TAKES = {
    "amg_cg": {"kinds": ("definite",), "tolerance": 1e-8},
    "cg": {"make": by_products, "kinds": SYMMETRIC, "batches": BATCHES, "tolerance": 1e-8},
    "minres": {"make": by_products, "kinds": SYMMETRIC, "batches": BATCHES, "tolerance": 1e-8},
    "gmres": {"make": by_products, "batches": BATCHES, "tolerance": 1e-8},
    "dense_cholesky": {"make": Dense, "kinds": SYMMETRIC, "batches": BATCHES},
    "dense_ldl": {"make": Dense, "kinds": SYMMETRIC, "batches": BATCHES},
    "dense_lu": {"make": Dense, "batches": BATCHES},
    "banded_cholesky": {"kinds": SYMMETRIC},
    "pardiso_cholesky": {"kinds": SYMMETRIC},
    "pardiso_ldl": {"kinds": SYMMETRIC},
    "pardiso_lu": {},
    "superlu": {},
}
"""What each of our solvers takes."""


@pytest.mark.parametrize("name", TAKES)
def test_every_installed_linear_solver_keeps_the_contract(name: str) -> None:
    if name.startswith("pardiso") and pardiso_library.library() is None:
        pytest.skip("no MKL PARDISO on this platform")
    check_linear_solver(linear_solver(name), **TAKES[name])


def test_no_solver_of_ours_is_left_out() -> None:
    assert {name for name, entry in installed(GROUP).items() if entry.module.startswith("bilevel.")} == set(TAKES)


class Spoilt(LinearSolver):
    """DenseLU with a fault."""

    def __init__(self, **faults) -> None:
        self.faults = faults

    def factor(self, A, on_fail="raise"):
        factor = DenseLU().factor(A, self.faults.get("on_fail", on_fail))
        for name, value in self.faults.items():
            if name != "on_fail":
                setattr(factor, name, value.__get__(factor))
        return factor


FAULTS = {
    "solve_transposed leaves a relative residual": {"solve_transposed": lambda self, b: self.solve(b)},
    "solve leaves a relative residual": {"solve": lambda self, b: 1.001 * self.solve_transposed(b)},
    "returned shape": {"solve": lambda self, b: self.solve_transposed(b).flatten()},
    "without a history": {"solve": lambda self, b: b + (self.A.matmul(b) - b).detach() * 0.0},
}


@pytest.mark.parametrize("sentence", ["solve_transposed leaves a relative residual", "returned shape"])
def test_a_wrong_linear_solver_is_found_out(sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_linear_solver(Spoilt(**FAULTS[sentence]), Dense, kinds=("unsymmetric",))


def test_a_linear_solver_that_hides_singular_matrices_is_found_out() -> None:
    with pytest.raises(AssertionError, match="solved in silence"):
        check_linear_solver(Spoilt(on_fail="ignore"), Dense, kinds=("definite",))


def test_a_wrong_claim_of_definiteness_is_found_out() -> None:
    class Optimist(LinearSolver):
        def factor(self, A, on_fail="raise"):
            factor = SuperLU().factor(A, on_fail)
            factor.positive_definite = True
            return factor

    check_linear_solver(Optimist(), kinds=("definite",))
    with pytest.raises(AssertionError, match="positive_definite says"):
        check_linear_solver(Optimist(), kinds=("indefinite",))


def test_a_linear_solver_that_forgets_the_null_space_is_found_out() -> None:
    class Forgetful(LinearSolver):
        def factor(self, A, on_fail="raise"):
            return DenseCholesky().factor(Dense(A.matrix, Structure(symmetric=True)), on_fail)

    with pytest.raises((AssertionError, Exception), match="singular"):
        check_linear_solver(Forgetful(), Dense, kinds=("definite",))


PROBLEMS = {
    "energy": (Energy(chain_energy), torch.linspace(0.1, 0.6, 6), chain_params()),
    "residual": (Residual(skew_residual), torch.linspace(-0.4, 0.5, 4), skew_params()),
    "fixed point": (FixedPoint(contraction), torch.linspace(-0.4, 0.5, 5), contraction_params()),
    "sparse": (SparseChain(12), torch.linspace(-0.4, 0.5, 12), SparseChain(12).params()),
    "batched": (Energy(lambda u, p: (p * u**4).sum(-1), batch_dims=1), torch.rand(3, 4) + 0.5, torch.rand(3, 4) + 1.0),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_of_ours_pass(name: str) -> None:
    check_problem(*PROBLEMS[name])


def spoilt(method: str, function) -> SparseChain:
    problem = copy.copy(SparseChain(12))
    setattr(problem, method, function)
    return problem


RIGHT = SparseChain(12)
WRONG = {
    "the residual as the energy's slope": spoilt("residual", lambda u, p: 1.001 * RIGHT.residual(u, p)),
    "value_and_residual": spoilt("value_and_residual", lambda u, p: (RIGHT.value(u, p), 2.0 * RIGHT.residual(u, p))),
    "tangent": spoilt("tangent", lambda u, p: RIGHT.tangent(1.1 * u, p)),
    "product is": spoilt("product", lambda u, p, x: 1.001 * RIGHT.product(u, p, x)),
    "product_transposed": spoilt("product_transposed", lambda u, p, x: 1.001 * RIGHT.product_transposed(u, p, x)),
    "parameter_vjp": spoilt("parameter_vjp", lambda u, p, a, w: [2.0 * g for g in RIGHT.parameter_vjp(u, p, a, w)]),
    "parameter_jvp": spoilt("parameter_jvp", lambda u, p, moved: torch.zeros(2, 12)),
    "promises a positive definite": SparseChain(12, Structure(symmetric=True, positive_definite=True)),
    "null space is not one": SparseChain(12, Structure(symmetric=True, null_space=torch.eye(12)[:, :1])),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_a_wrong_derivative_is_found_out(sentence: str) -> None:
    params = RIGHT.params(b=-9.0 if "definite" in sentence else 1.0)
    with pytest.raises(AssertionError, match=sentence):
        check_problem(WRONG[sentence], torch.linspace(-0.4, 0.5, 12), params)


def test_a_false_symmetry_and_a_kink_and_an_undeclared_tensor_are_found_out() -> None:
    start = torch.linspace(-0.4, 0.5, 4)
    with pytest.raises(AssertionError, match="product is wrong"):
        check_problem(Residual(skew_residual, structure=Structure(symmetric=True)), start, skew_params())
    with pytest.raises(AssertionError, match="not smooth"):
        check_problem(Energy(lambda u: (u - 0.1).abs().sum()), torch.full((3,), 0.1))
    hidden = torch.tensor(2.0, requires_grad=True)
    with pytest.raises(UndeclaredTensorError):
        check_problem(Energy(lambda u: (hidden * u**2).sum()), start)
    assert sparse_operator(torch.eye(2), Structure()).pattern.nnz == 2
