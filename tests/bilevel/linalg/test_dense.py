"""Dense factorisations against torch.linalg.solve, eigenvalues, and matrices that cannot be solved with."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bilevel.linalg import Dense, DenseCholesky, DenseLDL, DenseLU, LinearSolver, Structure, factorise
from bilevel.report import BilevelError, InputError, SingularError

SYMMETRIC = Structure(symmetric=True)


def reference(matrix: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.linalg.solve(matrix, b.unsqueeze(-1)).squeeze(-1)


def random(kind: str, *shape: int) -> torch.Tensor:
    matrix = torch.randn(*shape, shape[-1])
    if kind == "definite":
        return matrix @ matrix.mT + torch.eye(shape[-1])
    return matrix + matrix.mT if kind == "indefinite" else matrix


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
@pytest.mark.parametrize("n", [1, 2, 7, 40])
@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (DenseCholesky(), "definite"),
        (DenseCholesky(), "indefinite"),
        (DenseLDL(), "definite"),
        (DenseLDL(), "indefinite"),
        (DenseLU(), "unsymmetric"),
    ],
)
def test_solves_with_matrix_and_transpose(method: LinearSolver, kind: str, n: int, batch: tuple[int, ...]) -> None:
    matrix = random(kind, *batch, n)
    factor = factorise(Dense(matrix, Structure(symmetric=kind != "unsymmetric")), method)
    for lead in [(), (4,), (2, 3)]:
        b = torch.randn(*lead, *batch, n)
        torch.testing.assert_close(factor.solve(b), reference(matrix, b), rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(factor.solve_transposed(b), reference(matrix.mT, b), rtol=1e-8, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 9), samples=st.integers(1, 6), shift=st.floats(-3.0, 3.0), seed=st.integers(0, 2**31))
def test_inertia_agrees_with_eigenvalues(n: int, samples: int, shift: float, seed: int) -> None:
    matrix = torch.randn(samples, n, n, generator=torch.Generator().manual_seed(seed))
    matrix = matrix + matrix.mT + shift * torch.eye(n)
    values = torch.linalg.eigvalsh(matrix)
    clear = values.abs().amin(-1) > 1e-10 * values.abs().amax(-1)
    for method in (DenseCholesky(), DenseLDL()):
        factor = factorise(Dense(matrix, SYMMETRIC), method, on_fail="ignore")
        assert torch.equal(torch.as_tensor(factor.positive_definite)[clear], (values > 0).all(-1)[clear])
        assert torch.equal(torch.as_tensor(factor.negative_eigenvalues)[clear], (values < 0).sum(-1)[clear])


def test_the_table_picks_by_symmetry() -> None:
    matrix = random("definite", 3, 4)
    assert bool(torch.as_tensor(factorise(Dense(matrix, SYMMETRIC)).positive_definite).all())
    assert factorise(Dense(matrix)).positive_definite is None


@pytest.mark.parametrize(
    "matrix",
    [
        torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]),
        torch.zeros(2, 2),
        torch.zeros(1, 1),
        torch.tensor([[1.0, 1.0], [0.0, 0.0]]),
    ],
)
def test_singular_unsymmetric_raises(matrix: torch.Tensor) -> None:
    with pytest.raises(SingularError, match="declare the null space"):
        factorise(Dense(matrix))
    with pytest.raises(SingularError, match="declare the null space"):
        factorise(Dense(matrix + matrix.mT, SYMMETRIC)) if bool((matrix != 1.0).all()) else factorise(Dense(matrix))


@pytest.mark.parametrize("n", [2, 10, 100, 400])
def test_singular_semidefinite_raises(n: int) -> None:
    half = torch.randn(n, n - 1)
    with pytest.raises(SingularError):
        factorise(Dense(half @ half.mT, SYMMETRIC))


@pytest.mark.parametrize("scale", [1e-200, 1e-9, 1e12])
def test_scale_and_units_do_not_look_singular(scale: float) -> None:
    """Mixed units (displacements in m, pressures in Pa) change the condition number but not solvability."""
    units = torch.logspace(-6, 6, 10, dtype=torch.float64)
    matrix = random("definite", 10)
    A = scale * units.unsqueeze(-1) * matrix * units
    b = scale * units * matrix.sum(-1)
    for structure in (SYMMETRIC, Structure()):
        torch.testing.assert_close(
            units * factorise(Dense(A, structure)).solve(b), torch.ones(10), rtol=1e-9, atol=1e-9
        )


def test_one_bad_sample_does_not_spoil_the_others() -> None:
    matrix = random("definite", 4, 3)
    matrix[1] = torch.diag(torch.tensor([1.0, -2.0, 3.0]))
    matrix[2] = torch.ones(3, 3)
    matrix[3] = torch.nan
    b = torch.randn(4, 3)
    with pytest.raises(BilevelError, match="NaN"):
        factorise(Dense(matrix, SYMMETRIC))
    with pytest.raises(SingularError):
        factorise(Dense(matrix[:3], SYMMETRIC))
    for structure in (SYMMETRIC, Structure()):
        factor = factorise(Dense(matrix, structure), on_fail="ignore")
        assert torch.as_tensor(factor.singular).tolist() == [False, False, True, True]
        x = factor.solve(b)
        torch.testing.assert_close(x[:2], reference(matrix[:2], b[:2]))
        assert bool(x[2:].isnan().all())
    definite = torch.as_tensor(factorise(Dense(matrix, SYMMETRIC), on_fail="ignore").positive_definite)
    assert definite.tolist()[:2] == [True, False]


def test_wrong_shape_is_refused() -> None:
    factor = factorise(Dense(random("definite", 2, 3), SYMMETRIC))
    with pytest.raises(InputError, match=r"\(\.\.\., 2, 3\)"):
        factor.solve(torch.ones(4, 3))


def test_counts_grow_with_the_work() -> None:
    factor = factorise(Dense(random("definite", 3), SYMMETRIC))
    factor.solve(torch.ones(5, 3))
    factor.solve_transposed(torch.ones(3))
    assert (factor.counts.factorisations, factor.counts.back_substitutions) == (1, 6)
