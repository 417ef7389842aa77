"""The radial return of J2 plasticity and its consistent tangent (Simo & Hughes 1998, boxes 3.1 and 3.2).

Vectors are (6, *batch), Mandel: each entry is contiguous over the points, so that what is done with entries runs through the
cache in order.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from physics.constitutive.mandel import norm


class Growth(Protocol):
    """The increase (*batch,) of the plastic strain, from the trial state's equivalent stress and the old plastic strain."""

    def __call__(self, size: Tensor, plastic_strain: Tensor, /) -> Tensor: ...


class ReturnStep(NamedTuple):
    """What one strain increment does to points.

    stress, plastic_strain: the new state. trial: deviator of the elastic predictor. size: its equivalent stress.
    growth: increase of the plastic strain. shrink: new deviator over trial deviator.
    """

    stress: Tensor
    plastic_strain: Tensor
    trial: Tensor
    size: Tensor
    growth: Tensor
    shrink: Tensor

    @property
    def safe_size(self) -> Tensor:
        """The size where the point yields, 1 elsewhere."""
        return torch.where(self.growth > 0, self.size, 1.0)


def radial_return(
    stress: Tensor, plastic_strain: Tensor, increment: Tensor, bulk: Tensor, shear: Tensor, growth: Growth
) -> ReturnStep:
    """One step from stress (6, *batch), Pa, and plastic strain (*batch,) by a strain increment (6, *batch)."""
    unit = _unit(increment)
    trial = torch.addcmul(stress, increment, 2.0 * shear)
    volume, predicted = increment[:3].sum(0), trial[:3].sum(0) / 3.0
    trial = torch.addcmul(trial, unit, predicted, value=-1.0)
    size = math.sqrt(1.5) * norm(trial, 0)
    grown = growth(size, plastic_strain)
    shrink = 1.0 - 3.0 * shear * grown / torch.where(grown > 0, size, 1.0)
    new = torch.addcmul(trial * shrink, unit, predicted + (bulk - 2.0 / 3.0 * shear) * volume)
    return ReturnStep(new, plastic_strain + grown, trial, size, grown, shrink)


def consistent_tangent(step: ReturnStep, bulk: Tensor, shear: Tensor, slope: Tensor) -> Tensor:
    """d stress / d strain increment (6, 6, *batch) of a step, symmetric; slope: of the flow stress at its end."""
    safe = step.safe_size
    turning = 1.0 / (3.0 * shear + slope) - step.growth / safe
    turning = torch.where(step.growth > 0, turning * (3.0 * shear / safe) ** 2, 0.0)
    tangent = step.trial.unsqueeze(1) * (step.trial * -turning)
    along = 2.0 * shear * step.shrink
    tangent.flatten(0, 1)[::7] += along
    tangent[:3, :3] += bulk - along / 3.0
    return tangent


def _unit(like: Tensor) -> Tensor:
    """The unit tensor (6, 1 ...)."""
    return like.new_tensor([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]).reshape(6, *[1] * (like.dim() - 1))
