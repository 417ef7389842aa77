"""Crystals and molecules: interatomic potentials, relaxation with exact gradients, and properties at rest.

Energies in eV, lengths in angstrom, moduli in GPa, Voigt order xx yy zz yz xz xy.
"""

from typing import TYPE_CHECKING

from bilevel import lazy_names

if TYPE_CHECKING:
    from physics.atoms.bonds import Bonds
    from physics.atoms.eam import CaiYe, FinnisSinclair
    from physics.atoms.formats.setfl import Setfl, read_setfl, write_setfl
    from physics.atoms.formats.tabulate import tabulate
    from physics.atoms.pair import Buckingham, LennardJones, Morse, UserPair
    from physics.atoms.potential import PairFunctional, Potential, SiteEnergy
    from physics.atoms.properties.defects import (
        stacking_fault_energy,
        supercell,
        surface_energy,
        vacancy_energy,
        without,
    )
    from physics.atoms.properties.elastic import ElasticTensor, elastic_tensor
    from physics.atoms.properties.equation_of_state import EquationOfState, equation_of_state
    from physics.atoms.properties.phonons import phonon_frequencies
    from physics.atoms.relaxation import Relaxed, energy_and_forces, relax
    from physics.atoms.stillinger_weber import StillingerWeber
    from physics.atoms.structures import Structures
    from physics.atoms.tabulated import SplineEAM, TabulatedEAM
    from physics.atoms.tersoff import Tersoff
    from physics.atoms.user_energy import AnyEnergy, UserSite

__all__, __getattr__, __dir__ = lazy_names(__name__)
