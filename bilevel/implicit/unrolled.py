"""Backpropagation through the iterations of a solver, with or without checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bilevel.implicit.certificate import certify_against_exact
from bilevel.implicit.linearised_solve import LinearisedSolve
from bilevel.implicit.strategies import Unrolled
from bilevel.solvers.solver import TapeEntry
from bilevel.torch_internals import is_transformed, refuse_nested_forward


def unroll(linearised: LinearisedSolve, u0: Tensor, leaves: Sequence[Tensor]) -> Tensor:
    """Solve once without derivatives, then repeat the recorded iterations u <- u - a P r(u) under autograd."""
    assert isinstance(linearised.adjoint, Unrolled)
    refuse_nested_forward()
    linearised.run(u0, [leaf.detach() for leaf in leaves])
    assert linearised.outcome is not None
    tape, start = linearised.outcome.tape, u0
    if linearised.adjoint.last is not None:
        cut = max(0, len(tape) - linearised.adjoint.last)
        with torch.no_grad():
            start = _repeat(linearised, tape[:cut], u0, leaves)
        tape = tape[cut:]
    u = _segments(linearised, tape, start, leaves, linearised.adjoint.checkpoints)
    if u.requires_grad:
        u.register_hook(lambda cotangent: _report(linearised, tape, start, leaves, cotangent))
    return u


def _repeat(linearised: LinearisedSolve, tape: Sequence[TapeEntry], u: Tensor, leaves: Sequence[Tensor]) -> Tensor:
    for entry in tape:
        u = u - entry.length.unsqueeze(-1) * entry.metric(linearised.residual(u, *leaves))
    return u


def _segments(
    linearised: LinearisedSolve, tape: Sequence[TapeEntry], u: Tensor, leaves: Sequence[Tensor], pieces: int
) -> Tensor:
    if pieces <= 0:
        return _repeat(linearised, tape, u, leaves)
    length = -(-len(tape) // pieces) if tape else 1
    for i in range(0, len(tape), length):

        def segment(v: Tensor, *p: Tensor, part: Sequence[TapeEntry] = tape[i : i + length]) -> Tensor:
            return _repeat(linearised, part, v, p)

        u = _Recomputed.apply(segment, u, *leaves)
    return u


class _Recomputed(torch.autograd.Function):
    """A piece of computation that keeps only its inputs and runs again in the backward pass.

    torch.utils.checkpoint cannot hold torch.func transforms, which residuals are made of.
    """

    @staticmethod
    def forward(piece: Callable[..., Tensor], u: Tensor, *leaves: Tensor) -> Tensor:
        return piece(u, *leaves)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.piece = inputs[0]
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx, cotangent):  # type: ignore[no-untyped-def]
        return None, *torch.func.vjp(ctx.piece, *ctx.saved_tensors)[1](cotangent)

    @staticmethod
    def jvp(ctx, _piece, *tangents):  # type: ignore[no-untyped-def]
        primals = ctx.saved_tensors
        moved = tuple(torch.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=True))
        return torch.func.jvp(ctx.piece, primals, moved)[1]


def _report(
    linearised: LinearisedSolve, tape: Sequence[TapeEntry], start: Tensor, leaves: Sequence[Tensor], cotangent: Tensor
) -> None:
    """Compare the unrolled vector-Jacobian product with the exact one; skipped for batched cotangents."""
    if is_transformed(cotangent):
        return
    detached = [leaf.detach() for leaf in leaves]
    vjp = torch.func.vjp(lambda *p: _repeat(linearised, tape, start, p), *detached)[1]
    started = time.perf_counter()
    report = certify_against_exact(linearised, list(vjp(cotangent.detach())), cotangent.detach(), detached, started)
    linearised.gradients.append(report)
