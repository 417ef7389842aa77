"""What the linear systems of rubber bars ask of the algebra of many small matrices, in two or three dimensions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from physics.discretisation.matrices import cofactor


class Matrices(ABC):
    """Rotations, and functions of symmetric matrices, for stacks of matrices (..., d, d).

    dim: d. turns: how many numbers make a rotation: an angle, or the three of a rotation vector.
    """

    dim: int
    turns: tuple[str, ...]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """The entries that make a symmetric matrix: the diagonal, then those above it by rows."""
        diagonal = [(i, i) for i in range(self.dim)]
        return diagonal + [(i, k) for i in range(self.dim) for k in range(i + 1, self.dim)]

    @abstractmethod
    def rotation(self, turn: Tensor) -> Tensor:
        """The rotations (..., d, d) by angles (..., 1) or rotation vectors (..., 3)."""

    @abstractmethod
    def turn_of(self, rotation: Tensor) -> Tensor:
        """The angles (..., 1) or rotation vectors (..., 3) of rotations by less than pi."""

    @abstractmethod
    def nearest_rotation(self, a: Tensor) -> Tensor:
        """The rotations nearest to a, proper also where a is inverted."""

    @abstractmethod
    def symmetric_function(self, s: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """f(S) of symmetric matrices by their eigenvalues."""

    @abstractmethod
    def bounded(self, a: Tensor, low: float, high: float) -> Tensor:
        """a = R U with the eigenvalues of U, the least of which is negative in inverted matrices, cut to [low, high]."""

    def entries(self, s: Tensor) -> tuple[Tensor, ...]:
        """The entries (...) of symmetric matrices in the order of `pairs`."""
        return tuple(s[..., i, k] for i, k in self.pairs)

    def symmetric(self, entries: Tensor) -> Tensor:
        """Symmetric matrices from their entries (..., P)."""
        place = {pair: number for number, pair in enumerate(self.pairs)}
        order = [place[min(i, k), max(i, k)] for i in range(self.dim) for k in range(self.dim)]
        return entries[..., order].unflatten(-1, (self.dim, self.dim))


def cofactor_change(a: Tensor, by: Tensor) -> Tensor:
    """The derivative of the cofactor matrices at a (..., d, d) in the directions `by`."""
    return cofactor(by) if a.shape[-1] == 2 else cofactor(a + by) - cofactor(a) - cofactor(by)


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b of many small matrices (..., n, k) and (..., k, m), entry by entry, which beats a library's loop over them."""
    left = [row.unbind(-1) for row in a.unbind(-2)]
    right = [column.unbind(-2) for column in b.split(1, -1)]
    entries = []
    for row in left:
        for column in right:
            total = row[0] * column[0][..., 0]
            for x, y in zip(row[1:], column[1:], strict=True):
                total = torch.addcmul(total, x, y[..., 0])
            entries.append(total)
    return torch.stack(entries).movedim(0, -1).unflatten(-1, (a.shape[-2], b.shape[-1]))
