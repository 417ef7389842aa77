"""The section `time:` of a study, its steps, and values between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from bilevel.calibrate.model import ConfigError
from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.study.section import Section
from bilevel.report import InputError
from physics.flow.time_steps import TimeSteps
from physics.studies.on_mesh.quantities import quantity


class TimeSection(Section):
    """Time steps, equal or growing; they also end where a table jumps."""

    start: str = "0"
    """when the initial state holds"""
    end: str
    """of the last step"""
    steps: int | None = Field(default=None, ge=1, le=1_000_000)
    """equal steps from start to end"""
    first_step: str | None = None
    """of growing steps, at the start and after each jump"""
    growth: float = Field(default=1.2, ge=1, le=10)
    """of a step over the one before"""

    @model_validator(mode="after")
    def _one(self) -> TimeSection:
        if (self.steps is None) == (self.first_step is None):
            raise ValueError("give steps (their number) or first_step (the length of the first)")
        return self

    def times(self, units: str, jumps: Sequence[float]) -> TimeSteps:
        """The steps in the model's units of time; ConfigError for times that do not increase."""
        start = 0.0 if self.start in ("0", "0.0") else quantity(self.start, units, ("time", "start"))
        end = quantity(self.end, units, ("time", "end"))
        if not end > start:
            raise ConfigError(
                ("time", "end"), f"the end, {end:g} {units}, must come after the start, {start:g} {units}"
            )
        inner = sorted({t for t in jumps if start < t < end})
        if self.steps is not None:
            equal = np.linspace(start, end, self.steps + 1)
            apart = 1e-9 * (end - start) / self.steps
            kept = [t for t in equal if not inner or np.abs(np.array(inner) - t).min() > apart]
            return TimeSteps(np.unique(np.concatenate((kept, inner))))
        first = quantity(str(self.first_step), units, ("time", "first_step"))
        if not 0 < first <= end - start:
            raise ConfigError(("time", "first_step"), f"it must be positive and at most {end - start:g} {units}")
        pieces = [np.array([start])]
        for begin, stop in zip([start, *inner], [*inner, end]):
            pieces.append(begin + _growing(stop - begin, first, self.growth))
        return TimeSteps(np.concatenate(pieces))


def reading_times(table: ObservationTable, steps: np.ndarray, units: str) -> np.ndarray:
    """The times of the rows; InputError for those outside the steps."""
    times = table.columns.get("time", table.value.new_full((len(table),), torch.nan)).numpy()
    first, last = steps[0], steps[-1]
    slack = 1e-9 * (last - first)
    for row in np.flatnonzero(~((times >= first - slack) & (times <= last + slack)))[:1]:
        at = f"is at time {times[row]:g} {units}".rstrip()
        said = "has no time; map the column time" if np.isnan(times[row]) else at
        raise InputError(f"{table.source_of(int(row))}: {said}, and the model runs from {first:g} to {last:g}")
    return np.clip(times, first, last)


def _growing(length: float, first: float, growth: float) -> np.ndarray:
    """The ends of growing steps that fill a length, the first at most as long as asked."""
    if first >= length:
        return np.array([length])
    count = np.log1p((growth - 1) * length / first) / np.log(growth) if growth > 1 else length / first
    widths = growth ** np.arange(int(np.ceil(count)))
    ends = np.cumsum(widths)
    ends *= length / ends[-1]
    ends[-1] = length  # exactly, for the next piece begins there
    return np.asarray(ends)


@dataclass(frozen=True)
class InTime:
    """Values at readings from those at step ends: cubic polynomials through four of them, which no jump comes between.

    rows (readings, 4): the places; weights (readings, 4).
    """

    rows: Tensor
    weights: Tensor

    @staticmethod
    def of(times: np.ndarray, jumps: Sequence[float], readings: np.ndarray) -> InTime:
        """For readings within the times (steps + 1,)."""
        edges = [
            0,
            *np.searchsorted(times, [t for t in sorted(set(jumps)) if times[0] < t < times[-1]]),
            len(times) - 1,
        ]
        rows, weights = np.zeros((len(readings), 4), dtype=np.int64), np.zeros((len(readings), 4))
        for k, t in enumerate(readings):
            piece = int(np.clip(np.searchsorted(times[edges], t, side="left") - 1, 0, len(edges) - 2))
            low, high = edges[piece], edges[piece + 1]
            count = min(4, high - low + 1)
            first = int(np.clip(np.searchsorted(times, t) - 2, low, high - count + 1))
            rows[k, :count] = np.arange(first, first + count)
            weights[k, :count] = _lagrange(times[first : first + count], t)
        return InTime(torch.from_numpy(rows), torch.from_numpy(weights))

    def __call__(self, values: Tensor, columns: Tensor) -> Tensor:
        """Values (readings,) of columns (readings,) of what was found at all times (steps + 1, columns)."""
        return (values[self.rows, columns.unsqueeze(1)] * self.weights).sum(1)


def _lagrange(nodes: np.ndarray, x: float) -> np.ndarray:
    return np.array([np.prod([(x - b) / (a - b) for j, b in enumerate(nodes) if j != i]) for i, a in enumerate(nodes)])
