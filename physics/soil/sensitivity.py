"""Forward sensitivities of a march: every increment's factorised tangent also moves d state / d parameters.

A calibration has few parameters and many measured rows, so carrying the derivative along costs one more reverse pass and one
back-substitution an increment, whatever the number of parameters; afterwards JVPs and VJPs are products.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.implicit.step_guesses import StepGuesses
from bilevel.implicit.visit import Spot, next_spot, no_places
from bilevel.report import Counts, InputError
from bilevel.torch_internals import Constants, plain
from physics.constitutive.inelastic.law import InelasticLaw
from physics.soil.element_test import (
    ControlledIncrement,
    IncrementSchedule,
    March,
    march,
    solve_increment,
    unknown_units,
)
from physics.soil.increment_newton import Increment, IncrementStarts, linearise, solve_quickly

InitialStates = Callable[[Mapping[str, Tensor]], Tensor]
"""The initial states (tests, size) as a function of the parameters."""


def sensitive_march(
    law: InelasticLaw, params: Mapping[str, Tensor], initial: InitialStates, schedule: IncrementSchedule
) -> March:
    """The same march as `element_test.march` for scalar parameters, with first derivatives ready in both directions.

    Derivatives of the result: JVP, VJP and vmap of them; second derivatives march once more by `element_test.march`.
    Raises as `march` does.
    """
    law.check(params)
    names = list(params)
    if any(params[name].dim() for name in names):
        raise InputError("forward sensitivities are made for scalar parameters; use march for one value per test")
    sweep = _Sweep(law, names, initial, schedule, next_spot())
    with sweep.constants.watched(list(params.values())):  # what `initial` closes over may be made inside a transform
        initial(params).clone()
    history, _ = _Swept.apply(sweep, torch.stack([params[name] for name in names]))
    return March(schedule, history[..., : law.size], history[..., law.size :], sweep.counts)


@dataclass
class _Sweep:
    law: InelasticLaw
    names: list[str]
    initial: InitialStates
    schedule: IncrementSchedule
    spot: Spot | None
    constants: Constants = field(default_factory=Constants)
    counts: Counts = field(default_factory=Counts)

    def run(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """States with strains (increments + 1, tests, n) and their derivatives (increments + 1, tests, n, parameters)."""
        full, slope = self._start(theta)
        steps, starts, move = [(full, slope)], IncrementStarts(), torch.zeros_like(full)
        guesses = None if self.spot is None else StepGuesses.remembered(self.spot, (len(self.schedule), *full.shape))
        found: list[Increment] = []
        for k in range(len(self.schedule)):
            problem = ControlledIncrement(self.law, self.schedule, k)
            guess = None if guesses is None else guesses.after(k, full)
            found.append(self._increment(problem, k, starts.of(problem, full, move, guess), full, theta))
            starts.found(found[-1].u)
            new = found[-1].u * problem.units
            slope = (found[-1].by_old @ slope + found[-1].by_theta) * problem.units.unsqueeze(-1)
            move, full = new - full, new
            steps.append((full, slope))
        history, slopes = (torch.stack(part) for part in zip(*steps))
        if self.spot is not None:
            news, by_old = torch.stack([one.u for one in found]), torch.stack([one.by_old for one in found])
            self.spot.visit.keep(self.spot.place, history[:-1], news, by_old)
        return history, slopes

    def _increment(
        self, problem: ControlledIncrement, k: int, starts: tuple[Tensor, Tensor], full: Tensor, theta: Tensor
    ) -> Increment:
        found = solve_quickly(problem, self._values, *starts, full, theta, self.counts)
        if found is not None:
            return found
        with no_places():
            new = solve_increment(problem, self.schedule, k, starts[-1][0], full, self._values(theta))
        return linearise(problem, self._values, new / problem.units, full, theta)

    def remember(self, slopes: Tensor, moved: Tensor) -> None:
        """Tell the memory how each increment moves at a given old state, where theta moves in several directions (p, parameters)."""
        solve = None if self.spot is None else self.spot.visit.solves.get(self.spot.place)
        if self.spot is None or solve is None or solve.by_start is None or moved.dim() != 2:
            return
        of_states = torch.einsum("pi,ksni->pksn", moved, slopes)
        by_old = (plain(solve.by_start) @ of_states[:, :-1].unsqueeze(-1)).squeeze(-1)
        self.spot.keep_tangent(of_states[:, 1:] / unknown_units(self.law, slopes) - by_old)

    def march(self, theta: Tensor) -> Tensor:
        """The same history by implicit layers, differentiable as often as one likes."""
        values = self._values(theta)
        with self.constants.unwrapped():
            initial = self.initial(values).clone()
        marched = march(self.law, values, initial, self.schedule)
        return torch.cat([marched.states, marched.strains], -1)

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


class _Swept(torch.autograd.Function):
    """theta -> history and its derivative, which the sweep carried along."""

    @staticmethod
    def forward(sweep: _Sweep, theta: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        with sweep.constants.unwrapped():
            return sweep.run(theta.detach())

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.sweep, theta = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1], theta)
        ctx.save_for_forward(output[1], theta)

    @staticmethod
    def backward(ctx, cotangent, _):  # type: ignore[no-untyped-def]
        return None, _SlopeProduct.apply(ctx.sweep, True, *ctx.saved_tensors, cotangent)

    @staticmethod
    def jvp(ctx, _sweep, tangent):  # type: ignore[no-untyped-def]
        slopes, _ = ctx.saved_tensors
        ctx.sweep.remember(plain(slopes), plain(tangent))
        return _SlopeProduct.apply(ctx.sweep, False, *ctx.saved_tensors, tangent), None

    @staticmethod
    def vmap(info, in_dims, sweep, theta):  # type: ignore[no-untyped-def]
        """One run for each distinct row; sweeps over tangents hand in the same parameters in every row."""
        rows = theta.movedim(in_dims[1], 0)
        if bool((rows == rows[0]).all()):
            return _Swept.apply(sweep, rows[0]), (None, None)
        runs = [_Swept.apply(sweep, row) for row in rows]
        return tuple(torch.stack(parts) for parts in zip(*runs)), (0, 0)


class _SlopeProduct(torch.autograd.Function):
    """(d history / d theta) x, or its transpose times x: a product with numbers at hand, but still a function of theta.

    A plain product would be silently constant in theta to whoever differentiates it once more.
    """

    @staticmethod
    def forward(sweep: _Sweep, transposed: bool, slopes: Tensor, theta: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        if not transposed:
            return torch.einsum("...i,tnsi->...tns", x, slopes)
        return torch.einsum("...tns,tnsi->...i", x, slopes)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.sweep, ctx.transposed, _, theta, x = inputs
        ctx.save_for_backward(theta, x)
        ctx.save_for_forward(theta, x)

    @staticmethod
    def _again(ctx) -> Callable[[Tensor, Tensor], Tensor]:  # type: ignore[no-untyped-def]
        def product(theta: Tensor, x: Tensor) -> Tensor:
            if ctx.transposed:
                return torch.func.vjp(ctx.sweep.march, theta)[1](x)[0]
            return torch.func.jvp(ctx.sweep.march, (theta,), (x,))[1]

        return product

    @staticmethod
    def backward(ctx, cotangent):  # type: ignore[no-untyped-def]
        by_theta, by_x = torch.func.vjp(_SlopeProduct._again(ctx), *ctx.saved_tensors)[1](cotangent)
        return None, None, None, by_theta, by_x

    @staticmethod
    def jvp(ctx, _sweep, _transposed, _slopes, theta_moved, x_moved):  # type: ignore[no-untyped-def]
        primals = ctx.saved_tensors
        moved = [torch.zeros_like(p) if m is None else m for p, m in zip(primals, (theta_moved, x_moved), strict=True)]
        return torch.func.jvp(_SlopeProduct._again(ctx), primals, tuple(moved))[1]

    @staticmethod
    def vmap(info, in_dims, sweep, transposed, slopes, theta, x):  # type: ignore[no-untyped-def]
        fixed, along = in_dims[2:4], in_dims[4]
        if fixed == (None, None):
            return _SlopeProduct.apply(sweep, transposed, slopes, theta, x.movedim(along, 0)), 0
        rows = [
            _SlopeProduct.apply(
                sweep,
                transposed,
                *[t if d is None else t.select(d, i) for t, d in zip((slopes, theta, x), in_dims[2:], strict=True)],
            )
            for i in range(info.batch_size)
        ]
        return torch.stack(rows), 0
