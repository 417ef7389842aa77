"""A pumping test by hand in NumPy: the same elements, steps and scheme; banded Cholesky, sensitivities as right-hand sides."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpbtrf, dpbtrs
from scipy.optimize import OptimizeResult, least_squares

from physics.flow.pumping import Drawdown
from physics.flow.time_stepping import SDIRK2

Array = NDArray[np.float64]
WIDTH = 2


class PlainPumping:
    """Drawdowns and their derivatives in the logarithms of K and Ss, on the grids of a `Drawdown`."""

    def __init__(self, model: Drawdown, thickness: float) -> None:
        grid = model.flow.grid
        self.gradient, self.area = (_diagonals(x.numpy()) for x in (grid.gradient, grid.area))
        self.taus = model.march.taus
        self.ratio = SDIRK2.rows[1][0] / SDIRK2.diagonal
        self.force = model.forces.numpy()
        self.at_wells, self.well = model.at_wells.numpy(), model.well.numpy()
        self.in_time, self.thickness = model.in_time.numpy(), thickness

    def __call__(self, x: Array) -> tuple[Array, Array]:
        conductivity, storage = np.exp(x) * self.thickness
        n = len(self.gradient[0])
        k, c = conductivity * self.gradient, storage * self.area
        head, columns = np.zeros((n, 3)), []  # the drawdown, and its derivatives in log K and log Ss
        for taus, force in zip(self.taus, self.force):
            before = head
            anchor = before
            for s, tau in enumerate(taus):
                lower, _ = dpbtrf(k + c / tau, lower=1)
                right = _product(c, anchor) / tau
                right[:, 0] += force[s]
                first = dpbtrs(lower, right[:, :1], lower=1)[0]
                right[:, 1] -= _product(k, first)[:, 0]
                right[:, 2] -= _product(c, first - anchor[:, :1])[:, 0] / tau
                head = np.concatenate((first, dpbtrs(lower, right[:, 1:], lower=1)[0]), axis=1)
                if s == 0:
                    anchor = before + self.ratio * (head - anchor)
            columns.append(head)
        at_wells = np.einsum("tnk,nw->twk", np.stack(columns), self.at_wells)[:, self.well]
        found = np.einsum("rt,trk->rk", self.in_time, at_wells)
        return found[:, 0], found[:, 1:]

    def fit(self, start: Array, measured: Array) -> OptimizeResult:
        return least_squares(
            lambda x: self(x)[0] - measured, np.log(start), lambda x: self(x)[1], xtol=1e-10, gtol=1e-10, ftol=1e-12
        )


def _diagonals(matrix: Array) -> Array:
    """The main diagonal and those below it, by rows."""
    return np.stack([np.append(np.diagonal(matrix, -i), np.zeros(i)) for i in range(1 + WIDTH)])


def _product(band: Array, x: Array) -> Array:
    """A symmetric band times (n, m)."""
    found = band[0][:, None] * x
    for i in range(1, 1 + WIDTH):
        found[i:] += band[i, :-i, None] * x[:-i]
        found[:-i] += band[i, :-i, None] * x[i:]
    return found
