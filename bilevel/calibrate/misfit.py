"""How a prediction and a reading make a residual: in logarithms, with a loss that spares outliers, of a censored reading.

Every residual r is a smooth, monotone function of z = weight (prediction - reading), with r^2 the reading's share of
phi, so that least squares minimises phi whatever the noise is: r = z for normal noise, sign(z) sqrt(loss(z)) for a
robust loss, and r^2 = -2 log P(reading) for a reading of which only a limit is known (Tobin 1958). Where errors have a
covariance C, z = C^(-1/2) (prediction - reading), with the root nearest to 1 / std.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
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

    correlated: along which column neighbouring errors resemble each other, "" for the order of rows, None = not asked, as
    where their covariance is given.
    """

    loss: Loss = Loss.NORMAL
    logarithmic: bool = False
    correlated: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "loss", chosen(Loss, self.loss))


@dataclass(frozen=True)
class Whitening:
    """Rows (k,), ascending, whose errors have a covariance: root (k, k) times them is independent, of variance one."""

    rows: Tensor
    root: Tensor

    def shifted(self, by: int) -> Whitening:
        """The same where its rows stand after others."""
        return Whitening(self.rows + by, self.root)

    def among(self, rows: Tensor) -> Tensor:
        """Where its rows stand among others (ascending) that hold all of them."""
        return torch.searchsorted(rows, self.rows)

    @property
    def losses(self) -> Tensor:
        """(k, k): what takes whitened rows to those whose information is lost with each single reading."""
        return self.root.T / self.root.norm(dim=0)[:, None]


@dataclass(frozen=True)
class Misfits:
    """The residuals of many rows; all tensors are (n,), `limit` is 0, -1 or 1 for Censored.

    whitenings: of rows of normal noise whose errors have a covariance, with weight = 1 / their standard deviation.
    """

    value: Tensor
    weight: Tensor
    logarithmic: Tensor
    soft: Tensor
    huber: Tensor
    student: Tensor
    limit: Tensor
    whitenings: tuple[Whitening, ...] = ()

    @staticmethod
    def joined(parts: Sequence[Misfits]) -> Misfits:
        """The rows of all parts, one after the other."""
        names = [field.name for field in fields(Misfits) if field.name != "whitenings"]
        starts = torch.tensor([0, *(len(part.value) for part in parts)]).cumsum(0).tolist()
        whitenings = tuple(w.shifted(start) for part, start in zip(parts, starts) for w in part.whitenings)
        return Misfits(
            **{name: torch.cat([getattr(part, name) for part in parts]) for name in names}, whitenings=whitenings
        )

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
        return not self.whitenings and bool((self.normal & ~self.logarithmic).all())

    @property
    def whitened(self) -> Tensor:
        """Rows (n,) of which several make each residual."""
        mask = torch.zeros(len(self.value), dtype=torch.bool)
        for whitening in self.whitenings:
            mask[whitening.rows] = True
        return mask

    def standard(self, prediction: Tensor) -> Tensor:
        """z: what normal noise would make of each row."""
        if not bool(self.logarithmic.any()):
            return self._standardised(prediction - self.value)
        return self._standardised(self._measured(prediction) - self._measured(self.value))

    def residual(self, prediction: Tensor) -> Tensor:
        """r of each row; differentiable."""
        return self.of_standard(self.standard(prediction))

    def slope(self, prediction: Tensor) -> Tensor:
        """d r / d prediction of each row by itself; NaN where several readings make one residual."""
        if self.plain:
            return self.weight
        alone = replace(self, whitenings=())
        slope = _derivative(alone.residual, prediction)
        return torch.where(self.whitened, math.nan, slope)

    def derivative(self, prediction: Tensor, rows: Tensor, block: Tensor) -> Tensor:
        """d r[rows] / d t (k, p) of a block d prediction[rows] / d t, of rows that hold all whitened ones."""
        if not self.whitenings:
            return self.slope(prediction)[rows][:, None] * block
        alone = replace(self, whitenings=())
        moved = _derivative(alone.residual, prediction)[rows][:, None] * block
        for whitening in self.whitenings:
            own = whitening.among(rows)
            moved[own] = whitening.root @ (moved[own] / self.weight[whitening.rows][:, None])
        return moved

    def drawn(self, draws: Tensor) -> Tensor:
        """Errors of the readings (or of their logarithms) that independent draws (n,) of variance one make."""
        errors = torch.where(self.weight > 0, draws / torch.where(self.weight > 0, self.weight, 1.0), 0.0)
        for whitening in self.whitenings:
            errors[whitening.rows] = torch.linalg.solve(whitening.root, draws[whitening.rows])
        return errors

    def losses(self, rows: Tensor, block: Tensor) -> Tensor:
        """A block (k, p) of information by residual as one by reading: what is lost with each reading alone.

        Of whitened rows with the precision P = R^T R, the information P e e^T P / (e^T P e) is lost with reading e.
        """
        lost = block.clone()
        for whitening in self.whitenings:
            own = whitening.among(rows)
            lost[own] = whitening.losses @ block[own]
        return lost

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
        plain = torch.stack([prediction, self.value]).abs()
        relative = 1 + torch.stack([self._measured(prediction), self._measured(self.value)]).abs()
        size = torch.where(self.logarithmic, relative, plain)
        weighted = self.weight * size
        for whitening in self.whitenings:
            weighted[:, whitening.rows] = size[:, whitening.rows] @ whitening.root.abs().T
        return weighted

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

    def _standardised(self, errors: Tensor) -> Tensor:
        z = self.weight * errors
        for whitening in self.whitenings:
            z = z.index_copy(-1, whitening.rows, errors[..., whitening.rows] @ whitening.root.T)
        return z

    def _score(self, z: Tensor) -> Tensor:
        r = self.of_standard(z)
        return torch.autograd.grad((r**2).sum() / 2, z, create_graph=True)[0]

    def _measured(self, numbers: Tensor) -> Tensor:
        return torch.where(self.logarithmic, torch.where(self.logarithmic, numbers, 1.0).log(), numbers)


def _derivative(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x).sum(), x)[0]
