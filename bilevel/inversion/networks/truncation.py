"""Truncated backpropagation: how many of the last iterations must be kept for a gradient of stated accuracy.

Near a fixed point u = T(u, p) the gradient is the Neumann sum over k of (dT/dp)^T (J^T)^k c with J = dT/du: keeping the
last K iterations keeps the first K terms, and the rest decays like rho^K with the contraction rate rho.
Sources: Shaban, Cheng, Hatch, Boots 2019 (truncated backpropagation); the TD(lambda) rule of thumb.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

import bilevel
from bilevel.implicit.strategies import Unrolled
from bilevel.problem import Function, Params
from bilevel.report import BilevelError, InputError, Solution
from bilevel.solvers.fixed_point import Picard
from bilevel.torch_internals import pytree


def depth_from_discount(discount: float, tolerance: float) -> int:
    """K = ceil(ln tolerance / ln discount): after K steps a trace that fades by `discount` is below `tolerance`."""
    if not (0 < discount < 1 and 0 < tolerance < 1):
        raise InputError(f"discount and tolerance lie between 0 and 1, got {discount} and {tolerance}")
    return math.ceil(math.log(tolerance) / math.log(discount))


@dataclass(frozen=True)
class TruncationRate:
    """The relative gradient error after keeping K iterations: asymptotically at most constant * rate^K.

    pilot: the errors after keeping 0, 1, 2, ... iterations, as far as they were measured.
    """

    rate: float
    constant: float
    pilot: tuple[float, ...] = ()

    def error(self, kept: int) -> float:
        """C rho^K."""
        return self.constant * self.rate**kept

    def depth(self, tolerance: float) -> int:
        """The smallest K that meets the tolerance: as measured within the pilot, from C rho^K beyond it."""
        if not 0 < tolerance < 1:
            raise InputError(f"the tolerance of a gradient lies between 0 and 1, got {tolerance}")
        for kept, error in enumerate(self.pilot):
            if kept >= 1 and error <= tolerance:
                return kept
        if self.rate <= 0 or self.constant <= tolerance:
            return 1
        return max(1, math.ceil(math.log(tolerance / self.constant) / math.log(self.rate)))


def measure_rate(
    map: Function, u: Tensor, params: Params, cotangent: Tensor, terms: int = 60, fit: float = 0.5
) -> TruncationRate:
    """Rate and constant from the first `terms` terms of the Neumann sum at the fixed point u.

    map(u, params) -> u; cotangent: the loss gradient at u. The decay of the last `fit` of the terms gives rho; the
    geometric remainder beyond the pilot completes the sum that errors are relative to. Costs `terms` products with the
    transposed Jacobian and no tape. Raises BilevelError where the terms do not decay: the map does not contract here.
    """
    leaves = [p.detach() for p in _tensors(params)]
    flat, spec = pytree.tree_flatten(params)

    def of(u: Tensor, *tensors: Tensor) -> Tensor:
        new = iter(tensors)
        return map(u, pytree.tree_unflatten([next(new) if _is_leaf(p) else p for p in flat], spec))

    vjp = torch.func.vjp(of, u.detach(), *leaves)[1]
    term, sums = cotangent.detach(), [torch.zeros(sum(p.numel() for p in leaves), dtype=u.dtype)]
    sizes = []
    with torch.no_grad():
        for _ in range(terms):
            back, *parts = vjp(term)
            gradient = torch.cat([p.reshape(-1) for p in parts])
            sizes.append(float(gradient.norm()))
            sums.append(sums[-1] + gradient)
            term = back
            if sizes[-1] <= 1e-14 * float(sums[-1].norm()):
                break
    return _fit(sums, sizes, fit)


def _fit(sums: list[Tensor], sizes: list[float], fit: float) -> TruncationRate:
    count = len(sizes)
    first = min(int((1 - fit) * count), count - 2)
    if count < 2 or sizes[-1] == 0.0:
        return TruncationRate(0.0, 1.0)
    rate = (sizes[-1] / sizes[first]) ** (1 / (count - 1 - first))
    if not rate < 1:
        raise BilevelError(
            f"the terms of the gradient grow by {rate:.3g} per iteration: the map does not contract at this point"
        )
    last = (sums[-1] - sums[-2]) * rate / (1 - rate)
    total = sums[-1] + last
    errors = [float((total - s).norm() / total.norm()) for s in sums[first : count - 1]]
    kept = range(first, count - 1)
    constant = max(error / rate**k for error, k in zip(errors, kept))
    pilot = tuple(float((total - s).norm() / total.norm()) for s in sums[:count])
    return TruncationRate(rate, constant, pilot)


def truncated(map: Function, u0: Tensor, params: Params, kept: int, solver: Picard | None = None) -> Solution:
    """The fixed point by plain iteration, differentiated through its last `kept` iterations only."""
    if kept < 1:
        raise InputError(f"at least one iteration must be kept, got {kept}")
    return bilevel.fixed_point(map, u0, params, solver=solver or Picard(), adjoint=Unrolled(last=kept))


def _is_leaf(p: object) -> bool:
    return isinstance(p, Tensor) and p.is_floating_point()


def _tensors(params: Params) -> list[Tensor]:
    return [p for p in pytree.tree_leaves(params) if _is_leaf(p)]
