"""Lengths of time steps, and interpolation between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from bilevel.report import InputError

Array = NDArray[np.float64]


EARLIEST = 1e-6
"""The first step after a change [d], a tenth of a second; shorter by decades where a reading would be within ten of it."""

SAME = 1e-12
"""Readings so near a change, relative to the time, are of its very moment: minutes and hours differ by rounding as days."""

UNREAD = 1e-3
"""The first step in a period without readings, over its length."""


@dataclass(frozen=True)
class TimeSteps:
    """The times of a transient problem, and when something changes.

    times (N+1,): increasing; the first is the start. changes: indices in `times` of the moments after which the steps
    are taken in the logarithm of the time since, where the answer to a sudden change is smooth; none: in time itself.
    Raises InputError if the times do not increase.
    """

    times: Array
    changes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.times) < 2 or not bool((np.diff(self.times) > 0.0).all()):
            raise InputError("time steps: there must be at least two times, and they must increase")

    @staticmethod
    def graded(changes: Sequence[float], readings: ArrayLike, per_decade: int = 12) -> TimeSteps:
        """Steps from changes[0] to past the last reading; times in days.

        After each change the time since takes `per_decade` steps to grow tenfold. The moments are powers of ten, which
        depend on readings only in how far they go: cut into several tests, readings get the same answer.
        """
        readings = at_changes(np.asarray(readings, float), changes)
        last = readings.max(initial=-np.inf)
        begun = [t for t in changes if t < last]
        if not begun or readings.min() < begun[0]:
            raise InputError("time steps: there must be readings, and none before the first change")
        times, starts = [np.array([begun[0]])], []
        for start, end in zip(begun, [*changes[1:], np.inf]):
            starts.append(sum(map(len, times)) - 1)
            inside = readings[(readings > start) & (readings <= end)] - start
            since = _since(end - start, inside, per_decade)
            # Cubic interpolation at the last reading takes the two moments that follow it.
            times.append(start + (since if end <= last else since[: np.searchsorted(since, last - start) + 2]))
        return TimeSteps(np.concatenate(times), tuple(starts))

    def stage_lengths(self, diagonal: float, nodes: Array) -> Array:
        """tau (N, stages) of the backward Euler steps that a Runge-Kutta scheme is made of.

        In time t a stage has tau = diagonal * dt. In s = ln t the equation dh/dt = f is dh/ds = t f, and a stage at
        time t has tau = diagonal * t ds.
        """
        lengths = np.diff(self.times)
        tau = diagonal * np.repeat(lengths[:, None], len(nodes), 1)
        for start, end in zip(self.changes, [*self.changes[1:], len(lengths)]):
            since = self.times[start + 1 : end + 1] - self.times[start]
            growth = np.log(since[1:] / since[:-1])[:, None]
            tau[start + 1 : end] = diagonal * growth * since[:-1, None] * np.exp(growth * nodes)
        return tau

    def stage_times(self, nodes: Array) -> Array:
        """The times (N, 1 + stages) of each step's start and of its stages, in the logarithm where the steps are."""
        lengths = np.diff(self.times)
        times = self.times[:-1, None] + lengths[:, None] * np.append(0.0, nodes)
        for start, end in zip(self.changes, [*self.changes[1:], len(lengths)]):
            since = self.times[start + 1 : end + 1] - self.times[start]
            growth = np.log(since[1:] / since[:-1])[:, None]
            times[start + 1 : end] = self.times[start] + since[:-1, None] * np.exp(growth * np.append(0.0, nodes))
        return times

    def interpolation(self, readings: ArrayLike) -> Tensor:
        """The matrix (len(readings), N+1) that takes values at `times` to the readings.

        Cubic in the logarithm of the time since the last change, where the steps are equal.
        """
        readings = at_changes(np.asarray(readings, float), self.times[list(self.changes)])
        matrix = np.zeros((len(readings), len(self.times)))
        ends = [*self.changes[1:], len(self.times) - 1]
        for row, t in zip(matrix, readings):
            period = int(np.searchsorted(self.times[list(self.changes)], t, side="left")) - 1
            if period < 0:
                row[0] = 1.0
                continue
            start, end = self.changes[period], ends[period]
            x = np.log(self.times[start + 1 : end + 1] - self.times[start])
            first = int(np.clip(np.searchsorted(x, np.log(t - self.times[start])) - 2, 0, max(len(x) - 4, 0)))
            nodes = x[first : first + 4]
            row[start + 1 + first : start + 1 + first + len(nodes)] = _lagrange(nodes, np.log(t - self.times[start]))
        return torch.from_numpy(matrix)


def at_changes(readings: Array, changes: ArrayLike) -> Array:
    """The readings, those that are at a change but for rounding at that change."""
    moments = np.atleast_1d(np.asarray(changes, float))
    if not len(moments):
        return readings
    nearest = moments[np.abs(readings[:, None] - moments).argmin(1)]
    return np.where(np.abs(readings - nearest) <= SAME * np.abs(nearest), nearest, readings)


def _since(length: float, readings: Array, per_decade: int) -> Array:
    """The moments of a period, from its start: powers of ten, and its end, or two moments after its last reading."""
    first = min(EARLIEST, 10.0 ** np.floor(np.log10(readings.min()) - 1.0)) if readings.size else UNREAD * length
    first = round(per_decade * np.log10(min(first, 0.1 * length)))
    until = length if np.isfinite(length) else readings.max() * 10.0 ** (3.0 / per_decade)
    powers = 10.0 ** (np.arange(first, np.ceil(per_decade * np.log10(until))) / per_decade)
    return np.append(powers[powers < until * 10.0 ** (-0.5 / per_decade)], until)


def _lagrange(nodes: Array, x: float) -> Array:
    """The weights at the nodes of the interpolating polynomial at x."""
    return np.array([np.prod([(x - b) / (a - b) for j, b in enumerate(nodes) if j != i]) for i, a in enumerate(nodes)])
