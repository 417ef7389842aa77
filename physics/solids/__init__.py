"""Solids: elastic and hyperelastic bodies on meshes, homogeneous deformations, small-strain plasticity."""

from physics.constitutive.elastic.extended_tube import ExtendedTube
from physics.constitutive.elastic.linear_elastic import LinearElastic
from physics.constitutive.elastic.mooney_rivlin import MooneyRivlin
from physics.constitutive.elastic.neo_hookean import NeoHookean
from physics.constitutive.elastic.ogden import Ogden
from physics.constitutive.elastic.yeoh import Yeoh
from physics.constitutive.inelastic.j2 import J2Plasticity, LinearHardening, Swift, Voce
from physics.constitutive.kinematics import Kinematics
from physics.constitutive.lame import LameParameters
from physics.solids.homogeneous import HomogeneousDeformation, Loading, Mode, incompressible_stress
from physics.solids.mean_dilatation import MeanDilatation
from physics.solids.solid import BodyForce, NodalForce, Solid, Traction

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
