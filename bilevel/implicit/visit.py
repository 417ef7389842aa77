"""The inner solves of a model in one evaluation, by place: what was found there, and guesses from earlier evaluations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from torch import Tensor

from bilevel.implicit.predictions import interpolation, predictions
from bilevel.torch_internals import plain

Place: TypeAlias = tuple[int, ...]


@dataclass
class RememberedSolve:
    """The start (*batch, n) that was given, the state (*batch, n) found, and d state / d x (p, *batch, n) if known.

    by_start (*batch, n, n): where the start is the state before, on which the one found depends; then the tangent is the
    one at a given start.
    """

    start: Tensor
    state: Tensor
    tangent: Tensor | None = None
    by_start: Tensor | None = None

    @property
    def bytes(self) -> int:
        """Starts of chains are the states before, so they count for nothing."""
        return sum(_bytes(t) for t in (self.state, self.tangent, self.by_start) if t is not None)

    @property
    def left(self) -> RememberedSolve:
        """The same of plain tensors, which the transforms that they were found under do not wrap any more."""
        tangent, by_start = (None if t is None else plain(t) for t in (self.tangent, self.by_start))
        return RememberedSolve(plain(self.start), plain(self.state), tangent, by_start)


@dataclass
class Visit:
    """One model's solves in one evaluation at x (p,). frame: what the entries of x are; tangents hold within one frame."""

    x: Tensor
    frame: tuple[str, ...]
    earlier: list[Visit] = field(default_factory=list)
    limit: float = math.inf
    solves: dict[Place, RememberedSolve] = field(default_factory=dict)
    bytes: int = 0
    _path: Place = ()
    _count: int = 0
    _predicted: tuple[Place, Tensor] | None = None

    @property
    def left(self) -> Visit:
        """What is left of it after the evaluation: plain tensors, and nothing of what it started from."""
        solves = {place: solve.left for place, solve in self.solves.items()}
        return replace(self, x=plain(self.x), earlier=[], solves=solves, _predicted=None)

    def next(self) -> Place:
        """The place of the solve (or chain) that begins now."""
        self._count += 1
        return (*self._path, self._count - 1)

    @contextmanager
    def from_the_top(self, path: Place = ()) -> Iterator[None]:
        """Within it, places are counted from 0 under a path of their own."""
        before = self._path, self._count
        self._path, self._count = path, 0
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)
            self._path, self._count = before

    def guesses(self, place: Place, start: Tensor) -> tuple[list[Tensor], bool]:
        """States (*batch, n) near the one sought at a place, for the start given there; whether it is the one sought."""
        if place in self.solves:  # once more, on the way back through a chain
            return [self.solves[place].state], True
        known = self.known(place, start.shape)
        for v, solve in reversed(known):
            if v.frame == self.frame and torch.equal(v.x, self.x) and torch.equal(solve.start, start):
                return [solve.state.to(start)], True
        told = [(v, solve) for v, solve in known if solve.tangent is not None and v.frame == self.frame]
        if not told:
            return self._interpolated(known, start), False
        predicted, nearest = predictions(self.x, [(v.x, solve.state, solve.tangent) for v, solve in told])  # type: ignore[misc]
        missed, self._predicted = self._missed_before(place), (place, predicted[-1])
        found = [*predicted, *([] if missed is None else [predicted[-1] + missed])]
        return [guess.to(start) for guess in (*found, self._transferred(told[nearest][1], start))], False

    def known(self, place: Place, shape: torch.Size) -> list[tuple[Visit, RememberedSolve]]:
        """What earlier visits found at a place."""
        known = [(v, v.solves[place]) for v in self.earlier if place in v.solves]
        return [(v, solve) for v, solve in known if solve.state.shape == shape]

    def _interpolated(self, known: list[tuple[Visit, RememberedSolve]], start: Tensor) -> list[Tensor]:
        """Guesses where no derivatives are known: to first order by several points, and from the nearest of them alone."""
        points = [v.x for v, _ in known if v.frame == self.frame]
        if not points:
            return [self._transferred(solve, start) for _, solve in known[-1:]]
        added = [self._transferred(solve, start) for v, solve in known if v.frame == self.frame]
        nearest = min(range(len(points)), key=lambda i: (float(torch.linalg.vector_norm(points[i] - self.x)), -i))
        shares = interpolation(self.x, points, nearest)
        several = [torch.stack([share * added[i] for i, share in shares.items()]).sum(0)] if len(shares) > 1 else []
        return [*several, added[nearest]]

    @staticmethod
    def _transferred(solve: RememberedSolve, start: Tensor) -> Tensor:
        """What a step of a history added then, it may add now; of a solve that stands alone, this is its state."""
        return (solve.state + (start - solve.start)).to(start)

    def _missed_before(self, place: Place) -> Tensor | None:
        """By how much the prediction for the step before, of a chain, was wrong: errors grow slowly along a history."""
        if self._predicted is None or len(place) < 3:
            return None
        before, predicted = self._predicted
        found = self.solves.get(before)
        follows = before == (*place[:-2], place[-2] - 1, place[-1])
        return found.state - predicted if follows and found is not None else None

    def keep(self, place: Place, start: Tensor, state: Tensor, by_start: Tensor | None = None) -> None:
        if place in self.solves:
            return
        solve = RememberedSolve(start, state, by_start=by_start)
        if self.bytes + solve.bytes <= self.limit:
            self.bytes += solve.bytes
            self.solves[place] = solve

    def keep_tangent(self, place: Place, tangent: Tensor) -> None:
        """Of a solve of this visit; (p, *batch, n)."""
        solve = self.solves.get(place)
        if solve is None or solve.tangent is not None or tangent.shape != (len(self.x), *solve.state.shape):
            return
        if self.bytes + _bytes(tangent) <= self.limit:
            self.bytes += _bytes(tangent)
            solve.tangent = tangent


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


_current: ContextVar[Visit | None] = ContextVar("visit", default=None)


@dataclass(frozen=True)
class Spot:
    """A place of a visit."""

    visit: Visit
    place: Place

    @contextmanager
    def step(self, k: int) -> Iterator[None]:
        """Within it are the solves of step k of the chain that has this place."""
        with self.visit.from_the_top((*self.place, k)):
            yield

    def keep_tangent(self, tangent: Tensor) -> None:
        """The derivatives (p, *batch, n) of what was found here."""
        self.visit.keep_tangent(self.place, plain(tangent))


def next_spot() -> Spot | None:
    """The place of the solve or chain that begins now, None without a memory."""
    visit = _current.get()
    return None if visit is None else Spot(visit, visit.next())


@contextmanager
def no_places() -> Iterator[None]:
    """Within it, solves have no places."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)
