"""A study's own family: its model at parameters drawn from their ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from bilevel.acceleration.family import Family, Instance, Variation
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.problem import Params
from bilevel.report import InputError
from bilevel.solvers.cellwise.problem import CellwiseEnergy, GuessedProblem
from bilevel.solvers.load_stepping import Path

RANGE = 1.0
"""How far a coordinate without bounds is drawn from its start, in units of its reach: a factor of e where it is a logarithm."""


@dataclass(frozen=True, eq=False)
class GuessableSolve:
    """What a model solves at some parameters: an energy, its own, where solves begin, and the way that loads come."""

    problem: CellwiseEnergy
    params: Params
    start: Tensor
    path: Path | None = None


@runtime_checkable
class Guessable(Protocol):
    """A study's model whose one inner solve may be guessed; guess_name: what weights must have been trained on."""

    @property
    def guess_name(self) -> str: ...

    def equilibrium(self, parameters: Mapping[str, Tensor]) -> GuessableSolve: ...


class StudyFamily(Family):
    """A study's models at parameters between their bounds, evenly in the coordinates of the fit; sizes are the study's own.

    Raises InputError for a study whose models solve no energy that a guess is made of.
    """

    version = 1  # type: ignore[misc]

    def __init__(self, problem: CalibrationProblem) -> None:
        self.problem = problem
        for experiment in problem.experiments:
            if not isinstance(experiment.model, Guessable):
                raise InputError(
                    f"the model of experiment '{experiment.name}' has no inner solve that can be guessed; bodies have "
                    "(kind: solid), nonlinear flow and networks need no guess: LogMiddle solves them without training"
                )
        names = {e.model.guess_name for e in problem.experiments if isinstance(e.model, Guessable)}
        if len(names) > 1:
            raise InputError(
                f"experiments have bodies of several kinds, which one guess does not serve: {', '.join(names)}"
            )
        self.name = names.pop()  # type: ignore[misc]

    def instance(self, size: int, seed: int, variation: Variation = Variation.TRAINING) -> Instance:
        parameters = self.problem.parameters
        low, high = parameters.bounds()
        start = parameters.start()
        room = RANGE * np.where(np.isfinite(reach := parameters.reach(start)), reach, 1.0)
        low, high = (np.where(np.isfinite(x), x, start + s * room) for x, s in ((low, -1.0), (high, 1.0)))
        t = torch.from_numpy(np.random.default_rng(seed).uniform(low, high))
        experiment = self.problem.experiments[seed % len(self.problem.experiments)]
        assert isinstance(experiment.model, Guessable)
        with torch.no_grad():
            found = experiment.model.equilibrium(self.problem.arguments(experiment, t))
        cellwise = found.problem.cellwise(found.params)
        if not isinstance(cellwise, GuessedProblem):
            raise InputError(f"the body of experiment '{experiment.name}' has no form that a guess is made of")
        described = f"{experiment.name}, draw {seed}"
        return Instance(found.problem, found.params, found.start, described, cellwise=cellwise, path=found.path)
