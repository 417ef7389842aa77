"""Solves with stale factors, ill-conditioned matrices, and multigrid."""

from __future__ import annotations

import pytest
import torch
from linear_systems import (
    poisson,
    random_sparse,
    sparse_from_dense,
    to_dense,
    truss,
    uneven_lattice,
    with_condition,
)

from bilevel.linalg import (
    AMGCG,
    CG,
    Dense,
    MatrixFree,
    Sparse,
    SparsePattern,
    Structure,
    SuperLU,
    factorise,
    refine,
)
from bilevel.report import ConvergenceError, InputError

SYMMETRIC = Structure(symmetric=True)


@pytest.mark.parametrize("kind", ["definite", "indefinite", "unsymmetric"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("tolerance", [1e-4, 1e-8, 1e-12])
def test_stale_factor_meets_any_tolerance(kind: str, transposed: bool, tolerance: float) -> None:
    old = random_sparse(80, kind)
    new = old + 0.05 * torch.diag(torch.rand(80)) * (old.abs().sum(-1, keepdim=True))
    new = 0.5 * (new + new.mT) if kind != "unsymmetric" else new
    structure = Structure(symmetric=kind != "unsymmetric")
    b = torch.randn(2, 3, 80)
    for make in (sparse_from_dense, Dense):
        factor = factorise(make(old, structure))
        x = refine(factor, make(new, structure), b, transposed, tolerance)
        missed = x @ (new if transposed else new.mT) - b
        assert bool((missed.norm(dim=-1) <= 1.001 * tolerance * b.norm(dim=-1)).all())
        assert factor.counts.products < 60


def test_a_fresh_factor_costs_one_product() -> None:
    A = poisson(15, 2)
    factor = factorise(A)
    seen = 0

    def product(x: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += 1
        return A.matmul(x)

    x = refine(factor, MatrixFree(A.n, product, product, SYMMETRIC), b := torch.randn(A.n), tolerance=1e-10)
    torch.testing.assert_close(A.matmul(x), b)
    assert seen == 1


def test_definite_factor_for_a_matrix_that_is_not() -> None:
    """Newton's last factor was definite, the matrix now is not: CG would break down, GMRES takes over."""
    old = random_sparse(40, "definite")
    new = old - 2.5 * torch.eye(40)
    assert float(torch.linalg.eigvalsh(new)[0]) < 0
    b = torch.randn(40)
    x = refine(factorise(sparse_from_dense(old, SYMMETRIC)), sparse_from_dense(new, SYMMETRIC), b, tolerance=1e-9)
    torch.testing.assert_close(new @ x, b, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("condition", [1e6, 1e8, 1e10])
@pytest.mark.parametrize("kind", ["dense", "sparse", "superlu"])
def test_ill_conditioned_matrices_are_solved_to_the_attainable(condition: float, kind: str) -> None:
    matrix = with_condition(50, condition)
    A = Dense(matrix, SYMMETRIC) if kind == "dense" else sparse_from_dense(matrix, SYMMETRIC)
    factor = factorise(A, SuperLU() if kind == "superlu" else None)
    x_true = torch.randn(50)
    b = matrix @ x_true
    x = refine(factor, A, b, tolerance=1e-14)
    eps = torch.finfo(torch.float64).eps
    assert float((matrix @ x - b).norm()) <= 1e-14 * float(b.norm()) + 20 * eps * float(x.norm())
    assert float((x - x_true).norm() / x_true.norm()) < 20 * eps * condition
    stale = factorise(Dense(1.5 * matrix + 1e-3 * matrix @ matrix, SYMMETRIC))
    y = refine(stale, A, b, tolerance=1e-12)
    assert float((matrix @ y - b).norm()) <= 1e-12 * float(b.norm()) + 20 * eps * float(y.norm())


def test_a_factor_too_far_away_raises() -> None:
    old, new = random_sparse(80, "unsymmetric", seed=1), torch.randn(80, 80)
    with pytest.raises(ConvergenceError, match="factorise it anew"):
        refine(factorise(Dense(old)), Dense(new), torch.randn(80), tolerance=1e-10, max_iterations=20)


@pytest.mark.parametrize("transposed", [False, True])
def test_rounding_is_judged_entry_by_entry_where_rows_differ_by_orders(transposed: bool) -> None:
    A = uneven_lattice(60, 3.0)
    A = A if not transposed else A.with_structure(Structure())
    b = torch.ones(A.n)
    factor = factorise(A)
    x = refine(factor, A, b, transposed, tolerance=1e-12)
    missed = (A.matmul_transposed(x) if transposed else A.matmul(x)) - b
    assert float(missed.norm()) > 1e-12 * float(b.norm())  # the tolerance cannot be met
    assert float(missed.norm()) <= 10 * torch.finfo(torch.float64).eps * float(A.absolute(x, transposed).norm())
    assert factor.counts.products <= 3


def test_a_singular_matrix_is_not_refined_in_silence() -> None:
    factor = factorise(Dense(torch.eye(5), SYMMETRIC))
    with pytest.raises(ConvergenceError):
        refine(factor, Dense(torch.diag(torch.arange(5.0)), SYMMETRIC), torch.ones(5), tolerance=1e-8)


def test_batches_are_refined_sample_by_sample() -> None:
    old = torch.randn(6, 5, 5)
    old = old @ old.mT + torch.eye(5)
    new = old + 0.3 * torch.eye(5) * torch.rand(6, 1, 1)
    b = torch.randn(2, 6, 5)
    x = refine(factorise(Dense(old, SYMMETRIC)), Dense(new, SYMMETRIC), b, tolerance=1e-12)
    torch.testing.assert_close((new @ x.unsqueeze(-1)).squeeze(-1), b)


def test_iterative_factors_refine_with_their_own_method() -> None:
    A = poisson(15, 2)
    other = Sparse(A.pattern, 1.2 * A.values, SYMMETRIC)
    b = torch.randn(3, A.n)
    for method in (CG(), AMGCG()):
        x = refine(factorise(A, method), other, b, tolerance=1e-11)
        torch.testing.assert_close(1.2 * A.matmul(x), b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_multigrid_converges_independently_of_size(dimensions: int) -> None:
    used = []
    for m in {2: (24, 48, 96), 3: (8, 14, 24)}[dimensions]:
        A = poisson(m, dimensions)
        A = A.with_structure(Structure(symmetric=True, positive_definite=True))
        factor = factorise(A, AMGCG(tolerance=1e-9))
        b = torch.randn(A.n)
        x = factor.solve(b)
        assert float((A.matmul(x) - b).norm()) <= 1.001e-9 * float(b.norm())
        used.append(factor.counts.products)
    assert max(used) <= 30
    assert used[-1] <= 1.5 * used[0]


def test_multigrid_with_rigid_body_modes_against_direct() -> None:
    stiffness, motions = truss(24)
    held = torch.arange(len(stiffness)) >= 48  # one side is clamped
    matrix = stiffness[held][:, held]
    structure = Structure(symmetric=True, near_null_space=motions[held])
    A = sparse_from_dense(matrix, structure)
    factor = factorise(A, AMGCG())
    b = torch.randn(4, A.n)
    torch.testing.assert_close(factor.solve(b), factorise(A).solve(b), rtol=1e-6, atol=1e-6)
    assert factor.positive_definite is True
    plain = factorise(A.with_structure(SYMMETRIC), AMGCG())
    plain.solve(b)
    assert factor.counts.products < plain.counts.products


@pytest.mark.parametrize(("m", "shift"), [(20, -0.5), (60, -0.5), (30, -4.1), (60, -0.00536), (60, -0.0140)])
def test_multigrid_notices_indefinite_matrices(m: int, shift: float) -> None:
    """With m = 60 the lowest eigenvalue before the shift is 0.005305: one case has a single, faint negative one."""
    A = poisson(m, 2).shifted(shift)
    factor = factorise(A, AMGCG())
    assert factor.positive_definite is False
    b = torch.randn(A.n)
    torch.testing.assert_close(A.matmul(factor.solve(b)), b, rtol=1e-6, atol=1e-7)
    with pytest.raises(InputError, match="symmetric"):
        factorise(A.with_structure(Structure()), AMGCG())


def test_one_set_up_serves_a_changed_matrix() -> None:
    A = poisson(40, 2).with_structure(Structure(symmetric=True, positive_definite=True))
    stored = factorise(A, AMGCG())
    stronger = to_dense(A) * (1.0 + 0.3 * torch.rand(A.n)).sqrt().unsqueeze(-1)
    stronger = stronger * (stronger.diagonal() / A.diagonal_entries())
    B = sparse_from_dense(0.5 * (stronger + stronger.mT), A.structure)
    b = torch.randn(A.n)
    x = refine(stored, B, b, tolerance=1e-10)
    assert float((B.matmul(x) - b).norm()) <= 1.001e-10 * float(b.norm())
    assert stored.counts.products < 60


def test_patterns_are_shared_across_matrices() -> None:
    rows, columns = torch.tensor([0, 1, 1, 0, 1]), torch.tensor([0, 1, 1, 1, 0])
    pattern, scatter = SparsePattern.from_pairs(rows.numpy(), columns.numpy(), 2)
    values = pattern.accumulate(torch.from_numpy(scatter), torch.tensor([3.0, 1.0, 1.5, -1.0, -1.0]))
    torch.testing.assert_close(to_dense(Sparse(pattern, values)), torch.tensor([[3.0, -1.0], [-1.0, 2.5]]))
    assert pattern.indices.dtype.name == "int32"
