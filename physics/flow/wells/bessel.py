"""Modified Bessel functions of the second kind, differentiable to any order: torch has their values alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _K0(torch.autograd.Function):
    """K0' = - K1."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.special.modified_bessel_k0(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:  # type: ignore[override]
        return -cotangent * k1(ctx.saved_tensors[0])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:  # type: ignore[override]
        return -tangent * k1(ctx.saved_tensors[0])


class _K1(torch.autograd.Function):
    """K1' = - K0 - K1 / x."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.special.modified_bessel_k1(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return -cotangent * (k0(x) + k1(x) / x)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return -tangent * (k0(x) + k1(x) / x)


def k0(x: Tensor) -> Tensor:
    """K0 at x > 0 (...)."""
    return _K0.apply(x)  # type: ignore[no-any-return]


def k1(x: Tensor) -> Tensor:
    """K1 at x > 0 (...)."""
    return _K1.apply(x)  # type: ignore[no-any-return]
