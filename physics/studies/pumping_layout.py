"""Keys of `pumping_test` that say where its wells are and when they are pumped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from bilevel.calibrate.model import ConfigError
from bilevel.calibrate.study.section import Section
from physics.flow.wells.layout import Boundary, ObservationPoint, PumpedWell
from physics.studies.on_mesh.quantities import Signal
from physics.studies.quantities import Days, Discharge, Length


class PumpingPeriod(Section):
    """From `start` on the well is pumped at `rate` (0 m3/d: it recovers)."""

    start: Days
    """since pumping began"""
    rate: Discharge
    """from then on"""


Schedule = Discharge | list[PumpingPeriod]


def schedule(given: float | list[PumpingPeriod]) -> tuple[tuple[float, float], ...]:
    """Pairs of start [d] and rate [m3/d]."""
    return ((0.0, given),) if isinstance(given, float) else tuple((p.start, p.rate) for p in given)


class ScreenSection(Section):
    """The part of a well that is open, in heights above the bottom of the aquifer."""

    bottom: Length = Field(ge=0)
    """of the screen"""
    top: Length = Field(ge=0)
    """of the screen; as high as the bottom for a piezometer's tip"""

    @model_validator(mode="after")
    def _upwards(self) -> ScreenSection:
        if self.top < self.bottom:
            raise ValueError("the top of a screen must not be below its bottom")
        return self

    @property
    def ends(self) -> tuple[float, float]:
        return self.bottom, self.top


class WellSection(Section):
    """A pumped well by its coordinates."""

    x: Length
    """coordinate"""
    y: Length
    """coordinate"""
    discharge: Schedule
    """pumped from the beginning on, or a list of periods; negative: injected"""
    radius: Length = Field(default=0.1, gt=0)
    """of the well"""
    screen: ScreenSection | None = None
    """where it takes water; left out: over the whole aquifer"""

    def well(self) -> PumpedWell:
        screen = self.screen.ends if self.screen else None
        return PumpedWell((self.x, self.y), schedule(self.discharge), self.radius, screen)


class ObservationWellSection(Section):
    """A well or piezometer that was read, by its distance from the pumped well or by coordinates."""

    distance: Length | None = Field(default=None, ge=0)
    """from the pumped well, which is at 0, 0; 0 m: the pumped well itself"""
    x: Length | None = None
    """coordinate"""
    y: Length | None = None
    """coordinate"""
    screen: ScreenSection | None = None
    """over which the drawdown is averaged; left out: the whole aquifer"""
    aquifer: Literal["pumped", "other"] = "pumped"
    """of two aquifers, the one that it stands in"""

    @model_validator(mode="after")
    def _placed(self) -> ObservationWellSection:
        if (self.distance is None) == (self.x is None) or (self.x is None) != (self.y is None):
            raise ValueError("expected a distance, or x and y")
        return self

    def point(self) -> ObservationPoint:
        position = (self.distance, 0.0) if self.distance is not None else (self.x or 0.0, self.y or 0.0)
        return ObservationPoint(position, self.screen.ends if self.screen else None, self.aquifer == "other")

    @property
    def radius(self) -> float:
        """The distance from 0, 0."""
        return math.hypot(*self.point().position)


def _by_distance(given: Any) -> Any:
    return given if isinstance(given, dict) else {"distance": given}


ObservationWell = Annotated[ObservationWellSection, BeforeValidator(_by_distance)]


class BoundarySection(Section):
    """A straight boundary of the aquifer, through a point along a direction."""

    x: Length
    """of a point on it"""
    y: Length
    """of a point on it"""
    along: tuple[float, float]
    """its direction, as two numbers"""
    kind: Literal["no_flow", "constant_head"]
    """a wall, or open water"""

    def boundary(self) -> Boundary:
        return Boundary((self.x, self.y), self.along, self.kind == "constant_head")


def held_at(config: Any, folder: Path) -> Signal | None:
    """What the one well is held at [m], over time [d]; ConfigError for keys that need a discharge."""
    given, key = (config.drawdown, "drawdown") if config.head is None else (config.head, "head")
    if given is None:
        return None
    unsuited = {
        "solution: closed_form": config.solution == "closed_form",
        "wellbore_storage": config.wellbore_storage,
        "boundaries": bool(config.boundaries),
        "aquifer: two_aquifers": config.aquifer == "two_aquifers",
    }
    for name in (name for name, is_given in unsuited.items() if is_given):
        raise ConfigError((key,), f"a well at a prescribed {key} does not go together with {name}")
    return Signal.read(given, "m", folder, (key,), "d")
