"""What a problem of linear systems offers so that a guess can be trained through their solutions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor

from bilevel.solvers.cellwise.problem import CellwiseProblem, Guess


class UnrolledProblem(CellwiseProblem):
    """A problem whose `solve` is differentiable in outputs and state.

    feature_count: how many numbers the network reads of each item.
    """

    feature_count: int

    @staticmethod
    @abstractmethod
    def side_by_side(parts: Sequence[UnrolledProblem]) -> UnrolledProblem:
        """Problems of one family as one, so that one factorisation and one pass of a network serve them all."""

    @abstractmethod
    def detached(self, guess: Guess) -> Guess:
        """The same state without history of gradients."""

    @abstractmethod
    def excess(self, guess: Guess, solution: Tensor) -> Tensor:
        """The symmetric Bregman distance of the energy between state and solution u (n,), for each part (parts,).

        It is sum (q - q*) (g - g*), near the solution twice the excess of the energy, and does not cancel in floating
        point.
        """
