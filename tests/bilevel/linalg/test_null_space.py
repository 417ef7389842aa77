"""Floating problems: solutions orthogonal to the declared null space against the pseudo-inverse."""

from __future__ import annotations

import pytest
import torch
from linear_systems import grid_laplacian, random_sparse, sparse_from_dense, truss

from bilevel.linalg import (
    AMGCG,
    CG,
    GMRES,
    MINRES,
    Dense,
    DenseCholesky,
    DenseLDL,
    DenseLU,
    LinearOperator,
    LinearSolver,
    MatrixFree,
    PardisoCholesky,
    PardisoLDL,
    PardisoLU,
    Structure,
    SuperLU,
    factorise,
    negative_curvature,
    refine,
)
from bilevel.linalg.direct import pardiso_library
from bilevel.report import ConvergenceError, SingularError

needs_pardiso = pytest.mark.skipif(pardiso_library.library() is None, reason="no MKL PARDISO on this platform")
DENSE = [DenseCholesky(), DenseLDL(), DenseLU()]
DIRECT = [pytest.param(method, marks=needs_pardiso) for method in (PardisoCholesky(), PardisoLDL(), PardisoLU())]
ITERATIVE = [CG(), MINRES(), GMRES(), AMGCG()]


def floating(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    if name == "graph":
        return grid_laplacian(7), torch.ones(49, 1) / 7.0
    return truss(5)


def operator(matrix: torch.Tensor, structure: Structure, method: LinearSolver) -> LinearOperator:
    if isinstance(method, (DenseCholesky, DenseLDL, DenseLU)):
        return Dense(matrix, structure)
    return sparse_from_dense(matrix, structure)


@pytest.mark.parametrize("method", [*DENSE, *DIRECT, SuperLU(), *ITERATIVE])
@pytest.mark.parametrize("name", ["graph", "truss"])
def test_solution_is_the_pseudo_inverse(name: str, method: LinearSolver) -> None:
    matrix, z = floating(name)
    factor = factorise(operator(matrix, Structure(symmetric=True, null_space=z), method), method)
    b = torch.randn(3, len(matrix))
    expected = b @ torch.linalg.pinv(matrix, hermitian=True, rtol=1e-12)
    for x in (factor.solve(b), factor.solve_transposed(b)):
        torch.testing.assert_close(x, expected, rtol=1e-7, atol=1e-7)
        assert float((x @ z).abs().max()) < 1e-12
    if not isinstance(method, (DenseLU, PardisoLU, GMRES)):
        assert bool(factor.positive_definite)
    if isinstance(method, (DenseCholesky, DenseLDL, PardisoCholesky, PardisoLDL, SuperLU)):
        assert int(torch.as_tensor(factor.negative_eigenvalues)) == 0


@pytest.mark.parametrize("method", [*DENSE, *DIRECT, SuperLU()])
@pytest.mark.parametrize("name", ["graph", "truss"])
def test_without_declaration_it_is_singular(name: str, method: LinearSolver) -> None:
    matrix, _ = floating(name)
    with pytest.raises(SingularError, match="declare the null space"):
        factorise(operator(matrix, Structure(symmetric=True), method), method)


@pytest.mark.parametrize("method", [DenseCholesky(), *DIRECT, SuperLU(), *ITERATIVE])
def test_half_of_the_null_space_is_not_enough(method: LinearSolver) -> None:
    matrix, z = truss(4)
    structure = Structure(symmetric=True, null_space=z[:, :2])
    with pytest.raises((SingularError, ConvergenceError)):
        factorise(operator(matrix, structure, method), method).solve(torch.randn(len(matrix)))


@pytest.mark.parametrize("method", [DenseCholesky(), *DIRECT, SuperLU(), *ITERATIVE])
def test_a_wrong_declaration_is_refused(method: LinearSolver) -> None:
    matrix, z = truss(4)
    wrong = torch.linalg.qr(torch.cat([z, torch.randn(len(matrix), 1)], 1))[0]
    with pytest.raises(SingularError, match="declared null space is not one"):
        factorise(operator(matrix, Structure(symmetric=True, null_space=wrong), method), method)


def test_batches_of_floating_matrices() -> None:
    matrix, z = truss(3)
    batch = torch.stack([matrix, 5.0 * matrix, matrix @ matrix])
    b = torch.randn(2, 3, len(matrix))
    x = factorise(Dense(batch, Structure(symmetric=True, null_space=z))).solve(b)
    pinv = torch.linalg.pinv(batch, hermitian=True, rtol=1e-12)
    torch.testing.assert_close(x, (pinv @ b.unsqueeze(-1)).squeeze(-1), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("method", [DenseCholesky(), *DIRECT[:2], SuperLU()])
def test_indefinite_beside_the_null_space(method: LinearSolver) -> None:
    """-L + correction on a graph: the sign of curvature beside the constants is what counts."""
    matrix, z = floating("graph")
    keep = torch.eye(49) - z @ z.mT
    shifted = matrix - 1.0 * keep  # some eigenvalues of L are below one
    A = operator(shifted, Structure(symmetric=True, null_space=z), method)
    negative = int((torch.linalg.eigvalsh(shifted) < -1e-9).sum())
    factor = factorise(A, method)
    assert negative > 0
    assert not bool(factor.positive_definite)
    if not isinstance(method, SuperLU):
        assert int(torch.as_tensor(factor.negative_eigenvalues)) == negative
    b = torch.randn(49)
    expected = torch.linalg.pinv(shifted, hermitian=True, rtol=1e-12) @ b
    torch.testing.assert_close(factor.solve(b), expected, rtol=1e-8, atol=1e-8)


def test_null_directions_are_not_negative_curvature() -> None:
    matrix, z = truss(4)
    structure = Structure(symmetric=True, null_space=z)
    lowest = torch.linalg.eigvalsh(matrix)[3]
    for A in (Dense(matrix, structure), sparse_from_dense(matrix, structure)):
        value, vector = negative_curvature(A)
        torch.testing.assert_close(value, lowest)
        assert float((vector @ z).abs().max()) < 1e-8


def test_refining_by_products_keeps_the_null_space_out() -> None:
    matrix, z = truss(4)
    structure = Structure(symmetric=True, null_space=z)
    factor = factorise(sparse_from_dense(matrix, structure))
    stiffer = 1.3 * matrix + 0.1 * matrix @ matrix
    products = MatrixFree(len(matrix), lambda x: stiffer @ x, lambda x: stiffer @ x, structure)
    b = torch.randn(2, len(matrix))
    expected = b @ torch.linalg.pinv(stiffer, hermitian=True, rtol=1e-12)
    torch.testing.assert_close(refine(factor, products, b, tolerance=1e-11), expected, rtol=1e-7, atol=1e-8)


def test_matrix_beside_a_null_space_of_its_own_kind() -> None:
    """A null space that is not smooth: a definite matrix with a random direction projected out."""
    z = torch.linalg.qr(torch.randn(30, 2))[0]
    keep = torch.eye(30) - z @ z.mT
    matrix = keep @ random_sparse(30, "definite") @ keep
    b = torch.randn(30)
    expected = torch.linalg.pinv(matrix, hermitian=True, rtol=1e-12) @ b
    structure = Structure(symmetric=True, null_space=z)
    for A in (Dense(matrix, structure), sparse_from_dense(matrix, structure)):
        torch.testing.assert_close(factorise(A).solve(b), expected, rtol=1e-8, atol=1e-8)
