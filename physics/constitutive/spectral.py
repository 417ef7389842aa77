"""Isotropic functions of a symmetric tensor through its principal values, with derivatives that survive equal values."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bilevel.report import BilevelError
from physics.constitutive.mandel import ROOT2, from_matrix, to_matrix

GAP = 1e-6
"""Principal values closer than this, relative to the largest, take their divided difference at a nearby point."""

PAIRS = ((1, 2), (0, 2), (0, 1))


def principal_values(a: Tensor) -> Tensor:
    """Principal values (..., 3) in descending order; exact first derivatives, BilevelError for second ones."""
    return _rotated(*first_derivatives_only(a))[0]


def isotropic_function(function: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
    """Σ f_i(λ) n_i⊗n_i for principal values λ (..., 3) in descending order, as a Mandel vector.

    The principal directions' own change enters through the divided differences (f_i - f_j)/(λ_i - λ_j) on the
    off-diagonal entries in the principal frame (Ogden 1984, section 6.1.4): value and first derivatives are exact, also
    where principal values coincide. Second derivatives would lack the change of the frame: give `a`, and what `function`
    depends on, through `first_derivatives_only`.
    """
    principal, local, frame = _rotated(a)
    mapped = function(principal)
    ratios = _divided_differences(function, principal.detach())
    rotated = torch.diag_embed(mapped) + ratios * (local - torch.diag_embed(principal))
    return from_matrix(frame @ rotated @ frame.mT)


def isotropic_derivative(function: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
    """The derivative (..., 6, 6) of `isotropic_function` in a: that of f in the principal values, the ratios on shear.

    In the principal frame the six directions n_i⊗n_i and (n_i⊗n_j + n_j⊗n_i)/√2 do not mix but for the first three, so
    three reverse passes over three numbers do what six over the whole tensor would.
    """
    principal, _, frame = _rotated(a.detach())
    copies = principal.expand(3, *principal.shape).clone().requires_grad_()
    with torch.enable_grad():
        (rows,) = torch.autograd.grad(function(copies), copies, _unit_rows(copies))
    ratios = _divided_differences(function, principal)
    sheared = torch.stack([ratios[..., i, j] for i, j in PAIRS], -1)
    normal = from_matrix(torch.einsum("...ai,...bi->...iab", frame, frame))
    shear = from_matrix(torch.stack([ROOT2 * frame[..., i, None] * frame[..., None, :, j] for i, j in PAIRS], -3))
    return normal.mT @ rows.movedim(0, -2) @ normal + shear.mT @ (sheared.unsqueeze(-1) * shear)


def _unit_rows(copies: Tensor) -> Tensor:
    """e_i for copy i (3, ..., 3)."""
    ones = torch.eye(3, dtype=copies.dtype).reshape(3, *[1] * (copies.dim() - 2), 3)
    return ones.expand(copies.shape)


def _rotated(a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Principal values, the tensor in its principal frame, and the frame, which is held fixed."""
    matrix = to_matrix(a)
    fixed = matrix.detach()
    finite = torch.isfinite(fixed).all(-1, keepdim=True).all(-2, keepdim=True)
    # LAPACK refuses NaN; a trial state that has some keeps it in `local`, for the solver to see.
    frame = torch.linalg.eigh(torch.where(finite, fixed, torch.zeros_like(fixed)))[1].flip(-1)
    local = frame.mT @ matrix @ frame
    return torch.diagonal(local, dim1=-2, dim2=-1), local, frame


def _divided_differences(function: Callable[[Tensor], Tensor], principal: Tensor) -> Tensor:
    """(f_i - f_j)/(λ_i - λ_j) with the values spread where they coincide; zero on the diagonal."""
    scale = GAP * principal.abs().amax(-1, keepdim=True).clamp_min(1e-12)
    spread = principal + torch.where(_close(principal, scale), scale, torch.zeros_like(scale)) * principal.new_tensor(
        [1.0, 0.0, -1.0]
    )
    with torch.no_grad():
        mapped = function(spread)
    rise = mapped.unsqueeze(-1) - mapped.unsqueeze(-2)
    run = spread.unsqueeze(-1) - spread.unsqueeze(-2)
    apart = run.abs() > 0
    return torch.where(apart, rise / torch.where(apart, run, torch.ones_like(run)), torch.zeros_like(run)).detach()


def _close(principal: Tensor, scale: Tensor) -> Tensor:
    gaps = principal[..., :-1] - principal[..., 1:]
    return (gaps < scale).any(-1, keepdim=True)


def first_derivatives_only(*inputs: Tensor) -> tuple[Tensor, ...]:
    """The same tensors; what is made of them raises BilevelError when it is differentiated twice."""
    return _Once.apply(*inputs)


class _Once(torch.autograd.Function):
    """The identity, whose derivatives refuse to be differentiated with respect to any of the inputs."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return tuple(x.clone() for x in inputs)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, *cotangents):  # type: ignore[no-untyped-def]
        return tuple(_Derivative.apply(vector, *ctx.saved_tensors) for vector in cotangents)

    @staticmethod
    def jvp(ctx, *tangents):  # type: ignore[no-untyped-def]
        return tuple(_Derivative.apply(vector, *ctx.saved_tensors) for vector in tangents)


class _Derivative(torch.autograd.Function):
    """A tangent or cotangent handed on: linear in it, and not differentiable in the points where it was taken."""

    generate_vmap_rule = True

    @staticmethod
    def forward(vector: Tensor, *points: Tensor) -> Tensor:  # type: ignore[override]
        return vector.clone()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, cotangent):  # type: ignore[no-untyped-def]
        if any(ctx.needs_input_grad[1:]):
            _refuse()
        return cotangent, *(None for _ in ctx.needs_input_grad[1:])

    @staticmethod
    def jvp(ctx, vector, *points):  # type: ignore[no-untyped-def]
        if any(point is not None for point in points):
            _refuse()
        return vector


def _refuse() -> None:
    raise BilevelError(
        "second derivatives of a model in principal stresses (Mohr-Coulomb) are not available: the change of the "
        "principal directions enters the first ones only; use first derivatives, or Drucker-Prager"
    )
