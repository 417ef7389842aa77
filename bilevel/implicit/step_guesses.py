"""Histories that earlier evaluations marched through, as a guess for each step of the next one.

The state after a step depends on the state before it and on the parameters. Where both derivatives are remembered, a step
is predicted from the state that it really begins with, so what the predictions of the steps before missed does not add up.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.implicit.predictions import interpolation
from bilevel.implicit.visit import Spot


@dataclass(frozen=True)
class StepGuesses:
    """olds, news (steps, *batch, n): the states before and after each step at new parameters and remembered old states;
    by_old (steps, *batch, n, n): how the latter move with the former."""

    olds: Tensor
    news: Tensor
    by_old: Tensor

    @staticmethod
    def remembered(spot: Spot, shape: tuple[int, ...]) -> StepGuesses | None:
        """From the visits before that left a history of this shape (steps, *batch, n) with its derivatives here."""
        at, found = spot.visit, []
        for visit, solve in at.known(spot.place, torch.Size(shape)):
            if solve.by_start is not None and solve.tangent is not None and visit.frame == at.frame:
                found.append((visit.x, solve.start, solve.state, solve.by_start, solve.tangent))
        if not found:
            return None
        moves = [torch.tensordot((at.x - x).to(tangent), tangent, 1) for x, *_, tangent in found]
        nearest = min(range(len(found)), key=lambda i: float(torch.linalg.vector_norm(moves[i])))
        x, olds, news, *_ = found[nearest]
        shares = interpolation(0.5 * (x + at.x), [x for x, *_ in found], nearest)
        by_old, by_x = (torch.stack([share * found[i][what] for i, share in shares.items()]).sum(0) for what in (3, 4))
        return StepGuesses(olds, news + torch.tensordot((at.x - x).to(news), by_x, 1), by_old)

    def after(self, k: int, old: Tensor) -> Tensor:
        """The state (*batch, n) after step k from the state before it."""
        return self.news[k] + (self.by_old[k] @ (old - self.olds[k]).unsqueeze(-1)).squeeze(-1)
