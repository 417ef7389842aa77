"""A solid through a history of loads: one equilibrium after the other, with the gradient of all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bilevel.implicit.chain import chain
from bilevel.problem import Params
from bilevel.report import BilevelError, ConvergenceError, InputError, NoSolutionError, SingularError, Solution
from bilevel.solvers import Newton
from bilevel.solvers.solver import Solver
from bilevel.solvers.steps import Armijo
from bilevel.torch_internals import outside_transforms, plain, pytree
from physics.solids.load_path import LoadPath
from physics.solids.solid import EQUILIBRIUM, InelasticSolid, Solid


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


FIRST_TRY = Newton(step=Armijo(decrease=0.3, max_trials=8), tolerance=EQUILIBRIUM.tolerance, max_iterations=20)
"""Of a step of an inelastic body: what takes longer is better gone through in parts."""

CUTS = 6
"""How often an increment of load may be halved on the way to its end."""


def load_history(
    solid: Solid,
    params: Params,
    steps: Mapping[str, Any],
    *,
    solver: Solver | None = None,
    watch: Callable[[Solution], None] = lambda solution: None,
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
    count = _length(steps)
    before = _shifted(steps)
    loads = {"after": dict(steps), "before": before, "earlier": _shifted(before), "number": torch.arange(1, count + 1)}

    def step(old: dict[str, Any], values: Params, load: dict[str, Any], start: dict[str, Any]) -> dict[str, Any]:
        given = _joined(values, load["after"], old["begin"])
        begin = start["u"]
        if isinstance(solid, InelasticSolid) and begin is old["u"]:  # on the way back it is the answer itself
            begin = begin + _continued(load) * (begin - old["earlier"])
        try:
            solution = solid.solve(given, begin, solver or (FIRST_TRY if isinstance(solid, InelasticSolid) else None))
        except (ConvergenceError, SingularError) as error:
            near = _near_end(solid, _parts(values, load, old["begin"]), load, old["u"], solver, error)
            solution = solid.solve(given, near, solver)
        watch(solution)
        u = solution.u
        return {
            "u": u,
            "earlier": old["u"].detach(),
            "displacement": solid.expand(u, given),
            "reactions": solid.reactions(u, given),
            "begin": solid.end(u, given) if isinstance(solid, InelasticSolid) else {},
        }

    nothing = torch.zeros_like(solid.mesh.coordinates)
    rest, empty = solid.start(), nothing.new_zeros(0)
    first = {"u": rest, "earlier": rest.clone(), "displacement": nothing, "reactions": nothing.clone(), "begin": begin}
    found = chain(step, first, constant, loads, observe=lambda new, *_: {**new, "u": empty, "earlier": empty}).observed
    state, strain = (found["begin"].get(name, empty) for name in ("state", "strain"))
    return LoadHistory(found["displacement"], found["reactions"], state, strain)


FARTHEST = 3.0
"""How many times the last move is gone once more, at most, to where a step begins."""


@torch.no_grad()
def _continued(load: Mapping[str, Any]) -> float:
    """How far a step's loads go on in the direction of the last ones, as a multiple of these; 0 where they turn back."""
    along = length = 0.0
    for leaves in zip(*(pytree.tree_leaves(load[when]) for when in ("after", "before", "earlier"))):
        after, before, earlier = (plain(torch.as_tensor(x)) for x in leaves)
        now, last = after - before, before - earlier
        size = float(torch.maximum(now.abs().max(), last.abs().max()))
        if size > 0.0:  # each kind of load by its own size: newtons and metres do not add up
            along += float((now / size * last / size).sum())
            length += float((last / size).square().sum())
    return min(max(along / length, 0.0), FARTHEST) if length else 0.0


def _parts(values: Params, load: Mapping[str, Any], begin: Params) -> Callable[[float], Params]:
    """The parameters, as plain numbers, where a fraction of an increment is on."""
    given = (values, load["before"], load["after"], begin)
    values, before, after, begin = pytree.tree_map(lambda x: plain(x) if isinstance(x, Tensor) else x, given)

    def part(fraction: float) -> Params:
        return _joined(values, pytree.tree_map(lambda a, b: a + fraction * (b - a), before, after), begin)

    return part


@torch.no_grad()
def _near_end(
    solid: Solid,
    part: Callable[[float], Params],
    load: Mapping[str, Any],
    u: Tensor,
    solver: Solver | None,
    failure: BilevelError,
) -> Tensor:
    """A start at the end of an increment that was not found at once, by equilibria on the way to it."""
    ends = (pytree.tree_map(plain, load[when].get("boundary", {})) for when in ("before", "after"))
    u = plain(u)
    try:
        with outside_transforms():
            fixed = all(pytree.tree_leaves(pytree.tree_map(torch.equal, *ends)))
            if isinstance(solid, InelasticSolid) and fixed:
                return LoadPath(solid, part, u).end()
            return _in_parts(solid, part, u, solver)
    except (ConvergenceError, SingularError) as error:
        kind = NoSolutionError if isinstance(error, NoSolutionError) else ConvergenceError
        raise kind(f"load step {int(load['number'])}: {error}") from failure


def _in_parts(solid: Solid, part: Callable[[float], Params], u: Tensor, solver: Solver | None) -> Tensor:
    """By equilibria at fractions of the increment: halved where one is not found."""
    done, length = 0.0, 0.5
    while done < 1.0:
        try:
            u = solid.solve(part(min(1.0, done + length)), u, solver).u
            done += length
            length = min(1.5 * length, 1.0 - done) if done < 1.0 else length
        except (ConvergenceError, SingularError) as error:
            length *= 0.5
            if length < 0.5**CUTS:
                raise ConvergenceError(
                    f"no equilibrium was found beyond {100 * done:.3g} % of its increment, which may be a limit load; {error}"
                ) from error
    return u


def _shifted(steps: Mapping[str, Any]) -> Any:
    """The loads before each step; none before the first."""
    return pytree.tree_map(lambda x: torch.cat((torch.zeros_like(x[:1]), x[:-1])), dict(steps))


def _joined(values: Params, moved: Mapping[str, Any], begin: Params) -> dict[str, Any]:
    joined = {**values, **moved}
    if "boundary" in moved:
        joined["boundary"] = {**values.get("boundary", {}), **moved["boundary"]}
    return {**joined, "begin": begin} if begin else joined


def _length(steps: Mapping[str, Any]) -> int:
    first = next(iter(steps.values()))
    return _length(first) if isinstance(first, Mapping) else len(first)
