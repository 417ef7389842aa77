"""Batches of sparse matrices on one pattern, and what argmin and root make of them, against the samples one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bilevel
from bilevel.linalg import factorise
from bilevel.linalg.operator import SparsePattern, Structure
from bilevel.linalg.sparse_batch import SparseBatch
from bilevel.report import InputError, SingularError

N, BATCH = 40, 3


def tridiagonal(symmetric: bool) -> SparseBatch:
    i = np.arange(N)
    rows, columns = np.r_[i, i[1:], i[:-1]], np.r_[i, i[:-1], i[1:]]
    pattern, place = SparsePattern.from_pairs(rows, columns, N)
    chance = torch.Generator().manual_seed(0)
    lower = torch.rand(BATCH, N - 1, generator=chance, dtype=torch.float64)
    upper = lower if symmetric else torch.rand(BATCH, N - 1, generator=chance, dtype=torch.float64)
    entries = torch.cat([torch.full((BATCH, N), 3.0, dtype=torch.float64), -lower, -upper], 1)
    values = torch.zeros(BATCH, pattern.nnz, dtype=torch.float64).index_add(1, torch.from_numpy(place), entries)
    return SparseBatch(pattern, values, Structure(symmetric=symmetric))


def dense(A: SparseBatch) -> torch.Tensor:
    return torch.stack([torch.from_numpy(A.sample(i).csr().toarray()) for i in range(BATCH)])


@pytest.mark.parametrize("symmetric", [True, False])
def test_products_and_solves_are_those_of_the_samples(symmetric):
    A = tridiagonal(symmetric)
    matrix, x = dense(A), torch.randn(2, BATCH, N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    column = x.unsqueeze(-1)
    torch.testing.assert_close(A.matmul(x), (matrix @ column).squeeze(-1))
    torch.testing.assert_close(A.matmul_transposed(x), (matrix.mT @ column).squeeze(-1))
    torch.testing.assert_close(A.absolute(x), (matrix.abs() @ column.abs()).squeeze(-1))
    torch.testing.assert_close(dense(A.shifted(0.5)), matrix + 0.5 * torch.eye(N, dtype=torch.float64))
    torch.testing.assert_close(A.diagonal_entries(), matrix.diagonal(dim1=1, dim2=2))
    factor = factorise(A)
    torch.testing.assert_close(factor.solve(x), torch.linalg.solve(matrix, column).squeeze(-1))
    torch.testing.assert_close(factor.solve_transposed(x), torch.linalg.solve(matrix.mT, column).squeeze(-1))
    assert factor.counts.factorisations == BATCH


def test_definiteness_and_singularity_are_told_sample_by_sample():
    A = tridiagonal(True)
    A.values[1] = -A.values[1]
    assert factorise(A).positive_definite.tolist() == [True, False, True]
    A.values[2] = 0.0
    with pytest.raises(SingularError):
        factorise(A)
    factor = factorise(A, on_fail="ignore")
    assert factor.singular.tolist() == [False, False, True]
    x = factor.solve(torch.ones(BATCH, N, dtype=torch.float64))
    assert bool(x[:2].isfinite().all())
    assert bool(x[2].isnan().all())


def test_samples_that_are_not_wanted_are_factorised_when_they_are_asked():
    A = tridiagonal(True)
    A.wanted = torch.tensor([True, False, False])
    factor, b = factorise(A), torch.ones(BATCH, N, dtype=torch.float64)
    assert factor.counts.factorisations == 1
    b[2] = 0.0
    x = factor.solve(b)
    assert factor.counts.factorisations == 2
    torch.testing.assert_close(A.matmul(x), b)


def test_no_declared_null_spaces():
    structure = Structure(symmetric=True, null_space=torch.ones(N, 1, dtype=torch.float64) / N**0.5)
    with pytest.raises(InputError, match="one by one"):
        SparseBatch(tridiagonal(True).pattern, tridiagonal(True).values, structure)


SIZE = 700


def wells(u, p):
    """Double wells along a chain: not convex; samples start on both sides of the ridge."""
    return (
        0.5 * p["width"] * u.diff(dim=-1).square().sum(-1)
        + (0.25 * (u**2 - 1.0) ** 2).sum(-1)
        - (p["force"] * u).sum(-1)
    )


def start_and_params():
    x = torch.linspace(-1.0, 1.0, SIZE, dtype=torch.float64)
    start = torch.stack([0.3 * x, 0.9 + 0.0 * x, -0.8 + 0.1 * x])
    width = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    return start, {"width": width, "force": torch.stack([0.05 * (3.0 * x).sin(), 0.1 * x, 0.0 * x + 0.02])}


def test_a_batch_of_sparse_energies_is_its_samples():
    """States and gradients of nonconvex samples that need different numbers of iterations; factorisations as one by one."""
    start, params = start_and_params()
    width = params["width"].clone().requires_grad_()
    together = bilevel.argmin(bilevel.Energy(wells, batch_dims=1), start, {**params, "width": width})
    (slope,) = torch.autograd.grad(together.u.square().sum(), width)
    factorisations = 0
    for k in range(BATCH):
        own = params["width"][k].clone().requires_grad_()
        alone = bilevel.argmin(wells, start[k], {"width": own, "force": params["force"][k]})
        torch.testing.assert_close(together.u[k], alone.u, rtol=1e-7, atol=1e-7)
        (expected,) = torch.autograd.grad(alone.u.square().sum(), own)
        torch.testing.assert_close(slope[k], expected, rtol=1e-6, atol=1e-8)
        factorisations += alone.report.counts.factorisations
    assert together.report.counts.factorisations <= factorisations + 2 * BATCH
    assert together.gradients[-1].relative_error < 1e-6


def test_a_batch_of_unsymmetric_residuals():
    def residual(u, p):
        before = torch.nn.functional.pad(u[..., :-1], (1, 0))
        return p["a"] * u + 0.2 * u**3 - 0.5 * before - 1.0

    a = torch.tensor([[1.0], [2.0]], dtype=torch.float64, requires_grad=True)
    found = bilevel.root(bilevel.Residual(residual, batch_dims=1), torch.zeros(2, SIZE, dtype=torch.float64), {"a": a})
    (slope,) = torch.autograd.grad(found.u.sum(), a)
    step = 1e-5
    for k in range(2):
        ends = [
            bilevel.root(residual, torch.zeros(SIZE, dtype=torch.float64), {"a": a[k].detach() + s * step}).u.sum()
            for s in (1.0, -1.0)
        ]
        assert float(slope[k]) == pytest.approx(float(ends[0] - ends[1]) / (2 * step), rel=1e-6)
