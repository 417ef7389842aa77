"""Chains of inner problems: each step's state is found from the one before it (time steps, load steps, plasticity).

The gradient is a reverse sweep. The forward sweep keeps one state in about sqrt(steps); the reverse sweep recomputes
the states between two of them and then differentiates one step after the other, so that neither a graph nor a
matrix outlives its step (Griewank and Walther 2000, Algorithm 799, with one level of checkpoints).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from bilevel.implicit.visit import Spot, next_spot
from bilevel.problem import Params
from bilevel.report import BilevelError, InputError, UndeclaredTensorError
from bilevel.torch_internals import (
    has_tangent,
    is_batched_cotangent,
    is_transformed,
    outside_compilation,
    pytree,
    refuse_nested_forward,
    unwrapped,
    vjp_of_batched_cotangents,
    with_tangent,
)

State: TypeAlias = Any
"""A tensor, or nested dicts, lists and tuples of tensors."""

Leaves: TypeAlias = tuple[Tensor, ...]

_TENSOR = object()

UNDECLARED = (
    "a tensor that needs a gradient reaches the steps of a chain otherwise than through its state, params or loads; pass "
    "it in one of them"
)
SAME_STATE = 1e-5
"""Relative difference of a step's states that the tolerance of its solver may explain."""


class ChainStep(Protocol):
    """One step: the new state, with the same structure as the old one.

    start: where an iterative solve may begin. It is the old state on the way forward, and the answer itself on the way
    back; the result must not depend on it beyond the solver's tolerance.
    """

    def __call__(self, old: State, params: Params, load: Any, start: State, /) -> State: ...


Observe: TypeAlias = Callable[[State, Params, Any], State]


@dataclass(frozen=True)
class Trajectory:
    """The state after the last step, and what was observed after each step (leading dimension: steps)."""

    final: State
    observed: State


@outside_compilation
def chain(
    step: ChainStep,
    state: State,
    params: Params = None,
    loads: Any = None,
    *,
    steps: int | None = None,
    observe: Observe | None = None,
    segment: int | None = None,
) -> Trajectory:
    """Run state <- step(state, params, load, start) for every load, with derivatives of any order in all tensors.

    state, params: nested tensors. loads: nested tensors with one leading entry a step; `steps` counts the steps where
    there are none. observe(new state, params, load) says what to keep of each step; by default the whole state, which
    costs memory in proportion to the steps. segment: steps between two checkpoints, sqrt(steps) by default.
    The step may solve inner problems by `argmin`, `root` and `fixed_point`; it must be pure.
    Forward mode sweeps forward; second derivatives keep the graph of all steps.
    Raises InputError for loads of unequal length, UndeclaredTensorError for a tensor that needs a gradient and reaches
    the step otherwise than through `state`, `params` or `loads`.
    """
    program, tensors = _Program.compile(step, observe or _whole_state, state, params, loads, steps, segment)
    if any(has_tangent(tensor) for tensor in tensors):
        return program.trajectory(program.sweep([with_tangent(tensor) for tensor in tensors]))
    program.refuse_undeclared(tensors)
    return program.trajectory(_Chain.apply(program, *tensors))


def _whole_state(state: State, params: Params, load: Any) -> State:
    return state


@dataclass
class _Program:
    """The chain with its nested arguments laid out flat: tensors of the state, of the parameters, of the loads."""

    step: ChainStep
    observe: Observe
    steps: int
    segment: int
    state_spec: pytree.TreeSpec
    params_spec: pytree.TreeSpec
    loads_spec: pytree.TreeSpec
    constants: list[Any]
    """All leaves of params and loads, with _TENSOR where a differentiable tensor goes."""
    counts: tuple[int, int, int]
    spot: Spot | None
    observed_spec: pytree.TreeSpec | None = None

    @staticmethod
    def compile(
        step: ChainStep,
        observe: Observe,
        state: State,
        params: Params,
        loads: Any,
        steps: int | None,
        segment: int | None,
    ) -> tuple[_Program, Leaves]:
        state_leaves, state_spec = pytree.tree_flatten(state)
        if not state_leaves or not all(_differentiable(leaf) for leaf in state_leaves):
            raise InputError("a chain's state must be made of floating-point tensors only")
        params_leaves, params_spec = pytree.tree_flatten(params)
        loads_leaves, loads_spec = pytree.tree_flatten(loads)
        steps = _count_steps(loads_leaves, steps)
        rest = params_leaves + loads_leaves
        constants = [_TENSOR if _differentiable(leaf) else _constant(leaf) for leaf in rest]
        counts = (len(state_leaves), sum(map(_differentiable, params_leaves)), sum(map(_differentiable, loads_leaves)))
        segment = segment or math.isqrt(steps - 1) + 1
        program = _Program(
            step, observe, steps, segment, state_spec, params_spec, loads_spec, constants, counts, next_spot()
        )
        return program, (*state_leaves, *(leaf for leaf in rest if _differentiable(leaf)))

    def split(self, tensors: Sequence[Tensor]) -> tuple[Leaves, Leaves, Leaves]:
        n_state, n_params, _ = self.counts
        return (
            tuple(tensors[:n_state]),
            tuple(tensors[n_state : n_state + n_params]),
            tuple(tensors[n_state + n_params :]),
        )

    @property
    def starts(self) -> range:
        """The steps at which segments start."""
        return range(0, self.steps, self.segment)

    def advance(self, k: int, old: Leaves, params: Leaves, loads: Leaves, start: Leaves) -> tuple[Leaves, Leaves]:
        """The state after step k (loads hold one step's entries), and what is observed of it."""
        remaining = iter((*params, *loads))
        leaves = [next(remaining) if leaf is _TENSOR else leaf for leaf in self.constants]
        n_params = self.params_spec.num_leaves
        load_leaves = [
            leaf[k] if isinstance(leaf, Tensor) and not _differentiable(leaf) else leaf for leaf in leaves[n_params:]
        ]
        params_tree = pytree.tree_unflatten(leaves[:n_params], self.params_spec)
        load_tree = pytree.tree_unflatten(load_leaves, self.loads_spec)
        before, begin = (pytree.tree_unflatten(leaves, self.state_spec) for leaves in (old, start))
        with nullcontext() if self.spot is None else self.spot.step(k):
            new = self.step(before, params_tree, load_tree, begin)
        new_leaves, spec = pytree.tree_flatten(new)
        if spec != self.state_spec:
            raise TypeError(
                f"step {k} of the chain returned a state of structure {spec}, it was given {self.state_spec}"
            )
        observed, self.observed_spec = pytree.tree_flatten(self.observe(new, params_tree, load_tree))
        return tuple(new_leaves), tuple(observed)

    def sweep(self, tensors: Sequence[Tensor], checkpoints: list[Leaves] | None = None) -> Leaves:
        """All steps: the leaves of the final state, then those observed, stacked. Appends to `checkpoints` if given."""
        state, params, loads = self.split(tensors)
        rows: list[Leaves] = []
        for k in range(self.steps):
            if checkpoints is not None and k in self.starts:
                checkpoints.append(state)
            state, observed = self.advance(k, state, params, tuple(load[k] for load in loads), state)
            rows.append(observed)
        return (*state, *(torch.stack(column) for column in zip(*rows)))

    def reverse(self, tensors: Leaves, checkpoints: list[Leaves], cotangents: Leaves) -> Leaves:
        """The cotangents of all tensors, from those of the final state and of the observed rows."""
        state, params, loads = self.split(tensors)
        adjoint, rows = cotangents[: len(state)], cotangents[len(state) :]
        of_params = [torch.zeros_like(p) for p in params]
        of_loads: list[Leaves] = []
        after: Leaves | None = None
        for first, checkpoint in reversed(list(zip(self.starts, checkpoints))):
            last = min(first + self.segment, self.steps)
            states = self._states(first, last, checkpoint, params, loads, after)
            for k in reversed(range(first, last)):
                load = tuple(x[k] for x in loads)
                given = (states[k - first], params, load, states[k - first + 1])
                cotangent = (adjoint, tuple(row[k] for row in rows))
                adjoint, step_params, step_loads = self._step_vjp(k, given, cotangent)
                of_params = [total + part for total, part in zip(of_params, step_params)]
                of_loads.append(step_loads)
            after = checkpoint
        return (*adjoint, *of_params, *(torch.stack(column[::-1]) for column in zip(*of_loads)))

    def _states(
        self, first: int, last: int, checkpoint: Leaves, params: Leaves, loads: Leaves, after: Leaves | None
    ) -> list[Leaves]:
        """The states before steps first..last-1 and after the last; `after` spares the last step where it is known."""
        states = [checkpoint]
        for k in range(first, last if after is None else last - 1):
            states.append(self.advance(k, states[-1], params, tuple(x[k] for x in loads), states[-1])[0])
        return states if after is None else [*states, after]

    def _step_vjp(
        self, k: int, given: tuple[Leaves, Leaves, Leaves, Leaves], cotangent: tuple[Leaves, Leaves]
    ) -> tuple[Leaves, Leaves, Leaves]:
        """The cotangents of one step's old state, parameters and load; the last entry of `given` is its answer."""
        old, params, load, new = given
        first, second = len(old), len(old) + len(params)

        def step(*x: Tensor) -> Leaves:
            after, observed = self.advance(k, x[:first], x[first:second], x[second:], new)
            return (*after, *observed)

        tensors = (*old, *params, *load)
        if any(is_transformed(x) for x in (*tensors, *new)):
            found = _vjp(step, tensors, (*cotangent[0], *cotangent[1]))
        else:
            with torch.enable_grad():  # so that a tensor which is none of the arguments shows in what comes out
                detached = tuple(x.detach() for x in tensors)
                found, again = _vjp_and_value(step, detached, (*cotangent[0], *cotangent[1]))
            self._require_pure(k, again, new)
        return found[:first], found[first:second], found[second:]

    def _require_pure(self, k: int, again: Leaves, new: Leaves) -> None:
        """Raise if a step that was run again came to another state, or reached a tensor that it was not given."""
        if any(x.requires_grad for x in again):
            raise UndeclaredTensorError(UNDECLARED)
        for one, other in zip(again, new):
            if one.is_floating_point() and not bool(
                torch.linalg.vector_norm(one - other) <= SAME_STATE * torch.linalg.vector_norm(other)
            ):
                raise BilevelError(
                    f"step {k} of the chain came to another state when it was run again for the gradient; a step must "
                    "depend on its arguments alone (no random numbers, no counters, nothing that changes in between)"
                )

    def refuse_undeclared(self, tensors: Leaves) -> None:
        """Raise if the step reaches a tensor that needs a gradient by another way than its arguments."""
        if not torch.is_grad_enabled():
            return
        state, params, loads = self.split([tensor.detach() for tensor in tensors])
        new, observed = self.advance(0, state, params, tuple(x[0] for x in loads), state)
        if any(x.requires_grad for x in (*new, *observed)):
            raise UndeclaredTensorError(UNDECLARED)

    def trajectory(self, outputs: Sequence[Tensor]) -> Trajectory:
        n_state = self.counts[0]
        assert self.observed_spec is not None
        n_observed = self.observed_spec.num_leaves
        return Trajectory(
            pytree.tree_unflatten(list(outputs[:n_state]), self.state_spec),
            pytree.tree_unflatten(list(outputs[n_state : n_state + n_observed]), self.observed_spec),
        )


def _constant(leaf: Any) -> Any:
    """What a transform has wrapped (numbers of steps that were made inside it) is no more than its numbers."""
    inside = unwrapped(leaf) if isinstance(leaf, Tensor) else None
    return leaf if inside is None else inside


def _differentiable(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point()


def _count_steps(loads: list[Any], steps: int | None) -> int:
    lengths = {leaf.shape[0] for leaf in loads if isinstance(leaf, Tensor)} | ({steps} if steps is not None else set())
    if len(lengths) != 1:
        raise InputError(
            f"a chain needs loads with one entry a step, or `steps`; the lengths given are {sorted(lengths) or 'none'}"
        )
    count = lengths.pop()
    if count < 1:
        raise InputError("a chain needs at least one step")
    return count


def _vjp(function: Callable[..., Leaves], inputs: Leaves, cotangents: Leaves) -> Leaves:
    """The vector-Jacobian product, evaluated at once: a kept `torch.func.vjp` of an input that does not matter escapes
    from the transforms around it (PyTorch 2.13)."""

    def product(*x: Tensor) -> Tensor:
        return torch.stack([(c * y).sum() for c, y in zip(cotangents, function(*x))]).sum()

    return torch.func.grad(product, tuple(range(len(inputs))))(*inputs)


def _vjp_and_value(function: Callable[..., Leaves], inputs: Leaves, cotangents: Leaves) -> tuple[Leaves, Leaves]:
    """The vector-Jacobian product, and what the function returned."""

    def product(*x: Tensor) -> tuple[Tensor, Leaves]:
        values = function(*x)
        return torch.stack([(c * y).sum() for c, y in zip(cotangents, values)]).sum(), values

    return torch.func.grad(product, tuple(range(len(inputs))), has_aux=True)(*inputs)


class _Chain(torch.autograd.Function):
    """The forward sweep; its derivative is `_ReverseSweep`."""

    generate_vmap_rule = True

    @staticmethod
    def forward(program: _Program, *tensors: Tensor) -> Leaves:  # type: ignore[override]
        checkpoints: list[Leaves] = []
        outputs = [x.clone() if any(x is t for t in tensors) else x for x in program.sweep(tensors, checkpoints)]
        return (*outputs, *(torch.stack(column) for column in zip(*checkpoints)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Leaves) -> None:
        program, *tensors = inputs
        checkpoints = output[-program.counts[0] :]
        ctx.mark_non_differentiable(*checkpoints)
        ctx.program, ctx.outputs = program, len(output) - len(checkpoints)
        ctx.save_for_backward(*tensors, *checkpoints)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        n_state = ctx.program.counts[0]
        saved = ctx.saved_tensors
        tensors, checkpoints = saved[:-n_state], saved[-n_state:]
        cotangents = cotangents[: ctx.outputs]

        def vjp(*cotangents: Tensor) -> Leaves:
            return _ReverseSweep.apply(ctx.program, len(tensors), *tensors, *cotangents, *checkpoints)

        if any(is_batched_cotangent(c) for c in cotangents):
            return (None, *vjp_of_batched_cotangents(vjp, *cotangents))
        return (None, *vjp(*cotangents))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_nested_forward()
        tensors = ctx.saved_tensors
        known = tuple(torch.zeros_like(x) if t is None else t for x, t in zip(tensors, tangents))
        moved = torch.func.jvp(lambda *inputs: ctx.program.sweep(inputs), tensors, known)[1]
        return (*moved, *([None] * ctx.program.counts[0]))


class _ReverseSweep(torch.autograd.Function):
    """The cotangents of a chain's tensors. Its own derivative goes through the plain graph of all steps.

    The checkpoints are a by-product of the tensors, so nothing is differentiated with respect to them.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(program: _Program, n_tensors: int, *given: Tensor) -> Leaves:  # type: ignore[override]
        n_state = program.counts[0]
        checkpoints = [tuple(column) for column in zip(*given[-n_state:])]
        return program.reverse(given[:n_tensors], checkpoints, given[n_tensors:-n_state])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Leaves) -> None:
        ctx.program, ctx.n_tensors, *given = inputs
        given = given[: -ctx.program.counts[0]]
        ctx.save_for_backward(*given)
        ctx.save_for_forward(*given)

    @staticmethod
    def plain(ctx: Any) -> Callable[..., Leaves]:
        """The same cotangents as a differentiable function of (tensors, cotangents)."""

        def cotangents_of(*given: Tensor) -> Leaves:
            tensors, cotangents = given[: ctx.n_tensors], given[ctx.n_tensors :]
            return _vjp(lambda *x: ctx.program.sweep(x), tensors, cotangents)

        return cotangents_of

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        given = ctx.saved_tensors
        found = _vjp(_ReverseSweep.plain(ctx), given, cotangents)
        return (None, None, *found, *([None] * ctx.program.counts[0]))

    @staticmethod
    def jvp(ctx: Any, _program: None, _n: None, *tangents: Tensor | None) -> Leaves:
        refuse_nested_forward()
        given = ctx.saved_tensors
        known = tuple(torch.zeros_like(x) if t is None else t for x, t in zip(given, tangents))
        return torch.func.jvp(_ReverseSweep.plain(ctx), given, known)[1]
