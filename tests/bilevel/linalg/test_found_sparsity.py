"""Tangents of users' functions are found to be sparse, made by few products, and right; dense ones stay dense."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bilevel
from bilevel.linalg.coloured import ColouredPattern, agrees, find_pattern
from bilevel.linalg.operator import Dense, Sparse, Structure
from bilevel.problem import Energy, Residual
from bilevel.report import InputError


def grid_energy(u, p):
    """Allen and Cahn's energy on a grid (m, m)."""
    rough = (u.diff(dim=0) ** 2).sum() + (u.diff(dim=1) ** 2).sum()
    return p["width"] * rough + 0.25 * ((u**2 - 1.0) ** 2).sum()


def tangent_of(problem, u, params=None):
    ready = problem.for_unknown(u)
    vector = u.reshape(-1)
    exact = torch.func.jacrev(lambda v: ready.residual(v, params))(vector)
    return ready.tangent(vector, params), exact


@given(n=st.integers(5, 90), seed=st.integers(0, 1000), degree=st.floats(0.5, 4.0))
@settings(max_examples=40, deadline=None)
def test_any_pattern_is_found_and_coloured(n: int, seed: int, degree: float) -> None:
    dice = np.random.default_rng(seed)
    matrix = scipy.sparse.random_array((n, n), density=min(1.0, degree / n), rng=dice, format="csr")
    dense = torch.from_numpy(matrix.toarray())
    found = find_pattern(lambda rows: rows @ dense, torch.zeros(n))
    if found is None:
        assert degree > 1.0  # too full for its size
        found = ColouredPattern.of(*matrix.nonzero(), n)
    values = found.values(lambda rows: rows @ dense, dense[0])
    assert agrees(values, found, lambda rows: rows @ dense, Structure())
    made = Sparse(found.pattern, values, Structure()).csr().toarray()
    np.testing.assert_array_equal(made, dense.numpy())


def test_a_grid_needs_seven_products_and_has_its_exact_tangent() -> None:
    u = torch.randn(30, 30)
    tangent, exact = tangent_of(Energy(grid_energy), u, {"width": torch.tensor(0.3)})
    assert isinstance(tangent, Sparse)
    np.testing.assert_allclose(tangent.csr().toarray(), exact.numpy(), rtol=1e-13, atol=1e-13)
    assert tangent.pattern.nnz == 5 * 900 - 4 * 30
    coloured = ColouredPattern.of(tangent.pattern.rows, tangent.pattern.indices, 900)
    assert coloured.colours.max() < 7


def test_curvature_that_vanishes_at_the_start_is_seen() -> None:
    """At u = 0 the quartic springs have no stiffness; the pattern is that of a point nearby."""
    tangent, _ = tangent_of(Energy(lambda u: (u.diff() ** 4).sum() + (u**2).sum()), torch.zeros(700))
    assert isinstance(tangent, Sparse)
    assert tangent.pattern.nnz == 3 * 700 - 2


def test_an_unsymmetric_residual() -> None:
    def upwind(u, p):
        return torch.cat([u[:1] - 1.0, u[1:] ** 2 - p * u[:-1]])

    u = torch.rand(800) + 0.5
    tangent, exact = tangent_of(Residual(upwind), u, torch.tensor(0.7))
    assert isinstance(tangent, Sparse)
    np.testing.assert_allclose(tangent.csr().toarray(), exact.numpy(), atol=1e-13)
    p = torch.tensor(0.7, requires_grad=True)
    bilevel.root(upwind, u, p).u[-1].backward()
    # u_k = sqrt(p u_(k-1)) runs into u = p
    assert float(p.grad) == pytest.approx(1.0, rel=1e-10)


def test_a_dense_tangent_stays_dense() -> None:
    tangent, exact = tangent_of(Energy(lambda u: (u.sum() ** 2) + (u**4).sum()), torch.rand(700))
    assert isinstance(tangent, Dense)
    torch.testing.assert_close(tangent.matrix, exact)


def test_a_branch_with_other_neighbours_is_noticed() -> None:
    """The same code, another pattern: what was remembered is checked by a random product and found anew."""

    def energy(u, p):
        far = (u - u.roll(7)) if float(p) > 0 else u.diff()
        return (far**2).sum() + (u**2).sum()

    u = torch.rand(700)
    near, _ = tangent_of(Energy(energy), u, torch.tensor(-1.0))
    other, exact = tangent_of(Energy(energy), u, torch.tensor(1.0))
    assert isinstance(near, Sparse)
    assert isinstance(other, Sparse)
    np.testing.assert_allclose(other.csr().toarray(), exact.numpy(), atol=1e-13)


def test_a_given_pattern_is_used_at_any_size_and_checked() -> None:
    edges = torch.tensor([[0, 1], [1, 2], [2, 3]])

    def chain(u):
        return (u.diff() ** 2).sum() + (u**4).sum()

    u = torch.rand(4)
    tangent, exact = tangent_of(Energy(chain, sparsity=edges), u)
    assert isinstance(tangent, Sparse)
    np.testing.assert_allclose(tangent.csr().toarray(), exact.numpy(), atol=1e-14)
    with pytest.raises(InputError, match="entries where the given sparsity has none"):
        tangent_of(Energy(chain, sparsity=edges[:2]), u)
    with pytest.raises(InputError, match=r"sparsity of 4 unknowns has shape \(4, 4\), got \(3, 3\)"):
        tangent_of(Energy(chain, sparsity=scipy.sparse.eye_array(3)), u)
    with pytest.raises(InputError, match="names unknown 4, but there are 4"):
        tangent_of(Energy(chain, sparsity=torch.tensor([[0, 4]])), u)


def test_a_long_chain_of_springs_has_its_exact_gradient() -> None:
    """Condition 1e7: no iteration on products alone reaches the tolerance of the adjoint; a factorisation does."""

    def energy(u, p):
        return 0.5 * (p["k"] * torch.diff(u, prepend=torch.zeros(1)) ** 2).sum() - p["f"] * u[-1]

    k, f = torch.linspace(1.0, 2.0, 3000, requires_grad=True), torch.tensor(1.0, requires_grad=True)
    solution = bilevel.argmin(energy, torch.zeros(3000), {"k": k, "f": f})
    solution.u[-1].backward()
    torch.testing.assert_close(k.grad, -1.0 / k.detach() ** 2, rtol=1e-8, atol=0.0)
    assert solution.gradient.relative_error < 1e-8


def test_single_precision_is_as_exact_as_it_can_be() -> None:
    """Rounding alone does not make the products differ from the tangent's."""
    start = torch.tanh(torch.linspace(-3.0, 3.0, 60)).repeat(60, 1)
    slopes = []
    for dtype in (torch.float64, torch.float32):
        width = torch.tensor(0.5, dtype=dtype, requires_grad=True)
        field = bilevel.argmin(grid_energy, start.to(dtype), {"width": width}).u
        slopes.append(float(torch.autograd.grad((1.0 - field**2).sum(), width)[0]))
    assert slopes[1] == pytest.approx(slopes[0], rel=1e-3)
