"""How a prediction and a reading make a residual: in logarithms, with a loss that spares outliers, of a censored reading.

Every residual r is a smooth, monotone function of z = weight (prediction - reading), with r^2 the reading's share of
phi, so that least squares minimises phi whatever the noise is: r = z for normal noise, sign(z) sqrt(loss(z)) for a
robust loss, and r^2 = -2 log P(reading) for a reading of which only a limit is known (Tobin 1958).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from enum import Enum

import torch
from torch import Tensor

from bilevel.calibrate.settings import Loss
from bilevel.report import chosen

TAIL = 4.0
"""Degrees of freedom of Student's t: few enough that an outlier counts for nothing, and a variance there is."""
HUBER = 1.345
"""Where Huber's loss turns linear, in standard deviations: 95 % efficient under normal noise."""


class Censored(Enum):
    """What is known of a reading: itself, or that it lies below or above what is written."""

    NO = 0
    BELOW = -1
    ABOVE = 1


@dataclass(frozen=True)
class GroupNoise:
    """The noise of a group: the loss, and whether it is that of logarithms.

    correlated: along which column neighbouring errors resemble each other, "" for the order of rows, None = not asked.
    """

    loss: Loss = Loss.NORMAL
    logarithmic: bool = False
    correlated: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", chosen(Loss, self.loss))


@dataclass(frozen=True)
class Misfits:
    """The residuals of many rows; all fields are (n,), `limit` is 0, -1 or 1 for Censored."""

    value: Tensor
    weight: Tensor
    logarithmic: Tensor
    soft: Tensor
    huber: Tensor
    student: Tensor
    limit: Tensor

    @staticmethod
    def joined(parts: Sequence[Misfits]) -> Misfits:
        """The rows of all parts, one after the other."""
        return Misfits(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Misfits)))

    @property
    def normal(self) -> Tensor:
        """Rows whose residual is weight (prediction - reading), perhaps of logarithms."""
        return ~(self.robust | (self.limit != 0))

    @property
    def robust(self) -> Tensor:
        """Rows whose loss spares outliers."""
        return self.soft | self.huber | self.student

    @property
    def plain(self) -> bool:
        """Whether all rows are weight (prediction - reading)."""
        return bool((self.normal & ~self.logarithmic).all())

    def standard(self, prediction: Tensor) -> Tensor:
        """z: what normal noise would make of each row."""
        if not bool(self.logarithmic.any()):
            return self.weight * (prediction - self.value)
        return self.weight * (self._measured(prediction) - self._measured(self.value))

    def residual(self, prediction: Tensor) -> Tensor:
        """r of each row; differentiable."""
        return self.of_standard(self.standard(prediction))

    def slope(self, prediction: Tensor) -> Tensor:
        """d r / d prediction of each row."""
        return self.weight if self.plain else _derivative(self.residual, prediction)

    def curvature(self, prediction: Tensor) -> Tensor:
        """Second derivative of r^2 / 2 in z: what information a row has, 1 for normal noise."""
        z = self.standard(prediction)
        return torch.ones_like(z) if bool(self.normal.all()) else _derivative(self._score, z)

    def stretch(self, prediction: Tensor) -> Tensor:
        """d r / d z of each row."""
        z = self.standard(prediction)
        return torch.ones_like(z) if bool(self.normal.all()) else _derivative(self.of_standard, z)

    def size(self, prediction: Tensor) -> Tensor:
        """By row, what round-off is measured against: the larger of weighted prediction and reading."""
        weighted = self.weight * torch.stack([prediction, self.value]).abs()
        relative = self.weight * (1 + torch.stack([self._measured(prediction), self._measured(self.value)]).abs())
        return torch.where(self.logarithmic, relative, weighted)

    def of_standard(self, z: Tensor) -> Tensor:
        """r(z)."""
        if bool(self.normal.all()):
            return z
        residual = torch.where(self.soft, z * torch.sqrt(2 / (torch.sqrt(1 + z**2) + 1)), z)
        far = torch.sqrt(2 * HUBER * z.abs().clamp(min=HUBER) - HUBER**2) * torch.sign(z)
        residual = torch.where(self.huber & (z.abs() > HUBER), far, residual)
        # -2 log of the density (Lange, Little & Taylor 1989, J. Am. Stat. Assoc. 84:881); at 0 its root is taken as its limit
        square = torch.where(z == 0, 1.0, z**2)
        tailed = z * torch.sqrt((TAIL + 1) * torch.where(z == 0, 1 / TAIL, torch.log1p(square / TAIL) / square))
        residual = torch.where(self.student, tailed, residual)
        # The share of phi vanishes far on the allowed side, where its root has no derivative that a number can hold.
        share = -2 * torch.special.log_ndtr(self.limit * z)
        return torch.where(self.limit != 0, -self.limit * torch.sqrt(share.clamp(min=1e-290)), residual)

    def _score(self, z: Tensor) -> Tensor:
        r = self.of_standard(z)
        return torch.autograd.grad((r**2).sum() / 2, z, create_graph=True)[0]

    def _measured(self, numbers: Tensor) -> Tensor:
        return torch.where(self.logarithmic, torch.where(self.logarithmic, numbers, 1.0).log(), numbers)


def _derivative(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x).sum(), x)[0]
