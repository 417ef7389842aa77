"""States that earlier evaluations of a model found, as guesses for its next inner solves.

A model is evaluated at a point x, and its inner solves come in the same order each time; so a solve has a place: its
number, or in a chain the step and its number there. At each place the memory holds the last few states with their points
and, where forward mode passed by, their derivatives d state / d x, from which `predictions` are made. Which guess is used,
and whether it is any good, `WarmStart` decides by residuals. What is inside a solve (the local solves of a material, say)
has no place of its own. A march that differentiates its steps as it goes has one place for all of them (`StepGuesses`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor

from bilevel.implicit.visit import Spot, Visit
from bilevel.problem import Params, Problem
from bilevel.solvers.solver import Outcome, Solver, WrappingSolver
from bilevel.solvers.warm_start import WarmStart
from bilevel.torch_internals import is_transformed, plain

POINTS = 8
"""Evaluations that are remembered."""
MEGABYTES = 256.0
"""What they may take; the latest ones are kept."""


class Memory:
    """The visits of the last evaluations, by model; which of them are held depends on the last POINTS evaluations alone.

    seed: what is known beforehand, and stays.
    """

    def __init__(self, points: int = POINTS, megabytes: float = MEGABYTES, seed: Mapping[str, Visit] = {}) -> None:
        self.points, self.megabytes, self.seed = points, megabytes, seed
        self.evaluations: list[dict[str, Visit]] = []
        self._open: dict[str, Visit] | None = None

    @contextmanager
    def consulted(self) -> Iterator[None]:
        """Within it, models that are visited start from what is remembered."""
        token = _memory.set(self)
        try:
            yield
        finally:
            _memory.reset(token)

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Within it the same, and what one evaluation finds is remembered, unless it fails."""
        self._open = {}
        try:
            with self.consulted():
                yield
            self.add(self._open)
        finally:
            self._open = None

    def add(self, evaluation: dict[str, Visit]) -> None:
        """Remember an evaluation, and forget those that there is no room for."""
        new = {name: v.left for name, v in evaluation.items() if v.solves}
        if not new:
            return
        kept = [new, *reversed(self.evaluations)]
        room, count = self.megabytes * 2**20, 0
        for one in kept[: self.points]:
            room -= sum(v.bytes for v in one.values())
            if room < 0:
                break
            count += 1
        self.evaluations = kept[:count][::-1]

    def visits_of(self, name: str) -> list[Visit]:
        """What is remembered of a model, the latest last."""
        return [one[name] for one in (self.seed, *self.evaluations) if name in one]

    def note(self, name: str, visit: Visit) -> None:
        """That another process found this in the evaluation under way."""
        if self._open is not None:
            self._open[name] = visit

    def found(self, name: str) -> Visit | None:
        """What a model found in the evaluation under way, without what it started from."""
        visit = None if self._open is None else self._open.get(name)
        return None if visit is None else visit.left

    def visit(self, name: str, x: Tensor, frame: tuple[str, ...]) -> Visit:
        visit = Visit(x, frame, self.visits_of(name), self.megabytes * 2**19)
        if self._open is not None:
            self._open[name] = visit
        return visit


_memory: ContextVar[Memory | None] = ContextVar("memory", default=None)


@contextmanager
def visiting(name: str, x: Tensor, frame: tuple[str, ...]) -> Iterator[None]:
    """Within it a model is evaluated at x (p,), its coordinates called `frame`; without a memory it is as if not there."""
    memory = _memory.get()
    x = x.detach() if memory is None or not is_transformed(x) else plain(x)
    if memory is None or x.dim() != 1:
        yield
        return
    with memory.visit(name, x.clone(), frame).from_the_top():
        yield


@dataclass
class Remembering(WrappingSolver):
    """A solver that starts from what is remembered of its place, and remembers what it finds."""

    solver: Solver
    spot: Spot

    def solve(self, problem: Problem, u0: Tensor, params: Params, record: bool = False) -> Outcome:
        visit, place = self.spot.visit, self.spot.place
        outcome = WarmStart(self.solver, *visit.guesses(place, u0)).solve(problem, u0, params, record)
        if outcome.report.converged:
            visit.keep(place, u0, outcome.u)
        return outcome
