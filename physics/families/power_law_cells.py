"""The power law of cells with exponents and thresholds of their own, and its inverse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.steps.states.split import CellLaw

NEWTON_STEPS = 4
"""For the inverse; in logarithms the law has slopes between 1 and p - 1 only, so that few are enough."""


@dataclass(frozen=True, eq=False)
class PowerLawCells(CellLaw):
    """flux = C (g^2 + e^2)^(p/2-1) g as in `physics.flow.PowerLaw`; C, p and e are (E,)."""

    exponent: Tensor
    threshold: Tensor
    conductance: Tensor

    def flux(self, gradients: Tensor) -> Tensor:
        return self.conductance * gradients * self._square(gradients) ** (0.5 * self.exponent - 1.0)

    def slope(self, gradients: Tensor) -> Tensor:
        square = self._square(gradients)
        steep = 1.0 + (self.exponent - 2.0) * gradients**2 / square
        return self.conductance * steep * square ** (0.5 * self.exponent - 1.0)

    def gradients(self, fluxes: Tensor) -> Tensor:
        with torch.no_grad():
            target = (fluxes / self.conductance).log()
            log = self._newton(self._first_guess(target), target)
            for _ in range(NEWTON_STEPS - 2):
                log = self._newton(log, target)
        return self._newton(log, (fluxes / self.conductance).log()).exp()  # whose derivative is that of the inverse

    @classmethod
    def joined(cls, laws: Sequence[PowerLawCells]) -> PowerLawCells:
        return cls(
            torch.cat([law.exponent for law in laws]),
            torch.cat([law.threshold for law in laws]),
            torch.cat([law.conductance for law in laws]),
        )

    def _square(self, gradients: Tensor) -> Tensor:
        return gradients**2 + self.threshold**2

    def _first_guess(self, target: Tensor) -> Tensor:
        """log g far above the threshold or far below it, whichever branch the law follows."""
        steep = target / (self.exponent - 1.0)
        gentle = target + (2.0 - self.exponent) * self.threshold.log()
        return torch.where(self.exponent < 2.0, torch.maximum(steep, gentle), torch.minimum(steep, gentle))

    def _newton(self, log: Tensor, target: Tensor) -> Tensor:
        """One step for log(flux / C) = target in the unknown log g."""
        square = (2.0 * log).exp() + self.threshold**2
        value = log + (0.5 * self.exponent - 1.0) * square.log()
        slope = 1.0 + (self.exponent - 2.0) * (2.0 * log).exp() / square
        return log - (value - target) / slope
