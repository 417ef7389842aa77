"""Problems whose linear systems can be made from local states that need not fit together.

Newton's method linearises every cell about the state that the whole field gives it. A cell may as well be linearised
about any state of its own: if those are within epsilon of what they are at the solution, one such system brings the
field within epsilon squared of it. A network that reads the cells' states can predict better ones; the linear system
carries the information from end to end, so that the network may stay local.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bilevel.linalg.operator import compressed
from bilevel.linalg.solver import LinearSolver
from bilevel.report import Counts


@dataclass(frozen=True, eq=False)
class Incidence:
    """Items (cells, or nodes) that touch hubs (the nodes, or the cells between them).

    pairs (2, m): item and hub of each touch. features (m, K): pure numbers of each pair.
    """

    items: int
    hubs: int
    pairs: Tensor
    features: Tensor

    def to_hubs(self, values: Tensor) -> Tensor:
        """The mean over each hub's pairs (hubs, ...) of values of pairs (m, ...)."""
        return _mean(values, self.pairs[1], self.hubs)

    def to_items(self, values: Tensor) -> Tensor:
        """The mean over each item's pairs (items, ...) of values of pairs (m, ...)."""
        return _mean(values, self.pairs[0], self.items)

    @cached_property
    def means(self) -> tuple[Tensor, Tensor]:
        """Matrices (hubs, items) and (items, hubs), float32 in compressed rows, that take means without pair features."""
        item, hub = self.pairs
        return _mean_matrix(hub, item, self.hubs, self.items), _mean_matrix(item, hub, self.items, self.hubs)

    def neighbourhood(self, values: Tensor) -> Tensor:
        """The mean (items, ...) of values of items (items, ...) over each item and those that share a hub with it."""
        return self.to_items(self.to_hubs(values[self.pairs[0]])[self.pairs[1]])


def _mean_matrix(row: Tensor, column: Tensor, rows: int, columns: int) -> Tensor:
    order = torch.argsort(row * columns + column)
    times = torch.bincount(row, minlength=rows)
    indptr = torch.cat((times.new_zeros(1), times.cumsum(0)))
    values = 1.0 / times.to(torch.float32)[row[order]]
    return compressed(indptr, column[order], values, rows, columns)


def _mean(values: Tensor, index: Tensor, count: int) -> Tensor:
    total = values.new_zeros((count, *values.shape[1:])).index_add_(0, index, values)
    times = torch.bincount(index, minlength=count).clamp(min=1).to(values)
    return total / times.reshape(-1, *[1] * (values.dim() - 1))


@dataclass
class State:
    """A field u (n,) that satisfies the boundary conditions, and what the family remembers of how it was found."""

    u: Tensor
    memory: Any = None
    counts: Counts = field(default_factory=Counts)


class StateProblem(ABC):
    """One problem as linear systems made from states of its items.

    outputs: the names of the numbers that a network predicts for each item; all zero means the state as it is.
    linear_solver: factorises the systems; None for the one that suits each.
    """

    incidence: Incidence
    outputs: tuple[str, ...]
    linear_solver: LinearSolver | None = None

    @abstractmethod
    def begin(self, start: Tensor) -> State:
        """The field to predict from: the classical start (n,), or what cheap linear solves make of the problem."""

    def near_solution(self, state: State) -> bool:
        """Whether the field is so close to the solution that predictions cannot help any more."""
        return False

    @abstractmethod
    def features(self, state: State) -> Tensor:
        """What the network reads (items, F): pure numbers that do not depend on units."""

    @abstractmethod
    def solve(self, state: State, outputs: Tensor) -> State:
        """The solution of the linear system made from the states that `outputs` (items, K) asks for."""

    @abstractmethod
    def targets(self, state: State, solution: Tensor) -> Tensor:
        """The outputs (items, K) that ask for the states at the solution u (n,)."""
