"""The way along one side of a profile, from the optimum to where phi has risen enough, or to where it ends.

A reading of the quantity is added to the data. Where the fit then lands, at g, phi without that reading is the least
that any parameters with the same g have, whatever the reading's weight: had others less, the fit would have found them.
So each point of the profile is an ordinary fit with exact Jacobians, warm-started at its neighbour, and no constraint
has to converge; the reading only says whereabouts to land.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from bilevel.calibrate.fit.evaluator import Evaluator
from bilevel.calibrate.fit.journal import Journal
from bilevel.calibrate.fit.least_squares import LeastSquaresLoop
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Noise, Settings
from bilevel.calibrate.statistics.quantity import ProfiledQuantity
from bilevel.implicit.memory import Memory

WIDTH = 0.02
"""Standard deviation of the added reading, in steps: nearly exact, and no worse conditioned than need be."""
RISE = 0.35
"""Wanted rise of sqrt((phi - least) / threshold) in a step, so that three or four steps make a side."""
CLOSE = 1e-2
"""How closely that root must be one next to an end, between which and the end it is taken for linear."""
_TOLERANCE = 1e-4
"""Relative offset of the fits, which leaves phi with an error of its square: 1e-8 of the variance of the residuals."""
_GROWTH, _SHORTER, _POINTS = 3.0, 0.25, 60


@dataclass(frozen=True)
class ProfilePoint:
    """A fit along a profile: the quantity in its coordinate, phi, and t (p,)."""

    at: float
    phi: float
    t: np.ndarray


@dataclass
class ProfileSide:
    """The points outwards from the optimum, the quantity where the interval ends (NaN: it does not), and why not."""

    points: list[ProfilePoint] = field(default_factory=list)
    end: float = math.nan
    reason: str = ""


@dataclass(frozen=True)
class ProfileWalk:
    """Where a side begins and how phi is counted.

    start: the optimum. rise: what phi may rise within the interval. first: the first step, signed. room: the farthest
    value on that side. prior_factor: what priors are multiplied by, so that they stand beside data of unknown noise.
    """

    quantity: ProfiledQuantity
    start: ProfilePoint
    rise: float
    first: float
    room: float
    prior_factor: float
    settings: Settings

    @cached_property
    def memory(self) -> Memory:
        """What the fits along a side remember for each other."""
        return Memory() if self.settings.memory else Memory(points=0)

    @property
    def key(self) -> str:
        """All that the side depends on, besides the problem."""
        at = self.start.t.tobytes().hex()
        return f"{self.quantity.label} {self.first!r} {self.room!r} {self.rise!r} {self.prior_factor!r} {self.settings} {at}"

    def side(self, problem: CalibrationProblem) -> ProfileSide:
        """Follow it; the problem's models are left in other states."""
        found, step, last = ProfileSide([self.start]), self.first, self.start
        self.memory.evaluations = []
        while len(found.points) < _POINTS:
            target = last.at + step
            at_end = abs(target - self.start.at) >= abs(self.room - self.start.at)
            point = self._fit(problem, last, self.room if at_end else target, abs(step))
            if isinstance(point, str):
                step *= _SHORTER
                if abs(step) < 1e-3 * abs(self.first):
                    found.reason = f"the fit beyond failed: {point}"
                    return found
                continue
            found.points.append(point)
            if self._root(point) >= 1:
                found.end = self._crossing(problem, found, last, point)
                return found
            if at_end or abs(point.at - self.room) <= 1e-9 * abs(self.room):
                return found
            step, last = self._next(step, last, point), point
        found.reason = f"it was followed for {_POINTS} points"
        return found

    def _next(self, step: float, last: ProfilePoint, point: ProfilePoint) -> float:
        rise = self._root(point) - self._root(last)
        moved = abs(point.at - last.at)
        wanted = RISE * moved / rise if rise > 0 else math.inf
        return math.copysign(min(max(wanted, _SHORTER * abs(step)), _GROWTH * abs(step)), step)

    def _root(self, point: ProfilePoint) -> float:
        return math.sqrt(max(point.phi - self.start.phi, 0.0) / self.rise)

    def _crossing(
        self, problem: CalibrationProblem, found: ProfileSide, below: ProfilePoint, above: ProfilePoint
    ) -> float:
        """Where the root is one, between two points; it is nearly linear there, so secants find it."""
        for _ in range(8):
            z = self._root(below), self._root(above)
            share = (1 - z[0]) / (z[1] - z[0])
            crossing = below.at + share * (above.at - below.at)
            if min(abs(1 - z[0]), abs(z[1] - 1)) <= CLOSE:
                return crossing
            # past an end that secants creep towards, halve the way
            share = min(max(share, 0.1), 0.9)
            for near, part in ((below if share < 0.5 else above, share), (below, 0.5 * share)):
                point = self._fit(problem, near, below.at + part * (above.at - below.at), abs(above.at - below.at))
                if not isinstance(point, str):
                    break
            else:
                found.reason = f"its end is interpolated, as a fit near it failed: {point}"
                return crossing
            found.points.append(point)
            below, above = (point, above) if self._root(point) < 1 else (below, point)
        return crossing

    def _fit(self, problem: CalibrationProblem, near: ProfilePoint, target: float, step: float) -> ProfilePoint | str:
        """The fit that a reading at `target` leads to, or why there is none."""
        read = self.quantity.read(problem, near.t, self.prior_factor, target, WIDTH * step)
        try:
            evaluator = Evaluator(read, Journal(memory=self.memory), max(self.settings.noptmax, 1))
            ending = LeastSquaresLoop(evaluator, self.settings).minimise(read.parameters.start())
        except Exception as error:  # a user's own model may raise anything
            return str(error)
        best = evaluator(evaluator.best, False)
        if not ending.converged:
            return ending.sentence
        return ProfilePoint(self.quantity.at(read, best), read.phi_without(best), best.t)


def walk_settings(settings: Settings) -> Settings:
    """Those of the fits along a profile: weights are as they stand, for the noise is that of the optimum."""
    tolerance = max(settings.tolerance, _TOLERANCE)
    return replace(settings, tolerance=tolerance, noise=Noise.KNOWN, statistics=False, verify=False)
