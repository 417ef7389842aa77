"""Pump curves as pieces lift = rest - decrement q^exponent, each from a flow on; lifts in m, flows in m3/s."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeAlias

from bilevel.report import InputError

Piece: TypeAlias = tuple[float, float, float, float]
"""From which flow on, rest, decrement, exponent."""


def power_pump(power: float) -> tuple[tuple[Piece, ...], float]:
    """A pump of constant power, given as lift times flow [m4/s]; and a typical flow, at a lift of 30 m."""
    if power <= 0.0:
        raise InputError("the power of a pump must be positive")
    return ((0.0, 0.0, -power, -1.0),), power / 30.0


def pump_curve(points: Sequence[tuple[float, float]]) -> tuple[tuple[Piece, ...], float]:
    """The curve through points (flow, lift), and a typical flow.

    One point is the design point of a parabola from 4/3 of its lift; three of which the first is at rest make a power law;
    others are joined by straight lines. Source: EPANET 2.2 user manual, section 3.1. Raises InputError for curves that rise.
    """
    if len(points) == 1:
        flow, lift = points[0]
        return _power_law([(0.0, 4.0 * lift / 3.0), (flow, lift), (2.0 * flow, 0.0)])
    if any(a[0] >= b[0] or a[1] <= b[1] for a, b in pairwise(points)) or points[0][0] < 0.0:
        raise InputError("flows of a pump curve must increase and lifts decrease from point to point")
    if len(points) == 3 and points[0][0] == 0.0:
        return _power_law(points)
    pieces = []
    for (flow, lift), (following, lower) in pairwise(points):
        slope = (lift - lower) / (following - flow)
        pieces.append((flow, lift + slope * flow, slope, 1.0))
    pieces[0] = (0.0, *pieces[0][1:])  # the first line holds back to rest
    return tuple(pieces), points[-1][0] / 2.0


def _power_law(points: Sequence[tuple[float, float]]) -> tuple[tuple[Piece, ...], float]:
    (_, rest), (flow, lift), (far, least) = points
    if flow <= 0.0 or lift <= 0.0:
        raise InputError("the point of a pump curve must have a positive flow and lift")
    exponent = math.log((rest - least) / (rest - lift)) / math.log(far / flow)
    if not 0.0 < exponent <= 20.0:
        raise InputError("no power law goes through the three points of the pump curve")
    return ((0.0, rest, (rest - lift) / flow**exponent, exponent),), flow
