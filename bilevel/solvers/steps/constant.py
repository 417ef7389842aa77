"""Constant step length."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.solvers.evaluations import Evaluations, Point
from bilevel.solvers.steps.step import LineSearch, Move, along, select


@dataclass
class Constant(LineSearch):
    """The same length every time; only a NaN or infinite trial is refused."""

    length: float = 1.0

    def __post_init__(self) -> None:
        if self.length <= 0:
            raise ValueError(f"a step length must be positive, got {self.length}")

    def search(self, evaluations: Evaluations, point: Point, direction: Tensor, slope: Tensor, active: Tensor) -> Move:
        length = torch.where(active, torch.full_like(slope, self.length), torch.zeros_like(slope))
        trial = along(evaluations, point, direction, length)
        accepted = ~active | trial.finite
        return Move(select(active & accepted, trial, point), length, accepted)
