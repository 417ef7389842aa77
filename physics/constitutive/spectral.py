"""Isotropic functions of a symmetric tensor through its principal values, with derivatives that survive equal values."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from bilevel.report import BilevelError
from bilevel.torch_internals import is_transformed
from physics.constitutive.mandel import ROOT2, from_matrix, to_matrix
from physics.discretisation.matmul import matmul

GAP = 1e-6
"""Principal values closer than this, relative to the largest, are taken as equal where they are divided by."""

FIRST, SECOND = [1, 0, 0], [2, 2, 1]
"""The pairs (1, 2), (0, 2), (0, 1) of principal directions that turn into each other."""


def principal_values(a: Tensor) -> Tensor:
    """Principal values (..., 3) in descending order; exact first derivatives, BilevelError for second ones."""
    (a,) = first_derivatives_only(a)
    frame = _principal(a.detach())[1]
    return torch.diagonal(frame.mT @ to_matrix(a) @ frame, dim1=-2, dim2=-1)


class PrincipalMap(Protocol):
    """Principal values (..., 3) of an isotropic function, from those of its argument, in descending order, and constants (..., k)."""

    def value(self, principal: Tensor, constants: Tensor) -> Tensor:
        """(..., 3)."""

    def jacobian(self, principal: Tensor, constants: Tensor, columns: int) -> Tensor:
        """The first columns (..., 3, columns) of its derivatives in the principal values, then in the constants."""


def isotropic_function(function: PrincipalMap, a: Tensor, constants: Tensor) -> Tensor:
    """Σ f_i(λ) n_i⊗n_i for principal values λ of a (..., 6), as a Mandel vector, with constants (..., k) of f.

    First derivatives are exact, also where principal values coincide, in reverse and forward mode; second ones would lack
    the change of the frame, and raise BilevelError.
    """
    return _Isotropic.apply(function, *first_derivatives_only(a, constants))


def isotropic_derivative(function: PrincipalMap, a: Tensor, constants: Tensor, of_constants: bool) -> Tensor:
    """The derivatives (..., 6, 6) of `isotropic_function` in a, and (..., 6, 6 + k) with those in the constants, if asked for.

    In the principal frame the six directions n_i⊗n_i and (n_i⊗n_j + n_j⊗n_i)/√2 do not mix but for the first three. The
    others, along which the frame turns, take the divided differences (f_i - f_j)/(λ_i - λ_j) (Ogden 1984, section 6.1.4).
    """
    principal, frame = _principal(a)
    rows = function.jacobian(principal, constants, 3 + constants.shape[-1] * of_constants)
    first, second = frame[..., :, FIRST], frame[..., :, SECOND]
    normal = from_matrix(frame.mT.unsqueeze(-1) * frame.mT.unsqueeze(-2))
    shear = from_matrix(ROOT2 * first.mT.unsqueeze(-1) * second.mT.unsqueeze(-2))
    ratios = _divided_differences(principal, function.value(principal, constants), rows)
    one, other = (
        torch.cat((normal, shear), -2).mT,
        torch.cat((matmul(rows[..., :3], normal), ratios.unsqueeze(-1) * shear), -2),
    )
    in_a = matmul(one, other)
    return torch.cat((in_a, matmul(normal.mT, rows[..., 3:])), -1) if of_constants else in_a


class _Isotropic(torch.autograd.Function):
    """One operation for PyTorch instead of some hundred small ones, which its transforms would each trace."""

    generate_vmap_rule = True

    @staticmethod
    def forward(function: PrincipalMap, a: Tensor, constants: Tensor) -> Tensor:  # type: ignore[override]
        principal, frame = _principal(a)
        found = function.value(principal, constants)
        # As a change of a where that is small: the frame's round-off must not move what hardly changes.
        change = found - principal
        near = change.abs().amax(-1, keepdim=True) < found.abs().amax(-1, keepdim=True)
        moved = torch.where(near, change, found)
        return torch.where(near, a, 0.0) + from_matrix((frame * moved.unsqueeze(-2)) @ frame.mT)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.function, a, constants = inputs
        ctx.save_for_backward(a, constants)
        ctx.save_for_forward(a, constants)

    @staticmethod
    def backward(ctx, cotangent):  # type: ignore[no-untyped-def]
        found = (cotangent.unsqueeze(-2) @ isotropic_derivative(ctx.function, *ctx.saved_tensors, True)).squeeze(-2)
        return None, found[..., :6], found[..., 6:]

    @staticmethod
    def jvp(ctx, _, moved, constants_moved):  # type: ignore[no-untyped-def]
        a, constants = ctx.saved_tensors
        known = [torch.zeros_like(x) if t is None else t for x, t in ((a, moved), (constants, constants_moved))]
        return (isotropic_derivative(ctx.function, a, constants, True) @ torch.cat(known, -1).unsqueeze(-1)).squeeze(-1)


def _principal(a: Tensor) -> tuple[Tensor, Tensor]:
    """Principal values (..., 3) in descending order, and their directions (..., 3, 3), one a column."""
    if not is_transformed(a) and not bool(a[..., 3:5].any()):
        return _principal_in_plane(a)
    matrix = to_matrix(a)
    finite = torch.isfinite(a).all(-1, keepdim=True)
    # LAPACK refuses NaN; a trial state that has some keeps it, for the solver to see.
    values, frame = torch.linalg.eigh(torch.where(finite.unsqueeze(-1), matrix, torch.zeros_like(matrix)))
    return torch.where(finite, values.flip(-1), torch.full_like(values, torch.nan)), frame.flip(-1)


def _principal_in_plane(a: Tensor) -> tuple[Tensor, Tensor]:
    """The same where z is a principal direction, as in plane strain and around an axis: a tenth of the time."""
    middle, half, shear = 0.5 * (a[..., 0] + a[..., 1]), 0.5 * (a[..., 0] - a[..., 1]), a[..., 5] / ROOT2
    radius, angle = torch.hypot(half, shear), 0.5 * torch.atan2(shear, half)
    values, order = torch.stack((middle + radius, middle - radius, a[..., 2]), -1).sort(-1, descending=True)
    cosine, sine, zero = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle)
    rows = torch.stack((cosine, -sine, zero, sine, cosine, zero, zero, zero, zero + 1.0), -1).unflatten(-1, (3, 3))
    return values, rows.gather(-1, order.unsqueeze(-2).expand(rows.shape))


def _divided_differences(principal: Tensor, mapped: Tensor, rows: Tensor) -> Tensor:
    """(f_i - f_j)/(λ_i - λ_j) (..., 3) of the three pairs; where two values coincide, the derivative of f_i - f_j as they part."""
    run = principal[..., FIRST] - principal[..., SECOND]
    rise = mapped[..., FIRST] - mapped[..., SECOND]
    inner = rows[..., :3]
    apart = 0.5 * (
        inner[..., FIRST, FIRST] - inner[..., FIRST, SECOND] - inner[..., SECOND, FIRST] + inner[..., SECOND, SECOND]
    )
    close = run.abs() <= GAP * principal.abs().amax(-1, keepdim=True)
    return torch.where(close, apart, rise / torch.where(close, torch.ones_like(run), run))


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
