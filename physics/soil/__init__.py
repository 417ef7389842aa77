"""Soils and rocks: their laws, laboratory element tests, footings and consolidation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilevel import lazy_names

if TYPE_CHECKING:
    from physics.constitutive.inelastic.cam_clay import CamClayConstantPoissonsRatio, CamClayConstantShearModulus
    from physics.constitutive.inelastic.drucker_prager import DruckerPrager
    from physics.constitutive.inelastic.hoek_brown import HoekBrown
    from physics.constitutive.inelastic.hypoplastic import Hypoplastic
    from physics.constitutive.inelastic.intergranular import HypoplasticIntergranular
    from physics.constitutive.inelastic.mohr_coulomb import MohrCoulomb
    from physics.soil.consolidation import Consolidation
    from physics.soil.control import Control, Quantity
    from physics.soil.element_test import ElementTest, IncrementSchedule, LoadStage, March, march
    from physics.soil.footing import bearing_capacity, footing_mesh
    from physics.soil.laboratory import LaboratoryTest, Procedure, Sign, Units, read_path, read_tests
    from physics.soil.sensitivity import sensitive_march

__all__, __getattr__, __dir__ = lazy_names(__name__)
