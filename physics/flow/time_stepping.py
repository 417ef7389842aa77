"""Transient problems as chains of minimisations: each stage of each time step minimises the steady energy plus storage.

A stage finds the head h that minimises
    Phi(h) + 1/tau C(h - anchor),    Phi the steady energy, C the storage energy 1/2 integral S h^2,
which is a backward Euler step of length tau from `anchor`. The stages of a singly diagonally implicit Runge-Kutta
method differ only in their anchors, so accuracy of higher order costs no more than further minimisations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bilevel.implicit.chain import Trajectory, chain
from bilevel.implicit.solve import argmin, root
from bilevel.implicit.strategies import Adjoint
from bilevel.problem import EnergyProblem, Params
from bilevel.report import InputError, Solution
from bilevel.solvers.newton import Newton
from bilevel.solvers.solver import Solver
from bilevel.torch_internals import pytree
from physics.flow.time_steps import TimeSteps


@dataclass(frozen=True)
class Scheme:
    """A singly diagonally implicit, stiffly accurate, L-stable Runge-Kutta scheme.

    diagonal: the common coefficient. rows: for each stage, the coefficients of the stages before it.
    """

    order: int
    diagonal: float
    rows: tuple[tuple[float, ...], ...]

    @property
    def nodes(self) -> NDArray[np.float64]:
        """When each stage stands, as a fraction of the step."""
        return np.array([self.diagonal + sum(row) for row in self.rows])


BACKWARD_EULER = Scheme(1, 1.0, ((),))

_G2 = 1.0 - 0.5**0.5
SDIRK2 = Scheme(2, _G2, ((), (1.0 - _G2,)))

_G3 = 0.43586652150845899942
SDIRK3 = Scheme(
    3,
    _G3,
    ((), ((1.0 - _G3) / 2.0,), (-(6.0 * _G3**2 - 16.0 * _G3 + 1.0) / 4.0, (6.0 * _G3**2 - 20.0 * _G3 + 5.0) / 4.0)),
)
"""Alexander 1977, theorem 5 (order 2 and 3)."""


class Transient(Protocol):
    """An EnergyProblem that knows how to store: the energy Phi with a capacity C."""

    def expand(self, u: Tensor, params: Params) -> Tensor:
        """The whole field, prescribed values included, of the unknown u (n,)."""

    def stage(self, params: Params, anchor: Tensor, tau: Tensor) -> Params:
        """The parameters with which this energy is Phi(h) + C(h - anchor) / tau; anchor is a whole field."""


def march(
    energy: Any,
    initial: Tensor,
    params: Mapping[str, Any],
    steps: TimeSteps,
    loads: Mapping[str, Any] | None = None,
    *,
    in_time: Callable[[Tensor], Mapping[str, Any]] | None = None,
    observe: Callable[[Tensor], Tensor] | None = None,
    scheme: Scheme = SDIRK2,
    solver: Solver | None = None,
    adjoint: Adjoint | None = None,
    watch: Callable[[Solution], None] = lambda solution: None,
) -> Trajectory:
    """The heads after each time step, differentiable in `initial`, `params` and `loads`.

    energy: an EnergyProblem with a `stage` (see `Transient`), or a Problem whose residual balances storage likewise. initial (n,): the head at the first time. params: those
    of the steady energy and of its storage. loads: entries of params that hold within each step, with a leading entry
    for each step (N, ...). in_time: entries of params as functions of time, such as the stage of a river,
    `lambda t: {"boundary": {"river": stage(t)}}`: called once with the times (N, 1 + stages) of each step's start and its
    stages, it returns tensors that begin with these two dimensions. observe: what to keep of each head; all of it by
    default. watch: told of every minimisation. adjoint: that of every stage; `Exact(certify=False)` spares the
    certificates, which cost as much as the gradient.
    Returns the final head and the observed ones (N, ...). Raises what the minimisations raise, and InputError for
    prescribed values among the loads: the head beside them would follow a jump at each step.
    """
    if "boundary" in (loads or {}):
        raise InputError(
            "prescribed values vary in time as functions: give them by `in_time`, not as loads of each step"
        )
    solver = solver or Newton()
    find = argmin if isinstance(energy, EnergyProblem) else root
    # What stages take over from those before. As tensors among the parameters: constants make forward mode slow.
    ratios = [[torch.tensor(a / scheme.diagonal, dtype=initial.dtype) for a in row] for row in scheme.rows]
    taus = torch.from_numpy(steps.stage_lengths(scheme.diagonal, scheme.nodes)).to(initial)

    varying = _in_time(in_time, torch.from_numpy(steps.stage_times(scheme.nodes)).to(initial))

    def step(old: Tensor, given: tuple[Params, Any], load: tuple[Params, Tensor, Params], start: Tensor) -> Tensor:
        setting = {**given[0], **load[0]}
        settings = [_with(setting, load[2], place) for place in range(1 + len(scheme.rows))]
        before = energy.expand(old, settings[0])
        changes: list[Tensor] = []
        head = start
        for row, tau, now in zip(given[1], load[1].unbind(), settings[1:]):
            # Prescribed values have anchors and changes like all others: what the cells beside them store depends on it.
            anchor = before
            for ratio, change in zip(row, changes):
                anchor = anchor + ratio * change
            solution = find(energy, head, energy.stage(now, anchor, tau), solver=solver, adjoint=adjoint)
            watch(solution)
            head = solution.u
            changes.append(energy.expand(head, now) - anchor)
        return head

    keep = (lambda head, given, load: observe(head)) if observe else None
    return chain(step, initial, (dict(params), ratios), (dict(loads or {}), taus, varying), observe=keep)


def _in_time(function: Callable[[Tensor], Mapping[str, Any]] | None, times: Tensor) -> Params:
    """What varies in time, at the times (N, 1 + stages); InputError for values that do not begin with these dimensions."""
    values = {} if function is None else dict(function(times))
    for leaf in pytree.tree_leaves(values):
        if not isinstance(leaf, Tensor) or leaf.shape[:2] != times.shape:
            shape = tuple(leaf.shape) if isinstance(leaf, Tensor) else type(leaf).__name__
            raise InputError(
                f"in_time must return tensors that begin with the shape {tuple(times.shape)} of its times, got {shape}"
            )
    return values


def _with(setting: Params, varying: Params, place: int) -> Params:
    """The setting with what varies as it is at one time of the step; entries by name join those that are constant."""
    now = pytree.tree_map(lambda values: values[place], varying)
    joined = {
        name: {**setting[name], **value} if isinstance(value, Mapping) and name in setting else value
        for name, value in now.items()
    }
    return {**setting, **joined}
