"""What the optimisers call: evaluations, from the journal where it has them; failed points are made harmless."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.evaluation import Evaluation, Iteration
from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.fit.journal import Journal, JournalEntry
from bilevel.calibrate.fit.side_by_side import SideBySide
from bilevel.calibrate.fit.stop import raise_if_asked
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Failures
from bilevel.implicit.memory import Memory
from bilevel.report import BilevelError, InputError, NoSolutionError

_PENALTY = 10.0
ONCE = "; so it was not tried again"
"""Ends what is said of a point where the model has no solution."""


class IterationLimit(Exception):
    """Ends an optimiser that has no limit of its own on outer iterations."""


@dataclass(frozen=True)
class FailedPoint:
    """Where the model of an experiment failed: natural values by label, what it said at first and at its second try.

    second is "" where that went well, or where readings were penalised in its place.
    """

    experiment: str
    values: dict[str, np.ndarray]
    first: str
    second: str

    @staticmethod
    def of(problem: CalibrationProblem, evaluation: Evaluation) -> FailedPoint:
        natural = problem.parameters.natural(torch.as_tensor(evaluation.t))
        values = {label: value.numpy() for label, value in natural.items()}
        return FailedPoint(evaluation.failing, values, evaluation.retried, evaluation.sentence)

    @property
    def end(self) -> str:
        """What became of the point."""
        if not self.second:
            return "penalised" if self.experiment else "second try"
        return "rejected" if self.second.endswith(ONCE) else "failed again"


class ExperimentLost(Exception):
    """Ends a fit whose experiment failed at a trial point or at the start, and is to be dropped; t: where to go on from."""

    def __init__(self, name: str, t: np.ndarray, sentence: str) -> None:
        super().__init__(sentence)
        self.name, self.t, self.sentence = name, t, sentence


class Evaluator:
    """Evaluate points once, remember them, and keep the list of accepted iterations.

    A point at which the model failed twice, in whatever way, or once because it has no solution, gets NaN residuals and its sentence, so that the optimiser
    steps back, unless `failures` says otherwise; at the start there is nothing to step back to, so the error is raised.
    check: told the first evaluation, before it is remembered. side: what evaluates experiments side by side.
    """

    def __init__(
        self,
        problem: CalibrationProblem,
        journal: Journal,
        noptmax: int,
        watch: Callable[[Iteration], None] = lambda iteration: None,
        check: Callable[[Evaluation], None] = lambda evaluation: None,
        failures: Failures = Failures.REJECT,
        side: SideBySide | None = None,
    ) -> None:
        self.problem, self.journal = problem, journal
        self.noptmax, self.watch, self.check, self.failures = noptmax, watch, check, failures
        self.side = side
        self.iterations: list[Iteration] = []
        self.used: dict[bytes, Evaluation] = {e.t.tobytes(): e for e in journal.used()}
        journal.restore(problem)

    def __call__(self, t: np.ndarray, with_jacobian: bool) -> Evaluation:
        t = np.array(t, dtype=float)
        point = self.journal.find(t)
        if point is None and self.iterations:
            raise_if_asked()
        if point is None or (with_jacobian and not point.with_jacobian and not point.evaluation.sentence):
            evaluation = self._evaluate(t, with_jacobian)
            self.journal.append(evaluation, self.problem)
        elif with_jacobian and point.evaluation.jacobian is None and not point.evaluation.sentence:
            evaluation = replace(point.evaluation, jacobian=self._jacobian_again(point))
        else:
            evaluation = point.evaluation
        self.used[t.tobytes()] = replace(evaluation, jacobian=None)
        if evaluation.sentence and self.failures is Failures.DROP and self._may_drop(evaluation.failing):
            raise ExperimentLost(evaluation.failing, self.best if self.iterations else t, evaluation.sentence)
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
    def failed(self) -> list[FailedPoint]:
        """The points at which a model failed, once or for good."""
        return [FailedPoint.of(self.problem, e) for e in self.used.values() if e.retried]

    def _evaluate(self, t: np.ndarray, with_jacobian: bool) -> Evaluation:
        began = time.perf_counter()
        try:
            with self.journal.memory.remembering():
                evaluation = self._at_once(t, with_jacobian)
        except Exception as error:  # a user's own model may raise anything
            if not self.used and isinstance(error, InputError):
                raise
            hopeless = isinstance(error, NoSolutionError) and self.used and self.failures is not Failures.PENALISE
            again = self._failed(t, str(error) + ONCE) if hopeless else self._again(t, with_jacobian)
            evaluation = replace(again, retried=_sentence(error))
        if not self.used:
            self.check(evaluation)
        return replace(evaluation, seconds=time.perf_counter() - began)

    def _at_once(self, t: np.ndarray, with_jacobian: bool) -> Evaluation:
        """Here, or all experiments side by side."""
        if self.side is None:
            return self.problem.evaluate(t, with_jacobian)
        running = self.side.begin(self.problem, t, with_jacobian, self.journal.memory)
        return self.problem.evaluate(t, with_jacobian, evaluated=running)

    def _again(self, t: np.ndarray, with_jacobian: bool) -> Evaluation:
        """The second and last try: from no earlier states, with what models know to be safer."""
        models = [e.model for e in self.problem.experiments]
        for model in models:
            model.cautious = True
        try:
            with Memory(points=0).consulted():
                stand_in = (self._stand_in,) if self.failures is Failures.PENALISE else ()
                return self.problem.evaluate(t, with_jacobian, *stand_in)
        except Exception as error:
            lost = self.failures is Failures.DROP and self._may_drop(self.problem.failing)
            if not self.used and not lost:
                raise
            if not self.used:
                raise ExperimentLost(self.problem.failing, t, _sentence(error)) from error
            return self._failed(t, _sentence(error))
        finally:
            for model in models:
                model.cautious = False

    def _may_drop(self, name: str) -> bool:
        left = [e for e in self.problem.experiments if name not in (e.name, e.parameters_of)]
        return any(bool((e.observations.weight > 0).any()) for e in left)

    def _stand_in(self, experiment: Experiment, error: Exception) -> Tensor | None:
        """What a failed experiment is taken to predict: readings missed ten times as far as at the last good point."""
        if not self.iterations:
            return None
        start = 0
        for other in self.problem.experiments:
            if other.name == experiment.name:
                break
            start += len(other.observations)
        value = experiment.observations.value
        last = torch.as_tensor(self.iterations[-1].evaluation.prediction)[start : start + len(value)]
        return value + _PENALTY * (last - value)

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
            failing=self.problem.failing,
            residual=np.full_like(other.residual, np.nan),
            gradient=np.full_like(other.gradient, np.nan),
            jacobian=None,
            prediction=np.full_like(other.prediction, np.nan),
            sentence=sentence,
        )


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, BilevelError) else f"{type(error).__name__}: {error}"
