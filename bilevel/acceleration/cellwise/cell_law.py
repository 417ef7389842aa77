"""The law of cells: how the flux of each grows with its gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from torch import Tensor

from bilevel.acceleration.cellwise import vectors


class CellLaw(ABC):
    """psi(|g|) of every cell, by its derivatives; the flux points along the gradient.

    exponent (E,): the degree p of psi. threshold (E,): a gradient below which psi is quadratic. conductance (E,): what
    multiplies psi. All three are known to the network.
    """

    exponent: Tensor
    threshold: Tensor
    conductance: Tensor

    @abstractmethod
    def secant(self, sizes: Tensor) -> Tensor:
        """psi'(|g|) / |g| (E,); even and differentiable."""

    @abstractmethod
    def secant_and_slope(self, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """psi'(|g|) / |g| and psi''(|g|) (E,); differentiable."""

    @abstractmethod
    def log_gradients(self, fluxes: Tensor) -> Tensor:
        """The logarithms of the gradients (E,) at which psi' equals the positive `fluxes` (E,); differentiable.

        Where psi is no pure power a few digits are enough.
        """

    def flux(self, gradients: Tensor) -> Tensor:
        """The fluxes of gradients (E,) or (E, d); differentiable."""
        return vectors.scaled(self.secant(vectors.size(gradients)), gradients)

    @cached_property
    def log_threshold(self) -> Tensor:
        return self.threshold.log()

    @cached_property
    def log_conductance(self) -> Tensor:
        return self.conductance.log()

    @classmethod
    @abstractmethod
    def joined(cls, laws: Sequence[Any]) -> CellLaw:
        """The law of all cells of several laws of this class in a row."""
