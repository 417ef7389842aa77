"""A well in one of two aquifers that an aquitard separates, as a Laplace transform in time.

In the aquitard, of resistance c and storativity S', the drawdown obeys d2s/dz2 = (S' c p) s / b'^2 at Laplace's p, so that with
y = S' c p the drawdowns s1, s2 of the aquifers obey
    (1/r) d/dr (r ds/dr) = A s,   A = ((S1 p + f / c) / T1, - g / c / T1; - g / c / T2, (S2 p + f / c) / T2),
f = sqrt(y) coth sqrt(y), g = sqrt(y) / sinh sqrt(y); by A's eigenvalues q^2, s = Q / (2 pi T1 p) K0(q r) of the matrix (Neuman and
Witherspoon 1969, Water Resour. Res. 5, 803, complete solution; Hantush 1967 without storage in the aquitard).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from physics.flow.wells.bessel import k0

SMALL, LARGE = 1e-3, 1e4
"""y below which f and g are taken from their series, and above which nothing reaches the other aquifer."""
APART = 1e-12
"""Eigenvalues that coincide are taken as this far apart, relative to their sum."""


@dataclass(frozen=True)
class TwoAquifers:
    """Parameters of the pumped aquifer (T [m2/d], S [-]), the other one, and the aquitard (c [d], S' [-])."""

    transmissivity: Tensor
    storativity: Tensor
    other_transmissivity: Tensor
    other_storativity: Tensor
    resistance: Tensor
    aquitard_storativity: Tensor

    @staticmethod
    def of(params: Mapping[str, Tensor], thickness: float) -> TwoAquifers:
        """From the parameters of a pumping test whose pumped aquifer has a thickness [m]."""
        zero = torch.zeros((), dtype=torch.float64)
        return TwoAquifers(
            params["hydraulic_conductivity"] * thickness,
            params["specific_storage"] * thickness,
            params["other_transmissivity"],
            params["other_storativity"],
            params["aquitard_resistance"],
            params.get("aquitard_storativity", zero),
        )

    def transform(self, p: Tensor, radius: Tensor, other: Tensor) -> Tensor:
        """Of the drawdown for a unit discharge, at p (parts, terms), radii (parts,) and whether in the other aquifer (parts,)."""
        own, across = _aquitard(self.aquitard_storativity * self.resistance * p)
        first = (self.storativity * p + own / self.resistance) / self.transmissivity
        last = (self.other_storativity * p + own / self.resistance) / self.other_transmissivity
        to_last = across / self.resistance / self.other_transmissivity
        product = to_last * across / self.resistance / self.transmissivity
        gap = ((first - last) ** 2 + 4.0 * product + (APART * (first + last)) ** 2).sqrt()
        high = 0.5 * (first + last + gap)
        low = (first * last - product) / high  # the difference of both would cancel where little has leaked
        above, below = k0(high.sqrt() * radius[:, None]), k0(low.sqrt() * radius[:, None])
        pumped = ((first - low) * above + (high - first) * below) / gap
        found = torch.where(other[:, None], to_last * (below - above) / gap, pumped)
        return found / (2.0 * math.pi * self.transmissivity * p)


def _aquitard(y: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(y) coth sqrt(y) and sqrt(y) / sinh sqrt(y), differentiable at 0 too."""
    near = y < SMALL
    root = torch.where(near, torch.ones_like(y), y).clamp(max=LARGE).sqrt()
    decay = (-2.0 * root).exp()
    far_root = torch.where(near, torch.ones_like(y), y).sqrt()
    own = far_root * (1.0 + decay) / (1.0 - decay)
    across = 2.0 * root * (-root).exp() / (1.0 - decay)
    return (
        torch.where(near, 1.0 + y / 3.0 - y**2 / 45.0 + 2.0 * y**3 / 945.0, own),
        torch.where(near, 1.0 - y / 6.0 + 7.0 * y**2 / 360.0 - 31.0 * y**3 / 15120.0, across),
    )
