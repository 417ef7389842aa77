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
    def graded(changes: Sequence[float], readings: ArrayLike, per_decade: int = 10) -> TimeSteps:
        """Steps from changes[0] to the last reading.

        After each change the first step is a tenth of the time to the first reading that follows, and the time since
        the change then takes `per_decade` steps to grow tenfold.
        """
        readings = np.asarray(readings, float)
        begun = [t for t in changes if t < readings.max(initial=-np.inf)]
        if readings.size == 0 or not begun or readings.min() < begun[0]:
            raise InputError("time steps: there must be readings, and none before the first change")
        times, starts = [np.array([begun[0]])], []
        for start, end in zip(begun, [*begun[1:], float(readings.max())]):
            starts.append(sum(map(len, times)) - 1)
            after = readings[readings > start]
            first = min(0.1 * (after.min() - start), 0.5 * (end - start))
            count = int(np.ceil(per_decade * np.log10((end - start) / first)))
            times.append(start + np.append(np.geomspace(first, end - start, count + 1)[:-1], end - start))
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
        readings = np.asarray(readings, float)
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


def _lagrange(nodes: Array, x: float) -> Array:
    """The weights at the nodes of the interpolating polynomial at x."""
    return np.array([np.prod([(x - b) / (a - b) for j, b in enumerate(nodes) if j != i]) for i, a in enumerate(nodes)])
