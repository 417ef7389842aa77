"""The experiments of one evaluation side by side, each with its derivatives in a worker.

A worker meets an experiment as this process would: at the same point, with the model's state and the remembered states of
inner solves, which come with the request, and what they become comes back. So it does not matter which worker takes which.
"""

from __future__ import annotations

import pickle
import uuid
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bilevel.calibrate.experiment import Experiment
from bilevel.calibrate.fit.executors import SERIAL, Workers, perform
from bilevel.calibrate.fit.problem_source import GivenProblem, ProblemSource
from bilevel.calibrate.model import ModelReports
from bilevel.calibrate.parameters import ParameterSet
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.implicit.memory import Memory
from bilevel.implicit.visit import Visit
from bilevel.report import BilevelError

ATTEMPTS = 2
"""An evaluation whose workers died so often is made in this process."""
_PROBLEMS: dict[str, CalibrationProblem] = {}
"""By the token of a calibration: the one that this worker works for."""


@dataclass(frozen=True)
class _Request:
    """An experiment to be evaluated at t; names: all experiments of the problem. weight: that of its rows, 0 = not fitted."""

    name: str
    names: tuple[str, ...]
    parameters: ParameterSet
    weight: Tensor
    t: Tensor
    with_jacobian: bool
    state: dict[str, Tensor]
    visits: list[Visit]


@dataclass(frozen=True)
class _Answer:
    prediction: Tensor
    block: Tensor
    reports: ModelReports
    state: dict[str, Tensor]
    visit: Visit | None
    single_precision: bool


class SideBySide:
    """Evaluates the experiments of a problem at once on the workers of a pool; a pool that breaks is started once more."""

    def __init__(self, workers: Workers, source: ProblemSource, stack: ExitStack) -> None:
        self.workers, self.source, self.stack = workers, source, stack
        self.token = uuid.uuid4().hex
        self.pool = self._opened()

    def begin(self, problem: CalibrationProblem, t: np.ndarray, with_jacobian: bool, memory: Memory) -> _Running:
        """Hand out all experiments; what comes back of one is waited for when it is asked for."""
        names = tuple(e.name for e in problem.experiments)
        requests = {
            e.name: pickle.dumps(
                _Request(
                    e.name,
                    names,
                    problem.parameters,
                    e.observations.weight,
                    torch.as_tensor(t),
                    with_jacobian,
                    dict(e.model.state()),
                    memory.visits_of(e.name),
                )
            )
            for e in problem.experiments
        }
        return _Running(self, problem, requests, memory)

    def submit(self, request: bytes) -> Future[bytes]:
        job = (self.source, self.token, request)
        return self.pool.submit(perform, _evaluated, job, self.workers.timeout, torch.get_default_dtype())

    def reopen(self) -> None:
        self.stack.close()
        self.pool = self._opened()

    def _opened(self) -> Executor:
        return self.stack.enter_context(self.workers.pool())


class _Running:
    """The experiments of one evaluation under way; called in the place of `CalibrationProblem`'s own evaluation."""

    def __init__(
        self, side: SideBySide, problem: CalibrationProblem, requests: dict[str, bytes], memory: Memory
    ) -> None:
        self.side, self.problem, self.requests, self.memory = side, problem, requests, memory
        self.futures = {name: side.submit(request) for name, request in requests.items()}

    def __call__(
        self, experiment: Experiment, point: Tensor, rows: Tensor, with_jacobian: bool
    ) -> tuple[Tensor, Tensor, ModelReports]:
        answer = self._answer(experiment.name)
        experiment.model.restore(answer.state)
        if answer.visit is not None:
            self.memory.note(experiment.name, answer.visit)
        if answer.single_precision:
            self.problem.single_precision.add(experiment.name)
        return answer.prediction, answer.block, answer.reports

    def _answer(self, name: str) -> _Answer:
        trouble: Exception | None = None
        for attempt in range(ATTEMPTS):
            try:
                found = pickle.loads(self.futures[name].result())
            except Exception as error:  # a worker died or hung, or the pool broke: the task itself raises nothing
                trouble = error
                if attempt < ATTEMPTS - 1:
                    self.side.reopen()
                    self.futures = {n: self.side.submit(self.requests[n]) for n in self.futures}
                continue
            del self.futures[name]
            if isinstance(found, Exception):
                raise found
            return found
        raise BilevelError(f"experiment '{name}': its worker died twice: {type(trouble).__name__}: {trouble}")


@contextmanager
def side_by_side(
    problem: CalibrationProblem, workers: Workers, source: ProblemSource | None
) -> Iterator[SideBySide | None]:
    """Within it, what evaluates several experiments at once; None where there is one, or all is done here."""
    if workers.executor == SERIAL or len(problem.experiments) == 1:
        yield None
        return
    with ExitStack() as stack:
        yield SideBySide(workers, source or GivenProblem(problem), stack)


def _problem(token: str, source: ProblemSource) -> CalibrationProblem:
    """In a worker: that of one calibration, made once."""
    if token not in _PROBLEMS:
        _PROBLEMS.clear()
        _PROBLEMS[token] = source.problem()
    return _PROBLEMS[token]


def _evaluated(source: ProblemSource, token: str, request: bytes) -> bytes:
    """In a worker: the answer, or the error that the model raised."""
    try:
        asked: _Request = pickle.loads(request)
        return pickle.dumps(_answered(_problem(token, source), asked))
    except Exception as error:  # a user's own model may raise anything
        try:
            pickle.loads(pickle.dumps(error))
            return pickle.dumps(error)
        except Exception:  # an error that does not travel
            return pickle.dumps(BilevelError(f"{type(error).__name__}: {error}"))


def _answered(whole: CalibrationProblem, asked: _Request) -> _Answer:
    experiments = [e for e in whole.experiments if e.name in asked.names]
    (own,) = [e for e in experiments if e.name == asked.name]
    own = replace(own, observations=replace(own.observations, weight=asked.weight))
    kept = [own if e.name == asked.name else e for e in experiments]
    problem = whole.changed(asked.parameters.parameters, kept, joint_priors=[])
    own.model.restore(asked.state)
    memory = Memory(megabytes=float("inf"))
    memory.evaluations = [{asked.name: visit} for visit in asked.visits]
    rows = torch.nonzero(asked.weight > 0).reshape(-1)
    with memory.remembering():
        prediction, block, reports = problem.evaluated(own, asked.t, rows, asked.with_jacobian)
        found = memory.found(asked.name)
    single = asked.name in problem.single_precision
    return _Answer(prediction.detach(), block.detach(), reports, dict(own.model.state()), found, single)
