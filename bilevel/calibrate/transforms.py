"""Maps between a parameter's natural value and the coordinate in which the optimiser moves it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.calibrate.settings import Transform


@dataclass(frozen=True)
class Coordinate:
    """A transform together with the bounds (natural units) that it needs."""

    transform: Transform = Transform.NONE
    lower: float = -math.inf
    upper: float = math.inf

    def to_coordinate(self, value: Tensor) -> Tensor:
        """t from the natural value."""
        if self.transform is Transform.LOG:
            return torch.log(value)
        if self.transform is Transform.LOGIT:
            return torch.log((value - self.lower) / (self.upper - value))
        return value

    def to_natural(self, t: Tensor) -> Tensor:
        """The natural value from t; differentiable."""
        if self.transform is Transform.LOG:
            return torch.exp(t)
        if self.transform is Transform.LOGIT:
            return self.lower + (self.upper - self.lower) * torch.sigmoid(t)
        return t

    def slope(self, t: Tensor) -> Tensor:
        """d value / d t."""
        if self.transform is Transform.LOG:
            return torch.exp(t)
        if self.transform is Transform.LOGIT:
            s = torch.sigmoid(t)
            return (self.upper - self.lower) * s * (1 - s)
        return torch.ones_like(t)

    def bounds(self) -> tuple[float, float]:
        """The bounds of t."""
        if self.transform is Transform.LOG:
            lower = math.log(self.lower) if self.lower > 0 else -math.inf
            return lower, math.log(self.upper)
        if self.transform is Transform.LOGIT:
            return -math.inf, math.inf
        return self.lower, self.upper
