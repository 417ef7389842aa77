"""Derivatives of a program by differences whose increments respect the noise of what it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from bilevel.report import BilevelError, InputError


class DifferenceScheme(Enum):
    """One run a parameter, two, or one until the parameters hardly move and then two."""

    FORWARD = "forward"
    CENTRAL = "central"
    SWITCHING = "switching"


CLOSE = 0.01
"""Parameters that moved by less than this share of themselves since the last Jacobian are near the end."""

Runs = Callable[[Sequence[np.ndarray]], "list[np.ndarray | BilevelError]"]


@dataclass
class Differences:
    """How to difference n outputs in p parameters.

    noise: of the outputs, relative to their size; the increment is where noise and curvature weigh alike, the square
    root of the noise for one-sided and the cube root for central differences (Gill et al. 1981, section 8.6).
    increment: relative, in place of that. increments: absolute ones by name. last: the point of the last Jacobian.
    """

    scheme: DifferenceScheme
    noise: float
    increment: float | None = None
    increments: Mapping[str, float] = field(default_factory=dict)
    last: np.ndarray | None = None

    def central(self, point: np.ndarray) -> bool:
        """Whether two runs a parameter are worth it here."""
        if self.scheme is not DifferenceScheme.SWITCHING:
            return self.scheme is DifferenceScheme.CENTRAL
        return self.last is not None and bool(np.all(np.abs(point - self.last) <= CLOSE * np.abs(point)))

    @property
    def error(self) -> float:
        """The relative error of a derivative, by orders of magnitude, at the end of a calibration."""
        one_sided = self.scheme is DifferenceScheme.FORWARD
        step = self.increment or self._best(not one_sided)
        return max(self.noise / step, step if one_sided else step**2)

    def __call__(
        self, names: Sequence[str], point: np.ndarray, wanted: Sequence[int], runs: Runs
    ) -> tuple[np.ndarray, np.ndarray]:
        """Outputs (n,) and their derivatives (n, p), zero but for the wanted parameters, all runs at once.

        A run that fails on one side is done without where the other succeeds. BilevelError where none does.
        """
        central = self.central(point)
        steps = {i: self.step(names[i], point[i], central) for i in wanted}
        moves = [(i, sign) for i in wanted for sign in ((1.0, -1.0) if central else (1.0,))]
        found = runs([point, *(_moved(point, i, sign * steps[i]) for i, sign in moves)])
        if isinstance(found[0], BilevelError):
            raise found[0]
        sides: dict[int, list[tuple[float, np.ndarray]]] = {i: [] for i in wanted}
        failed = []
        for (i, sign), outputs in zip(moves, found[1:]):
            if isinstance(outputs, BilevelError):
                failed.append((i, sign, outputs))
            else:
                sides[i].append((sign * steps[i], outputs))
        again = [(i, -sign, error) for i, sign, error in failed if not sides[i]]
        if again and not central:
            for (i, sign, error), outputs in zip(again, runs([_moved(point, i, s * steps[i]) for i, s, _ in again])):
                if isinstance(outputs, BilevelError):
                    raise error
                sides[i].append((sign * steps[i], outputs))
        jacobian = np.zeros((len(found[0]), len(point)))
        for i in wanted:
            if not sides[i]:
                raise failed[0][2]
            jacobian[:, i] = _slope(found[0], sides[i])
        self.last = point.copy()
        return found[0], jacobian

    def _best(self, central: bool) -> float:
        return self.noise ** (1 / 3) if central else self.noise**0.5

    def step(self, name: str, value: float, central: bool) -> float:
        """The increment of a parameter; InputError where nothing says how large it is."""
        if name in self.increments:
            return self.increments[name]
        if value == 0:
            raise InputError(
                f"parameter '{name}' is 0, which says nothing of its size; give its increment: increments: {{{name}: ...}}"
            )
        return (self.increment or self._best(central)) * abs(value)


def _moved(point: np.ndarray, entry: int, step: float) -> np.ndarray:
    moved = point.copy()
    moved[entry] += step
    return moved


def _slope(here: np.ndarray, sides: Sequence[tuple[float, np.ndarray]]) -> np.ndarray:
    if len(sides) == 1:
        ((step, there),) = sides
        return (there - here) / step
    (forward, above), (backward, below) = sides
    return (above - below) / (forward - backward)
