"""Metal units: eV, angstrom, atomic mass units; what they are in GPa, THz and SI."""

from __future__ import annotations

GPA = 160.21766208
"""1 eV/angstrom^3 in GPa."""

TERAHERTZ = 15.633302
"""sqrt(eV / (u angstrom^2)) / (2 pi) in THz."""

JOULE_PER_SQUARE_METRE = 16.021766208
"""1 eV/angstrom^2 in J/m^2."""

BOLTZMANN = 8.617333262e-5
"""eV/K."""

EV, ANGSTROM = 1.602176634e-19, 1e-10
"""In J and m."""
