"""The power law of cells with exponents and thresholds of their own, and its inverse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bilevel.acceleration.cellwise.cell_law import CellLaw

NEWTON_STEPS = 3
"""For the inverse; in logarithms the law has slopes between 1 and p - 1 only, so that few are enough."""


@dataclass(frozen=True, eq=False)
class PowerLawCells(CellLaw):
    """flux = C (g^2 + e^2)^(p/2-1) g as in `physics.flow.PowerLaw`; C, p and e are (E,)."""

    exponent: Tensor
    threshold: Tensor
    conductance: Tensor

    def secant(self, sizes: Tensor) -> Tensor:
        return self.conductance * self._powered(sizes**2 + self._small)

    def secant_and_slope(self, sizes: Tensor) -> tuple[Tensor, Tensor]:
        own = sizes**2
        square = own + self._small
        secant = self.conductance * self._powered(square)
        return secant, secant * (1.0 + (self.exponent - 2.0) * own / square)

    def log_gradients(self, fluxes: Tensor) -> Tensor:
        target = fluxes.log() - self.log_conductance
        with torch.no_grad():
            log = self._first_guess(target)
            for _ in range(NEWTON_STEPS - 1):
                log = self._newton(log, target)
        return self._newton(log, target)  # whose derivative is that of the inverse

    @classmethod
    def joined(cls, laws: Sequence[PowerLawCells]) -> PowerLawCells:
        return cls(
            torch.cat([law.exponent for law in laws]),
            torch.cat([law.threshold for law in laws]),
            torch.cat([law.conductance for law in laws]),
        )

    @cached_property
    def _small(self) -> Tensor:
        return self.threshold**2

    @cached_property
    def _power(self) -> Tensor:
        return 0.5 * self.exponent - 1.0

    def _powered(self, square: Tensor) -> Tensor:
        """square^(p/2-1); exp and log take half the time of a general power."""
        return (self._power * square.log()).exp()

    def _first_guess(self, target: Tensor) -> Tensor:
        """log g far above the threshold or far below it, whichever branch the law follows."""
        steep = target / (self.exponent - 1.0)
        gentle = target + (2.0 - self.exponent) * self.log_threshold
        return torch.where(self.exponent < 2.0, torch.maximum(steep, gentle), torch.minimum(steep, gentle))

    def _newton(self, log: Tensor, target: Tensor) -> Tensor:
        """One step for log(flux / C) = target in the unknown log g."""
        own = (2.0 * log).exp()
        square = own + self._small
        value = log + self._power * square.log()
        return log - (value - target) / (1.0 + (self.exponent - 2.0) * own / square)
