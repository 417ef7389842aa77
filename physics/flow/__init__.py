"""Flow: pumping tests, Darcy flow and heat on meshes, pipe and pore networks."""

from physics.constitutive.flow.edge_laws import Forchheimer, Linear, PowerLaw
from physics.flow.darcy import DarcyFlow, HeatConduction
from physics.flow.network import FlowNetwork
from physics.flow.p_laplacian import PLaplacian
from physics.flow.pumping import Drawdown, PumpingTest
from physics.flow.radial import RadialFlow, RadialGrid
from physics.flow.time_stepping import march
from physics.flow.time_steps import TimeSteps
from physics.flow.well_functions import hantush, theis

__all__ = [
    "DarcyFlow",
    "Drawdown",
    "FlowNetwork",
    "Forchheimer",
    "HeatConduction",
    "Linear",
    "PLaplacian",
    "PowerLaw",
    "PumpingTest",
    "RadialFlow",
    "RadialGrid",
    "TimeSteps",
    "hantush",
    "march",
    "theis",
]
