"""Profile likelihood: intervals where linear theory fails, and whether the data bound a quantity at all.

Of a quantity g the least phi at each value of it is followed outwards from the optimum. The 95 % interval is where it
stays below phi + s^2 q^2, with q the two-sided quantile of Student's t (of the normal distribution where the noise is
known), so that it agrees with the linear interval wherever phi is a parabola (Bates & Watts 1988, section 6.1). Where
the errors are correlated, or a loss is robust, phi is no likelihood, and its rise is scaled to the curvature that the
covariance has (Chandler & Bate 2007, Biometrika 94:167).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bilevel.calibrate.evaluation import Evaluation
from bilevel.calibrate.fit.executors import HERE, TaskFailure, Workers, run_tasks
from bilevel.calibrate.fit.problem_source import GivenProblem, ProblemSource
from bilevel.calibrate.problem import CalibrationProblem
from bilevel.calibrate.settings import Noise, Settings
from bilevel.calibrate.statistics.correlated import correlated_covariance
from bilevel.calibrate.statistics.information import Information, information
from bilevel.calibrate.statistics.profile_walk import ProfilePoint, ProfileSide, ProfileWalk, walk_settings
from bilevel.calibrate.statistics.quantity import ProfiledQuantity, find_quantity
from bilevel.report import InputError

_FIRST = 0.3
"""The first step, in half-widths of the linear interval."""


@dataclass(frozen=True)
class Profile:
    """The least phi (k,) at values (k,) of a quantity, ascending, in the user's units, and the 95 % interval.

    threshold: phi at the interval's ends. lower, upper: NaN where the profile ends before phi gets there; ends: how far it
    was followed, and why no farther. linear: the interval of linear theory. path: label -> natural values (k,) of all
    parameters along it.
    """

    label: str
    units: str
    estimate: float
    values: np.ndarray
    phi: np.ndarray
    least: float
    threshold: float
    lower: float
    upper: float
    reasons: tuple[str, str]
    linear: tuple[float, float]
    path: dict[str, np.ndarray]

    @property
    def bounded(self) -> tuple[bool, bool]:
        """Whether the data bound it from below, and from above."""
        return math.isfinite(self.lower), math.isfinite(self.upper)

    def linear_phi(self, values: np.ndarray) -> np.ndarray:
        """phi as linear theory has it: a parabola, in logarithms where the interval is symmetric in them."""
        low, high = self.linear
        x, best, end = values, self.estimate, high
        if low > 0 and abs(low * high / best**2 - 1) < 1e-6:
            x, best, end = np.log(values), math.log(best), math.log(high)
        return self.least + (self.threshold - self.least) * ((x - best) / (end - best)) ** 2

    @property
    def sentence(self) -> str:
        """The verdict: bounded, one-sided, or flat."""
        below, above = self.bounded
        low, high = self._text(self.lower), self._text(self.upper)
        if below and above:
            said = f"{self.label} is between {low} and {high} (95 %, profile likelihood)"
        elif below:
            said = f"{self.label} is only bounded from below, by {low}: {self._open(1)}"
        elif above:
            said = f"{self.label} is only bounded from above, by {high}: {self._open(0)}"
        else:
            said = f"{self.label} is not bounded by the data: {self._open(0)}, and {self._open(1)}"
        for end, reason in zip(self.bounded, self.reasons):
            said += f"; {reason}" if end and reason else ""
        if self.phi.min() < self.least - 1e-3 * (self.threshold - self.least):
            better = self._text(float(self.values[np.argmin(self.phi)]))
            said += f"; a better fit lies at {better} (phi {self.phi.min():.6g}), so start from there"
        return said

    def _open(self, side: int) -> str:
        value, phi = (self.values[-1], self.phi[-1]) if side else (self.values[0], self.phi[0])
        share = max(phi - self.least, 0.0) / (self.threshold - self.least)
        reason = f" ({self.reasons[side]})" if self.reasons[side] else ""
        return f"{'up' if side else 'down'} to {self._text(float(value))} phi rises by {100 * share:.2g} % of what would exclude it{reason}"

    def _text(self, value: float) -> str:
        return f"{value:.4g} {self.units}".rstrip()


@dataclass(frozen=True)
class ProfilePlan:
    """What is known before a profile is followed: the quantity, its two walks, and the linear interval."""

    quantity: ProfiledQuantity
    walks: tuple[ProfileWalk, ProfileWalk]
    linear: tuple[float, float]


def profiles(
    problem: CalibrationProblem,
    evaluation: Evaluation,
    names: Sequence[str],
    *,
    settings: Settings | None = None,
    workers: Workers = HERE,
    source: ProblemSource | None = None,
    keep: Path | None = None,
) -> list[Profile]:
    """Profiles of parameters, entries of fields, or rows of weight 0 ("heads[2]"), about an optimum with a Jacobian.

    Both sides of each are tasks; source and keep as of `run_tasks`. Raises InputError where there is no such quantity, or
    no noise to measure phi by.
    """
    settings = settings or Settings()
    plans = [profile_plan(problem, evaluation, name, settings) for name in names]
    source = source or GivenProblem(problem)
    jobs = [(source, walk) for plan in plans for walk in plan.walks]
    keys = [f"profile of {source.key}: {walk.key}" for _, walk in jobs]
    sides = [
        _side(walk, each) for (_, walk), each in zip(jobs, run_tasks(_walked, jobs, workers, keep=keep, keys=keys))
    ]
    return [_joined(problem, plan, sides[2 * k : 2 * k + 2]) for k, plan in enumerate(plans)]


def _walked(source: ProblemSource, walk: ProfileWalk) -> dict[str, Any]:
    """In a worker: a side in plain values."""
    try:
        side = walk.side(source.problem())
    except Exception as error:  # a user's own model may raise anything
        return {"points": [], "end": math.nan, "reason": f"{type(error).__name__}: {error}"}
    points = [[point.at, point.phi, point.t.tolist()] for point in side.points[1:]]
    return {"points": points, "end": side.end, "reason": side.reason}


def _side(walk: ProfileWalk, found: dict[str, Any] | TaskFailure) -> ProfileSide:
    if isinstance(found, TaskFailure):
        return ProfileSide([walk.start], reason=found.sentence)
    points = [ProfilePoint(at, phi, np.array(t)) for at, phi, t in found["points"]]
    return ProfileSide([walk.start, *points], found["end"], found["reason"])


def profile_plan(problem: CalibrationProblem, evaluation: Evaluation, name: str, settings: Settings) -> ProfilePlan:
    """Everything but the walks themselves, which may be taken elsewhere; InputError as `profile`."""
    quantity = find_quantity(problem, name)
    informed = information(problem, evaluation, settings.noise)
    factor = informed.level.scale
    rise, std = _rise(problem, evaluation, quantity, informed, settings.noise)
    if not rise > 1e-12 * evaluation.size**2:
        raise InputError(
            f"profile of '{name}': nothing says how large the noise is, as the fit leaves no residuals; "
            "give a std, and noise: known"
        )
    read = quantity.read(problem, evaluation.t, factor, 0.0, 1.0)
    data, priors = np.split(evaluation.residual**2, [evaluation.data_rows])
    here = quantity.at(read, evaluation)
    start = ProfilePoint(here, float(data.sum() + factor**2 * priors.sum()), evaluation.t)
    half = informed.level.quantile * std
    size = quantity.own_size(problem, evaluation)
    size = size if math.isfinite(size) else std if math.isfinite(std) else 1.0
    first = _FIRST * (half if math.isfinite(half) and half > 0 else size)
    room = quantity.room(problem, here, max(size, std if math.isfinite(std) else 0.0))
    own = walk_settings(settings)
    walks = tuple(
        ProfileWalk(quantity, start, rise, sign * first, end, factor, own) for sign, end in zip((-1.0, 1.0), room)
    )
    low, high = sorted(quantity.shown(here + sign * half) for sign in (-1.0, 1.0))
    return ProfilePlan(quantity, (walks[0], walks[1]), (low, high))


def _joined(problem: CalibrationProblem, plan: ProfilePlan, sides: Sequence[ProfileSide]) -> Profile:
    """Both sides as one profile."""
    quantity, walk = plan.quantity, plan.walks[0]
    down, up = sides
    points = sorted([*down.points, *up.points[1:]], key=lambda point: point.at)
    natural = [problem.parameters.natural(torch.as_tensor(point.t)) for point in points]
    labels = [(p.label, k, label) for p in problem.parameters.parameters for k, label in enumerate(p.entry_labels)]
    path = {label: np.array([float(n[own].reshape(-1)[k]) for n in natural]) for own, k, label in labels}
    values = np.array([quantity.shown(point.at) for point in points])
    ends = [quantity.shown(side.end) for side in sides]
    order = np.argsort(values, kind="stable")
    if len(values) > 1 and values[0] > values[-1]:  # the user's units may turn the sign
        ends, sides = ends[::-1], sides[::-1]
    return Profile(
        label=quantity.label,
        units=quantity.units,
        estimate=quantity.shown(walk.start.at),
        values=values[order],
        phi=np.array([point.phi for point in points])[order],
        least=walk.start.phi,
        threshold=walk.start.phi + walk.rise,
        lower=ends[0],
        upper=ends[1],
        reasons=(sides[0].reason, sides[1].reason),
        linear=plan.linear,
        path={label: numbers[order] for label, numbers in path.items()},
    )


def _rise(
    problem: CalibrationProblem, evaluation: Evaluation, quantity: ProfiledQuantity, informed: Information, noise: Noise
) -> tuple[float, float]:
    """By how much phi may rise within the interval, and the linear standard deviation of the quantity."""
    level, linear = informed.level, informed.linear
    slope = quantity.slope(problem, evaluation)
    plain = float(linear.variances(slope[None], 1.0)[0])  # of a reading without noise, in observations over the scale
    spread = float(informed.variances(slope[None])[0])
    if (found := correlated_covariance(problem, evaluation, noise)) is not None and not slope[linear.held].any():
        spread = float(slope[~linear.held] @ found[0] @ slope[~linear.held])
    usual = level.variance if math.isfinite(level.variance) else math.nan
    known = math.isfinite(plain) and math.isfinite(spread) and plain > 0
    variance = level.scale**2 * spread / plain if known else usual
    return level.quantile**2 * variance, math.sqrt(spread) if spread >= 0 else math.nan
