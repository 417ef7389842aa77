"""Closed-form algebra of many 2 x 2 and 3 x 3 matrices at once, differentiable to any order."""

from __future__ import annotations

import torch
from torch import Tensor


def cofactor(a: Tensor) -> Tensor:
    """The cofactor matrices (..., d, d), d = 1, 2 or 3: the derivative of the determinant, det(a) a^-T."""
    return _by_components(_cofactors(a))


def determinant(a: Tensor) -> Tensor:
    """The determinants (...) of matrices (..., d, d), d = 1, 2 or 3."""
    entries = _entries(a)
    if len(entries) == 1:
        return entries[0][0]
    if len(entries) == 2:
        return entries[0][0] * entries[1][1] - entries[0][1] * entries[1][0]
    return _along_first_row(entries, [_minor(entries, 0, j) for j in range(3)])


def inverse(a: Tensor) -> Tensor:
    """The inverses (..., d, d) of matrices, d = 1, 2 or 3."""
    return inverse_and_determinant(a)[0]


def volume_change(h: Tensor) -> Tensor:
    """det(I + H) - 1 (...) of matrices H (..., d, d), d = 1, 2 or 3, to the relative precision of a small H."""
    entries = _entries(h)
    first = h.diagonal(dim1=-2, dim2=-1).sum(-1)
    if len(entries) == 1:
        return first
    if len(entries) == 2:
        return first + determinant(h)
    return first + second_invariant(h) + determinant(h)


def second_invariant(a: Tensor) -> Tensor:
    """(tr(A)^2 - tr(A^2)) / 2 (...) of 3 x 3 matrices: the sum of the principal minors."""
    entries = _entries(a)
    return _minor(entries, 0, 0) + _minor(entries, 1, 1) + _minor(entries, 2, 2)


def inverse_and_determinant(a: Tensor) -> tuple[Tensor, Tensor]:
    """The inverses (..., d, d) and determinants (...)."""
    cofactors = _cofactors(a)
    det = _along_first_row(_entries(a), cofactors[0])
    return _by_components(cofactors).mT / det[..., None, None], det


def outer(a: Tensor, b: Tensor) -> Tensor:
    """The products a_ij b_kl of matrices (..., d, d) as (..., d, d, d, d)."""
    return a[..., :, :, None, None] * b[..., None, None, :, :]


def _cofactors(a: Tensor) -> list[list[Tensor]]:
    """The entries (...) of the cofactor matrices, row by row."""
    e = _entries(a)
    if len(e) == 1:
        return [[torch.ones_like(e[0][0])]]
    if len(e) == 2:
        return [[e[1][1], -e[1][0]], [-e[0][1], e[0][0]]]
    return [[_minor(e, i, j) for j in range(3)] for i in range(3)]


def _minor(e: list[list[Tensor]], i: int, j: int) -> Tensor:
    """The signed minor (...) of entry i, j of 3 x 3 matrices."""
    p, q, r, s = (i + 1) % 3, (i + 2) % 3, (j + 1) % 3, (j + 2) % 3
    return e[p][r] * e[q][s] - e[p][s] * e[q][r]


def _along_first_row(entries: list[list[Tensor]], cofactors: list[Tensor]) -> Tensor:
    """The determinant by expansion along the first row."""
    total = entries[0][0] * cofactors[0]
    for entry, factor in zip(entries[0][1:], cofactors[1:], strict=True):
        total = torch.addcmul(total, entry, factor)
    return total


def _entries(a: Tensor) -> list[list[Tensor]]:
    """The entries (...) of matrices (..., d, d), row by row."""
    return [list(row.unbind(-1)) for row in a.unbind(-2)]


def _by_components(entries: list[list[Tensor]]) -> Tensor:
    """Matrices (..., d, d) from their entries (...), each of which is contiguous in memory."""
    d = len(entries)
    return torch.stack([entry for row in entries for entry in row]).movedim(0, -1).unflatten(-1, (d, d))
