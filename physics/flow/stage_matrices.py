"""K + C / tau for the lengths tau of a march's stages: factors as they are met, or of all lengths at once where bands are narrow."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg.blas import dsbmv
from scipy.linalg.lapack import dpbtrs

from bilevel.linalg.direct.banded import band_of, cholesky_of_bands
from bilevel.linalg.operator import Sparse, Structure
from bilevel.linalg.registry import factorise
from bilevel.linalg.solver import Factor
from physics.flow.condensed import Array, Condensed

KEPT = 16
"""Factors of different lengths of steps that are kept, however large they are."""
KEPT_ENTRIES = 2_000_000
"""Entries of matrices whose factors are kept."""


class StageMatrices:
    """The condensed matrices of one K and C; fields are rows (m, n)."""

    def __init__(self, condensed: Condensed, k: Array, c: Array) -> None:
        self.pattern = condensed.pattern
        self.k, self.c = k, c
        self.capacity = condensed.csr(c)
        self.kept = max(KEPT, KEPT_ENTRIES // max(self.pattern.nnz, 1))
        self.factors: dict[float, Factor] = {}

    @staticmethod
    def of(condensed: Condensed, k: Array, c: Array, taus: Array) -> StageMatrices | BandedStages:
        """For entries of K and C between nodes, and the lengths (lengths,) of all stages."""
        k, c = (gather @ entries for gather, entries in zip(condensed.gather, (k, c)))
        return BandedStages.of(condensed, k, c, taus) or StageMatrices(condensed, k, c)

    def stored(self, tau: float, fields: Array) -> Array:
        """C / tau times fields."""
        return (self.capacity @ fields.T).T / tau

    def solve(self, tau: float, right: Array) -> Array:
        """(K + C / tau)^-1 times loads."""
        factor = self.factors.get(tau)
        if factor is None:
            matrix = torch.from_numpy(self.k + self.c / tau)
            factor = factorise(Sparse(self.pattern, matrix, Structure(symmetric=True)))
            if len(self.factors) >= self.kept:
                del self.factors[next(iter(self.factors))]
            self.factors[tau] = factor
        return factor.solve(torch.from_numpy(right)).numpy()


class BandedStages:
    """The same by LAPACK's own calls: on a line of some hundred nodes all else takes ten times as long as these."""

    def __init__(self, capacity: Array, factors: dict[float, Array]) -> None:
        self.width, self.capacity, self.factors = len(capacity) - 1, capacity, factors

    @staticmethod
    def of(condensed: Condensed, k: Array, c: Array, taus: Array) -> BandedStages | None:
        """None where the band is wide, there are too many factors to keep, or Cholesky cannot be trusted with one of them."""
        band = band_of(condensed.pattern)
        if not band.narrow or len(taus) * band.size > KEPT_ENTRIES:
            return None
        factors = cholesky_of_bands(band, k + c / taus[:, None])
        return None if factors is None else BandedStages(band.of(c), dict(zip(taus.tolist(), factors)))

    def stored(self, tau: float, fields: Array) -> Array:
        """C / tau times fields."""
        return np.array([dsbmv(self.width, 1.0 / tau, self.capacity, field, lower=1) for field in fields])

    def solve(self, tau: float, right: Array) -> Array:
        """(K + C / tau)^-1 times loads."""
        return dpbtrs(self.factors[tau], right.T, lower=1)[0].T
