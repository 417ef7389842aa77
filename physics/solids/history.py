"""A solid through a history of loads: one equilibrium after the other, with the gradient of all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bilevel.implicit.chain import chain
from bilevel.problem import Params
from bilevel.report import ConvergenceError, InputError
from bilevel.solvers.loop import Solver
from physics.solids.solid import InelasticSolid, Solid


@dataclass(frozen=True)
class LoadHistory:
    """What was found after each step.

    displacement, reactions (steps, nodes, dim), m and N. state (steps, cells, points, size) and strain (steps, cells,
    points, 6, Mandel) of an inelastic body; of no entries for an elastic one, which remembers nothing.
    """

    displacement: Tensor
    reactions: Tensor
    state: Tensor
    strain: Tensor


def load_history(
    solid: Solid, params: Params, steps: Mapping[str, Any], *, solver: Solver | None = None
) -> LoadHistory:
    """Equilibrium after each of several load steps, from rest or from params["begin"]; differentiable in all tensors.

    steps: the entries of params that change, loads and "boundary" with its values by name, each with one leading entry a
    step. Raises InputError for entries of unequal length, ConvergenceError, which names the step.

        steps = {"boundary": {"plate": -0.01 * torch.linspace(0, 1, 11)[1:]}}
        history = load_history(solid, {"material": values}, steps)
    """
    if not steps or {"material", "begin"} & set(steps):
        raise InputError("the steps of a history are of loads and of boundary values")
    begin = params.get("begin") or (solid.begin() if isinstance(solid, InelasticSolid) else {})
    constant = {name: value for name, value in params.items() if name != "begin"}
    loads = {**steps, "number": torch.arange(1, _length(steps) + 1)}

    def step(old: dict[str, Any], values: Params, load: dict[str, Any], start: dict[str, Any]) -> dict[str, Any]:
        number, moved = int(load["number"]), {name: value for name, value in load.items() if name != "number"}
        given = _joined(values, moved, old["begin"])
        try:
            u = solid.solve(given, start["u"], solver).u
        except ConvergenceError as error:
            raise ConvergenceError(f"load step {number}: {error}") from error
        return {
            "u": u,
            "displacement": solid.expand(u, given),
            "reactions": solid.reactions(u, given),
            "begin": solid.end(u, given) if isinstance(solid, InelasticSolid) else {},
        }

    nothing = torch.zeros_like(solid.mesh.coordinates)
    first = {"u": solid.start(), "displacement": nothing, "reactions": nothing.clone(), "begin": begin}
    found = chain(step, first, constant, loads, observe=lambda new, *_: {**new, "u": new["u"].new_zeros(0)}).observed
    empty = nothing.new_zeros(0)
    state, strain = (found["begin"].get(name, empty) for name in ("state", "strain"))
    return LoadHistory(found["displacement"], found["reactions"], state, strain)


def _joined(values: Params, moved: Mapping[str, Any], begin: Params) -> dict[str, Any]:
    joined = {**values, **moved}
    if "boundary" in moved:
        joined["boundary"] = {**values.get("boundary", {}), **moved["boundary"]}
    return {**joined, "begin": begin} if begin else joined


def _length(steps: Mapping[str, Any]) -> int:
    first = next(iter(steps.values()))
    return _length(first) if isinstance(first, Mapping) else len(first)
