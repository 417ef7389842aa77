"""Problems whose linear systems can be made from local states that need not fit together.

Newton's method linearises every cell about the state that the whole field gives it. A cell may as well be linearised
about any state of its own: if those are within epsilon of what they are at the solution, one such system brings the
field within epsilon squared of it. A rule of the problem's own, or a network that reads the cells' states, can predict
better ones; the linear system carries the information from end to end, so that both may stay local.
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
from bilevel.problem import EnergyProblem, Params
from bilevel.report import Counts


@dataclass
class Guess:
    """A field u (n,) that satisfies the boundary conditions, and what the problem remembers of how it was found."""

    u: Tensor
    memory: Any = None
    counts: Counts = field(default_factory=Counts)


class CellwiseProblem(ABC):
    """One problem as linear systems made from local states of its cells.

    linear_solver: factorises the systems; None for the one that suits each.
    """

    linear_solver: LinearSolver | None = None

    @abstractmethod
    def begin(self, start: Tensor) -> Guess:
        """The field to go on from: the classical start (n,), or what cheap linear solves make of the problem."""

    def near_solution(self, guess: Guess) -> bool:
        """Whether the field is so close to the solution that systems of this kind cannot help any more."""
        return False

    @abstractmethod
    def solve(self, guess: Guess, outputs: Tensor | None = None) -> Guess:
        """The solution of the linear system about the states that `outputs` (cells, K) asks for; None: by the own rule."""


@dataclass(frozen=True, eq=False)
class Incidence:
    """Which cells touch which nodes.

    pairs (2, m): cell and node of each touch. features (m, K): pure numbers of each pair.
    """

    cells: int
    nodes: int
    pairs: Tensor
    features: Tensor

    def to_nodes(self, values: Tensor) -> Tensor:
        """The mean over each node's pairs (nodes, ...) of values of pairs (m, ...)."""
        return _mean(values, self.pairs[1], self.nodes)

    def to_cells(self, values: Tensor) -> Tensor:
        """The mean over each cell's pairs (cells, ...) of values of pairs (m, ...)."""
        return _mean(values, self.pairs[0], self.cells)

    @cached_property
    def means(self) -> tuple[Tensor, Tensor]:
        """Matrices (nodes, cells) and (cells, nodes), float32 in compressed rows, that take means without pair features."""
        cell, node = self.pairs
        return _mean_matrix(node, cell, self.nodes, self.cells), _mean_matrix(cell, node, self.cells, self.nodes)

    def neighbourhood(self, values: Tensor) -> Tensor:
        """The mean (cells, ...) of values of cells (cells, ...) over each cell and those that share a node with it."""
        return self.to_cells(self.to_nodes(values[self.pairs[0]])[self.pairs[1]])


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


class GuessedProblem(CellwiseProblem):
    """A problem whose states a network may predict.

    outputs: the names of the numbers that it predicts for each cell; all zero means the problem's own rule.
    """

    incidence: Incidence
    outputs: tuple[str, ...]

    @abstractmethod
    def features(self, guess: Guess) -> Tensor:
        """What the network reads (cells, F): pure numbers that do not depend on units."""

    @abstractmethod
    def targets(self, guess: Guess, solution: Tensor) -> Tensor:
        """The outputs (cells, K) that ask for the states at the solution u (n,)."""


class CellwiseEnergy(EnergyProblem):
    """An energy that knows its form as linear systems from local states."""

    @abstractmethod
    def cellwise(self, params: Params) -> CellwiseProblem | None:
        """That form at these parameters, or None where it has none, or where the problem is linear anyhow."""


class SplitEnergy(CellwiseEnergy):
    """One that is convex in each cell's gradient, so that systems without a network lead to its minimum."""
