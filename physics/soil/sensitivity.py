"""Forward sensitivities of a march: every increment's factorised tangent also moves d state / d parameters.

A calibration has few parameters and many measured rows, so carrying the derivative along costs one more reverse pass and one
back-substitution an increment, whatever the number of parameters; afterwards JVPs and VJPs are products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.report import InputError
from physics.constitutive.inelastic.law import InelasticLaw
from physics.constitutive.inelastic.local_problem import unit_cotangents
from physics.soil.element_test import ControlledIncrement, IncrementSchedule, March, solve_increment, unknown_units

InitialStates = Callable[[Mapping[str, Tensor]], Tensor]
"""The initial states (tests, size) as a function of the parameters."""


def sensitive_march(
    law: InelasticLaw, params: Mapping[str, Tensor], initial: InitialStates, schedule: IncrementSchedule
) -> March:
    """The same march as `element_test.march` for scalar parameters, with first derivatives ready in both directions.

    Derivatives of the result: JVP, VJP and vmap of them; second derivatives raise, use `march` for those.
    Raises as `march` does.
    """
    law.check(params)
    names = list(params)
    if any(params[name].dim() for name in names):
        raise InputError("forward sensitivities are made for scalar parameters; use march for one value per test")
    sweep = _Sweep(law, names, initial, schedule)
    history, _ = _Swept.apply(sweep, torch.stack([params[name] for name in names]))
    return March(schedule, history[..., : law.size], history[..., law.size :])


@dataclass
class _Sweep:
    law: InelasticLaw
    names: list[str]
    initial: InitialStates
    schedule: IncrementSchedule

    def run(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """States with strains (increments + 1, tests, n) and their derivatives (increments + 1, tests, n, parameters)."""
        full, slope = self._start(theta)
        values = self._values(theta)
        history, slopes, move = [full], [slope], torch.zeros_like(full)
        for k in range(len(self.schedule)):
            problem = ControlledIncrement(self.law, self.schedule, k)
            new = solve_increment(problem, self.schedule, k, problem.predict(full, move), full, values)
            slope = self._carry(problem, new, full, theta, slope)
            full, move = new, new - full
            history.append(full)
            slopes.append(slope)
        return torch.stack(history), torch.stack(slopes)

    def _values(self, theta: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.names, theta.unbind(-1)))

    def _start(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        def states(flat: Tensor) -> Tensor:
            return self.initial(self._values(flat)).to(flat)

        state, slope = states(theta), torch.func.jacrev(states)(theta)
        return (
            torch.cat([state, torch.zeros_like(state[:, :6])], 1),
            torch.cat([slope, torch.zeros_like(slope[:, :6])], 1),
        )

    def _carry(self, problem: ControlledIncrement, new: Tensor, old: Tensor, theta: Tensor, slope: Tensor) -> Tensor:
        """d new = -R_new^-1 (R_old d old + R_theta), all blocks from one reverse pass over copies of the tests."""
        units = unknown_units(self.law, new)
        u = new / units
        with torch.enable_grad():
            copies = [x.expand(u.shape[-1], *x.shape).clone().requires_grad_() for x in (u, old)]
            each = theta.expand(*u.shape[-1:], *u.shape[:-1], len(theta)).clone().requires_grad_()
            residual = problem.residual(copies[0], (self._values(each), copies[1]))
            by_new, by_old, by_theta = torch.autograd.grad(residual, [*copies, each], unit_cotangents(u))
        load = by_old.movedim(0, -2) @ slope + by_theta.movedim(0, -2)
        return -torch.linalg.solve(by_new.movedim(0, -2), load) * units.unsqueeze(-1)


class _Swept(torch.autograd.Function):
    """theta -> history and its derivative, which the sweep carried along."""

    @staticmethod
    def forward(sweep: _Sweep, theta: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return sweep.run(theta.detach())

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        slopes = output[1]
        ctx.mark_non_differentiable(slopes)
        ctx.save_for_backward(slopes)
        ctx.save_for_forward(slopes)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, cotangent, _):  # type: ignore[no-untyped-def]
        return None, torch.einsum("...i,...ip->p", cotangent, ctx.saved_tensors[0])

    @staticmethod
    def jvp(ctx, _sweep, tangent):  # type: ignore[no-untyped-def]
        return ctx.saved_tensors[0] @ tangent, None

    @staticmethod
    def vmap(info, in_dims, sweep, theta):  # type: ignore[no-untyped-def]
        """One run for each distinct row; sweeps over tangents hand in the same parameters in every row."""
        rows = theta.movedim(in_dims[1], 0)
        if bool((rows == rows[0]).all()):
            return _Swept.apply(sweep, rows[0]), (None, None)
        runs = [_Swept.apply(sweep, row) for row in rows]
        return tuple(torch.stack(parts) for parts in zip(*runs)), (0, 0)
