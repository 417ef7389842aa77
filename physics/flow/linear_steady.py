"""The steady state of a linear problem K h = f: one factorisation, exact derivatives of any order.

A tangent is the same solve under another load, an adjoint too, for K is symmetric; so the derivatives of both are solves
again, through the factor of the first, and cost no more than their right-hand sides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from bilevel.linalg.operator import Sparse, Structure
from bilevel.linalg.registry import factorise
from bilevel.linalg.solver import Factor
from bilevel.report import BilevelError
from physics.flow.condensed import Array, Condensed, NodalMatrix, Places
from physics.flow.linear_march import Custom, Outer, Product, arrays


class LinearSteady:
    """The field h = T v + g, where g is held and v is free, that balances K h = f at the free nodes.

    stiffness: places of the symmetric matrix' entries between nodes. extend: T (nodes, n).
    """

    def __init__(self, stiffness: Places, extend: sp.csr_matrix) -> None:
        self.extend = sp.csr_matrix(extend)
        self.stiffness = NodalMatrix(stiffness, extend.shape[0])
        self.condensed = Condensed(self.extend, self.stiffness)
        self._latest: tuple[Array, Factor] | None = None

    def __call__(self, stiffness: Tensor, load: Tensor, held: Tensor) -> Tensor:
        """h (..., nodes), differentiable in the entries of K, in f and in g (..., nodes)."""
        return _Steady.apply(self, stiffness, load, held)

    def solve(self, k: Array, load: Array, held: Array) -> Array:
        """h (m, nodes) in numbers, for m loads and held values; raises BilevelError where there is none."""
        right = load - self.stiffness.product(k, held) if held.any() else load
        free = self._factor(k).solve(torch.from_numpy(np.ascontiguousarray((self.extend.T @ right.T).T))).numpy()
        if not np.isfinite(free).all():
            raise BilevelError("the steady state is not finite; check conductivities and loads")
        return (self.extend @ free.T).T + held

    def _factor(self, k: Array) -> Factor:
        """Of these entries; the last one is kept, for its derivatives."""
        if self._latest is None or not np.array_equal(self._latest[0], k):
            values = torch.from_numpy(self.condensed.gather[0] @ k)
            self._latest = None  # before the next is made, for memory
            self._latest = k.copy(), factorise(Sparse(self.condensed.pattern, values, Structure(symmetric=True)))
        return self._latest[1]


class _Steady(Custom):
    """(k, load, held) -> h; load and held with any leading dimensions."""

    @staticmethod
    def forward(steady: LinearSteady, *given: Tensor) -> Tensor:  # type: ignore[override]
        k, load, held = arrays(*given)
        shape = np.broadcast_shapes(load.shape, held.shape)
        load, held = (np.broadcast_to(x, shape).reshape(-1, shape[-1]) for x in (load, held))
        return torch.from_numpy(np.ascontiguousarray(steady.solve(k, load, held)).reshape(shape))

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> Tensor:
        given, (field,) = Custom.split(ctx)
        dk, load, held = Custom.moved(given, tangents)
        return _Steady.apply(ctx.march, given[0], load - Product.apply(ctx.march.stiffness, dk, field), held)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        (k, *_), (field,) = Custom.split(ctx)
        steady = ctx.march

        def vjp(cotangent: Tensor) -> tuple[Tensor, ...]:
            force = _Steady.apply(steady, k, cotangent, torch.zeros_like(cotangent))
            of_entries = -Outer.apply(steady.stiffness, force, field)
            return of_entries, force, cotangent - Product.apply(steady.stiffness, k, force)

        return Custom.swept(vjp, *cotangents)

    @staticmethod
    def vmap(info: Any, in_dims: Any, steady: LinearSteady, *given: Tensor) -> Any:
        return _Steady.at_one_point(info, in_dims, steady, given, matrices=1)
