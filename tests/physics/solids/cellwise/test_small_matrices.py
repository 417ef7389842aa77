"""Closed-form algebra of small matrices against torch.linalg."""

import pytest
import torch
from torch import Tensor

from physics.discretisation.matrices import cofactor
from physics.solids.cellwise.matrices import Matrices, cofactor_change, product
from physics.solids.cellwise.plane_matrices import PlaneMatrices
from physics.solids.cellwise.space_matrices import SpaceMatrices

BOTH = pytest.mark.parametrize("matrices", [PlaneMatrices(), SpaceMatrices()], ids=["plane", "space"])


def random(matrices: Matrices, count: int = 40) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, matrices.dim, matrices.dim, generator=generator, dtype=torch.float64)


def rotations(matrices: Matrices, count: int = 40) -> Tensor:
    q, _ = torch.linalg.qr(random(matrices, count))
    return q * torch.linalg.det(q).sign()[:, None, None] if matrices.dim == 3 else matrices.nearest_rotation(q)


@BOTH
def test_functions_of_symmetric_matrices(matrices: Matrices) -> None:
    a = random(matrices)
    s = 0.5 * (a + a.mT)
    torch.testing.assert_close(matrices.symmetric_function(s, torch.exp), torch.linalg.matrix_exp(s))
    logarithm = matrices.symmetric_function(torch.linalg.matrix_exp(s), torch.log)
    torch.testing.assert_close(logarithm, s, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("gap", [0.0, 1e-14, 1e-9, 1e-6, 1e-3])
@pytest.mark.parametrize("stretches", [[2.0, 2.0, 0.3], [2.0, 0.5, 0.5], [1.0, 1.0, 1.0]])
def test_eigenvalues_may_coincide(stretches: list[float], gap: float) -> None:
    matrices = SpaceMatrices()
    turn = rotations(matrices)
    values = torch.tensor(stretches, dtype=torch.float64) + gap * torch.tensor([1.0, -0.5, 0.3])
    s = turn @ torch.diag(values) @ turn.mT
    expected = turn @ torch.diag(values.log()) @ turn.mT
    torch.testing.assert_close(matrices.symmetric_function(s, torch.log), expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(matrices.nearest_rotation(turn @ s), turn, rtol=1e-7, atol=1e-7)


@BOTH
def test_nearest_rotations_and_cut_stretches(matrices: Matrices) -> None:
    a = random(matrices)
    a = a[torch.linalg.svdvals(a)[:, -1] > 0.05]
    w, stretches, vt = torch.linalg.svd(a)
    sign = torch.ones_like(stretches)
    sign[:, -1] = torch.linalg.det(a).sign()
    expected = w @ torch.diag_embed(sign) @ vt
    torch.testing.assert_close(matrices.nearest_rotation(a), expected, rtol=1e-8, atol=1e-8)
    # Inverted matrices are a proper R times U with a negative eigenvalue, which is cut to a positive one.
    expected = w @ torch.diag_embed(sign * (2.0 * sign * stretches).clamp(0.5, 2.0)) @ vt
    cut = matrices.bounded(2.0 * a, 0.5, 2.0)
    torch.testing.assert_close(cut, expected, rtol=1e-7, atol=1e-7)
    assert bool((torch.linalg.det(cut) > 0.0).all())


@BOTH
def test_what_is_in_bounds_stays(matrices: Matrices) -> None:
    a = torch.eye(matrices.dim, dtype=torch.float64) + 0.1 * random(matrices)
    torch.testing.assert_close(matrices.bounded(a, 0.15, 6.0), a, rtol=1e-12, atol=1e-12)


@BOTH
def test_turns_and_rotations(matrices: Matrices) -> None:
    generator = torch.Generator().manual_seed(2)
    turn = torch.randn(40, len(matrices.turns), generator=generator, dtype=torch.float64)
    turn *= 3.0 * torch.rand(40, 1, generator=generator, dtype=torch.float64) / turn.norm(dim=1, keepdim=True)
    turn[0] = 0.0
    spin = torch.zeros(40, 3, 3, dtype=torch.float64)
    axial = torch.nn.functional.pad(turn, (3 - turn.shape[1], 0))
    for number, (i, k) in enumerate(((2, 1), (0, 2), (1, 0))):
        spin[:, i, k], spin[:, k, i] = axial[:, number], -axial[:, number]
    expected = torch.linalg.matrix_exp(spin)[:, : matrices.dim, : matrices.dim]
    torch.testing.assert_close(matrices.rotation(turn), expected)
    torch.testing.assert_close(matrices.turn_of(expected), turn, rtol=1e-9, atol=1e-9)


@BOTH
def test_the_change_of_cofactors_is_their_derivative(matrices: Matrices) -> None:
    a = random(matrices)
    by = a.flip(0)
    expected = torch.func.jvp(cofactor, (a,), (by,))[1]
    torch.testing.assert_close(cofactor_change(a, by), expected)


@BOTH
def test_entries_of_symmetric_matrices(matrices: Matrices) -> None:
    a = random(matrices)
    s = a + a.mT
    torch.testing.assert_close(matrices.symmetric(torch.stack(matrices.entries(s), -1)), s)


@BOTH
def test_products(matrices: Matrices) -> None:
    a = random(matrices)
    torch.testing.assert_close(product(a, a.flip(0)), a @ a.flip(0))
