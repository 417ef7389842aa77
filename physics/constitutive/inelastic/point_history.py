"""Histories of many J2 points at once, with linear hardening, and their adjoint.

The adjoint of a history is a reverse sweep with the transposed derivative of each step, recomputed from the states that
were returned, so no graph is ever made. For other hardening, and for derivatives of any order, chain the updates of
`J2Plasticity`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from bilevel.report import BilevelError, InputError
from physics.constitutive.inelastic.hardening import LinearHardening
from physics.constitutive.inelastic.law import Values
from physics.constitutive.inelastic.radial_return import ReturnStep, consistent_tangent, radial_return
from physics.constitutive.lame import LameParameters

POINTS_AT_ONCE = 4096
"""Points are taken in groups whose vectors stay in the cache."""

HARDENING = LinearHardening()


class PointConstants(NamedTuple):
    """Bulk modulus, shear modulus, yield stress and hardening modulus, Pa, each () or one a point (n,)."""

    bulk: Tensor
    shear: Tensor
    yield_stress: Tensor
    hardening_modulus: Tensor

    @staticmethod
    def of(params: Values) -> PointConstants:
        """From the parameters of `J2Plasticity(LinearHardening())`."""
        moduli = LameParameters.of(params)
        given = (moduli.bulk_modulus, moduli.mu, params["yield_stress"], params["hardening_modulus"])
        return PointConstants(*(torch.as_tensor(value) for value in given))

    def some(self, points: slice) -> PointConstants:
        """Those of some points."""
        return PointConstants(*(value if value.dim() == 0 else value[points] for value in self))

    def step(self, stress: Tensor, plastic_strain: Tensor, increment: Tensor) -> ReturnStep:
        """One step from stress (6, n), Pa, and equivalent plastic strain (n,) by a strain increment (6, n)."""

        def growth(size: Tensor, old: Tensor) -> Tensor:
            return HARDENING.growth(size, old, 3.0 * self.shear, self._asdict())

        return radial_return(stress, plastic_strain, increment, self.bulk, self.shear, growth)

    def tangent(self, step: ReturnStep) -> Tensor:
        """The consistent tangent (6, 6, n) of a step."""
        return consistent_tangent(step, self.bulk, self.shear, self.hardening_modulus)


class PointHistory(NamedTuple):
    """Stresses (steps, n, 6), Pa, and equivalent plastic strains (steps, n) after each step."""

    stress: Tensor
    plastic_strain: Tensor


def point_history(increments: Tensor, params: Values) -> PointHistory:
    """The states of n virgin points after each strain increment (steps, n, 6), Mandel, tension positive.

    params: those of `J2Plasticity`, each () or one a point (n,).
    Differentiable once in all of them; the gradient costs about two further sweeps, and memory only what is returned.
    Raises InputError for increments of another shape, BilevelError where second derivatives are asked for.
    """
    if increments.dim() != 3 or increments.shape[-1] != 6:
        raise InputError(f"strain increments have shape (steps, points, 6), got {tuple(increments.shape)}")
    points = increments.shape[1]
    constants = PointConstants(*(value.to(increments).expand(points) for value in PointConstants.of(params)))
    stress, plastic_strain = _Sweep.apply(increments, *constants)
    return PointHistory(stress, plastic_strain)


class _Sweep(torch.autograd.Function):
    """increments (steps, n, 6) and constants (n,) -> stresses (steps, n, 6) and plastic strains (steps, n)."""

    @staticmethod
    def forward(ctx: Any, increments: Tensor, *constants: Tensor) -> tuple[Tensor, Tensor]:
        steps, points, _ = increments.shape
        strain = increments.movedim(-1, 1).contiguous()
        stress = torch.empty_like(strain)
        plastic = strain.new_empty(steps, points)
        for some in _groups(points):
            given = PointConstants(*constants).some(some)
            new, hardened = strain[0, :, some] * 0.0, strain[0, 0, some] * 0.0
            for k in range(steps):
                new, hardened, *_ = given.step(new, hardened, strain[k, :, some])
                stress[k, :, some] = new
                plastic[k, some] = hardened
        ctx.save_for_backward(strain, stress, plastic, *constants)
        return stress.movedim(1, -1), plastic

    @staticmethod
    def backward(ctx: Any, of_stress: Tensor, of_plastic: Tensor) -> tuple[Tensor, ...]:
        if torch.is_grad_enabled():
            raise BilevelError(
                "the history of J2 points is differentiable once; for second derivatives use a chain of updates of "
                "J2Plasticity, and without them leave create_graph out"
            )
        strain, stress, plastic, *constants = ctx.saved_tensors
        of_stress = of_stress.movedim(-1, 1)
        of_strain = torch.empty_like(strain)
        totals = [torch.zeros_like(value, memory_format=torch.contiguous_format) for value in constants]
        for some in _groups(strain.shape[-1]):
            given = PointConstants(*constants).some(some)
            virgin = (torch.zeros_like(stress[0, :, some]), torch.zeros_like(plastic[0, some]))
            adjoint = _Adjoint(given, [total[some] for total in totals], torch.zeros_like(virgin[0]), virgin[1].clone())
            for k in range(len(strain) - 1, -1, -1):
                old = virgin if k == 0 else (stress[k - 1, :, some], plastic[k - 1, some])
                adjoint.stress += of_stress[k, :, some]
                adjoint.plastic_strain += of_plastic[k, some]
                of_strain[k, :, some] = adjoint.back(old[0], old[1], strain[k, :, some])
        return (of_strain.movedim(1, -1), *totals)


class _Adjoint:
    """The reverse sweep over some points: derivatives of the outcome in the state after a step, and in the constants."""

    def __init__(self, constants: PointConstants, totals: list[Tensor], stress: Tensor, plastic_strain: Tensor) -> None:
        self.constants, self.totals = constants, totals
        self.stress, self.plastic_strain = stress, plastic_strain

    def back(self, stress: Tensor, plastic_strain: Tensor, increment: Tensor) -> Tensor:
        """Go over the step that started at this state, with this increment; the derivative in the increment (6, n)."""
        bulk, shear, _, hardening = self.constants
        step = self.constants.step(stress, plastic_strain, increment)
        safe = step.safe_size
        stiffness = 3.0 * shear + hardening
        by_shrink = (self.stress * step.trial).sum(0) / safe
        by_over = (step.growth > 0) * (self.plastic_strain - 3.0 * shear * by_shrink) / stiffness
        by_size = 3.0 * shear * step.growth / safe * by_shrink + by_over
        mean = self.stress[:3].sum(0) / 3.0
        by_trial = self.stress * step.shrink
        by_trial[:3] -= step.shrink * mean
        by_trial += step.trial * (1.5 * by_size / safe)
        volume = increment[:3].sum(0)
        of_bulk, of_shear, of_yield, of_hardening = self.totals
        of_bulk += 3.0 * mean * volume
        of_shear += 2.0 * (by_trial * increment).sum(0) - 3.0 * step.growth * (by_shrink + by_over)
        of_yield -= by_over
        of_hardening -= by_over * (plastic_strain + step.growth)
        by_increment = by_trial * (2.0 * shear)
        by_increment[:3] += 3.0 * bulk * mean
        by_trial[:3] += mean
        self.stress, self.plastic_strain = by_trial, self.plastic_strain - hardening * by_over
        return by_increment


def _groups(points: int) -> list[slice]:
    return [slice(start, start + POINTS_AT_ONCE) for start in range(0, points, POINTS_AT_ONCE)]
