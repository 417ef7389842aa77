"""The implicit function theorem, in one place: VJP, JVP and second derivatives of a solution by linear solves.

At a solution r(u, p) = 0 the state moves with the parameters as du = -H^-1 (dr/dp) dp with H = dr/du, however u was
found. Everything below is that formula, its transpose, and the derivative of the linear solve itself.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from bilevel.implicit.certificate import certify, corrected_gradient
from bilevel.implicit.linearised_solve import Leaves, LinearisedSolve
from bilevel.implicit.memory import Remembering
from bilevel.linalg.direct.condition import random_signs
from bilevel.report import BilevelError
from bilevel.torch_internals import (
    is_batched_cotangent,
    is_transformed,
    jvp,
    refuse_nested_forward,
    vjp,
    vjp_of_batched_cotangents,
    without_saved_tensor_hooks,
)


class ImplicitState(torch.autograd.Function):
    """parameters -> u*, with the implicit function theorem as its derivative."""

    @staticmethod
    def forward(linearised: LinearisedSolve, u0: Tensor, *leaves: Tensor) -> Tensor:
        with without_saved_tensor_hooks(), linearised.constants.unwrapped():
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
        # A plain backward() asks for numbers, which models give piece by piece and the certificate corrects on the way. All
        # else (create_graph, torch.func) must be able to differentiate what is done here, so it goes by custom functions.
        if linearised.adjoint.exact and _in_numbers(cotangent, u, *leaves):
            with without_saved_tensor_hooks():
                return None, None, *_exact_gradient(linearised, cotangent, u, leaves, ctx.needs_input_grad[2:])

        def gradients(cotangent: Tensor) -> tuple[Tensor, ...]:
            adjoint = LinearSolve.apply(linearised, "adjoint", cotangent, u, *leaves)
            with linearised.constants.unwrapped():
                return vjp(lambda *p: linearised.residual(u, *p), *leaves)(-adjoint)

        if is_batched_cotangent(cotangent):
            return None, None, *vjp_of_batched_cotangents(gradients, cotangent)
        return None, None, *gradients(cotangent)

    @staticmethod
    def jvp(ctx, _inner, _u0, *tangents):  # type: ignore[no-untyped-def]
        refuse_nested_forward()
        u, *leaves = ctx.saved_tensors
        linearised = ctx.linearised
        directions = [None if t is None else t.unsqueeze(0) for t in tangents]
        force = ParameterJVP.apply(linearised, u, len(leaves), *leaves, *directions)[0]
        moved = LinearSolve.apply(linearised, "forward", -force, u, *leaves)
        if isinstance(linearised.solver, Remembering):
            linearised.solver.spot.keep_tangent(moved)
        return moved

    @staticmethod
    def vmap(info, in_dims, linearised, u0, *leaves):  # type: ignore[no-untyped-def]
        raise BilevelError(
            "an implicit layer cannot be vmapped over its parameters; give the problem batch_dims=1 and batched parameters "
            "instead (derivatives of the layer may be vmapped)"
        )


class ParameterJVP(torch.autograd.Function):
    """The derivatives (m, *batch, n) of the residual at u in m directions of the parameters, all in one call.

    tensors: the leaves, then the directions (m, ...) of each, None where it does not move.
    """

    @staticmethod
    def forward(linearised: LinearisedSolve, u: Tensor, count: int, *tensors: Tensor | None) -> Tensor:
        with torch.no_grad(), linearised.constants.unwrapped():
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

        def image(v: Tensor, *p: Tensor) -> Tensor:
            return linearised.jvp_by_autodiff(v, p[:count], dict(zip(moving, p[count:], strict=True)))

        primals = (u, *tensors[:count], *(tensors[count + i] for i in moving))
        with linearised.constants.unwrapped():
            by_u, *others = vjp(image, *primals)(cotangent)
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
            return torch.stack([ParameterJVP.apply(linearised, first, count, *rest) for first, *rest in samples]), 0
        wide = [
            t if t is None else t.expand(size, *t.shape) if d is None else t.movedim(d, 0)
            for t, d in zip(tensors[count:], dims[count:], strict=True)
        ]
        image = ParameterJVP.apply(
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
    if not bool(torch.isfinite(cotangent).all()):
        raise BilevelError(
            "the gradient that comes into an implicit layer is NaN or infinite, so no gradient can leave it; look at what the "
            "outer function does with the state (a division by zero, a logarithm or root of zero)"
        )
    if linearised.certifies:  # which sees by itself whether the problem has changed
        gradients, report = corrected_gradient(linearised, cotangent, u, leaves, wanted)
        linearised.gradients.append(report)
    else:
        linearised.require_unchanged(u, leaves)
        linearised.verify_tangent(u, leaves)
        adjoint = linearised.solve_adjoint(cotangent, u, leaves)
        gradients = linearised.parameter_vjp(-adjoint, u, leaves, wanted, with_unknown=False)
    given = iter(gradients)
    return [next(given) if want else None for want in wanted]


def _one_of_many(u: Tensor, *tensors: Tensor) -> list[Tensor]:
    """Sums of the rows of (..., *batch, n) with random signs: a certificate of all rows at the price of one.

    Errors are linear in the cotangent, and the square of a sum with random signs is in the mean the sum of the squares.
    """
    rows = [x.reshape(-1, *u.shape) for x in tensors]
    signs = random_signs(len(rows[0])).to(u)
    return [x[0] if len(x) == 1 else torch.tensordot(signs, x, 1) for x in rows]


class LinearSolve(torch.autograd.Function):
    """b -> H(u, p)^-1 b, or H^-T b; differentiable in b, u and p, with many right-hand sides in one call.

    mode: "forward" solves with H, "transposed" with its transpose, "adjoint" likewise by the layer's own strategy.
    """

    @staticmethod
    def forward(linearised: LinearisedSolve, mode: str, b: Tensor, u: Tensor, *leaves: Tensor) -> Tensor:
        with torch.no_grad(), linearised.constants.unwrapped():
            linearised.require_unchanged(u, leaves)
            linearised.verify_tangent(u, leaves)
            if mode != "adjoint":
                return linearised.solve(b, u, leaves, mode == "transposed", linearised.linear_tolerance)
            started = time.perf_counter()
            adjoint = linearised.solve_adjoint(b, u, leaves)
            if linearised.certifies:
                cotangent, seen = _one_of_many(u, b, adjoint)
                linearised.gradients.append(certify(linearised, cotangent, seen, u, leaves, started))
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

        # x = H^-1 b has dx = H^-1 (db - dH x). Reversed: w = H^-T cotangent belongs to b, and -w to H x with x held
        # fixed, which is one product of the tangent differentiated in u and in the parameters; H itself is never formed.
        def gradients(cotangent: Tensor) -> tuple[Tensor, ...]:
            w = LinearSolve.apply(linearised, other, cotangent, u, *leaves)
            with linearised.constants.unwrapped():
                by_tangent = vjp(lambda v, *p: linearised.apply(v, p, x, ctx.transposed), u, *leaves)
                return w, *by_tangent(-w)

        if is_batched_cotangent(cotangent):
            return None, None, *vjp_of_batched_cotangents(gradients, cotangent)
        return None, None, *gradients(cotangent)

    @staticmethod
    def jvp(ctx, _inner, _mode, b_moved, *tangents):  # type: ignore[no-untyped-def]
        refuse_nested_forward()
        x, u, *leaves = ctx.saved_tensors
        linearised = ctx.linearised
        primals = (u, *leaves)
        moved = tuple(torch.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=True))
        with linearised.constants.unwrapped():
            change = jvp(lambda v, *p: linearised.apply(v, p, x, ctx.transposed), primals, moved)
        right = -change if b_moved is None else b_moved - change
        return LinearSolve.apply(linearised, "transposed" if ctx.transposed else "forward", right, u, *leaves)

    @staticmethod
    def vmap(info, in_dims, linearised, mode, b, u, *leaves):  # type: ignore[no-untyped-def]
        dims = in_dims[2:]
        # One tangent, many right-hand sides (a Jacobian): all of them in one call of the factorisation.
        if all(dim is None for dim in dims[1:]):
            return LinearSolve.apply(linearised, mode, b.movedim(dims[0], 0), u, *leaves), 0
        # The state differs between the samples (nested transforms): solve them one by one.
        tensors = (b, u, *leaves)
        rows = [
            LinearSolve.apply(
                linearised, mode, *[t if d is None else t.select(d, i) for t, d in zip(tensors, dims, strict=True)]
            )
            for i in range(info.batch_size)
        ]
        return torch.stack(rows), 0
