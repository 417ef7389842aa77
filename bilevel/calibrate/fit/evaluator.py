"""What the optimisers call: evaluations, from the journal where it has them; failed points are made harmless."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from bilevel.calibrate.evaluation import Evaluation, Iteration
from bilevel.calibrate.fit.journal import Journal, JournalEntry
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.report import BilevelError


class IterationLimit(Exception):
    """Ends an optimiser that has no limit of its own on outer iterations."""


class Evaluator:
    """Evaluate points once, remember them, and keep the list of accepted iterations.

    A point at which the model failed, in whatever way, gets NaN residuals and its sentence, so that the optimiser steps
    back; at the start there is nothing to step back to, so the error is raised. check: told the first evaluation,
    before it is remembered.
    """

    def __init__(
        self,
        problem: CalibrationProblem,
        journal: Journal,
        noptmax: int,
        watch: Callable[[Iteration], None] = lambda iteration: None,
        check: Callable[[Evaluation], None] = lambda evaluation: None,
    ) -> None:
        self.problem, self.journal = problem, journal
        self.noptmax, self.watch, self.check = noptmax, watch, check
        self.iterations: list[Iteration] = []
        self.used: dict[bytes, Evaluation] = {e.t.tobytes(): e for e in journal.used()}
        journal.restore(problem)

    def __call__(self, t: np.ndarray, with_jacobian: bool) -> Evaluation:
        t = np.array(t, dtype=float)
        point = self.journal.find(t)
        if point is None or (with_jacobian and not point.with_jacobian and not point.evaluation.sentence):
            evaluation = self._evaluate(t, with_jacobian)
            self.journal.append(evaluation, self.problem)
        elif with_jacobian and point.evaluation.jacobian is None and not point.evaluation.sentence:
            evaluation = replace(point.evaluation, jacobian=self._jacobian_again(point))
        else:
            evaluation = point.evaluation
        self.used[t.tobytes()] = replace(evaluation, jacobian=None)
        return evaluation

    def renewed(self, evaluation: Evaluation) -> Evaluation | None:
        """The point with derivatives taken anew, None where they are no updates of earlier ones."""
        if not evaluation.stale:
            return None
        for experiment in self.problem.experiments:
            experiment.model.renew()
        anew = self._evaluate(evaluation.t, True)
        self.journal.append(anew, self.problem)
        return None if anew.sentence else anew

    def accept(self, evaluation: Evaluation) -> None:
        """Note that the optimiser took a point as its next iterate."""
        if self.iterations and np.array_equal(self.iterations[-1].evaluation.t, evaluation.t):
            return
        iteration = Iteration(len(self.iterations), replace(evaluation, jacobian=None))
        self.iterations.append(iteration)
        self.watch(iteration)
        if iteration.number >= self.noptmax:
            raise IterationLimit

    @property
    def best(self) -> np.ndarray:
        """The last accepted point: the optimisers accept nothing worse, but to round-off."""
        return self.iterations[-1].evaluation.t

    @property
    def failures(self) -> list[str]:
        """The sentences of the points that failed."""
        return [e.sentence for e in self.used.values() if e.sentence]

    def _evaluate(self, t: np.ndarray, with_jacobian: bool) -> Evaluation:
        began = time.perf_counter()
        try:
            with self.journal.memory.remembering():
                evaluation = self.problem.evaluate(t, with_jacobian)
        except Exception as error:  # a user's own model may raise anything
            if not self.used:
                raise
            kind = "" if isinstance(error, BilevelError) else f"{type(error).__name__}: "
            evaluation = self._failed(t, f"{kind}{error}")
        if not self.used:
            self.check(evaluation)
        return replace(evaluation, seconds=time.perf_counter() - began)

    def _jacobian_again(self, point: JournalEntry) -> np.ndarray | None:
        """The Jacobian of a point of the journal, met in the same state as then, so that it is the same Jacobian."""
        now = {e.name: dict(e.model.state()) for e in self.problem.experiments}
        self.journal.give_states_before(point, self.problem)
        jacobian = self.problem.evaluate(point.evaluation.t).jacobian
        for experiment in self.problem.experiments:
            experiment.model.restore(now[experiment.name])
        assert jacobian is not None
        self.journal.keep_jacobian(point.number, jacobian)
        return jacobian

    def _failed(self, t: np.ndarray, sentence: str) -> Evaluation:
        other = next(iter(self.used.values()))
        return Evaluation(
            t=t,
            residual=np.full_like(other.residual, np.nan),
            gradient=np.full_like(other.gradient, np.nan),
            jacobian=None,
            prediction=np.full_like(other.prediction, np.nan),
            sentence=sentence,
        )
