"""Cholesky of narrow bands against dense solves; what it says of matrices that it cannot factorise."""

import numpy as np
import pytest
import torch
from linear_systems import sparse_from_dense, to_dense

from bilevel.linalg import Sparse, Structure, factorise
from bilevel.linalg.direct.banded import WIDEST, BandedCholesky, band_of, cholesky_of_bands
from bilevel.linalg.registry import pick
from bilevel.report import ConvergenceError, SingularError

SYMMETRIC = Structure(symmetric=True)


def band(n: int, width: int, shift: float = 0.1) -> torch.Tensor:
    """A random symmetric band whose smallest eigenvalue is the shift."""
    rng = np.random.default_rng(n + width)
    lower = np.tril(np.triu(rng.standard_normal((n, n)), -width))
    matrix = lower + lower.T
    matrix += (shift - np.linalg.eigvalsh(matrix)[0]) * np.eye(n)
    return torch.from_numpy(matrix)


@pytest.mark.parametrize(("n", "width"), [(1, 0), (7, 0), (40, 1), (40, 2), (200, WIDEST)])
def test_solutions_are_those_of_the_dense_matrix(n, width):
    dense = band(n, width)
    factor = BandedCholesky().factor(sparse_from_dense(dense, SYMMETRIC))
    right = torch.randn(3, n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(factor.solve(right), torch.linalg.solve(dense, right.T).T, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(factor.solve_transposed(right[0]), factor.solve(right[0]), rtol=0.0, atol=0.0)
    assert factor.positive_definite is True
    assert factor.negative_eigenvalues == 0


def test_narrow_bands_are_given_to_it_and_wide_ones_are_not():
    assert isinstance(pick(sparse_from_dense(band(40, 2), SYMMETRIC)), BandedCholesky)
    assert not isinstance(pick(sparse_from_dense(band(40, WIDEST + 1), SYMMETRIC)), BandedCholesky)
    assert not isinstance(pick(sparse_from_dense(band(40, 2))), BandedCholesky)
    assert not isinstance(
        pick(sparse_from_dense(band(40, 2), Structure(symmetric=True, positive_definite=False))), BandedCholesky
    )


def test_an_indefinite_band_is_solved_by_another_and_known_as_such():
    dense = band(30, 2, shift=-1.0)
    right = torch.ones(30, dtype=torch.float64)
    factor = factorise(sparse_from_dense(dense, SYMMETRIC))
    torch.testing.assert_close(factor.solve(right), torch.linalg.solve(dense, right), rtol=1e-9, atol=1e-10)
    assert factor.positive_definite is False
    assert BandedCholesky(otherwise=None).factor(sparse_from_dense(dense, SYMMETRIC)).positive_definite is False


def chain(n: int, **structure: object) -> Sparse:
    """n points in a row, each tied to the next: motions along the row are free."""
    difference = torch.eye(n, dtype=torch.float64)[1:] - torch.eye(n, dtype=torch.float64)[:-1]
    return sparse_from_dense(difference.T @ difference, Structure(symmetric=True, **structure))  # type: ignore[arg-type]


def test_a_singular_band_is_an_error_unless_its_null_space_is_declared():
    with pytest.raises(SingularError, match="singular"):
        factorise(chain(20))
    modes = torch.ones(20, 1, dtype=torch.float64) / 20**0.5
    A = chain(20, null_space=modes)
    assert isinstance(pick(A), BandedCholesky)
    right = torch.linspace(-1.0, 1.0, 20, dtype=torch.float64)
    x = factorise(A).solve(right)
    torch.testing.assert_close(A.matmul(x), right, rtol=1e-10, atol=1e-12)
    assert abs(float(x.sum())) < 1e-12


def test_nan_is_an_error():
    dense = band(10, 1)
    dense[3, 3] = torch.nan
    with pytest.raises(ConvergenceError, match="NaN"):
        factorise(sparse_from_dense(dense, SYMMETRIC, keep=torch.isfinite(dense) & (dense != 0) | torch.isnan(dense)))


def test_factors_of_many_bands_at_once_are_those_of_each():
    matrices = [sparse_from_dense(band(40, 2, shift), SYMMETRIC) for shift in (0.1, 0.5, 2.0)]
    values = np.stack([matrix.values.numpy() for matrix in matrices])
    for matrix, factor in zip(matrices, cholesky_of_bands(band_of(matrices[0].pattern), values)):
        np.testing.assert_allclose(factor, BandedCholesky().factor(matrix).lower, rtol=1e-12)


@pytest.mark.parametrize("spoiled", [-1.0, 0.0, np.nan])
def test_of_many_bands_one_that_cannot_be_trusted_spoils_all(spoiled):
    matrix = chain(30) if spoiled == 0.0 else sparse_from_dense(band(30, 1), SYMMETRIC)
    sound = sparse_from_dense(torch.eye(30, dtype=torch.float64) + to_dense(chain(30)), SYMMETRIC)
    values = np.stack([sound.values.numpy(), matrix.values.numpy() * (spoiled or 1.0)])
    assert cholesky_of_bands(band_of(matrix.pattern), values[:1]) is not None
    assert cholesky_of_bands(band_of(matrix.pattern), values) is None
