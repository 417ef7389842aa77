"""A difference of the residual against its derivative by autograd, with every first gradient of a layer.

What a problem does outside PyTorch's graph (float(p), .item(), .detach(), .data, lists of numbers) is invisible to
autograd, and then the gradient is wrong while all linear solves are right. One more residual tells.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bilevel.implicit.linearised_solve import LinearisedSolve
from bilevel.problem import DENSE_LIMIT
from bilevel.report import DerivativeError

STEP = 3e-7
"""Length of the difference, relative to each tensor's size."""
SHARE = 0.02
"""Share of the change of the residual that curvature along so short a step does not explain."""
SMALL = 1e-12
"""A tensor of entries below this has no size of its own: at rest, rounding is all that is left of it."""
NOISE = 1e3
"""Rounding errors of the residual's terms that a difference may contain."""


def require_derivative(
    linearised: LinearisedSolve,
    u: Tensor,
    here: Tensor,
    leaves: Sequence[Tensor],
    wanted: Sequence[bool],
    adjoint: Tensor,
    derivatives: Sequence[Tensor],
) -> None:
    """Raise DerivativeError if adjoint . residual does not change along a direction as its derivatives say.

    here: the residual at u. derivatives: of adjoint . residual, in u and then in the wanted leaves. Where the two one-sided differences disagree,
    the residual has a kink, which is noted. In single precision a difference tells nothing, and nothing is checked.
    """
    if linearised.derivative_checked or u.dtype != torch.float64:
        return
    linearised.derivative_checked = True
    moved = (u, *(leaf for leaf, want in zip(leaves, wanted, strict=True) if want))
    moves = [_direction(tensor, place) for place, tensor in enumerate(moved)]
    rise = _difference(linearised, u, leaves, wanted, moves, STEP, here)
    expected = sum(float((d * move).sum()) for d, move in zip(derivatives, moves, strict=True))
    scale = float((adjoint * rise).abs().sum())
    # The tangent where the solver ended is at hand, and as good for the size of the residual's terms as one made here.
    at = u if linearised.outcome is None else linearised.outcome.u
    rounding = torch.linalg.vector_norm(linearised.operator(at, leaves).absolute(at)) * torch.linalg.vector_norm(
        adjoint
    )
    allowed = SHARE * scale + NOISE * torch.finfo(u.dtype).eps / STEP * float(rounding)
    small = (
        u.numel() <= DENSE_LIMIT
    )  # one more residual costs nothing there, and shows kinks that lie on the other side
    if not small and not abs(float((adjoint * rise).sum()) - expected) > allowed:  # NaN: the step has left the domain
        return
    fall = _difference(linearised, u, leaves, wanted, moves, -STEP, here)
    if float((adjoint * (rise - fall)).sum().abs()) > allowed:
        sentence = "the residual has a kink at the solution: its gradient there is one of several, or none"
        if linearised.outcome is not None and sentence not in linearised.outcome.report.notes:
            linearised.outcome.report.notes.append(sentence)
        return
    if not abs(float((adjoint * rise).sum()) - expected) > allowed:
        return
    half = _difference(linearised, u, leaves, wanted, moves, 0.5 * STEP, here)
    if float((adjoint * half).sum().abs()) > 1.5 * float((adjoint * rise).sum().abs()):
        raise DerivativeError(
            f"{type(linearised.problem).__name__}: the residual jumps at the solution: the energy has a kink there, as |u| at 0, "
            "so the state has no derivative by the implicit function theorem; give the kink to a solver of "
            "bilevel.composite, which knows it, or smooth it"
        )
    raise DerivativeError(
        f"{type(linearised.problem).__name__}: autograd's derivative of the residual differs from its difference by "
        f"{abs(float((adjoint * rise).sum()) - expected) / scale:.0%}. Something in it leaves PyTorch's graph: float(p), "
        ".item(), .detach(), .data, .tolist(), torch.no_grad, NumPy, or a tensor built anew from numbers"
    )


def _direction(tensor: Tensor, place: int) -> Tensor:
    """Random numbers in the size of each entry, at least in that of the mean one.

    Of different magnitudes: along equal ones |u - q| would not show the kink where u equals q.
    """
    size = tensor.detach().abs()
    typical = size.mean() if tensor.numel() else size.new_zeros(())
    typical = torch.where(typical > SMALL, typical, torch.ones_like(typical))
    # NumPy draws them: torch refuses random numbers under vmap, where Jacobians are taken.
    dice = np.random.default_rng((tensor.numel(), place))
    drawn = dice.choice([-1.0, 1.0], tensor.shape) * dice.uniform(0.5, 1.0, tensor.shape)
    return torch.maximum(size, typical) * torch.as_tensor(drawn).to(tensor)


def _difference(
    linearised: LinearisedSolve,
    u: Tensor,
    leaves: Sequence[Tensor],
    wanted: Sequence[bool],
    moves: Sequence[Tensor],
    step: float,
    here: Tensor,
) -> Tensor:
    """(r(u + step d) - r(u)) / step."""
    given = iter(moves[1:])
    moved = [leaf + step * next(given) if want else leaf for leaf, want in zip(leaves, wanted, strict=True)]
    return (linearised.residual(u + step * moves[0], *moved) - here) / step
