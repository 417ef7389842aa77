"""FIRE: the fast inertial relaxation engine, dynamics that is stopped wherever it goes uphill."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.report import require
from bilevel.solvers.descent import Descent, Metric
from bilevel.solvers.evaluations import Evaluations, Point
from bilevel.solvers.loop import DescentSolver
from bilevel.solvers.steps.constant import Constant
from bilevel.solvers.steps.step import Step

PATIENCE, FASTER, SLOWER, LONGEST = 5, 1.1, 0.5, 10.0
MIXING, LESS_MIXING = 0.1, 0.99


class DampedDynamics(Descent):
    """The move of one step of the dynamics, with a velocity, a time step and a mixing of their own for every sample."""

    def __init__(self, time_step: float, largest_move: float) -> None:
        self.first, self.largest = time_step, largest_move
        self.velocity: Tensor | None = None

    def direction(self, evaluations: Evaluations, point: Point) -> Tensor:
        force = -point.residual
        if self.velocity is None:
            self.velocity = torch.zeros_like(force)
            self.step = torch.full_like(point.norm, self.first)
            self.mixing, self.downhill = torch.full_like(self.step, MIXING), torch.zeros_like(self.step)
        ahead = (force * self.velocity).sum(-1) >= 0  # also at rest, where the first step begins
        turned = self.mixing * torch.linalg.vector_norm(self.velocity, dim=-1) / point.norm.clamp(min=1e-300)
        guided = (1.0 - self.mixing).unsqueeze(-1) * self.velocity + turned.unsqueeze(-1) * force
        self.downhill = torch.where(ahead, self.downhill + 1, 0.0)
        quicker = self.downhill > PATIENCE
        grown = (FASTER * self.step).clamp(max=LONGEST * self.first)
        self.step = torch.where(ahead, torch.where(quicker, grown, self.step), SLOWER * self.step)
        self.mixing = torch.where(ahead, torch.where(quicker, LESS_MIXING * self.mixing, self.mixing), MIXING)
        self.velocity = torch.where(ahead.unsqueeze(-1), guided, 0.0) + self.step.unsqueeze(-1) * force
        move = self.step.unsqueeze(-1) * self.velocity
        return move * (self.largest / move.abs().amax(-1, keepdim=True).clamp(min=1e-300)).clamp(max=1.0)

    def metric(self) -> Metric | None:
        return None


@dataclass
class FIRE(DescentSolver):
    """Minimises an energy by damped dynamics: robust far from a minimum, slow near it.

    time_step: of the start, in which a unit force moves a unit mass; it grows up to ten times. largest_move: of any entry
    of the unknown in one step. Source: Bitzek, Koskinen, Gaehler, Moseler and Gumbsch 2006, Phys. Rev. Lett. 97, 170201,
    whose constants are taken.
    """

    step: Step = field(default_factory=Constant)
    max_iterations: int = 10_000
    time_step: float = 0.1
    largest_move: float = 0.2
    energies_only = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.time_step > 0 and self.largest_move > 0, "time_step and largest_move must be positive")

    def descent(self) -> Descent:
        return DampedDynamics(self.time_step, self.largest_move)
