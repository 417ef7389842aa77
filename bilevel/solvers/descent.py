"""Which way to go: a descent proposes a direction at a point."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from bilevel.linalg.operator import LinearOperator
from bilevel.linalg.solver import Factor
from bilevel.solvers.evaluations import Evaluations, Point

Metric: TypeAlias = Callable[[Tensor], Tensor]
"""The linear map P of a direction d = -P r, with P frozen; differentiable in r."""


class Descent(ABC):
    """A rule for directions; it may remember earlier points."""

    natural_length: bool = True
    """Whether length 1 is the one to try first."""

    linearises: bool = False
    """Whether a direction needs the tangent at its point."""

    factor: Factor | None = None
    """The latest factorised tangent, if the descent makes any; the adjoint solve starts from it."""

    tangent: LinearOperator | None = None
    """The latest tangent, if the descent makes any."""

    safe: bool = False
    """Whether the latest tangent was proved positive definite."""

    singular: Tensor | None = None
    """Samples (*batch) whose latest tangent had no unique solution."""

    @abstractmethod
    def direction(self, evaluations: Evaluations, point: Point) -> Tensor:
        """A direction (*batch, n) from `point`."""

    @abstractmethod
    def metric(self) -> Metric | None:
        """P of the latest direction d = -P r, or None where the direction was not of that form."""

    def moved(self, old: Point, new: Point) -> None:
        """Told after each accepted move."""
        return

    def left_saddle(self, curvature: float) -> None:
        """Told where a saddle was left along a direction of this negative curvature."""
        return
