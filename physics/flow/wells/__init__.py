"""Drawdown around wells in closed form: Laplace transforms, inverted numerically and differentiable in all parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilevel import lazy_names

if TYPE_CHECKING:
    from physics.flow.wells.closed_form import ClosedForm
    from physics.flow.wells.layout import Boundary, ObservationPoint, PumpedWell

__all__, __getattr__, __dir__ = lazy_names(__name__)
