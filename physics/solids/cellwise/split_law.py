"""The two parts of an elastic law as cells see them: distortion of deformation gradients, and pressure of dilatations.

All is derived from `distortional` and `volumetric` of the law by automatic differentiation. Gradients F are (E, Q, d, d); in
plane strain the law sees them with 1 as the third stretch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.elastic.law import SplitElasticLaw
from physics.local.density import Density, FunctionDensity

LEAST_STIFF = 0.9
"""Dilatations stay below this fraction of the one at which the pressure is largest, where cells lose their stiffness."""

WIDEST = 1e8
"""Pressures that still grow at this dilatation have no largest value."""

HALVINGS, NEWTON_STEPS = 40, 12


class SplitLaw:
    """A law at its parameters, shared by all points of a cell or averaged over them.

    law, params: as `physics.local.density.fields_of` arranges them for cells (E, Q).
    """

    has_pressure = True

    def __init__(self, law: SplitElasticLaw, params: Params, cells: int) -> None:
        self.law, self.params, self.count = law, params, cells
        self.energy = law.distortional
        self._distortion: Density = FunctionDensity(law.distortional, event_dims=law.event_dims)

    @cached_property
    def shear(self) -> Tensor:
        """The shear modulus (E,) at rest."""
        unit, slide = torch.eye(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)
        slide[0, 1] = 1.0

        def energy(gamma: Tensor) -> Tensor:
            return self.energy(unit + gamma[:, None, None, None] * slide, self.params).mean(-1)

        return _derivatives(energy, torch.zeros(self.count, dtype=torch.float64))[1]

    @cached_property
    def at_rest(self) -> tuple[Tensor, Tensor]:
        """Pressure and its slope (E,) at dilatation 1."""
        return self.pressure_and_slope(self._ones)

    def pressure_and_slope(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """U' and U'' (E,) at dilatations (E,)."""
        return _derivatives(lambda theta: self.law.volumetric(theta[:, None] - 1.0, self.params).mean(-1), theta)

    def pressure(self, theta: Tensor) -> Tensor:
        """U' (E,)."""
        return self.pressure_and_slope(theta)[0]

    def dilatation(self, pressure: Tensor) -> Tensor:
        """theta (E,) with U'(theta) = p, up to where U' is nearly largest; Newton's method from the left, where U' is concave."""
        theta = torch.full_like(pressure, 0.3)
        for _ in range(NEWTON_STEPS):
            now, slope = self.pressure_and_slope(theta)
            before, theta = theta, torch.minimum((theta + (pressure - now) / slope).clamp(min=0.1), self._largest)
            if torch.allclose(theta, before, rtol=1e-15, atol=0.0):
                break
        return theta

    def stress(self, gradients: Tensor) -> Tensor:
        """Distortional stresses (E, Q, d, d)."""
        if self.constant_stiffness is not None:
            return self.constant_stiffness[:, None, None, None] * gradients
        d = gradients.shape[-1]
        return self._distortion.stress(_in_space(gradients), self.params)[..., :d, :d]

    def tangent(self, gradients: Tensor) -> Tensor:
        """Distortional tangents (E, Q, d, d, d, d)."""
        d = gradients.shape[-1]
        return self._distortion.tangent(_in_space(gradients), self.params, 2)[..., :d, :d, :d, :d]

    @cached_property
    def constant_stiffness(self) -> Tensor | None:
        """c (E,) where the distortional stress is c F, as of a neo-Hookean solid, whose matrices are then integrals of the mesh."""
        probes = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        probes = torch.eye(3, dtype=torch.float64) + 0.3 * probes
        for probe in probes.unsqueeze(1).unsqueeze(1):
            x = probe.expand(self.count, 1, 3, 3)
            stress = self._distortion.stress(x, self.params)
            if not torch.allclose(stress, self.shear[:, None, None, None] * x, rtol=1e-12, atol=0.0):
                return None
        return self.shear

    @cached_property
    def _largest(self) -> Tensor:
        """The dilatation (E,) at which U' is nearly largest, infinite where it grows for ever."""
        low, high = self._ones, torch.full_like(self._ones, WIDEST)
        endless = self.pressure_and_slope(high)[1] > 0.0
        for _ in range(HALVINGS):
            middle = (low * high).sqrt()
            rising = self.pressure_and_slope(middle)[1] > 0.0
            low, high = torch.where(rising, middle, low), torch.where(rising, high, middle)
        return torch.where(endless, torch.inf, LEAST_STIFF * low)

    @property
    def _ones(self) -> Tensor:
        return torch.ones(self.count, dtype=torch.float64)


class WholeLaw(SplitLaw):
    """A law without averaged dilatations: all of it is distortion, and there is no pressure beside it."""

    has_pressure = False

    def __init__(self, law: Density, params: Params, cells: int) -> None:
        self.energy, self.params, self.count = law.energy, params, cells
        self._distortion = law

    def pressure_and_slope(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(theta), torch.zeros_like(theta)

    def dilatation(self, pressure: Tensor) -> Tensor:
        return torch.ones_like(pressure)


def _derivatives(energy: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """First and second derivatives (E,) of an energy that acts on every entry of x (E,) by itself."""
    with torch.enable_grad():  # reverse over reverse: forward derivatives of it run through decompositions in Python
        x = x.detach().requires_grad_()
        (first,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
    return first.detach(), second


def _in_space(gradients: Tensor) -> Tensor:
    """F (E, Q, 3, 3) of gradients in the plane or in space."""
    if gradients.shape[-1] == 3:
        return gradients
    full = torch.nn.functional.pad(gradients, (0, 1, 0, 1))
    full[..., 2, 2] = 1.0
    return full
