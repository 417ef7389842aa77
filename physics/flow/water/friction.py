"""Head losses of pipes [m] as functions of their flow q [m3/s]; lengths and diameters in m.

The empirical coefficients are EPANET's (Rossman et al. 2020, EPANET 2.2 user manual, table 3.1), which are in feet.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

FOOT = 0.3048
GRAVITY = 32.2 * FOOT

LAMINAR, TURBULENT = 2000.0, 4000.0
"""Reynolds numbers between which Dunlop's cubic polynomial joins laminar and turbulent friction."""


class PipeLoss(ABC):
    """The head lost in given pipes, odd in their flows."""

    @abstractmethod
    def loss(self, flow: Tensor) -> Tensor:
        """The head (...) [m] lost from a pipe's first node to its second at flows (...) [m3/s]."""

    def slope(self, flow: Tensor) -> Tensor:
        """d loss / d flow (...) [s/m2], as a number."""
        return torch.func.grad(lambda q: self.loss(q).sum())(flow)


@dataclass(frozen=True, eq=False)
class PowerLoss(PipeLoss):
    """loss = resistance q |q|^(exponent - 1)."""

    resistance: Tensor
    exponent: float

    def loss(self, flow: Tensor) -> Tensor:
        size = flow.abs().clamp(min=1e-30)  # the derivative at rest is 0 and not a number
        return self.resistance * size ** (self.exponent - 1.0) * flow

    def slope(self, flow: Tensor) -> Tensor:
        return self.exponent * self.resistance * flow.abs() ** (self.exponent - 1.0)


class Friction(ABC):
    """A formula for straight pipes. units, log: of the roughness that it knows."""

    name: str
    units: str

    @abstractmethod
    def at(self, length: Tensor, diameter: Tensor, roughness: Tensor) -> PipeLoss:
        """The losses of pipes (...) [m]; what does not depend on their flow is worked out here."""


class HazenWilliams(Friction):
    """loss = 10.67 L q^1.852 / (C^1.852 D^4.871); roughness: the coefficient C."""

    name, units = "H-W", ""

    def at(self, length: Tensor, diameter: Tensor, roughness: Tensor) -> PipeLoss:
        unit = 4.727 * FOOT ** (4.871 - 3 * 1.852)
        return PowerLoss(unit * length / (roughness**1.852 * diameter**4.871), 1.852)


class ChezyManning(Friction):
    """loss = 10.3 n^2 L q^2 / D^5.33; roughness: Manning's n in s/m^(1/3), written without units."""

    name, units = "C-M", ""

    def at(self, length: Tensor, diameter: Tensor, roughness: Tensor) -> PipeLoss:
        head = (4.0 * roughness / (1.49 * math.pi * diameter**2)).square() * (diameter / 4.0) ** -1.333
        return PowerLoss(head * FOOT ** (1.333 - 2.0) * length, 2.0)


@dataclass(frozen=True)
class DarcyWeisbach(Friction):
    """loss = f L/D v^2 / 2g, f by Hagen and Poiseuille, Dunlop (1991) and Swamee and Jain (1976) as the Reynolds number grows.

    roughness [m]: the height of the wall's roughness. viscosity [m2/s].
    """

    viscosity: float = 1.1e-5 * FOOT**2
    name = "D-W"
    units = "m"

    def at(self, length: Tensor, diameter: Tensor, roughness: Tensor) -> PipeLoss:
        resistance = 8.0 * length / (GRAVITY * math.pi**2 * diameter**5)
        return ThreeRegimes(resistance, math.pi / 4.0 * diameter * self.viscosity, roughness / diameter)


@dataclass(frozen=True, eq=False)
class ThreeRegimes(PipeLoss):
    """loss = f resistance q |q|; viscous: the flow at a Reynolds number of one; relative: roughness over diameter."""

    resistance: Tensor
    viscous: Tensor
    relative: Tensor

    def loss(self, flow: Tensor) -> Tensor:
        reynolds = flow.abs() / self.viscous
        turbulent = self.resistance * self._factor(reynolds.clamp(min=LAMINAR)) * flow.abs()
        # At rest the factor 64/Re is infinite, but the loss is linear in the flow.
        return torch.where(reynolds < LAMINAR, 64.0 * self.viscous * self.resistance, turbulent) * flow

    def _factor(self, reynolds: Tensor) -> Tensor:
        relative = self.relative
        fully = _swamee_jain(reynolds.clamp(min=TURBULENT), relative)
        # Dunlop's polynomial meets value and slope of both neighbours.
        end = relative / 3.7 + 5.74 / TURBULENT**0.9
        at_end = _swamee_jain(torch.full_like(reynolds, TURBULENT), relative)
        steepness = (2.0 - 0.00514215 / (-0.86859 * end * end.log())) * at_end
        x = reynolds / LAMINAR
        a, b = at_end, steepness
        cubic = (
            7.0 * a
            - b
            + x * (0.128 - 17.0 * a + 2.5 * b + x * (-0.128 + 13.0 * a - 2.0 * b + x * (0.032 - 3.0 * a + 0.5 * b)))
        )
        return torch.where(reynolds < TURBULENT, cubic, fully)


def _swamee_jain(reynolds: Tensor, relative: Tensor) -> Tensor:
    return 0.25 / torch.log10(relative / 3.7 + 5.74 / reynolds**0.9).square()
