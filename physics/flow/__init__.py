"""Flow: pumping tests, Darcy flow and heat on meshes, pipe and pore networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilevel import lazy_names

if TYPE_CHECKING:
    from physics.constitutive.flow.field_dependent import FieldDependentConduction, QuadraticConductivity
    from physics.constitutive.flow.forchheimer import Forchheimer
    from physics.constitutive.flow.law import FlowLaw
    from physics.constitutive.flow.linear import Linear
    from physics.constitutive.flow.power_law import PowerLaw
    from physics.flow.darcy import DarcyFlow, Diffusion, HeatConduction
    from physics.flow.network import FlowNetwork
    from physics.flow.nonlinear_diffusion import NonlinearDiffusion
    from physics.flow.p_laplacian import PLaplacian
    from physics.flow.pumping import Drawdown, PumpingTest
    from physics.flow.radial import RadialFlow, RadialGrid
    from physics.flow.time_stepping import march
    from physics.flow.time_steps import TimeSteps
    from physics.flow.well_functions import hantush, theis

__all__, __getattr__, __dir__ = lazy_names(__name__)
