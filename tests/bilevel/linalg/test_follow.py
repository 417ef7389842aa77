"""Sequences of similar matrices: set-ups used again, rough solves, negative curvature met on the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bilevel.linalg import AMGCG, PardisoCholesky, Sparse, SparsePattern, Structure
from bilevel.linalg.direct.pardiso import PardisoLU
from bilevel.linalg.direct.reused import ReusedFactor
from bilevel.linalg.multigrid.amg import AMGFactor


@pytest.fixture(scope="module")
def laplacian() -> Sparse:
    """The seven-point Laplacian on 12^3 nodes."""
    m = 12
    number = np.arange(m**3).reshape(m, m, m)
    rows, columns, values = [number.ravel()], [number.ravel()], [np.full(m**3, 6.0)]
    for axis in range(3):
        low, high = np.moveaxis(number, axis, 0)[:-1].ravel(), np.moveaxis(number, axis, 0)[1:].ravel()
        rows += [low, high]
        columns += [high, low]
        values += [np.full(2 * low.size, -1.0)]
    pattern, scatter = SparsePattern.from_pairs(np.concatenate(rows), np.concatenate(columns), m**3)
    entries = pattern.accumulate(torch.from_numpy(scatter), torch.from_numpy(np.concatenate(values)))
    near = torch.ones(m**3, 1, dtype=torch.float64)
    return Sparse(pattern, entries, Structure(symmetric=True, near_null_space=near))


def residual(A: Sparse, x: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(b - A.matmul(x)) / torch.linalg.vector_norm(b))


def test_a_set_up_serves_the_next_matrix_and_solves_it_to_tolerance(laplacian: Sparse) -> None:
    first = AMGCG().follow(laplacian, None)
    near = replace(laplacian, values=laplacian.values * torch.linspace(1.0, 1.0 + 1e-9, laplacian.pattern.nnz)).shifted(
        0.2
    )
    near = near.with_structure(laplacian.structure)
    second = AMGCG().follow(near, first)
    assert isinstance(first, AMGFactor)
    assert isinstance(second, AMGFactor)
    assert second.hierarchy is first.hierarchy
    b = torch.linspace(-1.0, 1.0, near.n, dtype=torch.float64)
    assert residual(near, second.solve(b), b) < 1e-9


def test_a_worn_set_up_is_made_anew(laplacian: Sparse) -> None:
    first = AMGCG().follow(laplacian, None)
    assert isinstance(first, AMGFactor)
    first.most_products = 1000
    second = AMGCG().follow(laplacian, first)
    assert isinstance(second, AMGFactor)
    assert second.hierarchy is not first.hierarchy


def test_rough_solves_stop_early_and_leave_the_tolerance_as_it_was(laplacian: Sparse) -> None:
    factor = AMGCG().follow(laplacian, None)
    b = torch.linspace(-1.0, 1.0, laplacian.n, dtype=torch.float64)
    rough, exact = factor.solve_roughly(b, 1e-2), factor.solve(b)
    assert 1e-9 < residual(laplacian, rough, b) <= 1e-2
    assert residual(laplacian, exact, b) < 1e-9
    direct = PardisoCholesky().follow(laplacian, None)
    assert residual(laplacian, direct.solve_roughly(b, 1e-2), b) < 1e-12


def test_a_closer_look_finds_curvature_that_a_reused_set_up_cannot_know(laplacian: Sparse) -> None:
    first = AMGCG().follow(laplacian, None)
    assert first.positive_definite is None
    assert first.detect_negative_curvature() is True
    indefinite = laplacian.shifted(-1.0).with_structure(laplacian.structure)
    second = AMGCG().follow(indefinite, first)
    assert second.detect_negative_curvature() is False


def test_one_and_many_right_hand_sides_take_the_same_cycle(laplacian: Sparse) -> None:
    factor = AMGCG().follow(laplacian, None)
    assert isinstance(factor, AMGFactor)
    rows = torch.randn(3, laplacian.n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    together = factor.hierarchy.cycle(rows)
    alone = torch.cat([factor.hierarchy.cycle(row.unsqueeze(0)) for row in rows])
    # The levels are kept in single precision.
    assert float((together - alone).norm() / alone.norm()) < 1e-6


@pytest.mark.parametrize(("stiff", "load"), [(1e12, 1e-25), (1e-15, 1e20)])
def test_units_do_not_leave_the_range_of_single_precision(laplacian: Sparse, stiff: float, load: float) -> None:
    b = torch.randn(laplacian.n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scaled = Sparse(laplacian.pattern, stiff * laplacian.values, laplacian.structure)
    expected = AMGCG().factor(laplacian).solve(b) * (load / stiff)
    found = AMGCG().factor(scaled).solve(load * b)
    assert float((found - expected).norm() / expected.norm()) < 1e-8


def unsymmetric(laplacian: Sparse, change: float) -> Sparse:
    """The Laplacian with entries changed at random by this fraction."""
    noise = torch.rand(laplacian.pattern.nnz, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    return Sparse(laplacian.pattern, laplacian.values * (1.0 + 2.0 * change * noise), Structure())


@pytest.mark.parametrize("transposed", [False, True])
def test_lu_of_a_similar_matrix_solves_as_well_as_its_own(monkeypatch, laplacian: Sparse, transposed: bool) -> None:
    monkeypatch.setattr("bilevel.linalg.direct.pardiso.REUSED_FROM", 1)
    first = PardisoLU().factor(unsymmetric(laplacian, 0.0).shifted(0.1))
    near = unsymmetric(laplacian, 0.02).shifted(0.1)
    near = replace(near, pattern=first.A.pattern)
    assert PardisoLU().reuses(near, first)
    second = PardisoLU().follow(near, first)
    b = torch.randn(3, near.n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = second.solve_transposed(b) if transposed else second.solve(b)
    own = PardisoLU().factor(near)
    torch.testing.assert_close(x, own.solve_transposed(b) if transposed else own.solve(b), rtol=1e-10, atol=1e-12)
    assert isinstance(second, ReusedFactor)
    assert second.counts.factorisations == 0
    assert second.counts.products > 0


def test_what_is_too_different_is_factorised(monkeypatch, laplacian: Sparse) -> None:
    monkeypatch.setattr("bilevel.linalg.direct.pardiso.REUSED_FROM", 1)
    first = PardisoLU().factor(unsymmetric(laplacian, 0.0).shifted(0.1))
    far = replace(unsymmetric(laplacian, 0.9).shifted(0.1), pattern=first.A.pattern)
    assert not PardisoLU().reuses(far, first)
    renewed = ReusedFactor(far, first, PardisoLU().factor)  # taken against that advice, it finds out by itself
    b = torch.ones(far.n, dtype=torch.float64)
    assert residual(far, renewed.solve(b), b) < 1e-12
    assert renewed.counts.factorisations == 1
    assert residual(far, renewed.solve_roughly(b, 1e-2), b) < 1e-6
    assert renewed.counts.factorisations == 1
