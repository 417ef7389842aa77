"""Laws of flow along edges and on meshes: heads, temperatures and other scalar fields driven by their drops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilevel import lazy_names

if TYPE_CHECKING:
    from physics.constitutive.flow.field_dependent import FieldDependentConduction, QuadraticConductivity
    from physics.constitutive.flow.forchheimer import Forchheimer
    from physics.constitutive.flow.law import FlowLaw
    from physics.constitutive.flow.linear import Linear
    from physics.constitutive.flow.power_law import PowerLaw

__all__, __getattr__, __dir__ = lazy_names(__name__)
