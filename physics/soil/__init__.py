"""Soils and rocks: constitutive models, laboratory element tests, footings and consolidation."""

from physics.constitutive.inelastic.cam_clay import CamClayConstantPoissonRatio, CamClayConstantShearModulus
from physics.constitutive.inelastic.drucker_prager import DruckerPrager
from physics.constitutive.inelastic.hoek_brown import HoekBrown
from physics.constitutive.inelastic.hypoplastic import Hypoplastic
from physics.constitutive.inelastic.intergranular import HypoplasticIntergranular
from physics.constitutive.inelastic.mohr_coulomb import MohrCoulomb
from physics.soil.consolidation import Consolidation
from physics.soil.element_test import ElementTest, Stage, march
from physics.soil.laboratory import LaboratoryTest, Procedure, Sign, Units, read_path, read_tests
from physics.soil.sensitivity import sensitive_march
from physics.solids.boundary_value import BoundaryValue

__all__ = [
    "BoundaryValue",
    "CamClayConstantPoissonRatio",
    "CamClayConstantShearModulus",
    "Consolidation",
    "DruckerPrager",
    "ElementTest",
    "HoekBrown",
    "Hypoplastic",
    "HypoplasticIntergranular",
    "LaboratoryTest",
    "MohrCoulomb",
    "Procedure",
    "Sign",
    "Stage",
    "Units",
    "march",
    "read_path",
    "read_tests",
    "sensitive_march",
]
