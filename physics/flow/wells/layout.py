"""Where wells are: coordinates, screens, schedules, and straight boundaries with their image wells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from bilevel.report import InputError

Point = tuple[float, float]
Screen = tuple[float, float]
"""From where to where, as heights above the bottom of the aquifer [m]."""


@dataclass(frozen=True)
class PumpedWell:
    """position, radius [m]; discharge: pairs (start [d], rate [m3/d]) in order; screen: the whole aquifer if None."""

    position: Point
    discharge: tuple[tuple[float, float], ...]
    radius: float = 0.1
    screen: Screen | None = None

    def __post_init__(self) -> None:
        starts = [start for start, _ in self.discharge]
        if not starts or any(a >= b for a, b in pairwise(starts)):
            raise InputError("a pumped well needs at least one rate, and the starts of its rates must increase")
        if self.radius <= 0.0:
            raise InputError(f"the radius of a well must be positive, got {self.radius:g} m")


@dataclass(frozen=True)
class ObservationPoint:
    """position [m]; screen: over which the drawdown is averaged, a piezometer has equal ends; None: the whole aquifer.

    other: whether it stands in the aquifer beyond the aquitard.
    """

    position: Point
    screen: Screen | None = None
    other: bool = False


@dataclass(frozen=True)
class Boundary:
    """A straight boundary through a point along a direction. fixed_head: nothing is drawn down on it, else nothing flows over it."""

    through: Point
    along: Point
    fixed_head: bool

    def mirrored(self, point: Point) -> Point:
        length = math.hypot(*self.along)
        if length == 0.0:
            raise InputError("the direction of a boundary must not be zero")
        normal = (-self.along[1] / length, self.along[0] / length)
        away = sum(n * (a - b) for n, a, b in zip(normal, point, self.through))
        return point[0] - 2.0 * away * normal[0], point[1] - 2.0 * away * normal[1]


def with_images(wells: Sequence[PumpedWell], boundaries: Sequence[Boundary]) -> list[PumpedWell]:
    """The wells and their images in straight boundaries, which must be perpendicular to each other.

    Source: Ferris et al. 1962, USGS Water-Supply Paper 1536-E. Raises InputError for other pairs of boundaries: they have
    images without end, or none.
    """
    for a, b in ((a, b) for k, a in enumerate(boundaries) for b in boundaries[:k]):
        cosine = (a.along[0] * b.along[0] + a.along[1] * b.along[1]) / (math.hypot(*a.along) * math.hypot(*b.along))
        if abs(cosine) > 1e-9 or len(boundaries) > 2:
            raise InputError("boundaries: one, or two that are perpendicular, have images; use a mesh for others")
    found = list(wells)
    for boundary in boundaries:
        sign = -1.0 if boundary.fixed_head else 1.0
        found += [
            replace(
                well,
                position=boundary.mirrored(well.position),
                discharge=tuple((start, sign * rate) for start, rate in well.discharge),
            )
            for well in found
        ]
    return found
