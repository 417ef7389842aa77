"""What the optimisers call: evaluations, from the journal where it has them; failed points are made harmless."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bilevel.calibrate.fit.journal import Journal
from bilevel.calibrate.problem import CalibrationProblem, Evaluation
from bilevel.report import BilevelError


@dataclass(frozen=True)
class Iteration:
    """An outer iteration: its number, and the point that it accepted."""

    number: int
    evaluation: Evaluation


class IterationLimit(Exception):
    """Ends an optimiser that has no limit of its own on outer iterations."""


class Evaluator:
    """Evaluate points once, remember them, and keep the list of accepted iterations.

    A point at which an inner solve failed gets NaN residuals and its sentence, so that the optimiser steps back;
    at the start there is nothing to step back to, so the error is raised.
    """

    def __init__(
        self,
        problem: CalibrationProblem,
        journal: Journal,
        with_jacobian: bool,
        noptmax: int,
        watch: Callable[[Iteration], None] = lambda iteration: None,
    ) -> None:
        self.problem, self.journal, self.with_jacobian = problem, journal, with_jacobian
        self.noptmax, self.watch = noptmax, watch
        self.iterations: list[Iteration] = []
        self.used: dict[bytes, Evaluation] = {}
        journal.restore(problem)

    def __call__(self, t: np.ndarray) -> Evaluation:
        t = np.array(t, dtype=float)
        evaluation = self.journal.find(t)
        if evaluation is None or (self.with_jacobian and evaluation.jacobian is None and not evaluation.sentence):
            evaluation = self._evaluate(t)
            self.journal.append(evaluation, self.problem)
        self.used[t.tobytes()] = evaluation
        return evaluation

    def accept(self, t: np.ndarray) -> Evaluation:
        """Note that the optimiser took t as its next iterate."""
        evaluation = self(t)
        if self.iterations and np.array_equal(self.iterations[-1].evaluation.t, evaluation.t):
            return evaluation
        iteration = Iteration(len(self.iterations), evaluation)
        self.iterations.append(iteration)
        self.watch(iteration)
        if iteration.number >= self.noptmax:
            raise IterationLimit
        return evaluation

    @property
    def best(self) -> Evaluation:
        """The last accepted point: the optimisers accept nothing worse, but to round-off."""
        return self.iterations[-1].evaluation

    @property
    def failures(self) -> list[str]:
        """The sentences of the points that failed."""
        return [e.sentence for e in self.used.values() if e.sentence]

    def _evaluate(self, t: np.ndarray) -> Evaluation:
        began = time.perf_counter()
        try:
            evaluation = self.problem.evaluate(t, self.with_jacobian)
        except BilevelError as error:
            if not self.used:
                raise
            evaluation = self._failed(t, str(error))
        return replace(evaluation, seconds=time.perf_counter() - began)

    def _failed(self, t: np.ndarray, sentence: str) -> Evaluation:
        model = next(iter(self.used.values()))
        jacobian = None if model.jacobian is None else np.full_like(model.jacobian, np.nan)
        return Evaluation(
            t=t,
            residual=np.full_like(model.residual, np.nan),
            gradient=np.full_like(model.gradient, np.nan),
            jacobian=jacobian,
            prediction=np.full_like(model.prediction, np.nan),
            sentence=sentence,
        )
