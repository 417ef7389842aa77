"""How a drawdown varies over the height of an aquifer: not at all, or by quadratic elements between the ends of screens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from bilevel.report import InputError
from physics.flow.wells.layout import Screen

LAYERS = 8
"""No element is higher than the aquifer over this."""
LEAKING = 12
"""Elements over an aquitard."""


@dataclass(frozen=True)
class Heights:
    """Shape functions N_j (m) of the height z over an aquifer of some thickness [m].

    mass (m, m) [m]: integral of N_i N_j dz. slope (m, m) [1/m]: of dN_i/dz dN_j/dz. top (m,): values at the top.
    edges (elements + 1,) [m]: the ends of quadratic elements; none where there is one function, 1.
    """

    thickness: float
    mass: Tensor
    slope: Tensor
    top: Tensor
    edges: np.ndarray

    @staticmethod
    def uniform(thickness: float = 1.0) -> Heights:
        """The same over the whole height: flow is horizontal."""
        one = torch.ones(1, 1, dtype=torch.float64)
        return Heights(thickness, thickness * one, 0.0 * one, one[0], np.zeros(0))

    @staticmethod
    def refined(thickness: float, screens: Sequence[Screen | None]) -> Heights:
        """Elements that end where screens end; InputError for a screen beyond the aquifer."""
        for screen in screens:
            if screen is not None and not 0.0 <= screen[0] <= screen[1] <= thickness:
                raise InputError(
                    f"a screen from {screen[0]:g} to {screen[1]:g} m is not within the {thickness:g} m of the aquifer"
                )
        ends = np.unique([0.0, thickness, *(z for screen in screens if screen is not None for z in screen)])
        pieces = [np.linspace(a, b, int(np.ceil((b - a) * LAYERS / thickness)) + 1)[:-1] for a, b in pairwise(ends)]
        return Heights._of_elements(np.append(np.concatenate(pieces), thickness))

    @staticmethod
    def of_aquitard() -> Heights:
        """Over the relative height of an aquitard, between aquifers at 0 and 1, with small elements where they begin to leak."""
        return Heights._of_elements(0.5 - 0.5 * np.cos(np.linspace(0.0, np.pi, LEAKING + 1)))

    @staticmethod
    def _of_elements(edges: np.ndarray) -> Heights:
        nodes, thickness = 2 * len(edges) - 1, float(edges[-1])
        mass, slope = np.zeros((nodes, nodes)), np.zeros((nodes, nodes))
        for k, height in enumerate(np.diff(edges)):
            at = slice(2 * k, 2 * k + 3)
            mass[at, at] += height / 30.0 * np.array([[4.0, 2.0, -1.0], [2.0, 16.0, 2.0], [-1.0, 2.0, 4.0]])
            slope[at, at] += np.array([[7.0, -8.0, 1.0], [-8.0, 16.0, -8.0], [1.0, -8.0, 7.0]]) / (3.0 * height)
        top = torch.zeros(nodes, dtype=torch.float64)
        top[-1] = 1.0
        return Heights(thickness, torch.from_numpy(mass), torch.from_numpy(slope), top, edges)

    def mean(self, screen: Screen | None) -> Tensor:
        """The means (m,) of the shape functions over a screen, by default the whole height; at a point where it has no length."""
        if not len(self.edges):
            return self.top
        low, high = screen or (0.0, self.thickness)
        found = np.zeros(len(self.top))
        for k, (a, b) in enumerate(pairwise(self.edges)):
            x, y = np.clip((np.array([low, high]) - a) / (b - a), 0.0, 1.0)
            if high > low:
                found[2 * k : 2 * k + 3] += (_integrals(y) - _integrals(x)) * (b - a) / (high - low)
            elif a <= low <= b:
                found[2 * k : 2 * k + 3] = [(1 - x) * (1 - 2 * x), 4 * x * (1 - x), x * (2 * x - 1)]
        return torch.from_numpy(found)


def _integrals(x: float) -> np.ndarray:
    """Of the quadratic shape functions on [0, 1], from 0 to x."""
    return np.array([x - 1.5 * x**2 + 2 * x**3 / 3, 2 * x**2 - 4 * x**3 / 3, -0.5 * x**2 + 2 * x**3 / 3])
