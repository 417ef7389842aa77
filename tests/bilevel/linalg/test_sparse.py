"""Sparse factorisations against dense references and against each other."""

from __future__ import annotations

import copy
import gc
import pickle
import platform

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from linear_systems import poisson, random_sparse, sparse_from_dense

from bilevel.linalg import (
    AMGCG,
    LinearSolver,
    PardisoCholesky,
    PardisoLDL,
    PardisoLU,
    Sparse,
    Structure,
    SuperLU,
    factorise,
    pick,
)
from bilevel.linalg.direct import pardiso_library
from bilevel.report import BilevelError, ConvergenceError, InputError, SingularError

SYMMETRIC = Structure(symmetric=True)
needs_pardiso = pytest.mark.skipif(pardiso_library.library() is None, reason=f"no MKL PARDISO on {platform.machine()}")
PARDISO = [pytest.param(method, marks=needs_pardiso) for method in (PardisoCholesky(), PardisoLDL(), PardisoLU())]
SYMMETRIC_METHODS = [*PARDISO, SuperLU()]
GENERAL_METHODS = [pytest.param(PardisoLU(), marks=needs_pardiso), SuperLU()]


def check(A: Sparse, matrix: torch.Tensor, method: LinearSolver | None, tolerance: float = 1e-9) -> None:
    factor = factorise(A, method)
    for lead in [(), (1,), (7,), (2, 3)]:
        b = torch.randn(*lead, len(matrix))
        for solve, m in ((factor.solve, matrix), (factor.solve_transposed, matrix.mT)):
            expected = torch.linalg.solve(m, b.unsqueeze(-1)).squeeze(-1)
            torch.testing.assert_close(solve(b), expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize("method", [None, *SYMMETRIC_METHODS])
@pytest.mark.parametrize("kind", ["definite", "indefinite"])
@pytest.mark.parametrize("n", [1, 2, 30, 300])
def test_symmetric(method: LinearSolver | None, kind: str, n: int) -> None:
    matrix = random_sparse(n, kind, seed=n)
    check(sparse_from_dense(matrix, SYMMETRIC), matrix, method)


@pytest.mark.parametrize("method", [None, *GENERAL_METHODS])
@pytest.mark.parametrize("n", [1, 2, 30, 300])
def test_unsymmetric(method: LinearSolver | None, n: int) -> None:
    matrix = random_sparse(n, "unsymmetric", seed=n)
    check(sparse_from_dense(matrix), matrix, method)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 14), seed=st.integers(0, 2**31), shift=st.floats(-2.0, 2.0))
def test_random_small_matrices_solve_or_are_called_singular(n: int, seed: int, shift: float) -> None:
    matrix = random_sparse(n, "unsymmetric", seed, per_row=3) + shift * torch.eye(n)
    b = torch.randn(3, n, generator=torch.Generator().manual_seed(seed))
    for m, structure in ((matrix, Structure()), (matrix + matrix.mT, SYMMETRIC)):
        A = sparse_from_dense(m, structure)
        for method in (None, SuperLU()):
            try:
                x = factorise(A, method).solve(b)
            except SingularError:
                assert float(torch.linalg.cond(m)) > 1e11
                continue
            torch.testing.assert_close(x @ m.mT, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("method", [None, *SYMMETRIC_METHODS[:2], SuperLU()])
@pytest.mark.parametrize("kind", ["definite", "indefinite"])
def test_inertia(method: LinearSolver | None, kind: str) -> None:
    matrix = random_sparse(80, kind)
    negative = int((torch.linalg.eigvalsh(matrix) < 0).sum())
    factor = factorise(sparse_from_dense(matrix, SYMMETRIC), method)
    assert factor.positive_definite is (negative == 0)
    assert factor.negative_eigenvalues in (negative, None)
    if not isinstance(method, SuperLU):
        assert factor.negative_eigenvalues == negative


@needs_pardiso
def test_cholesky_alone_only_says_that_it_is_not_definite() -> None:
    factor = factorise(sparse_from_dense(random_sparse(30, "indefinite"), SYMMETRIC), PardisoCholesky(otherwise=None))
    assert factor.positive_definite is False
    with pytest.raises(BilevelError, match="not positive definite"):
        factor.solve(torch.ones(30))


@pytest.mark.parametrize("method", SYMMETRIC_METHODS[1:])
def test_saddle_point_with_empty_diagonal_block(method: LinearSolver) -> None:
    """A Stokes-like matrix: zeros on the diagonal that the pattern does not even store."""
    n, k = 40, 15
    coupling = torch.where(torch.rand(k, n) < 0.2, torch.randn(k, n), 0.0) + torch.eye(k, n)
    top = random_sparse(n, "definite")
    matrix = torch.cat([torch.cat([top, coupling.mT], 1), torch.cat([coupling, torch.zeros(k, k)], 1)])
    check(sparse_from_dense(matrix, SYMMETRIC), matrix, method, tolerance=1e-7)
    assert factorise(sparse_from_dense(matrix, SYMMETRIC), method).positive_definite in (False, None)


@pytest.mark.parametrize("method", GENERAL_METHODS)
def test_unsymmetric_without_diagonal(method: LinearSolver) -> None:
    matrix = torch.roll(torch.diag(1.0 + torch.rand(25)), 1, 0) + torch.where(torch.rand(25, 25) < 0.05, 0.1, 0.0)
    matrix = matrix - torch.diag(matrix.diagonal())
    check(sparse_from_dense(matrix), matrix, method, tolerance=1e-8)


@pytest.mark.parametrize("method", SYMMETRIC_METHODS)
@pytest.mark.parametrize("n", [3, 50, 400])
def test_floating_chain_is_singular(method: LinearSolver, n: int) -> None:
    chain = torch.diag(torch.tensor([1.0, *[2.0] * (n - 2), 1.0])) - torch.diag(torch.ones(n - 1), 1)
    chain = chain - torch.diag(torch.ones(n - 1), -1)
    structure = Structure() if isinstance(method, PardisoLU) else SYMMETRIC
    with pytest.raises(SingularError, match="declare the null space"):
        factorise(sparse_from_dense(chain, structure), method)
    factor = factorise(sparse_from_dense(chain, structure), method, on_fail="ignore")
    assert factor.singular
    assert bool(factor.solve(torch.ones(n)).isnan().all())


@pytest.mark.parametrize("method", GENERAL_METHODS)
def test_empty_row_is_singular(method: LinearSolver) -> None:
    matrix = random_sparse(12, "unsymmetric")
    matrix[4] = 0.0
    with pytest.raises(SingularError):
        factorise(sparse_from_dense(matrix), method)


@pytest.mark.parametrize("method", [None, *SYMMETRIC_METHODS])
def test_mixed_units_do_not_look_singular(method: LinearSolver | None) -> None:
    units = torch.logspace(-5, 5, 60, dtype=torch.float64)
    matrix = random_sparse(60, "definite")
    structure = Structure() if isinstance(method, PardisoLU) else SYMMETRIC
    A = sparse_from_dense(units.unsqueeze(-1) * matrix * units, structure)
    x = factorise(A, method).solve(units * matrix.sum(-1))
    torch.testing.assert_close(units * x, torch.ones(60), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("method", SYMMETRIC_METHODS)
def test_many_factors_of_one_pattern_stay_right(method: LinearSolver) -> None:
    """Newton keeps the old factor while making the new one; an adjoint may keep many. Dropped ones leave no trace."""
    matrix = random_sparse(60, "definite")
    A = sparse_from_dense(matrix, Structure(symmetric=not isinstance(method, PardisoLU)))
    scales = [float(2 + i) for i in range(3 * pardiso_library.SLOTS)]
    factors = [factorise(Sparse(A.pattern, s * A.values, A.structure), method) for s in scales]
    b = torch.randn(60)
    expected = torch.linalg.solve(matrix, b)
    for kept in (factors, factors[1::2]):
        for factor in kept:
            scale = float(factor.A.values[0] / A.values[0])
            torch.testing.assert_close(scale * factor.solve(b), expected)
        del factors[::2]
    for scale in scales:
        factors.append(factorise(Sparse(A.pattern, scale * A.values, A.structure), method))
        torch.testing.assert_close(scale * factors[-1].solve(b), expected)
        factors.pop(0)


@needs_pardiso
def test_one_analysis_serves_one_newton_run() -> None:
    A = poisson(20, 2)
    factor = None
    for k in range(40):
        factor = factorise(Sparse(A.pattern, (1.0 + k) * A.values, A.structure))
    assert factor is not None
    analyses = A.pattern.cache[pardiso_library.MatrixType.POSITIVE_DEFINITE]
    assert len(analyses) == 1
    assert len(analyses[0].free_slots) == pardiso_library.SLOTS - 1


@pytest.mark.parametrize("method", [PardisoLU(), SuperLU()])
def test_values_far_from_those_analysed_first(method: LinearSolver) -> None:
    """The analysis of one matrix must not spoil another on the same pattern whose large entries sit elsewhere."""
    if isinstance(method, PardisoLU) and pardiso_library.library() is None:
        pytest.skip("no MKL PARDISO")
    keep = torch.rand(40, 40) < 0.3
    keep |= torch.eye(40, dtype=torch.bool) | torch.roll(torch.eye(40), 1, 0).bool()
    first = torch.where(keep, torch.randn(40, 40), 0.0) + 10.0 * torch.eye(40)
    A = sparse_from_dense(first, keep=keep)
    factorise(A, method)
    second = torch.where(keep, 1e-3 * torch.randn(40, 40), 0.0) * (1 - torch.eye(40)) + 1e4 * torch.roll(
        torch.eye(40), 1, 0
    )
    rows, columns = torch.from_numpy(A.pattern.rows).long(), torch.from_numpy(A.pattern.indices).long()
    check(Sparse(A.pattern, second[rows, columns]), second, method, tolerance=1e-8)


def test_operators_are_copied_and_pickled_without_their_factorisations() -> None:
    A = poisson(6, 2)
    factorise(A)
    b = torch.randn(A.n)
    for copied in (copy.deepcopy(A), pickle.loads(pickle.dumps(A))):
        assert not copied.pattern.cache
        torch.testing.assert_close(factorise(copied).solve(b), factorise(A).solve(b))


def test_single_precision_is_kept() -> None:
    matrix = random_sparse(30, "definite")
    A = sparse_from_dense(matrix.float(), SYMMETRIC)
    for method in (None, SuperLU()):
        x = factorise(A, method).solve(torch.ones(30, dtype=torch.float32))
        assert x.dtype == torch.float32
        torch.testing.assert_close(x.double(), torch.linalg.solve(matrix, torch.ones(30)), rtol=1e-4, atol=1e-5)


def test_gradients_in_the_matrix_do_not_disturb() -> None:
    A = sparse_from_dense(random_sparse(10, "definite"), SYMMETRIC)
    A.values.requires_grad_()
    assert not factorise(A).solve(torch.ones(10, requires_grad=True)).requires_grad


def test_nan_is_refused() -> None:
    A = sparse_from_dense(random_sparse(10, "definite"), SYMMETRIC)
    A.values[3] = torch.nan
    with pytest.raises(ConvergenceError, match="NaN"):
        factorise(A)


@needs_pardiso
def test_the_table() -> None:
    flat, space = poisson(12, 2), poisson(4, 3)
    assert isinstance(pick(flat), PardisoCholesky)
    assert isinstance(pick(Sparse(flat.pattern, flat.values)), PardisoLU)
    assert isinstance(pick(flat.with_structure(Structure(symmetric=True, positive_definite=False))), PardisoLDL)
    modes = torch.ones(space.n, 6)
    assert isinstance(pick(space.with_structure(Structure(symmetric=True, near_null_space=modes))), PardisoCholesky)
    large = poisson(35, 3)
    modes = torch.ones(large.n, 6)
    assert isinstance(pick(large.with_structure(Structure(symmetric=True, near_null_space=modes))), AMGCG)
    assert isinstance(pick(large), PardisoCholesky)


def test_without_pardiso_superlu_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()  # factors of earlier tests are given back by the library that is about to be away
    monkeypatch.setattr(pardiso_library, "library", lambda: None)
    A = poisson(12, 2)
    assert isinstance(pick(A), SuperLU)
    b = torch.randn(A.n)
    torch.testing.assert_close(A.matmul(factorise(A).solve(b)), b)


def test_shifted_adds_to_the_diagonal_even_where_it_is_not_stored() -> None:
    matrix = torch.tensor([[0.0, 2.0], [2.0, 1.0]])
    A = sparse_from_dense(matrix, SYMMETRIC)
    torch.testing.assert_close(torch.from_numpy(A.shifted(3.0).csr().toarray()), matrix + 3.0 * torch.eye(2))
    torch.testing.assert_close(A.diagonal_entries(), matrix.diagonal())


def test_products_and_assembly() -> None:
    matrix = random_sparse(40, "unsymmetric")
    A = sparse_from_dense(matrix)
    x = torch.randn(2, 3, 40)
    torch.testing.assert_close(A.matmul(x), x @ matrix.mT)
    torch.testing.assert_close(A.matmul_transposed(x), x @ matrix)


def test_as_a_sparse_tensor() -> None:
    matrix = random_sparse(40, "unsymmetric")
    A = sparse_from_dense(matrix)
    torch.testing.assert_close(A.to_torch().to_dense(), matrix)
    torch.testing.assert_close(A.to_torch(transposed=True) @ torch.eye(40), matrix.mT.contiguous())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_device_krylov_takes_over() -> None:
    A = poisson(12, 2)
    there = Sparse(A.pattern, A.values.cuda(), A.structure)
    b = torch.randn(2, A.n)
    torch.testing.assert_close(factorise(there).solve(b.cuda()).cpu(), factorise(A).solve(b), rtol=1e-6, atol=1e-7)
    skew = Sparse(A.pattern, there.values * (1.0 + 0.1 * torch.rand_like(there.values)))
    x = factorise(skew).solve_transposed(b.cuda())
    torch.testing.assert_close(skew.matmul_transposed(x).cpu(), b, rtol=1e-7, atol=1e-7)
    with pytest.raises(InputError, match="run on the CPU"):
        factorise(there, SuperLU())
