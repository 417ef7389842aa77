"""What every law of flow is: one scalar statement, the potential of a drop, from which all else follows.

Along an edge of a network the drop is a signed number; on a mesh the potential is one of the gradient's size |g|, and the
flux points along g. Flux, slope and inverse come by automatic differentiation, unless a law has them in closed form.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import BilevelError, InputError
from physics.constitutive.law import Law
from physics.discretisation.matmul import matmul
from physics.local.density import Cells, Density

FAR = 1e4
"""At so many times a typical gradient a law is taken to have the degree that it has at infinity."""

CLOSE_DEGREE = 1e-3
"""Nearer to the degree 2 than this, the asymptotes at rest and at infinity are one line."""

PRECISION = 1e-3
"""To which `log_size` inverts a law before its last step, which squares the error."""

TINY = 1e-300
"""Squared lengths are at least this, so that the length of nothing has a derivative."""

STRAIGHT = 100.0
"""Further from the threshold than e^100 either way, a law is taken for its asymptote."""

BRACKET, STEPS = 60.0, 100
"""The inverse is looked for within e^60 times either way of its first guess, by at most so many steps."""


@dataclass(frozen=True, eq=False)
class Asymptotes:
    """A law on logarithmic scales: linear at rest, a power of the gradient far out.

    conductance (...): flux per gradient at rest. threshold (...): the gradient where both meet. exponent (...): the degree
    p of the potential far out, where the flux goes as the gradient to the power of p - 1.
    """

    conductance: Tensor
    threshold: Tensor
    exponent: Tensor

    def log_size(self, log_flux: Tensor) -> Tensor:
        """The logarithm (...) of the gradient on whichever line the law follows."""
        turn, gentle, steepness = self.threshold.log(), log_flux - self.conductance.log(), self.exponent - 1.0
        steep = turn + (gentle - turn) / steepness
        return torch.where(steepness < 1.0, torch.maximum(steep, gentle), torch.minimum(steep, gentle))


class FlowLaw(Law, Density):
    """An isotropic law of flow: flux = d potential / d drop. Parameters broadcast with the drops.

    As a density it sees x (..., d): the drop of an edge, from its first node to its second (d = 1), or a gradient. Laws
    whose flux is not odd in the drop (pumps, check valves) serve along edges only.
    """

    @abstractmethod
    def potential(self, drop: Tensor, params: Params) -> Tensor:
        """The energy (...) whose derivative in the drop (...) is the flux; convex in it, so that flow is unique."""

    def flux(self, drop: Tensor, params: Params) -> Tensor:
        """The flux (...) at signed drops (...)."""
        return torch.func.grad(lambda d: self.potential(d, params).sum())(drop)

    def secant(self, size: Tensor, params: Params) -> Tensor:
        """flux / size (...), at rest the slope there."""
        return self.secant_and_slope(size, params)[0]

    def secant_and_slope(self, size: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """flux / size and d flux / d size (...)."""

        def summed(size: Tensor) -> tuple[Tensor, Tensor]:
            flux = self.flux(size, params)
            return flux.sum(), flux

        # Reverse over reverse: a forward derivative of it runs through decompositions in Python, twenty times as slow.
        slope, flux = torch.func.grad(summed, has_aux=True)(size)
        at_rest = size == 0.0
        # Both branches of a where are differentiated: the one not taken must be finite too.
        return torch.where(at_rest, slope, flux / torch.where(at_rest, 1.0, size)), slope

    def slope(self, drop: Tensor, params: Params) -> Tensor:
        """d flux / d drop (...)."""
        return self.secant_and_slope(drop, params)[1]

    def asymptotes(self, typical: Tensor, params: Params) -> Asymptotes:
        """How the law begins and how it ends, for gradients (...) about `typical` ones."""
        rest = self.secant(torch.zeros_like(typical), params)
        secant, slope = self.secant_and_slope(FAR * typical, params)
        known = torch.isfinite(slope / secant)  # far out, a law that grows faster than any power overflows
        at_typical, there = self.secant_and_slope(typical, params)
        secant, slope = torch.where(known, secant, at_typical), torch.where(known, slope, there)
        excess = slope / secant - 1.0
        linear = excess.abs() < CLOSE_DEGREE
        crossing = ((rest / secant).log() / torch.where(linear, -1.0, excess)).exp()  # of both lines, in logarithms
        far = torch.where(known, FAR * typical, typical)
        return Asymptotes(rest, torch.where(linear, typical, far * crossing), 2.0 + excess)

    def log_size(self, flux: Tensor, asymptotes: Asymptotes, params: Params) -> Tensor:
        """The logarithms (...) of the gradients at which the law has positive fluxes (...); differentiable in the fluxes.

        A safeguarded Newton's method in logarithms, where a law's slope lies between 1 and its degree less 1. Raises
        BilevelError where the law does not reach a flux.
        """
        target, turn = flux.log(), asymptotes.threshold.log()
        line = asymptotes.log_size(target)
        curved = (line - turn).abs() < STRAIGHT

        def newton(log: Tensor) -> tuple[Tensor, Tensor]:
            log = torch.where(curved, log, turn)  # far out, exponentials may overflow
            secant, slope = self.secant_and_slope(log.exp(), params)
            missing = log + secant.log() - target
            return missing, log - missing * secant / slope

        with torch.no_grad():
            log = line
            low, high = log - BRACKET, log + BRACKET
            for _ in range(STEPS):
                missing, following = newton(log)
                found = (missing.abs() < PRECISION) | ~curved
                if bool(found.all()):
                    break
                low, high = torch.where(missing < 0.0, log, low), torch.where(missing > 0.0, log, high)
                inside = (following > low) & (following < high)
                log = torch.where(found, log, torch.where(inside, following, 0.5 * (low + high)))
            else:
                raise BilevelError(
                    f"{type(self).__name__} does not reach all fluxes asked for; is its potential convex?"
                )
        # One more step squares the error, and has the derivative of the inverse.
        return torch.where(curved, newton(log)[1], line)

    def require_even(self, typical: Tensor, params: Params) -> None:
        """Raise InputError where the potential is not that of the drop's size alone, as on meshes it has to be."""
        sizes = typical * torch.tensor([0.1, 1.0, 10.0]).to(typical).reshape(-1, *[1] * typical.dim())
        forth, back = self.flux(sizes, params), self.flux(-sizes, params)
        if bool(((forth + back).abs() > 1e-9 * (forth.abs() + back.abs())).any()):
            raise InputError(
                f"the flux of {type(self).__name__} is not odd in the drop: it has a direction of its own, which edges of "
                "networks have and gradients on meshes and first guesses have not; use it in a FlowNetwork"
            )

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return self.potential(x[..., 0] if x.shape[-1] == 1 else size_of(x), params)

    def stress(self, x: Tensor, params: Params) -> Tensor:
        if x.shape[-1] == 1:
            return self.flux(x[..., 0], params).unsqueeze(-1)
        return self.secant(size_of(x), params).unsqueeze(-1) * x

    def tangent(self, x: Tensor, params: Params, state_dims: int) -> Tensor:
        if x.shape[-1] == 1:
            return self.slope(x[..., 0], params).expand(x.shape[:-1])[..., None, None]
        size = size_of(x)
        secant, slope = (value.expand(size.shape)[..., None, None] for value in self.secant_and_slope(size, params))
        direction = x / size.unsqueeze(-1)
        unit = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        return secant * unit + (slope - secant) * direction.unsqueeze(-1) * direction.unsqueeze(-2)

    def element_matrices(self, x: Tensor, params: Params, cells: Cells) -> Tensor:
        if cells.measure.matrix is not None:
            return super().element_matrices(x, params, cells)
        if x.shape[-1] == 1 and cells.matrix.shape[2] == 1:
            ends = cells.matrix[:, :, 0, 0]
            slopes = cells.weights * self.slope(x[..., 0], params)
            return (slopes.unsqueeze(1) * ends.unsqueeze(2) * ends.unsqueeze(1)).unsqueeze(0)
        # B^T D B with D = secant I + (slope - secant) n n^T: the product of B and of one more column, B n, with themselves.
        size = size_of(x)
        secant, slope = self.secant_and_slope(size, params)
        left, right = cells.matrix, (cells.weights * secant)[:, None, :, None] * cells.matrix
        if slope is not secant:  # a linear law gives one tensor for both
            along = sum_of_columns(cells.matrix * (x / size.unsqueeze(-1))[:, None]).unsqueeze(-1)
            stiffer = (cells.weights * (slope - secant))[:, None, :, None] * along
            left, right = torch.cat((left, along), -1), torch.cat((right, stiffer), -1)
        return matmul(left.flatten(2), right.flatten(2).mT).unsqueeze(0)


def size_of(x: Tensor) -> Tensor:
    """The lengths (...) of vectors (..., d)."""
    return sum_of_columns(x.square()).clamp(min=TINY).sqrt()


def sum_of_columns(x: Tensor) -> Tensor:
    """x summed over its last dimension, which is short: ten times as fast as a reduction."""
    total, *others = x.unbind(-1)
    for column in others:
        total = total + column
    return total
