"""Solids: elastic and hyperelastic bodies on meshes, homogeneous deformations, small-strain plasticity."""

from physics.solids.extended_tube import ExtendedTube
from physics.solids.homogeneous import HomogeneousDeformation, Loading, Mode, incompressible_stress
from physics.solids.j2 import J2Plasticity, LinearHardening, Swift, Voce
from physics.solids.kinematics import Kinematics
from physics.solids.lame import LameParameters
from physics.solids.linear_elastic import LinearElastic
from physics.solids.mean_dilatation import MeanDilatation
from physics.solids.mooney_rivlin import MooneyRivlin
from physics.solids.neo_hookean import NeoHookean
from physics.solids.ogden import Ogden
from physics.solids.solid import BodyForce, NodalForce, Solid, Traction
from physics.solids.yeoh import Yeoh

__all__ = [
    "BodyForce",
    "ExtendedTube",
    "HomogeneousDeformation",
    "J2Plasticity",
    "Kinematics",
    "LameParameters",
    "LinearElastic",
    "LinearHardening",
    "Loading",
    "MeanDilatation",
    "Mode",
    "MooneyRivlin",
    "NeoHookean",
    "NodalForce",
    "Ogden",
    "Solid",
    "Swift",
    "Traction",
    "Voce",
    "Yeoh",
    "incompressible_stress",
]
