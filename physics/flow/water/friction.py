"""Head losses of pipes [m] as functions of their flow q [m3/s]; lengths and diameters in m.

The empirical coefficients are EPANET's (Rossman et al. 2020, EPANET 2.2 user manual, table 3.1), which are in feet.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from physics.flow.water.arrays import Array, functions_of

FOOT = 0.3048
GRAVITY = 32.2 * FOOT

LAMINAR, TURBULENT = 2000.0, 4000.0
"""Reynolds numbers between which Dunlop's cubic polynomial joins laminar and turbulent friction."""


class PipeLoss(ABC):
    """The head lost in given pipes, odd in their flows."""

    @abstractmethod
    def loss(self, flow: Array) -> Array:
        """The head (...) [m] lost from a pipe's first node to its second at flows (...) [m3/s]."""

    @abstractmethod
    def slope(self, flow: Array) -> Array:
        """d loss / d flow (...) [s/m2]."""


@dataclass(frozen=True, eq=False)
class PowerLoss(PipeLoss):
    """loss = resistance q |q|^(exponent - 1)."""

    resistance: Array
    exponent: float

    def loss(self, flow: Array) -> Array:
        size = abs(flow).clip(min=1e-30)  # the derivative at rest is 0 and not a number
        return self.resistance * size ** (self.exponent - 1.0) * flow

    def slope(self, flow: Array) -> Array:
        return self.exponent * self.resistance * abs(flow) ** (self.exponent - 1.0)


class Friction(ABC):
    """A formula for straight pipes. units, log: of the roughness that it knows."""

    name: str
    units: str

    @abstractmethod
    def at(self, length: Array, diameter: Array, roughness: Array) -> PipeLoss:
        """The losses of pipes (...) [m]; what does not depend on their flow is worked out here."""


class HazenWilliams(Friction):
    """loss = 10.67 L q^1.852 / (C^1.852 D^4.871); roughness: the coefficient C."""

    name, units = "H-W", ""

    def at(self, length: Array, diameter: Array, roughness: Array) -> PipeLoss:
        unit = 4.727 * FOOT ** (4.871 - 3 * 1.852)
        return PowerLoss(unit * length / (roughness**1.852 * diameter**4.871), 1.852)


class ChezyManning(Friction):
    """loss = 10.3 n^2 L q^2 / D^5.33; roughness: Manning's n in s/m^(1/3), written without units."""

    name, units = "C-M", ""

    def at(self, length: Array, diameter: Array, roughness: Array) -> PipeLoss:
        head = (4.0 * roughness / (1.49 * math.pi * diameter**2)) ** 2 * (diameter / 4.0) ** -1.333
        return PowerLoss(head * FOOT ** (1.333 - 2.0) * length, 2.0)


@dataclass(frozen=True)
class DarcyWeisbach(Friction):
    """loss = f L/D v^2 / 2g, f by Hagen and Poiseuille, Dunlop (1991) and Swamee and Jain (1976) as the Reynolds number grows.

    roughness [m]: the height of the wall's roughness. viscosity [m2/s].
    """

    viscosity: float = 1.1e-5 * FOOT**2
    name = "D-W"
    units = "m"

    def at(self, length: Array, diameter: Array, roughness: Array) -> PipeLoss:
        resistance = 8.0 * length / (GRAVITY * math.pi**2 * diameter**5)
        return ThreeRegimes(resistance, math.pi / 4.0 * diameter * self.viscosity, roughness / diameter)


@dataclass(frozen=True, eq=False)
class ThreeRegimes(PipeLoss):
    """loss = f resistance q |q|; viscous: the flow at a Reynolds number of one; relative: roughness over diameter."""

    resistance: Array
    viscous: Array
    relative: Array

    def loss(self, flow: Array) -> Array:
        reynolds = abs(flow) / self.viscous
        turbulent = self.resistance * self._factor(reynolds.clip(min=LAMINAR))[0] * abs(flow)
        # At rest the factor 64/Re is infinite, but the loss is linear in the flow.
        return functions_of(flow).where(reynolds < LAMINAR, self._laminar, turbulent) * flow

    def slope(self, flow: Array) -> Array:
        reynolds = abs(flow) / self.viscous
        factor, growth = self._factor(reynolds.clip(min=LAMINAR))
        turbulent = self.resistance * (2.0 * factor + growth) * abs(flow)
        return functions_of(flow).where(reynolds < LAMINAR, self._laminar, turbulent)

    @property
    def _laminar(self) -> Array:
        return 64.0 * self.viscous * self.resistance

    def _factor(self, reynolds: Array) -> tuple[Array, Array]:
        """f and Re df/dRe, beyond laminar flow."""
        where, relative = functions_of(reynolds).where, self.relative
        fully, growing = _swamee_jain(reynolds.clip(min=TURBULENT), relative)
        # Dunlop's polynomial meets value and slope of both neighbours.
        a, b = _swamee_jain(TURBULENT, relative)
        b = 2.0 * a + b
        x = reynolds / LAMINAR
        c, d, e = 0.128 - 17.0 * a + 2.5 * b, -0.128 + 13.0 * a - 2.0 * b, 0.032 - 3.0 * a + 0.5 * b
        cubic = 7.0 * a - b + x * (c + x * (d + x * e))
        between = reynolds < TURBULENT
        return where(between, cubic, fully), where(between, x * (c + x * (2.0 * d + x * 3.0 * e)), growing)


def _swamee_jain(reynolds: Array | float, relative: Array) -> tuple[Array, Array]:
    """f = 0.25 / log10(a)^2 with a = relative / 3.7 + 5.74 / Re^0.9, and Re df/dRe."""
    rough = 5.74 / reynolds**0.9
    a = relative / 3.7 + rough
    log = functions_of(a).log10(a)
    factor = 0.25 / log**2
    return factor, 1.8 / math.log(10.0) * factor * rough / (a * log)
