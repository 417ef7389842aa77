"""Mohr-Coulomb's yield planes in ordered principal stresses, and the return to them, which is linear by pieces."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class YieldPlanes(NamedTuple):
    """Sines of friction and dilatancy angle, strength 2 c cos φ, and Lame's mu and lambda, Pa, each (...).

    The planes are (s_high - s_low) + (s_high + s_low) sin φ = strength: the main one of the largest and the smallest
    principal stress, and those meeting it where the two largest are equal (triaxial compression), or the two smallest
    (triaxial extension). The flow has the same form at the dilatancy angle.
    """

    sine: Tensor
    sine_flow: Tensor
    strength: Tensor
    mu: Tensor
    lame_lambda: Tensor

    def value(self, high: Tensor, low: Tensor) -> Tensor:
        """Beyond 0 the stress is outside of the plane of these two principal stresses."""
        return (high - low) + (high + low) * self.sine - self.strength


class PlaneReturn:
    """The `PrincipalMap` of trial stresses to those after the return; the constants (..., 5) are those of `YieldPlanes`.

    With the multipliers m of the planes that are met, N their flow and F their normals, s = t - C N m, and F s is the
    strength (de Souza Neto et al. 2008, section 8.2; Clausen et al. 2006).
    """

    def value(self, principal: Tensor, constants: Tensor) -> Tensor:
        """(..., 3), in descending order."""
        return _Returned.of(principal, constants).stress

    def jacobian(self, principal: Tensor, constants: Tensor, columns: int) -> Tensor:
        """(..., 3, columns) of 8."""
        units = torch.eye(8, dtype=principal.dtype, device=principal.device)[:columns]
        units = units.reshape(columns, *[1] * (principal.dim() - 1), 8)
        return _Returned.of(principal, constants).moved(units[..., :3], units[..., 3:]).movedim(0, -1)


class _Returned(NamedTuple):
    """A return: where it came from, which planes it met (elastic, one, two, the apex), and their multipliers."""

    trial: Tensor
    planes: YieldPlanes
    multipliers: tuple[Tensor, Tensor]
    upper: Tensor
    two: Tensor
    apex: Tensor
    elastic: Tensor
    stress: Tensor

    @staticmethod
    def of(trial: Tensor, constants: Tensor) -> _Returned:
        planes = YieldPlanes(*constants.unbind(-1))
        high, middle, low = trial.unbind(-1)
        main = planes.value(high, low)
        one = main / _norm(planes)
        nothing = torch.zeros_like(one)
        on_plane = _relaxed(trial, _flow(planes), (one, nothing), nothing > 0)
        upper = on_plane[..., 1] > on_plane[..., 0]
        two = upper | (on_plane[..., 1] < on_plane[..., 2])
        second = torch.where(upper, planes.value(middle, low), planes.value(high, middle))
        both = _solved(planes, upper, main, second)
        multipliers = (torch.where(two, both[0], one), torch.where(two, both[1], nothing))
        stress = _relaxed(trial, _flow(planes), multipliers, upper)
        has_apex = planes.sine > 0
        mean = 0.5 * planes.strength / torch.where(has_apex, planes.sine, torch.ones_like(planes.sine))
        apex = has_apex & (stress.sum(-1) > 3.0 * mean)
        stress = torch.where(apex.unsqueeze(-1), mean.unsqueeze(-1), stress)
        elastic = ~(main > 0)
        stress = torch.where(elastic.unsqueeze(-1), trial, stress)
        return _Returned(trial, planes, multipliers, upper, two, apex, elastic, stress)

    def moved(self, trial: Tensor, constants: Tensor) -> Tensor:
        """The derivative (..., 3) in one direction of trial stress (..., 3) and constants (..., 5)."""
        change = YieldPlanes(*constants.unbind(-1))
        relaxed = _relaxed(trial, _flow_moved(self.planes, change), self.multipliers, self.upper)
        main, second = self._outside(relaxed, change)
        both = _solved(self.planes, self.upper, main, second)
        one, nothing = main / _norm(self.planes), torch.zeros_like(main)
        multipliers = (torch.where(self.two, both[0], one), torch.where(self.two, both[1], nothing))
        found = _relaxed(relaxed, _flow(self.planes), multipliers, self.upper)
        sine = torch.where(self.planes.sine > 0, self.planes.sine, torch.ones_like(self.planes.sine))
        mean = 0.5 * (change.strength - self.planes.strength * change.sine / sine) / sine
        found = torch.where(self.apex.unsqueeze(-1), mean.unsqueeze(-1), found)
        return torch.where(self.elastic.unsqueeze(-1), trial, found)

    def _outside(self, relaxed: Tensor, change: YieldPlanes) -> tuple[Tensor, Tensor]:
        """How far the planes' values would move if the multipliers did not."""
        s, v = self.stress.unbind(-1), relaxed.unbind(-1)

        def plane(high: int, low: int) -> Tensor:
            moved = (v[high] - v[low]) + (v[high] + v[low]) * self.planes.sine
            return moved + (s[high] + s[low]) * change.sine - change.strength

        return plane(0, 2), torch.where(self.upper, plane(1, 2), plane(0, 1))


class _Flow(NamedTuple):
    """Stress lost per unit multiplier of a plane: of all three, more of the high one, and less of the low one."""

    all: Tensor
    high: Tensor
    low: Tensor


def _flow(planes: YieldPlanes) -> _Flow:
    twice = 2.0 * planes.mu
    base = 2.0 * planes.lame_lambda * planes.sine_flow
    return _Flow(base, twice * (1.0 + planes.sine_flow), twice * (1.0 - planes.sine_flow))


def _flow_moved(planes: YieldPlanes, change: YieldPlanes) -> _Flow:
    bent = 2.0 * planes.mu * change.sine_flow
    base = 2.0 * (planes.lame_lambda * change.sine_flow + change.lame_lambda * planes.sine_flow)
    twice = 2.0 * change.mu
    return _Flow(base, twice * (1.0 + planes.sine_flow) + bent, twice * (1.0 - planes.sine_flow) - bent)


def _relaxed(stress: Tensor, flow: _Flow, multipliers: tuple[Tensor, Tensor], upper: Tensor) -> Tensor:
    """The stress less the flow of the main plane and of the second one, by their multipliers."""
    first, last = multipliers
    high, middle, low = stress.unbind(-1)
    base = flow.all * (first + last)
    above, below = torch.where(upper, last, 0.0), torch.where(upper, 0.0, last)
    return torch.stack(
        (
            high - base - flow.high * (first + below),
            middle - base - flow.high * above + flow.low * below,
            low - base + flow.low * (first + above),
        ),
        -1,
    )


def _norm(planes: YieldPlanes) -> Tensor:
    """F C N of one plane."""
    product = planes.sine * planes.sine_flow
    return 4.0 * (planes.lame_lambda * product + planes.mu * (1.0 + product))


def _solved(planes: YieldPlanes, upper: Tensor, main: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The multipliers of two planes that take away as much of their values; F C N of two planes is symmetric."""
    sign = torch.where(upper, -1.0, 1.0)
    shared = (1.0 + sign * planes.sine) * (1.0 + sign * planes.sine_flow)
    own = _norm(planes)
    other = 4.0 * planes.lame_lambda * planes.sine * planes.sine_flow + 2.0 * planes.mu * shared
    determinant = own * own - other * other
    return (own * main - other * second) / determinant, (own * second - other * main) / determinant
