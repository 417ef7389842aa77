"""Families of problems on which learned guesses are trained and solvers measured."""

from __future__ import annotations

import pathlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from torch import Tensor

from bilevel.problem import EnergyProblem, Params
from bilevel.report import InputError
from bilevel.solvers.cellwise.problem import CellwiseProblem, Guess
from bilevel.solvers.load_stepping import Path


class Variation(str, Enum):
    """What an instance changes against the training set; sizes are changed apart from these. GEOMETRY: a shape never trained on."""

    TRAINING = "training"
    CONTRAST = "contrast"
    MESH = "mesh"
    LOADS = "loads"
    GEOMETRY = "geometry"


@dataclass(frozen=True, eq=False)
class Instance:
    """One problem of a family: what is solved, and from where.

    start (n,): the classical start that all methods, learned or not, are given; it satisfies the boundary conditions.
    cellwise: the problem as linear systems from local states that need not fit together, where the family has that form;
    the learned first guess needs it.
    path: the parameters at a fraction of the load, where classical solvers step through it. own_start: where the problem's own
    `solve` begins, if that is another start.
    """

    problem: EnergyProblem
    params: Params
    start: Tensor
    description: str
    cellwise: CellwiseProblem | None = None
    path: Path | None = None
    own_start: Callable[[], Guess] | None = None


class Family(ABC):
    """A generator of similar problems of any size.

    name: as in the model card. version: raised whenever features or instances change; weights carry it.
    training_size: nodes of a training instance; tests are at 4, 16 and 64 times as many.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    training_size: ClassVar[int]

    @abstractmethod
    def instance(self, size: int, seed: int, variation: Variation = Variation.TRAINING) -> Instance:
        """The instance of about `size` nodes that belongs to a seed; the same arguments give the same instance."""

    def on_graph(self, nodes: pathlib.Path, edges: pathlib.Path) -> Family:
        """The same problems on a graph in two CSV files; InputError for a family that is not made of graphs."""
        raise InputError(f"the problems of '{self.name}' are on no graphs; those of power_law and forchheimer are")
