"""What a study knows of the parameters of a law: all that the law declares."""

from __future__ import annotations

import math
from collections.abc import Iterable

from bilevel.calibrate.model import ParameterDefault
from physics.local.parameters import LawParameter


def parameter_defaults(parameters: Iterable[LawParameter]) -> dict[str, ParameterDefault]:
    """Units, bounds, transform, default and description by name; logarithms are taken of positive values only."""
    return {p.name: _default(p) for p in parameters}


def _default(p: LawParameter) -> ParameterDefault:
    lower = max(p.lower, 0.0) if p.logarithmic else p.lower
    return ParameterDefault(
        units=p.units,
        value=p.default,
        lower=lower if math.isfinite(lower) else None,
        upper=p.upper if math.isfinite(p.upper) else None,
        transform="log" if p.logarithmic else "none",
        description=p.description,
    )
