"""Units of EPANET's input files, and the ways in which they write times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from physics.flow.water.friction import FOOT
from physics.flow.water.sections import Line

GALLON, DAY, PSI = 231 * 0.0254**3, 86400.0, 0.4333 / FOOT
FLOW_UNITS = {
    "CFS": FOOT**3, "GPM": GALLON / 60.0, "MGD": 1e6 * GALLON / DAY, "IMGD": 1e6 * 4.54609e-3 / DAY,
    "AFD": 43560.0 * FOOT**3 / DAY, "LPS": 1e-3, "LPM": 1e-3 / 60.0, "MLD": 1e3 / DAY, "CMH": 1.0 / 3600.0,
    "CMD": 1.0 / DAY, "CMS": 1.0,
}  # fmt: skip
"""In m3/s."""
US_UNITS = ("CFS", "GPM", "MGD", "IMGD", "AFD")
HORSEPOWER, KILOWATT = 8.814 * FOOT**4 / 1.0, 8.814 * FOOT**4 / 0.7457
"""Lift times flow, m4/s, of a pump of so much power; EPANET's number."""
WATER_VISCOSITY = 1.1e-5 * FOOT**2


@dataclass(frozen=True)
class FileUnits:
    """What the file's numbers are multiplied by."""

    flow: float
    length: float
    diameter: float
    roughness: float
    pressure: float
    power: float
    viscosity: float


def seconds(line: Line, words: Sequence[str]) -> float:
    """A duration as EPANET writes it: 1:30, 1:30:15, 1.5 (hours), or a number and its unit."""
    if not words:
        raise line.error("a time is missing")
    first, *rest = words
    if ":" in first:
        parts = [line.number_of(part, "a time") for part in first.split(":")]
        return sum(part * size for part, size in zip(parts, (3600.0, 60.0, 1.0)))
    unit = rest[0].upper() if rest else "HOURS"
    sizes = {"SEC": 1.0, "MIN": 60.0, "HOU": 3600.0, "DAY": DAY}
    size = sizes.get(unit[:3])
    if size is None or not math.isfinite(value := line.number_of(first, "a time")):
        raise line.error(f"expected a time such as 1:30 or 90 MIN, got '{' '.join(words)}'")
    return value * size
