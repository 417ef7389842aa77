"""Where to linearise next: a cell's gradient between the one of the state and the one that belongs to its flux."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.steps.learned.cell_network import WIDEST, CellNetwork, Incidence, features
from bilevel.steps.learned.split import SplitProblem

FAINT = 1e-10
"""Gradients and fluxes below this fraction of the mean are lifted to it before logarithms are taken."""


@dataclass(frozen=True, eq=False)
class Iterate:
    """A solution of one linear system: u (n,), its gradients (E,), and fluxes (E,) that balance the loads."""

    u: Tensor
    gradients: Tensor
    fluxes: Tensor


def first_iterate(split: SplitProblem, start: Tensor) -> Iterate:
    """The family's start, which is the solution of its linear problem."""
    gradients = split.gradients(start)
    return Iterate(start, gradients, split.first_slope() * gradients)


class Linearisation:
    """Solves one linear system after another, each about the gradients that the network points to."""

    def __init__(self, network: CellNetwork | None, split: SplitProblem) -> None:
        self.network, self.split = network, split
        self.incidence = Incidence(split.cells, split.nodes)

    def advance(self, now: Iterate) -> Iterate:
        """The next iterate; differentiable in the network's weights and in `now`."""
        split = self.split
        size = _lifted(split, now.gradients)
        primal = size.log()
        dual = split.law.gradients(_lifted(split, now.fluxes)).log()
        aligned = now.gradients * now.fluxes > 0
        blend, lift, mix = self._predict(primal, dual, aligned)
        gap = (dual - primal).clamp(-WIDEST, WIDEST)
        between = primal + (0.5 + blend) * gap
        opposed = torch.minimum(primal, dual)
        point = torch.where(aligned, between.exp(), torch.tanh(0.5 + mix) * opposed.exp()) * now.gradients.sign()
        slope = split.law.slope(point) * (lift * torch.tanh(gap.abs())).exp()
        offset = split.law.flux(point) - slope * point
        u, gradients = split.solve(slope, offset)
        return Iterate(u, gradients, slope * gradients + offset)

    def _predict(self, primal: Tensor, dual: Tensor, aligned: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.network is None:
            nothing = torch.zeros_like(primal)
            return nothing, nothing, nothing
        seen = features(self.split, primal, dual, aligned)
        out = self.network(seen, self.incidence).to(primal.dtype)
        blend, lift, mix = out.unbind(1)
        return blend, 2.0 * torch.tanh(0.5 * lift), mix


def _lifted(split: SplitProblem, values: Tensor) -> Tensor:
    size = values.abs()
    return torch.maximum(size, FAINT * split.mean(size.detach()))
