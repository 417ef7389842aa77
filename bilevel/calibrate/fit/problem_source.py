"""How a task comes to its problem, wherever it runs: each gets one of its own, in the state in which it was made."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass

from bilevel.calibrate.problem import CalibrationProblem


class ProblemSource(ABC):
    """Goes to the workers, so it must pickle."""

    @abstractmethod
    def problem(self) -> CalibrationProblem:
        """A problem that nobody else has, since models keep their last state."""

    @property
    @abstractmethod
    def key(self) -> str:
        """Of all that the problem depends on, for results that are kept; "" = nothing is."""


@dataclass(frozen=True)
class GivenProblem(ProblemSource):
    """A problem made in Python; for workers in other processes its model must pickle."""

    given: CalibrationProblem

    def problem(self) -> CalibrationProblem:
        return copy.deepcopy(self.given)

    @property
    def key(self) -> str:
        return ""
