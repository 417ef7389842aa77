"""Krylov methods: right answers, true residuals, negative curvature, and honest failure."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_systems import poisson, random_sparse, sparse_from_dense, with_condition

from bilevel.linalg import CG, GMRES, MINRES, Dense, LinearSolver, MatrixFree, Structure, factorise, pick
from bilevel.linalg.krylov.cg import cg
from bilevel.linalg.krylov.gmres import gmres
from bilevel.linalg.krylov.minres import minres
from bilevel.report import ConvergenceError

SYMMETRIC = Structure(symmetric=True)


def products(matrix: torch.Tensor, structure: Structure, diagonal: torch.Tensor | None = None) -> MatrixFree:
    """A batch of matrices known by their products alone."""
    return MatrixFree(
        matrix.shape[-1],
        lambda x: (matrix @ x.unsqueeze(-1)).squeeze(-1),
        lambda x: (matrix.mT @ x.unsqueeze(-1)).squeeze(-1),
        structure,
        tuple(matrix.shape[:-2]),
        diagonal,
    )


@pytest.mark.parametrize("batch", [(), (4,), (2, 2)])
@pytest.mark.parametrize("n", [1, 6, 30])
@pytest.mark.parametrize(
    ("method", "kind"),
    [(CG(), "definite"), (CG(), "indefinite"), (MINRES(), "definite"), (MINRES(), "indefinite"), (GMRES(), "any")],
)
def test_solves_with_matrix_and_transpose(method: LinearSolver, kind: str, n: int, batch: tuple[int, ...]) -> None:
    matrix = torch.randn(*batch, n, n)
    if kind == "definite":
        matrix = matrix @ matrix.mT + torch.eye(n)
    elif kind == "indefinite":
        matrix = matrix + matrix.mT
    A = products(matrix, Structure(symmetric=kind != "any"))
    factor = factorise(A, method)
    for lead in [(), (3,)]:
        b = torch.randn(*lead, *batch, n)
        for solve, m in ((factor.solve, matrix), (factor.solve_transposed, matrix.mT)):
            missed = (m @ solve(b).unsqueeze(-1)).squeeze(-1) - b
            assert bool((missed.norm(dim=-1) <= 1.001e-10 * b.norm(dim=-1)).all())
    if kind == "definite":
        assert bool(torch.as_tensor(factor.positive_definite).all())
    if kind == "indefinite":
        definite = (torch.linalg.eigvalsh(matrix) > 0).all(-1)
        assert torch.equal(torch.as_tensor(factor.positive_definite), definite)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 12), seed=st.integers(0, 2**31), rows=st.integers(1, 3))
def test_whatever_is_called_solved_is_solved(n: int, seed: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(n, n, generator=generator)
    matrix = matrix + matrix.mT
    b = torch.randn(rows, n, generator=generator)
    b[0, 0] = 0.0
    for run in (
        cg(lambda x: x @ matrix, b, tolerance=1e-8, max_iterations=20 * n),
        minres(lambda x: x @ matrix, b, tolerance=1e-8, max_iterations=20 * n),
        gmres(lambda x: x @ matrix, b, tolerance=1e-8, max_iterations=20 * n, restart=n),
    ):
        missed = (run.x @ matrix - b).norm(dim=-1)
        size = float(torch.linalg.matrix_norm(matrix, 2)) * run.x.norm(dim=-1)
        assert bool((missed <= 1.01e-8 * b.norm(dim=-1) + 1e-14 * size)[run.solved].all())
        torch.testing.assert_close(run.residual * b.norm(dim=-1), missed, rtol=1e-6, atol=1e-12)
        curvature = ((run.direction @ matrix) * run.direction).sum(-1)
        assert bool((curvature <= 0)[run.negative].all())
        assert bool((run.direction.norm(dim=-1) > 0)[run.negative].all())


def test_zero_right_hand_side() -> None:
    matrix = random_sparse(10, "definite")
    for method in (CG(), MINRES(), GMRES()):
        x = factorise(products(matrix, SYMMETRIC), method).solve(torch.zeros(2, 10))
        assert torch.equal(x, torch.zeros(2, 10))


def test_cg_takes_few_steps_with_few_eigenvalues() -> None:
    """Three distinct eigenvalues: three steps (Hestenes and Stiefel 1952); a drifting implementation takes more."""
    q = torch.linalg.qr(torch.randn(50, 50))[0]
    matrix = (q * torch.tensor([1.0, 4.0, 9.0]).repeat_interleave(17)[:50]) @ q.mT
    run = cg(lambda x: x @ matrix, torch.randn(4, 50), tolerance=1e-9, max_iterations=50)
    assert bool(run.solved.all())
    assert run.products <= 4


def test_exact_preconditioner_needs_one_step() -> None:
    matrix = random_sparse(40, "definite")
    inverse = torch.linalg.inv(matrix)
    b = torch.randn(2, 40)
    for method in (cg, minres, gmres):
        run = method(lambda x: x @ matrix, b, tolerance=1e-9, max_iterations=20, precondition=lambda x: x @ inverse)
        assert bool(run.solved.all())
        assert run.products <= 4


def test_rows_of_one_call_do_not_mix() -> None:
    matrix = random_sparse(30, "definite")
    b = torch.randn(3, 30) * torch.tensor([[1.0], [1e8], [1e-8]])
    for method in (CG(), MINRES(), GMRES()):
        factor = factorise(products(matrix, SYMMETRIC), method)
        torch.testing.assert_close(factor.solve(b), torch.stack([factor.solve(row) for row in b]), rtol=1e-7, atol=0.0)


@pytest.mark.parametrize("method", [CG(), MINRES(), GMRES()])
def test_jacobi_scaling_rescues_mixed_units(method: LinearSolver) -> None:
    units = torch.logspace(-4, 4, 60, dtype=torch.float64)
    matrix = units.unsqueeze(-1) * random_sparse(60, "definite") * units
    A = products(matrix, SYMMETRIC, matrix.diagonal())
    factor = factorise(A, method)
    factor.solve(matrix @ (1.0 / units))
    assert factor.counts.products < 200


@pytest.mark.parametrize("method", [CG(max_iterations=5), MINRES(max_iterations=5), GMRES(max_iterations=5)])
def test_too_few_iterations_raise_with_the_residual(method: LinearSolver) -> None:
    A = poisson(12, 2)
    with pytest.raises(ConvergenceError, match=r"relative residual 0\.\d+ after"):
        factorise(A, method).solve(torch.randn(A.n))
    factor = factorise(A, method, on_fail="ignore")
    b = torch.randn(A.n)
    assert float((A.matmul(factor.solve(b)) - b).norm()) > 1e-6


@pytest.mark.parametrize("method", [CG(), MINRES(), GMRES()])
def test_singular_inconsistent_system_raises(method: LinearSolver) -> None:
    matrix = torch.diag(torch.arange(6.0))
    with pytest.raises(ConvergenceError):
        factorise(products(matrix, SYMMETRIC), method).solve(torch.ones(6))


def test_negative_curvature_missed_at_first_is_noticed_by_cg() -> None:
    matrix = torch.diag(torch.tensor([1.0, 2.0, -3.0]))
    structure = Structure(symmetric=True, positive_definite=True)  # a false promise
    factor = factorise(products(matrix, structure), CG())
    with pytest.raises(ConvergenceError, match="negative curvature"):
        factor.solve(torch.ones(3))
    assert factor.positive_definite is False


@pytest.mark.parametrize("condition", [1e4, 1e6])
def test_ill_conditioned_meets_its_true_residual(condition: float) -> None:
    """The recurrence of CG and MINRES drifts from b - A x here; only the true residual counts."""
    matrix = with_condition(60, condition)
    b = torch.randn(2, 60)
    for method in (CG(tolerance=1e-9), MINRES(tolerance=1e-9), GMRES(tolerance=1e-9, restart=60)):
        x = factorise(products(matrix, SYMMETRIC), method).solve(b)
        assert bool(((x @ matrix - b).norm(dim=-1) <= 1.001e-9 * b.norm(dim=-1)).all())


def test_the_table_for_products() -> None:
    matrix = torch.eye(3)
    assert isinstance(pick(products(matrix, SYMMETRIC)), CG)
    assert isinstance(pick(products(matrix, Structure())), GMRES)
    assert isinstance(pick(products(matrix, Structure(symmetric=True, positive_definite=False))), MINRES)


def test_krylov_takes_dense_and_sparse_operators_too() -> None:
    matrix = random_sparse(30, "definite")
    b = torch.randn(30)
    for A in (Dense(matrix, SYMMETRIC), sparse_from_dense(matrix, SYMMETRIC)):
        torch.testing.assert_close(factorise(A, CG()).solve(b), torch.linalg.solve(matrix, b), rtol=1e-7, atol=1e-8)
