"""Solids: elastic and inelastic bodies on meshes, through histories of loads; homogeneous deformations; their laws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilevel import lazy_names

if TYPE_CHECKING:
    from physics.constitutive.elastic.extended_tube import ExtendedTube
    from physics.constitutive.elastic.linear_elastic import LinearElastic
    from physics.constitutive.elastic.mooney_rivlin import MooneyRivlin
    from physics.constitutive.elastic.neo_hookean import NeoHookean
    from physics.constitutive.elastic.ogden import Ogden
    from physics.constitutive.elastic.yeoh import Yeoh
    from physics.constitutive.inelastic.hardening import LinearHardening, Swift, Voce
    from physics.constitutive.inelastic.j2 import J2Plasticity
    from physics.constitutive.kinematics import Kinematics, Strain
    from physics.constitutive.lame import LameParameters
    from physics.solids.history import LoadHistory, load_history
    from physics.solids.homogeneous import HomogeneousDeformation, Loading, Mode, incompressible_stress
    from physics.solids.loads import BodyForce, NodalForce, Traction
    from physics.solids.solid import ElasticSolid, InelasticSolid, Solid

__all__, __getattr__, __dir__ = lazy_names(__name__)
