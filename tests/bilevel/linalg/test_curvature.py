"""The lowest curvature and its direction, for every kind of operator."""

from __future__ import annotations

import pytest
import torch
from linear_systems import poisson, random_sparse, sparse_from_dense

from bilevel.linalg import AMGCG, Dense, MatrixFree, Structure, negative_curvature
from bilevel.report import InputError

SYMMETRIC = Structure(symmetric=True)


def test_dense_batches() -> None:
    matrix = torch.randn(3, 2, 6, 6)
    matrix = matrix + matrix.mT
    value, vector = negative_curvature(Dense(matrix, SYMMETRIC))
    torch.testing.assert_close(value, torch.linalg.eigvalsh(matrix)[..., 0])
    torch.testing.assert_close((matrix @ vector.unsqueeze(-1)).squeeze(-1), value.unsqueeze(-1) * vector)
    torch.testing.assert_close(vector.norm(dim=-1), torch.ones(3, 2))


@pytest.mark.parametrize("kind", ["definite", "indefinite"])
@pytest.mark.parametrize("products_only", [False, True])
def test_small_operators_exactly(kind: str, products_only: bool) -> None:
    matrix = random_sparse(60, kind)
    A = sparse_from_dense(matrix, SYMMETRIC)
    operator = MatrixFree(60, A.matmul, A.matmul, SYMMETRIC) if products_only else A
    value, vector = negative_curvature(operator)
    torch.testing.assert_close(value, torch.linalg.eigvalsh(matrix)[0], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(vector @ matrix @ vector, value)
    torch.testing.assert_close(vector.norm(), torch.tensor(1.0))


@pytest.mark.parametrize("shift", [-0.03, -1.0])
def test_large_sparse_with_few_or_many_negative_eigenvalues(shift: float) -> None:
    """Near zero the inverse finds it, far below the products do; sin^2 formulas give the eigenvalues in closed form."""
    m = 60
    A = poisson(m, 2).shifted(shift)
    exact = 8.0 * torch.sin(torch.tensor(torch.pi / (2 * (m + 1)))) ** 2 + shift
    value, vector = negative_curvature(A)
    assert float(exact) < 0
    assert float(value) < 0.0
    assert float(value) >= float(exact) * (1 + 1e-9)
    assert float(value) <= 0.7 * float(exact)
    torch.testing.assert_close(vector @ A.matmul(vector), value)


def test_a_single_faint_negative_direction_is_found_by_solves() -> None:
    m = 60
    lowest = float(8.0 * torch.sin(torch.tensor(torch.pi / (2 * (m + 1)))) ** 2)
    A = poisson(m, 2).shifted(-1.01 * lowest)
    value, _ = negative_curvature(A)
    torch.testing.assert_close(value, torch.tensor(-0.01 * lowest), rtol=1e-6, atol=0.0)


def test_where_multigrid_solves_it_finds_the_direction() -> None:
    lowest = float(12.0 * torch.sin(torch.tensor(torch.pi / 50)) ** 2)
    A = poisson(24, 3).shifted(-1.05 * lowest)
    A = A.with_structure(Structure(symmetric=True, near_null_space=torch.ones(A.n, 1)))
    value, _ = negative_curvature(A, AMGCG())
    torch.testing.assert_close(value, torch.tensor(-0.05 * lowest), rtol=1e-3, atol=0.0)


def test_batched_products() -> None:
    matrix = torch.randn(4, 9, 9)
    matrix = matrix + matrix.mT

    def product(x: torch.Tensor) -> torch.Tensor:
        return (matrix @ x.unsqueeze(-1)).squeeze(-1)

    value, vector = negative_curvature(MatrixFree(9, product, product, SYMMETRIC, (4,)))
    torch.testing.assert_close(value, torch.linalg.eigvalsh(matrix)[..., 0], rtol=1e-7, atol=1e-8)
    assert vector.shape == (4, 9)


def test_unsymmetric_is_refused() -> None:
    with pytest.raises(InputError, match="symmetric"):
        negative_curvature(Dense(torch.eye(2)))
