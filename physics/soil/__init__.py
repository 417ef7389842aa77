"""Soils and rocks: constitutive models, laboratory element tests, footings and consolidation."""

from physics.soil.boundary_value import BoundaryValue
from physics.soil.cam_clay import CamClayConstantPoissonRatio, CamClayConstantShearModulus
from physics.soil.consolidation import Consolidation
from physics.soil.drucker_prager import DruckerPrager
from physics.soil.element_test import ElementTest, Stage, march
from physics.soil.hoek_brown import HoekBrown
from physics.soil.hypoplastic import Hypoplastic
from physics.soil.intergranular import HypoplasticIntergranular
from physics.soil.laboratory import LaboratoryTest, Procedure, Sign, Units, read_path, read_tests
from physics.soil.mohr_coulomb import MohrCoulomb
from physics.soil.sensitivity import sensitive_march

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
