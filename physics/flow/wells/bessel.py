"""Modified Bessel functions of the second kind, differentiable to any order: torch has their values alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

VALUES = (torch.special.modified_bessel_k0, torch.special.modified_bessel_k1)


class _K(torch.autograd.Function):
    """K0 and K1, by their order."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, order: int) -> Tensor:
        return VALUES[order](x)  # type: ignore[no-any-return]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        x, ctx.order = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return cotangent * _slope(ctx.saved_tensors[0], ctx.order), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:  # type: ignore[override]
        return tangent * _slope(ctx.saved_tensors[0], ctx.order)


def _slope(x: Tensor, order: int) -> Tensor:
    """K0' = - K1, K1' = - K0 - K1 / x."""
    return -k1(x) if order == 0 else -k0(x) - k1(x) / x


def k0(x: Tensor) -> Tensor:
    """K0 at x > 0 (...)."""
    return _K.apply(x, 0)  # type: ignore[no-any-return]


def k1(x: Tensor) -> Tensor:
    """K1 at x > 0 (...)."""
    return _K.apply(x, 1)  # type: ignore[no-any-return]
