"""Smoothed total variation as linear systems made from gradients and fluxes that cells choose by themselves.

In units of e and a (see `variation_systems`), flux w and gradient g obey w r = g with r = sqrt(|g|^2 + 1). Newton's
method on that equation (Chan, Golub & Mulet 1999, SIAM J. Sci. Comput. 20, 1964, with the matrix made symmetric) takes
for the flux of the next gradient G

    g / r + D (G - g),    D = (I - (w g' + g w') / 2r) / r

with g and w as the last linear system left them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bilevel.report import Counts
from bilevel.solvers.cellwise.problem import CellwiseProblem, Guess
from bilevel.solvers.cellwise.split import BALANCED
from physics.discretisation.matmul import matmul
from physics.local.total_variation.systems import VariationSystems

COARSE = 100.0
"""The start is the solution of the problem with |g|^2 in place of the total variation, of equal cost at this many e."""

SAME_START = 1e-6
"""A start is taken for that solution where its fluxes balance the misfit to this fraction of it."""

LARGEST_FLUX = 0.9999
"""Fluxes, as a fraction of what the total variation allows, are cut here."""

NEAR = 1e-3
"""Where the fluxes of the gradients differ from those of the linear system by less than this fraction, Newton ends it."""

FAINT = 1e-15
"""Lengths of vectors are at least this."""


@dataclass(frozen=True, eq=False)
class Gradients:
    """The cells' gradients and fluxes (E, dim) as a linear system left them, in units of e and of a."""

    primal: Tensor
    flux: Tensor


class VariationCells(CellwiseProblem):
    """A denoising problem on a mesh of linear cells.

    coarse: the start solves the quadratic problem whose gradients cost as much as those of size coarse * e do.
    """

    def __init__(self, systems: VariationSystems, coarse: float = COARSE) -> None:
        self.systems, self.coarse = systems, coarse

    def begin(self, start: Tensor) -> Guess:
        """The start with its own fluxes if they nearly balance, else the quadratic problem's solution with the fluxes of that."""
        counts, u, gradients = Counts(), start, self.systems.gradients(start)
        if self._imbalance(u, _flux(gradients)) <= BALANCED:
            return Guess(u, Gradients(gradients, _flux(gradients)), counts)
        if self._imbalance(u, gradients / self.coarse) > SAME_START:
            u, counts = self.first(), Counts(factorisations=1, back_substitutions=1)
            gradients = self.systems.gradients(u)
        return Guess(u, Gradients(gradients, gradients / self.coarse), counts)

    def _imbalance(self, u: Tensor, flux: Tensor) -> float:
        """How far fluxes (E, dim) are from balancing the misfit, relative to that."""
        systems = self.systems
        misfit = systems.mass * (u - systems.data)
        return float((misfit + systems.divergence(systems.cost[:, None] * flux)).norm() / misfit.norm())

    def first(self) -> Tensor:
        """The solution u (n,) of the quadratic problem."""
        count, dim = len(self.systems.cells), self.systems.dim
        slope = torch.eye(dim).to(self.systems.columns).expand(count, dim, dim) / self.coarse
        return self.systems.solution(slope, slope.new_zeros(count, dim))[0]

    def near_solution(self, guess: Guess) -> bool:
        now: Gradients = guess.memory
        true = _flux(now.primal)
        return bool((true - now.flux).norm() <= NEAR * true.norm())

    def solve(self, guess: Guess, outputs: Tensor | None = None) -> Guess:
        now: Gradients = guess.memory
        about, flux = now.primal, _allowed(now.flux)
        root = (_dot(about, about)[:, None] + 1.0).sqrt()
        unit = about / root
        crossed = 0.5 * flux[:, :, None] * unit[:, None, :]
        identity = torch.eye(about.shape[1]).to(about)
        slope = (identity - crossed - crossed.mT) / root[:, :, None]
        offset = unit - _times(slope, about)
        u, gradients = self.systems.solution(slope, offset, self.linear_solver)
        counts = replace(
            guess.counts,
            tangents=guess.counts.tangents + 1,
            factorisations=guess.counts.factorisations + 1,
            back_substitutions=guess.counts.back_substitutions + 1,
        )
        return Guess(u, Gradients(gradients, _times(slope, gradients) + offset), counts)


def _flux(gradients: Tensor) -> Tensor:
    return gradients / (_dot(gradients, gradients)[:, None] + 1.0).sqrt()


def _allowed(flux: Tensor) -> Tensor:
    return flux * (LARGEST_FLUX / _size(flux).clamp(min=LARGEST_FLUX))


def _size(vectors: Tensor) -> Tensor:
    """Lengths (E, 1), never zero, so that they can be divided by and differentiated."""
    return (_dot(vectors, vectors)[:, None] + FAINT**2).sqrt()


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Products (E,) of vectors (E, dim): a sum of columns takes a tenth of the time of a reduction over so few."""
    columns = [a * b for a, b in zip(one.unbind(1), other.unbind(1))]
    return torch.stack(columns).sum(0)


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    return matmul(matrices, vectors[:, :, None])[:, :, 0]
