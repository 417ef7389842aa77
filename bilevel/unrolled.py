"""Backpropagation through the iterations of a solver, with or without checkpoints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bilevel.adjoint import Unrolled

if TYPE_CHECKING:
    from bilevel.implicit import Inner
    from bilevel.solvers.solver import TapeEntry


def unroll(inner: Inner, u0: Tensor, leaves: Sequence[Tensor]) -> Tensor:
    """Solve once without derivatives, then repeat the recorded iterations u <- u - a P r(u) under autograd."""
    assert isinstance(inner.adjoint, Unrolled)
    inner.run(u0, [leaf.detach() for leaf in leaves])
    assert inner.outcome is not None
    tape, start = inner.outcome.tape, u0
    if inner.adjoint.last is not None:
        cut = max(0, len(tape) - inner.adjoint.last)
        with torch.no_grad():
            start = _repeat(inner, tape[:cut], u0, leaves)
        tape = tape[cut:]
    u = _segments(inner, tape, start, leaves, inner.adjoint.checkpoints)
    if u.requires_grad:
        u.register_hook(lambda cotangent: _report(inner, tape, start, leaves, cotangent))
    return u


def _repeat(inner: Inner, tape: Sequence[TapeEntry], u: Tensor, leaves: Sequence[Tensor]) -> Tensor:
    for entry in tape:
        u = u - entry.length.unsqueeze(-1) * entry.metric(inner.residual(u, *leaves))
    return u


def _segments(inner: Inner, tape: Sequence[TapeEntry], u: Tensor, leaves: Sequence[Tensor], pieces: int) -> Tensor:
    if pieces <= 0:
        return _repeat(inner, tape, u, leaves)
    length = -(-len(tape) // pieces) if tape else 1
    for i in range(0, len(tape), length):

        def segment(v: Tensor, *p: Tensor, part: Sequence[TapeEntry] = tape[i : i + length]) -> Tensor:
            return _repeat(inner, part, v, p)

        u = checkpoint(segment, u, *leaves, use_reentrant=False)
    return u


def _report(inner: Inner, tape: Sequence[TapeEntry], start: Tensor, leaves: Sequence[Tensor], cotangent: Tensor) -> None:
    """Compare the unrolled vector-Jacobian product with the exact one; skipped for batched cotangents."""
    from bilevel.certificate import certify_against_exact

    if torch._C._functorch.is_batchedtensor(cotangent):
        return
    detached = [leaf.detach() for leaf in leaves]
    _, pull = torch.func.vjp(lambda *p: _repeat(inner, tape, start, p), *detached)
    started = time.perf_counter()
    report = certify_against_exact(inner, list(pull(cotangent.detach())), cotangent.detach(), detached, started)
    inner.gradients.append(report)
