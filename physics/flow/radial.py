"""Radial flow to a well: quadratic finite elements in ln r, where steady flow is a straight line.

Heads are drawdowns s [m], positive downwards; lengths in m, times in d. The energy of a drawdown s(r) is
    E(s) = integral 1/2 T (ds/dr)^2 2 pi r dr + integral 1/2 s^2 / c 2 pi r dr - Q s(r_well),
whose minimum is the steady cone of depression; a storage term turns it into one implicit time step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bilevel.report import InputError

Array = NDArray[np.float64]

# Shape functions of the quadratic element on [-1, 1] with nodes -1, 0, 1, as rows of monomial coefficients.
_SHAPES = np.array([[0.0, -0.5, 0.5], [1.0, 0.0, -1.0], [0.0, 0.5, 0.5]])


def _shapes(xi: Array) -> Array:
    return np.stack([np.ones_like(xi), xi, xi**2], -1) @ _SHAPES.T


def _slopes(xi: Array) -> Array:
    return np.stack([np.zeros_like(xi), np.ones_like(xi), 2.0 * xi], -1) @ _SHAPES.T


@dataclass(frozen=True)
class RadialGrid:
    """Quadratic elements of equal length in ln r.

    radius (n,) [m]: the nodes. gradient (n, n): the matrix of integral (ds/dr)^2 2 pi r dr.
    area (n, n) [m2]: the matrix of integral s^2 2 pi r dr.
    """

    radius: Tensor
    gradient: Tensor
    area: Tensor

    @staticmethod
    def between(inner: float, outer: float, spacing: float = 0.15) -> RadialGrid:
        """From the radius of the well to a radius that the drawdown does not reach; spacing: element length in ln r."""
        if not 0.0 < inner < outer:
            raise InputError(
                f"radial grid: the well's radius ({inner:g} m) must be positive and below the outer ({outer:g} m)"
            )
        elements = int(np.ceil(np.log(outer / inner) / spacing))
        nodes = np.linspace(np.log(inner), np.log(outer), 2 * elements + 1)
        half = 0.5 * (nodes[2] - nodes[0])
        xi, weight = np.polynomial.legendre.leggauss(5)
        gradient = np.zeros((len(nodes), len(nodes)))
        area = np.zeros_like(gradient)
        for middle in range(1, len(nodes), 2):
            at = slice(middle - 1, middle + 2)
            shapes, slopes = _shapes(xi), _slopes(xi)
            gradient[at, at] += 2.0 * np.pi / half * (slopes.T * weight) @ slopes
            area[at, at] += (
                2.0 * np.pi * half * (shapes.T * (weight * np.exp(2.0 * (nodes[middle] + half * xi)))) @ shapes
            )
        return RadialGrid(*(torch.from_numpy(x) for x in (np.exp(nodes), gradient, area)))

    def interpolation(self, radius: Sequence[float]) -> Tensor:
        """The matrix (len(radius), n) that takes the drawdown at the nodes to that at any radius of the grid."""
        nodes = np.log(self.radius.numpy())
        x = np.log(np.asarray(radius, float))
        if x.size and (x.min() < nodes[0] - 1e-9 or x.max() > nodes[-1] + 1e-9):
            raise InputError(f"radii must lie between {self.radius[0]:g} and {self.radius[-1]:g} m, got {list(radius)}")
        half = 0.5 * (nodes[2] - nodes[0])
        middle = 2 * np.clip(((x - nodes[0]) / (2.0 * half)).astype(int), 0, (len(nodes) - 3) // 2) + 1
        matrix = np.zeros((len(x), len(nodes)))
        for k, row in enumerate(_shapes((x - nodes[middle]) / half)):
            matrix[k, middle[k] - 1 : middle[k] + 2] = row
        return torch.from_numpy(matrix)


class RadialFlow:
    """Flow to a well in a uniform aquifer, confined or leaky: K s + C ds/dt = f by the nodes of a grid.

    places: row and column (k,) of the entries of both matrices. Source: Theis 1935 and Jacob 1946.
    """

    def __init__(self, grid: RadialGrid) -> None:
        self.grid = grid
        rows, columns = (grid.gradient + grid.area).nonzero(as_tuple=True)
        self.places = rows.numpy(), columns.numpy()
        self._gradient, self._area = grid.gradient[rows, columns], grid.area[rows, columns]
        self._at_well = torch.where((rows == 0) & (columns == 0), math.pi, 0.0).to(self._area)

    def stiffness(self, transmissivity: Tensor, resistance: Tensor | None = None) -> Tensor:
        """The entries (k,) of K for T [m2/d]; the resistance c [d] of an aquitard."""
        entries = transmissivity * self._gradient
        return entries if resistance is None else entries + self._area / resistance

    def capacity(self, storativity: Tensor, casing_radius: Tensor | None = None) -> Tensor:
        """The entries (k,) of C for S [-]; the radius [m] where a well's water rises and falls."""
        entries = storativity * self._area
        return entries if casing_radius is None else entries + casing_radius**2 * self._at_well

    def force(self, discharge: Tensor) -> Tensor:
        """The forces (..., n) of discharges (...) [m3/d] at the well."""
        return torch.cat((discharge[..., None], discharge.new_zeros(*discharge.shape, len(self.grid.radius) - 1)), -1)
