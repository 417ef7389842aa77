"""The law of cells: how the flux of each grows with its gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from bilevel.solvers.cellwise import vectors


class CellLaw(ABC):
    """psi(|g|) of every cell, by its derivatives; the flux points along the gradient.

    What the network knows of it: exponent (E,), the degree p of psi far out; log_threshold (E,), the logarithm of a gradient
    below which psi is quadratic; log_conductance (E,), that of the flux per gradient at rest.
    """

    exponent: Tensor
    log_threshold: Tensor
    log_conductance: Tensor

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
