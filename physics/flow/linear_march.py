"""Time steps of a linear problem K h + C dh/dt = f: one factorisation for each length of step, and exact derivatives.

The stages are those of `time_stepping.march`, (K + C / tau) h = f + C / tau anchor, but their matrices do not depend on
what is found. So a tangent is the same march under other loads, an adjoint the transposed march backwards in time, and
both take all directions at once through the factors of the first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from bilevel.linalg.operator import Sparse, SparsePattern, Structure
from bilevel.linalg.registry import factorise
from bilevel.linalg.solver import Factor
from bilevel.report import BilevelError
from bilevel.torch_internals import is_batched_cotangent, vjp_of_batched_cotangents
from physics.discretisation.constraints import ConstraintSet
from physics.flow.linear_system import LinearSystem
from physics.flow.time_stepping import SDIRK2, Scheme
from physics.flow.time_steps import TimeSteps

KEPT = 16
"""Factors of different lengths of steps that are kept."""

Array = np.ndarray


class Marched(NamedTuple):
    """The field at the end of each stage (steps, stages, nodes), and the anchor from which that stage was a step."""

    heads: Tensor
    anchors: Tensor


class LinearMarch:
    """The march of a linear system over time steps, under constraints."""

    def __init__(
        self, system: LinearSystem, constraints: ConstraintSet, steps: TimeSteps, scheme: Scheme = SDIRK2
    ) -> None:
        self.places = [
            tuple(index.numpy() for index in (system.rows, system.columns)),
            tuple(index.numpy() for index in (system.store.rows, system.store.columns)),
        ]
        self.shape = (system.nodes, system.nodes)
        self.extend = constraints.matrix
        self.ratios = [np.array(row) / scheme.diagonal for row in scheme.rows]
        taus = steps.stage_lengths(scheme.diagonal, scheme.nodes)
        # Equal steps have equal matrices, whatever rounding made of their lengths.
        self.taus = np.array([float(f"{tau:.11e}") for tau in taus.ravel()]).reshape(taus.shape)

    def __call__(self, stiffness: Tensor, capacity: Tensor, load: Tensor, held: Tensor, start: Tensor) -> Marched:
        """From the free values `start` (n,); load (steps, stages, nodes); held (steps, 1 + stages, nodes): what constraints add."""
        return Marched(*_March.apply(self, stiffness, capacity, load, held, start))

    def matrices(self, stiffness: Array, capacity: Array) -> tuple[sp.csr_matrix, sp.csr_matrix]:
        """K and C."""
        k, c = (sp.csr_matrix((v, at), shape=self.shape) for v, at in zip((stiffness, capacity), self.places))
        return k, c

    def factors(self, k: sp.csr_matrix, c: sp.csr_matrix) -> Callable[[float], Factor]:
        """The factors of T^T (K + C / tau) T by tau."""

        @lru_cache(maxsize=KEPT)
        def factor(tau: float) -> Factor:
            reduced = (self.extend.T @ (k + c / tau) @ self.extend).tocsr()
            reduced.sort_indices()
            pattern = SparsePattern(reduced.shape[0], reduced.indptr.astype(np.int32), reduced.indices.astype(np.int32))
            return factorise(Sparse(pattern, torch.from_numpy(reduced.data), Structure(symmetric=True)))

        return factor

    def run(self, k: Array, c: Array, load: Array, held: Array, start: Array) -> tuple[Array, Array]:
        """Heads and anchors (steps, stages, nodes, m) for loads, held values and starts with m columns."""
        stiffness, capacity = self.matrices(k, c)
        factor, extend = self.factors(stiffness, capacity), self.extend
        heads, anchors = np.empty_like(load), np.empty_like(load)
        for t, taus in enumerate(self.taus):
            before = extend @ start + held[t, 0]
            changes: list[Array] = []
            for s, tau in enumerate(taus):
                anchor = before + sum((r * change for r, change in zip(self.ratios[s], changes)), np.zeros_like(before))
                fixed = held[t, 1 + s]
                right = load[t, s] + capacity @ (anchor - fixed) / tau - stiffness @ fixed
                start = _solved(factor(tau), extend.T @ right)
                heads[t, s] = extend @ start + fixed
                anchors[t, s] = anchor
                changes.append(heads[t, s] - anchor)
        return heads, anchors

    def tangent(
        self, k: Array, c: Array, heads: Array, anchors: Array, moved: tuple[Array, ...]
    ) -> tuple[Array, Array]:
        """The tangents (m, steps, stages, nodes) of heads and anchors, for m tangents (m, ...) of all arguments."""
        dk, dc, load, held, start = moved
        load = load.copy()
        fields, rates = heads.reshape(-1, self.shape[0]), (heads - anchors) / self.taus[..., None]
        for row in range(len(load)):
            of_k, of_c = self.matrices(dk[row], dc[row])
            load[row] -= (of_k @ fields.T + of_c @ rates.reshape(-1, self.shape[0]).T).T.reshape(heads.shape)
        found = self.run(k, c, *(np.moveaxis(x, 0, -1) for x in (load, held, start)))
        return np.moveaxis(found[0], -1, 0), np.moveaxis(found[1], -1, 0)

    def adjoint(
        self, k: Array, c: Array, heads: Array, anchors: Array, cotangents: tuple[Array, Array]
    ) -> tuple[Array, ...]:
        """The cotangents (m, ...) of all arguments, for m cotangents (m, steps, stages, nodes) of heads and anchors."""
        of_heads, of_anchors = (np.moveaxis(x, 0, -1) for x in cotangents)
        stiffness, capacity = self.matrices(k, c)
        factor, extend = self.factors(stiffness, capacity), self.extend
        (k_rows, k_columns), (c_rows, c_columns) = self.places
        count = of_heads.shape[-1]
        of_load = np.zeros_like(of_heads)
        of_held = np.zeros((len(self.taus), 1 + len(self.ratios), self.shape[0], count))
        of_k, of_c = np.zeros((len(k), count)), np.zeros((len(c), count))
        later = np.zeros((extend.shape[1], count))
        for t in reversed(range(len(self.taus))):
            of_before, of_changes = (
                np.zeros((self.shape[0], count)),
                [np.zeros((self.shape[0], count)) for _ in self.ratios],
            )
            for s in reversed(range(len(self.ratios))):
                tau = self.taus[t, s]
                of_head = of_heads[t, s] + of_changes[s]
                of_anchor = of_anchors[t, s] - of_changes[s]
                free = extend.T @ of_head + (later if s == len(self.ratios) - 1 else 0.0)
                force = extend @ _solved(factor(tau), free)
                of_load[t, s] = force
                of_held[t, 1 + s] = of_head - capacity.T @ force / tau - stiffness.T @ force
                of_anchor = of_anchor + capacity.T @ force / tau
                of_k -= force[k_rows] * heads[t, s][k_columns, None]
                of_c -= force[c_rows] * (heads[t, s] - anchors[t, s])[c_columns, None] / tau
                of_before += of_anchor
                for i, ratio in enumerate(self.ratios[s]):
                    of_changes[i] += ratio * of_anchor
            of_held[t, 0] = of_before
            later = extend.T @ of_before
        return tuple(np.moveaxis(x, -1, 0) for x in (of_k, of_c, of_load, of_held, later))


def _solved(factor: Factor, right: Array) -> Array:
    """The solutions (n, m) of a factorised system; BilevelError where they are not finite."""
    found = factor.solve(torch.from_numpy(np.ascontiguousarray(right.T))).numpy().T
    if not np.isfinite(found).all():
        raise BilevelError("a time step has no finite solution; check storage, conductivities and loads")
    return np.asarray(found)


def _rows(tensors: Any, dims: Any, size: int) -> tuple[Array, ...]:
    """Tensors with the dimension over which they are mapped first, as arrays."""
    moved = [x.movedim(d, 0) if d is not None else x.expand(size, *x.shape) for x, d in zip(tensors, dims)]
    return tuple(x.detach().numpy() for x in moved)


def _point(tensors: Any, dims: Any) -> list[Tensor]:
    """Tensors that are the same for all directions, without the dimension over which these are mapped.

    torch.func.jvp under vmap repeats them for every tangent. BilevelError where they differ: a march is of one point.
    """
    found = []
    for x, dim in zip(tensors, dims):
        row = x if dim is None else x.select(dim, 0)
        if dim is not None and x.stride(dim) != 0 and not bool((x.movedim(dim, 0) == row).all()):
            raise BilevelError("a march in time is made for one set of parameters; run them one by one, without vmap")
        found.append(row)
    return found


def _tensors(arrays: tuple[Array, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(np.ascontiguousarray(x)) for x in arrays)


class _March(torch.autograd.Function):
    @staticmethod
    def forward(march: LinearMarch, *given: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        k, c, *others = (x.detach().numpy() for x in given)
        found = march.run(k, c, *(x[..., None] for x in others))
        return _tensors(tuple(x[..., 0] for x in found))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.march, *given = inputs
        ctx.save_for_backward(*given, *output)
        ctx.save_for_forward(*given, *output)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        given, found = ctx.saved_tensors[:5], ctx.saved_tensors[5:]
        moved = [torch.zeros_like(x) if t is None else t for x, t in zip(given, tangents)]
        return _Tangent.apply(ctx.march, *given[:2], *found, *moved)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        given, found = ctx.saved_tensors[:5], ctx.saved_tensors[5:]

        def vjp(*cotangents: Tensor) -> tuple[Tensor, ...]:
            return _Adjoint.apply(ctx.march, *given[:2], *found, *cotangents)

        if any(is_batched_cotangent(c) for c in cotangents):
            return (None, *vjp_of_batched_cotangents(vjp, *cotangents))
        return (None, *vjp(*cotangents))

    @staticmethod
    def vmap(info: Any, in_dims: Any, march: LinearMarch, *given: Tensor) -> Any:
        return _March.apply(march, *_point(given, in_dims[1:])), (None, None)


class _Linear(torch.autograd.Function):
    """A map that is linear in all its tensors but the first four: stiffness, capacity, heads, anchors."""

    compute: Callable[..., tuple[Array, ...]]

    @classmethod
    def of(cls, march: LinearMarch, point: Any, directions: Any, dims: Any, size: int) -> tuple[Tensor, ...]:
        at = [x.detach().numpy() for x in _point(point, dims[:4])]
        return _tensors(cls.compute(march, *at, _rows(directions, dims[4:], size)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        pass


def _refuse_second(*_: Any) -> Any:
    raise BilevelError("a march in time is differentiable once; for second derivatives use time_stepping.march")


class _Tangent(_Linear):
    compute = LinearMarch.tangent
    jvp = backward = staticmethod(_refuse_second)  # type: ignore[assignment]

    @staticmethod
    def forward(march: LinearMarch, *given: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return tuple(x[0] for x in _Tangent.of(march, given[:4], given[4:], (None,) * len(given), 1))

    @staticmethod
    def vmap(info: Any, in_dims: Any, march: LinearMarch, *given: Tensor) -> Any:
        found = _Tangent.of(march, given[:4], given[4:], in_dims[1:], info.batch_size)
        return found, (0,) * len(found)


class _Adjoint(_Linear):
    compute = LinearMarch.adjoint
    jvp = backward = staticmethod(_refuse_second)  # type: ignore[assignment]

    @staticmethod
    def forward(march: LinearMarch, *given: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        return tuple(x[0] for x in _Adjoint.of(march, given[:4], given[4:], (None,) * len(given), 1))

    @staticmethod
    def vmap(info: Any, in_dims: Any, march: LinearMarch, *given: Tensor) -> Any:
        found = _Adjoint.of(march, given[:4], given[4:], in_dims[1:], info.batch_size)
        return found, (0,) * len(found)
