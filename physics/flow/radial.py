"""Radial flow to a well: quadratic finite elements in ln r, where steady flow is a straight line, and over the height.

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
from physics.flow.heights import Heights
from physics.flow.wells.layout import Screen
from physics.flow.wells.two_aquifers import TwoAquifers

Array = NDArray[np.float64]

ENDS = (torch.tensor(0), torch.tensor(-1))
"""The lowest and the highest node over the height."""

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
    """Flow to a well in a uniform aquifer, confined, leaky or below a free surface: K s + C ds/dt = f by the nodes of a grid.

    heights: how the drawdown varies over the height; by default not at all, over a thickness of 1 m. Node i of the grid and
    j of the heights is node i m + j. places: row and column (k,) of the entries of both matrices. Sources: Theis 1935, Jacob
    1946; Neuman 1974 for the free surface, whose water leaves at its place at rest.
    """

    def __init__(self, grid: RadialGrid, heights: Heights | None = None) -> None:
        self.grid, self.heights = grid, heights or Heights.uniform()
        own, top = self.heights, torch.outer(self.heights.top, self.heights.top)
        around = (grid.gradient + grid.area).nonzero(as_tuple=True)
        upwards = (own.mass.abs() + own.slope.abs() + top).nonzero(as_tuple=True)
        size = len(own.top)
        rows, columns = (size * r[:, None] + z for r, z in zip(around, upwards))
        self.places = rows.flatten().numpy(), columns.flatten().numpy()
        gradient, area = grid.gradient[around], grid.area[around]
        self._flow = torch.outer(gradient, own.mass[upwards]).flatten()
        self._rise = torch.outer(area, own.slope[upwards]).flatten()
        self._area = torch.outer(area, own.mass[upwards]).flatten()
        self._top = torch.outer(area, top[upwards]).flatten()
        ends = [torch.zeros_like(own.mass).index_put_((at, at), torch.ones((), dtype=own.mass.dtype)) for at in ENDS]
        self._ends = [[torch.outer(by, end[upwards]).flatten() for by in (gradient, area)] for end in ends]
        self._at_well = torch.where((rows == 0) & (columns == 0), math.pi, 0.0).flatten().to(self._area)

    @property
    def nodes(self) -> int:
        return len(self.grid.radius) * len(self.heights.top)

    def stiffness(
        self, conductivity: Tensor, resistance: Tensor | None = None, anisotropy: Tensor | None = None
    ) -> Tensor:
        """The entries (k,) of K for a conductivity [m/d]; the resistance c [d] of an aquitard; the vertical over the horizontal one.

        What leaks in is spread over the height, as by Hantush (1964).
        """
        entries = (
            conductivity * self._flow + (conductivity if anisotropy is None else anisotropy * conductivity) * self._rise
        )
        return entries if resistance is None else entries + self._area / (self.heights.thickness * resistance)

    def capacity(
        self, storage: Tensor, casing_radius: Tensor | None = None, specific_yield: Tensor | None = None
    ) -> Tensor:
        """The entries (k,) of C for Ss [1/m]; the radius [m] where a well's water rises and falls; Sy [-] of a free surface."""
        entries = storage * self._area
        if specific_yield is not None:
            entries = entries + specific_yield * self._top
        return entries if casing_radius is None else entries + casing_radius**2 * self._at_well

    def between_aquifers(self, aquifers: TwoAquifers) -> tuple[Tensor, Tensor]:
        """The entries (k,) of K and C of two aquifers, at the bottom and the top of an aquitard's relative heights."""
        (gradient, area), (other_gradient, other_area) = self._ends
        stiffness = aquifers.transmissivity * gradient + aquifers.other_transmissivity * other_gradient
        capacity = aquifers.storativity * area + aquifers.other_storativity * other_area
        return stiffness + self._rise / aquifers.resistance, capacity + aquifers.aquitard_storativity * self._area

    def force(self, discharge: Tensor, screen: Screen | None = None) -> Tensor:
        """The forces (..., n) of discharges (...) [m3/d] at the well, spread evenly over its screen."""
        taken = discharge[..., None] * self.heights.mean(screen)
        return torch.cat((taken, discharge.new_zeros(*discharge.shape, self.nodes - taken.shape[-1])), -1)

    def readings(self, radius: Sequence[float], screens: Sequence[Screen | None]) -> Tensor:
        """The matrix (len(radius), n) that takes the drawdown at the nodes to its means over screens at any radius of the grid."""
        means = torch.stack([self.heights.mean(screen) for screen in screens])
        return torch.einsum("pi,pj->pij", self.grid.interpolation(radius), means).flatten(1)
