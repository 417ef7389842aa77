"""Constitutive laws, and what a law of your own is written with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilevel import lazy_names

if TYPE_CHECKING:
    from physics.constitutive.elastic.hyperelastic import Hyperelastic, Isochoric, OfInvariants
    from physics.constitutive.elastic.law import ElasticLaw, SplitElasticLaw
    from physics.constitutive.inelastic.hardening import Hardening
    from physics.constitutive.inelastic.law import InelasticLaw, ReturnMapping, StateVariable, update
    from physics.constitutive.kinematics import Kinematics, Strain
    from physics.constitutive.lame import LameParameters
    from physics.constitutive.powers import power_trace
    from physics.constitutive.registry import find_law, laws, make_law
    from physics.discretisation.matrices import cofactor, determinant, inverse
    from physics.local.parameters import LawParameter, LawParameters

__all__, __getattr__, __dir__ = lazy_names(__name__)
