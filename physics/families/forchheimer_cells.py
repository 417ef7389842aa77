"""Forchheimer's law of cells, and its inverse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bilevel.acceleration.cellwise.cell_law import CellLaw


@dataclass(frozen=True, eq=False)
class ForchheimerCells(CellLaw):
    """gradient = a flux + b flux^2 as in `physics.flow.Forchheimer`; a and b are (E,).

    The degree of psi falls from 2 far below the threshold gradient a^2 / 4b to 3/2 far above it.
    """

    linear: Tensor
    quadratic: Tensor

    def secant(self, sizes: Tensor) -> Tensor:
        return 2.0 / (self.linear + self._root(sizes))

    def secant_and_slope(self, sizes: Tensor) -> tuple[Tensor, Tensor]:
        root = self._root(sizes)
        return 2.0 / (self.linear + root), 1.0 / root

    def log_gradients(self, fluxes: Tensor) -> Tensor:
        return (fluxes * (self.linear + self.quadratic * fluxes)).log()

    @classmethod
    def joined(cls, laws: Sequence[ForchheimerCells]) -> ForchheimerCells:
        return cls(torch.cat([law.linear for law in laws]), torch.cat([law.quadratic for law in laws]))

    @cached_property
    def exponent(self) -> Tensor:  # type: ignore[override]
        return torch.full_like(self.linear, 1.5)

    @cached_property
    def threshold(self) -> Tensor:  # type: ignore[override]
        return self.linear**2 / (4.0 * self.quadratic)

    @cached_property
    def conductance(self) -> Tensor:  # type: ignore[override]
        return 1.0 / self.linear

    @cached_property
    def _square(self) -> Tensor:
        return self.linear**2

    @cached_property
    def _four_b(self) -> Tensor:
        return 4.0 * self.quadratic

    def _root(self, sizes: Tensor) -> Tensor:
        return (self._square + self._four_b * sizes.abs()).sqrt()
