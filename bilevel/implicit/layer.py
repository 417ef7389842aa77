"""The implicit function theorem, in one place: solve forward; VJP, JVP and second derivatives by linear solves.

At a solution r(u, p) = 0 the state moves with the parameters as du = -H^-1 (dr/dp) dp with H = dr/du, however u was
found. Everything below is that formula, its transpose, and the derivative of the linear solve itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from torch import Tensor

from bilevel.implicit import recording
from bilevel.implicit.certificate import certify, corrected_gradient
from bilevel.implicit.linearised_solve import Leaves, LinearisedSolve
from bilevel.implicit.strategies import Adjoint, Exact, Unrolled
from bilevel.implicit.undeclared import refuse_undeclared
from bilevel.implicit.unrolled import unroll
from bilevel.problem import Energy, EnergyProblem, FixedPoint, Function, Params, Problem, Residual
from bilevel.report import BilevelError, OnFail, Solution
from bilevel.solvers.fixed_point import Anderson
from bilevel.solvers.loop import Solver
from bilevel.solvers.newton import Newton
from bilevel.torch_internals import (
    is_batched_cotangent,
    is_transformed,
    pytree,
    refuse_nested_forward,
    vjp_of_batched_cotangents,
)


class _State(torch.autograd.Function):
    """parameters -> u*, with the implicit function theorem as its derivative."""

    @staticmethod
    def forward(linearised: LinearisedSolve, u0: Tensor, *leaves: Tensor) -> Tensor:
        return linearised.run(u0, leaves)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        linearised, _, *leaves = inputs
        ctx.linearised = linearised
        ctx.save_for_backward(output, *leaves)
        ctx.save_for_forward(output, *leaves)

    @staticmethod
    def backward(ctx, cotangent):  # type: ignore[no-untyped-def]
        u, *leaves = ctx.saved_tensors
        linearised = ctx.linearised
        if linearised.adjoint.exact and _in_numbers(cotangent, u, *leaves):
            return None, None, *_exact_gradient(linearised, cotangent, u, leaves, ctx.needs_input_grad[2:])

        def vjp(cotangent: Tensor) -> tuple[Tensor, ...]:
            adjoint = _LinearSolve.apply(linearised, "adjoint", cotangent, u, *leaves)
            return torch.func.vjp(lambda *p: linearised.residual(u, *p), *leaves)[1](-adjoint)

        if is_batched_cotangent(cotangent):
            return None, None, *vjp_of_batched_cotangents(vjp, cotangent)
        return None, None, *vjp(cotangent)

    @staticmethod
    def jvp(ctx, _inner, _u0, *tangents):  # type: ignore[no-untyped-def]
        refuse_nested_forward()
        u, *leaves = ctx.saved_tensors
        linearised = ctx.linearised
        moved = [None if t is None else t.unsqueeze(0) for t in tangents]
        force = _ParameterJVP.apply(linearised, u, len(leaves), *leaves, *moved)[0]
        return _LinearSolve.apply(linearised, "forward", -force, u, *leaves)

    @staticmethod
    def vmap(info, in_dims, linearised, u0, *leaves):  # type: ignore[no-untyped-def]
        raise BilevelError(
            "an implicit layer cannot be vmapped over its parameters; give the problem batch_dims=1 and batched parameters "
            "instead (derivatives of the layer may be vmapped)"
        )


class _ParameterJVP(torch.autograd.Function):
    """The derivatives (m, *batch, n) of the residual at u in m directions of the parameters, all in one call.

    tensors: the leaves, then the directions (m, ...) of each, None where it does not move.
    """

    @staticmethod
    def forward(linearised: LinearisedSolve, u: Tensor, count: int, *tensors: Tensor | None) -> Tensor:
        with torch.no_grad():
            return linearised.parameter_jvp(u, tensors[:count], tensors[count:])  # type: ignore[arg-type]

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.linearised, u, ctx.count, *tensors = inputs
        ctx.save_for_backward(u, *tensors)

    @staticmethod
    def backward(ctx, cotangent):  # type: ignore[no-untyped-def]
        u, *tensors = ctx.saved_tensors
        linearised, count = ctx.linearised, ctx.count
        moving = [i for i, move in enumerate(tensors[count:]) if move is not None]

        def jvp(v: Tensor, *p: Tensor) -> Tensor:
            return linearised.jvp_by_autodiff(v, p[:count], dict(zip(moving, p[count:], strict=True)))

        primals = (u, *tensors[:count], *(tensors[count + i] for i in moving))
        by_u, *others = torch.func.vjp(jvp, *primals)[1](cotangent)
        by_moved = dict(zip(moving, others[count:], strict=True))
        return None, by_u, None, *others[:count], *(by_moved.get(i) for i in range(count))

    @staticmethod
    def vmap(info, in_dims, linearised, u, count, *tensors):  # type: ignore[no-untyped-def]
        _, by_u, _, *dims = in_dims
        size = info.batch_size
        if by_u is not None or any(dim is not None for dim in dims[:count]):
            # The state differs between the samples (nested transforms): take them one by one.
            everything = [(u, by_u), *zip(tensors, dims, strict=True)]
            samples = ([t if d is None else t.select(d, i) for t, d in everything] for i in range(size))
            return torch.stack([_ParameterJVP.apply(linearised, first, count, *rest) for first, *rest in samples]), 0
        wide = [
            t if t is None else t.expand(size, *t.shape) if d is None else t.movedim(d, 0)
            for t, d in zip(tensors[count:], dims[count:], strict=True)
        ]
        image = _ParameterJVP.apply(
            linearised, u, count, *tensors[:count], *(t if t is None else t.flatten(0, 1) for t in wide)
        )
        return image.unflatten(0, (size, -1)), 0


def _in_numbers(*tensors: Tensor) -> bool:
    """Whether nothing will be differentiated further, and no transform is under way."""
    return not torch.is_grad_enabled() and not any(is_transformed(t) for t in tensors)


def _exact_gradient(
    linearised: LinearisedSolve, cotangent: Tensor, u: Tensor, leaves: Leaves, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients of the wanted leaves, None for the others."""
    if linearised.certifies:
        gradients, report = corrected_gradient(linearised, cotangent, u, leaves, wanted)
        linearised.gradients.append(report)
    else:
        linearised.verify_tangent(u, leaves)
        adjoint = linearised.solve_adjoint(cotangent, u, leaves)
        gradients = linearised.parameter_vjp(-adjoint, u, leaves, wanted, with_unknown=False)
    given = iter(gradients)
    return [next(given) if want else None for want in wanted]


class _LinearSolve(torch.autograd.Function):
    """b -> H(u, p)^-1 b, or H^-T b; differentiable in b, u and p, with many right-hand sides in one call.

    mode: "forward" solves with H, "transposed" with its transpose, "adjoint" likewise by the layer's own strategy.
    """

    @staticmethod
    def forward(linearised: LinearisedSolve, mode: str, b: Tensor, u: Tensor, *leaves: Tensor) -> Tensor:
        with torch.no_grad():
            linearised.verify_tangent(u, leaves)
            if mode != "adjoint":
                return linearised.solve(b, u, leaves, mode == "transposed", linearised.linear_tolerance)
            started = time.perf_counter()
            adjoint = linearised.solve_adjoint(b, u, leaves)
            if linearised.certifies:
                linearised.gradients.append(certify(linearised, b, adjoint, u, leaves, started))
            return adjoint

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        linearised, mode, _, u, *leaves = inputs
        ctx.linearised, ctx.transposed = linearised, mode != "forward"
        ctx.save_for_backward(output, u, *leaves)
        ctx.save_for_forward(output, u, *leaves)

    @staticmethod
    def backward(ctx, cotangent):  # type: ignore[no-untyped-def]
        x, u, *leaves = ctx.saved_tensors
        linearised = ctx.linearised
        other = "forward" if ctx.transposed else "transposed"

        def vjp(cotangent: Tensor) -> tuple[Tensor, ...]:
            w = _LinearSolve.apply(linearised, other, cotangent, u, *leaves)
            by_tangent = torch.func.vjp(lambda v, *p: linearised.apply(v, p, x, ctx.transposed), u, *leaves)[1]
            return w, *by_tangent(-w)

        if is_batched_cotangent(cotangent):
            return None, None, *vjp_of_batched_cotangents(vjp, cotangent)
        return None, None, *vjp(cotangent)

    @staticmethod
    def jvp(ctx, _inner, _mode, b_moved, *tangents):  # type: ignore[no-untyped-def]
        refuse_nested_forward()
        x, u, *leaves = ctx.saved_tensors
        linearised = ctx.linearised
        primals = (u, *leaves)
        moved = tuple(torch.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=True))
        change = torch.func.jvp(lambda v, *p: linearised.apply(v, p, x, ctx.transposed), primals, moved)[1]
        right = -change if b_moved is None else b_moved - change
        return _LinearSolve.apply(linearised, "transposed" if ctx.transposed else "forward", right, u, *leaves)

    @staticmethod
    def vmap(info, in_dims, linearised, mode, b, u, *leaves):  # type: ignore[no-untyped-def]
        dims = in_dims[2:]
        if all(dim is None for dim in dims[1:]):
            return _LinearSolve.apply(linearised, mode, b.movedim(dims[0], 0), u, *leaves), 0
        # The state differs between the samples (nested transforms): solve them one by one.
        tensors = (b, u, *leaves)
        rows = [
            _LinearSolve.apply(
                linearised, mode, *[t if d is None else t.select(d, i) for t, d in zip(tensors, dims, strict=True)]
            )
            for i in range(info.batch_size)
        ]
        return torch.stack(rows), 0


def solve_implicitly(
    problem: Problem, u0: Tensor, params: Params, solver: Solver, adjoint: Adjoint | None, on_fail: OnFail
) -> Solution:
    """The layer behind argmin, root and fixed_point."""
    _require_usable(solver, on_fail)
    u0 = torch.as_tensor(u0).detach()
    if not u0.is_floating_point():
        u0 = u0.to(torch.get_default_dtype())
    if u0.numel() == 0:
        raise ValueError(f"the start has no entries (shape {tuple(u0.shape)}): there is nothing to solve for")
    problem = problem.for_unknown(u0)
    vector = u0.reshape(*u0.shape[: problem.batch_dims], -1)
    leaves, names, rebuild = _split(problem.collect(params))
    refuse_undeclared(problem, vector, rebuild, leaves)
    linearised = LinearisedSolve(problem, rebuild, names, solver, adjoint or Exact(), on_fail)
    linearised = recording.enter(linearised)
    u = (
        unroll(linearised, vector, leaves)
        if isinstance(linearised.adjoint, Unrolled)
        else _State.apply(linearised, vector, *leaves)
    )
    assert linearised.outcome is not None
    return Solution(u.reshape(u0.shape), linearised.outcome.report, linearised.gradients)


def _require_usable(solver: Solver, on_fail: OnFail) -> None:
    """A misspelt on_fail would silence failures."""
    if on_fail not in get_args(OnFail):
        raise ValueError(f"on_fail must be one of {', '.join(map(repr, get_args(OnFail)))}, got {on_fail!r}")
    if not isinstance(solver, Solver):
        raise TypeError(f"solver must be a solver such as bilevel.Newton(), got {solver!r}")


def _split(params: Params) -> tuple[list[Tensor], list[str], Callable[[Sequence[Tensor | None]], Params]]:
    """The floating-point tensors of a nested structure, their names, and how to put others in their place."""
    flat, spec = pytree.tree_flatten_with_path(params)
    values: list[Any] = [leaf for _, leaf in flat]
    for path, leaf in flat:
        if isinstance(leaf, torch.nn.Module):
            name = f"parameter {pytree.keystr(path)} is" if path else "params are"
            raise TypeError(f"{name} a {type(leaf).__name__}; pass a dict of its tensors")
        if isinstance(leaf, Tensor) and leaf.is_complex():
            raise TypeError(
                f"parameter {pytree.keystr(path)} is complex; pass real tensors, such as torch.view_as_real of it"
            )
    places = [i for i, leaf in enumerate(values) if isinstance(leaf, Tensor) and leaf.is_floating_point()]

    def rebuild(leaves: Sequence[Tensor | None]) -> Params:
        filled = list(values)
        for place, leaf in zip(places, leaves, strict=True):
            filled[place] = leaf
        return pytree.tree_unflatten(filled, spec)

    leaves = [values[i] for i in places]
    for place in places:
        values[place] = None
    return leaves, [pytree.keystr(flat[i][0]) for i in places], rebuild


def argmin(
    energy: EnergyProblem | Function,
    u0: Tensor,
    params: Params = None,
    *,
    solver: Solver | None = None,
    adjoint: Adjoint | None = None,
    on_fail: OnFail = "raise",
) -> Solution:
    """u* = argmin over u of E(u, params) from the start u0, differentiable in every tensor of params.

    energy: an `EnergyProblem`, or a function E(u, params) -> scalar, or a module. u0: any shape; its values only start
    the search. params: nested dicts of tensors. Raises ConvergenceError (unless on_fail says otherwise), SingularError,
    UndeclaredTensorError. Source: implicit function theorem, e.g. Griewank & Walther 2008, chapter 15.
    """
    problem = energy if isinstance(energy, EnergyProblem) else Energy(energy)
    return solve_implicitly(problem, u0, params, solver or Newton(), adjoint, on_fail)


def root(
    residual: Problem | Function,
    u0: Tensor,
    params: Params = None,
    *,
    solver: Solver | None = None,
    adjoint: Adjoint | None = None,
    on_fail: OnFail = "raise",
) -> Solution:
    """u* with r(u*, params) = 0 from the start u0, differentiable in every tensor of params; see `argmin`."""
    problem = residual if isinstance(residual, Problem) else Residual(residual)
    return solve_implicitly(problem, u0, params, solver or Newton(), adjoint, on_fail)


def fixed_point(
    map: FixedPoint | Function,
    u0: Tensor,
    params: Params = None,
    *,
    solver: Solver | None = None,
    adjoint: Adjoint | None = None,
    on_fail: OnFail = "raise",
) -> Solution:
    """u* = T(u*, params) from the start u0, differentiable in every tensor of params; see `argmin`."""
    problem = map if isinstance(map, FixedPoint) else FixedPoint(map)
    return solve_implicitly(problem, u0, params, solver or Anderson(), adjoint, on_fail)
