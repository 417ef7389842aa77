"""What every constitutive law is: named parameters, declared once, with units and physical bounds.

An elastic law is an energy density of a strain (`elastic`), an inelastic one a residual of the new state (`inelastic`), a
flow law an energy of a gradient or of the drop along an edge (`flow`). Each is one class in one file. Bodies, element
tests, studies and learned guesses take any of them; the entry point `bilevel.laws` makes it known by name.
"""

from __future__ import annotations

from abc import ABC

from bilevel.problem import Params
from physics.local.parameters import LawParameters


class Law(ABC):
    """A constitutive law; `parameters` says what it needs, in which units and within which bounds."""

    parameters: LawParameters

    def require(self, params: Params, owner: str) -> None:
        """Raise InputError for parameters that are missing or not known; `owner` says whose they are."""
        self.parameters.require(params, owner)

    def check(self, params: Params) -> None:
        """Raise InputError, naming the parameter, if one is missing, not finite or outside its physical bounds."""
        self.parameters.check(params, type(self).__name__)
