"""Element tests: any path that a laboratory machine can follow, marched for many tests at once.

Every increment is an inner problem in the new material state and the new strain together: the law's residual and six
linear conditions of the machine. A march is a chain of them, differentiable by a reverse sweep with checkpoints and by a
forward sweep that costs one back-substitution an increment for all parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

import bilevel
from bilevel.implicit.chain import chain
from bilevel.implicit.strategies import Exact
from bilevel.problem import Params
from bilevel.report import ConvergenceError, Counts, InputError
from bilevel.torch_internals import outside_transforms
from physics.constitutive.inelastic.law import STRAIN_SIZE, InelasticLaw, Values
from physics.constitutive.inelastic.local_problem import LocalProblem, local_newton
from physics.soil.control import Control, Quantity

STRESS_UNIT, STRAIN_UNIT = 1e5, STRAIN_SIZE
"""Sizes that make unknowns and conditions of an increment comparable; they scale, they do not enter the results."""

INCREMENT_NEWTON = local_newton(1e-11)


Leaves: TypeAlias = tuple[Tensor, Tensor]
"""Full state (state with strain) and the last move of it, which only helps to start the next increment."""


@dataclass(frozen=True)
class LoadStage:
    """Rows (rows, quantities) of what the machine controls, as absolute values reached after each row.

    Units: Pa and strain, tension positive. increments: how many steps lead to each row at least.
    """

    control: Control
    rows: Tensor
    increments: int = 1

    def __post_init__(self) -> None:
        if self.rows.dim() != 2 or self.rows.shape[1] != len(self.control.quantities):
            raise InputError(
                f"a path with {len(self.control.quantities)} controlled quantities needs rows of as many values, got {tuple(self.rows.shape)}"
            )
        bad = torch.nonzero(~torch.isfinite(self.rows).all(1)).flatten().tolist()
        if bad:
            raise InputError(f"row {bad[0] + 1} of the path is not finite; every controlled value must be a number")


@dataclass(frozen=True)
class ElementTest:
    """A named path of stages; its rows are counted through all stages, row 0 being the start."""

    name: str
    stages: tuple[LoadStage, ...]

    @property
    def rows(self) -> int:
        return sum(len(stage.rows) for stage in self.stages)

    @property
    def increments(self) -> int:
        """The least number of increments."""
        return sum(len(stage.rows) * stage.increments for stage in self.stages)


@dataclass(frozen=True)
class IncrementSchedule:
    """What all machines of a batch of tests do at each increment.

    stress_rows, strain_rows (increments, tests, 6, 6), target (increments, tests, 6), share (increments, tests): the part of
    the way to the target that the increment covers. row_end[test] are the increments after which the rows are reached.
    """

    names: list[str]
    stress_rows: Tensor
    strain_rows: Tensor
    target: Tensor
    share: Tensor
    row_end: list[Tensor]
    controls: list[list[Control]] = field(repr=False)

    @staticmethod
    def of(tests: Sequence[ElementTest], increments: int | None = None) -> IncrementSchedule:
        """Lay the tests side by side; all get the same number of increments, the most that one of them needs."""
        if not tests:
            raise InputError("there is no test to run")
        total = max(increments or 0, *(test.increments for test in tests))
        stress_rows, strain_rows, target, share, ends, controls = zip(*(_lay_out(test, total) for test in tests))
        return IncrementSchedule(
            names=[test.name for test in tests],
            stress_rows=torch.stack(stress_rows, 1),
            strain_rows=torch.stack(strain_rows, 1),
            target=torch.stack(target, 1),
            share=torch.stack(share, 1),
            row_end=list(ends),
            controls=list(controls),
        )

    def __len__(self) -> int:
        return len(self.share)

    def row_of(self, test: int, increment: int) -> int:
        """The row, from 1, towards which a test moves in an increment, from 0."""
        return int((self.row_end[test] <= increment).sum()) + 1


def _lay_out(test: ElementTest, total: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, list[Control]]:
    needed = torch.tensor([stage.increments for stage in test.stages for _ in range(len(stage.rows))])
    extra = total - int(needed.sum())
    needed = needed + extra // len(needed)
    needed[: extra % len(needed)] += 1
    stage_of_row = [stage for stage in test.stages for _ in range(len(stage.rows))]
    targets = torch.zeros(len(stage_of_row), 6, dtype=torch.float64)
    values = [row for stage in test.stages for row in stage.rows]
    for row, value in enumerate(values):
        targets[row, : len(value)] = value
    rows = [stage.control.rows() for stage in stage_of_row]
    stress_rows, strain_rows = (torch.stack(parts).repeat_interleave(needed, 0) for parts in zip(*rows))
    share = torch.cat([1.0 / torch.arange(int(n), 0, -1, dtype=torch.float64) for n in needed])
    end = needed.cumsum(0)
    return stress_rows, strain_rows, targets.repeat_interleave(needed, 0), share, end, [s.control for s in stage_of_row]


class ControlledIncrement(LocalProblem):
    """One increment of a batch of tests; the unknown is the new state and the new strain, each in its typical size.

    params = (the law's parameters, old state with old strain (tests, size + 6)).
    """

    def __init__(self, law: InelasticLaw, schedule: IncrementSchedule, increment: int) -> None:
        self.law = law
        with outside_transforms():  # else a march inside a transform would close over tensors of that transform
            stress_rows, strain_rows = schedule.stress_rows[increment], schedule.strain_rows[increment]
            target, self.share = schedule.target[increment], schedule.share[increment].unsqueeze(-1)
            self.units = unknown_units(law, target)
            stress_condition = (stress_rows.abs().sum(-1) > 0).to(target)
            unit = STRESS_UNIT * stress_condition + STRAIN_UNIT * (1.0 - stress_condition)
            between = target.new_zeros(*target.shape, law.size - 6)
            self.machine = torch.cat([stress_rows, between, strain_rows], -1) / unit.unsqueeze(-1)
            """(tests, 6, size + 6): six conditions on the full state, each in its typical size."""
            self.target = target / unit

    def residual(self, u: Tensor, params: Params) -> Tensor:
        values, old = params
        size = self.law.size
        new = u * self.units
        state, increment = new[..., :size], new[..., size:] - old[..., size:]
        of_material = self.law.residual(state, increment, old[..., :size], values)
        return torch.cat([of_material / STRAIN_UNIT, self.missed(new, old)], -1)

    def missed(self, new: Tensor, old: Tensor) -> Tensor:
        """What the machine asks for beyond what the new full state has (tests, 6)."""
        return self._seen(new - old) - self._wanted(old)

    def missed_by_old(self) -> Tensor:
        """The derivative of `missed` by the old full state (tests, 6, size + 6)."""
        return (self.share - 1.0).unsqueeze(-1) * self.machine

    def predict(self, old: Tensor, move: Tensor) -> tuple[Tensor, Tensor]:
        """The last move (tests, size + 6) again, as far as the machine goes on in its direction, and how far (tests, 1)."""
        before, now = self._seen(move), self._wanted(old)
        length = before.square().sum(-1, keepdim=True)
        ratio = (before * now).sum(-1, keepdim=True) / torch.where(length > 0, length, torch.ones_like(length))
        ratio = ratio.clamp(-3.0, 3.0)
        return (old + ratio * move) / self.units, ratio

    def _wanted(self, old: Tensor) -> Tensor:
        return self.share * (self.target - self._seen(old))

    def _seen(self, full: Tensor) -> Tensor:
        return (self.machine @ full.unsqueeze(-1)).squeeze(-1)


def unknown_units(law: InelasticLaw, like: Tensor) -> Tensor:
    """Typical sizes of state and strain (size + 6,)."""
    return like.new_tensor([STRESS_UNIT] * 6 + [v.size for v in law.variables] + [STRAIN_UNIT] * 6)


@dataclass(frozen=True)
class March:
    """The states (increments + 1, tests, size) and strains (increments + 1, tests, 6) of all tests, start included.

    counts: the work in the increments, each step of Newton's method a back-substitution; None where it was not counted.
    """

    schedule: IncrementSchedule
    states: Tensor
    strains: Tensor
    counts: Counts | None = None

    def at_rows(self, test: int) -> tuple[Tensor, Tensor]:
        """State and strain (rows + 1, ...) of one test at its start and its rows."""
        index = torch.cat([torch.zeros(1, dtype=torch.long), self.schedule.row_end[test]])
        return self.states[index, test], self.strains[index, test]

    def quantity(self, test: int, quantity: Quantity) -> Tensor:
        """A machine's quantity (rows + 1,) of one test, tension positive, Pa or strain."""
        state, strain = self.at_rows(test)
        return quantity.of(state[:, :6], strain)


def march(law: InelasticLaw, params: Values, initial: Tensor, schedule: IncrementSchedule) -> March:
    """Run all tests of the schedule from the initial states (tests, size), differentiable in `params` and `initial`.

    Parameters are scalars or (tests,). Raises InputError for parameters outside their physical bounds, ConvergenceError
    naming test and row where the machine asks for what the material cannot carry.
    """
    law.check(params)
    if initial.shape != (len(schedule.names), law.size):
        raise InputError(
            f"{len(schedule.names)} tests of {type(law).__name__} start from states ({len(schedule.names)}, {law.size}), "
            f"got {tuple(initial.shape)}"
        )

    def step(old: Leaves, values: Values, k: Tensor, start: Leaves) -> Leaves:
        full, move = old
        problem = ControlledIncrement(law, schedule, int(k))
        # On the way back `start` is the answer itself; on the way forward it is `old`.
        guess = problem.predict(full, move)[0] if start[0] is full else start[0] / problem.units
        new = solve_increment(problem, schedule, int(k), guess, full, values)
        return new, (new - full).detach()

    first = torch.cat([initial, torch.zeros_like(initial[:, :6])], -1)
    values = {name: torch.as_tensor(value).to(initial) for name, value in params.items()}
    observed = chain(
        step, (first, torch.zeros_like(first)), values, torch.arange(len(schedule)), observe=lambda new, *_: new[0]
    ).observed
    history = torch.cat([first.unsqueeze(0), observed])
    return March(schedule, history[..., : law.size], history[..., law.size :])


def solve_increment(
    problem: ControlledIncrement, schedule: IncrementSchedule, k: int, guess: Tensor, old: Tensor, values: Values
) -> Tensor:
    """The new state with the new strain (tests, size + 6); raises ConvergenceError that names test and row."""
    solution = bilevel.root(
        problem, guess, (values, old), solver=INCREMENT_NEWTON, adjoint=Exact(certify=False), on_fail="ignore"
    )
    failed = [i for i, status in enumerate(solution.report.status) if not status.ok]
    if failed:
        raise ConvergenceError(_explain(schedule, failed[0], k, solution.report.sentence))
    return solution.u * problem.units


def _explain(schedule: IncrementSchedule, test: int, k: int, sentence: str) -> str:
    row = schedule.row_of(test, k)
    control = schedule.controls[test][row - 1]
    asked = ", ".join(
        f"{q.name.lower()} = {float(value):.6g}" for q, value in zip(control.quantities, schedule.target[k, test])
    )
    remedy = "use more increments before this row"
    if any(q.is_stress for q in control.quantities):
        remedy = "the material may not carry this stress: control the strain beyond failure, lower the stress, or use more increments"
    return f"test {schedule.names[test]}, row {row} ({asked}; tension positive): {remedy} ({sentence})"
