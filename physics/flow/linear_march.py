"""Time steps of a linear problem K h + C dh/dt = f: one factorisation for each length of step, exact derivatives of any order.

The stages are those of `time_stepping.march`, (K + C / tau) h = f + C / tau anchor, but their matrices do not depend on
what is found. So a tangent is the same march under other loads, an adjoint the transposed march backwards in time, and
the derivatives of both are marches again; all directions go at once through the factors of the first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from bilevel.linalg.operator import Sparse, Structure
from bilevel.linalg.registry import factorise
from bilevel.linalg.solver import Factor
from bilevel.report import BilevelError
from bilevel.torch_internals import is_batched_cotangent, vjp_of_batched_cotangents
from physics.flow.condensed import Array, Condensed, NodalMatrix, Places
from physics.flow.time_stepping import SDIRK2, Scheme
from physics.flow.time_steps import TimeSteps

KEPT = 16
"""Factors of different lengths of steps that are kept, however large they are."""
KEPT_ENTRIES = 2_000_000
"""Entries of matrices whose factors are kept."""


class Marched(NamedTuple):
    """The field at the end of each stage (..., steps, stages, nodes), and the anchor from which that stage was a step."""

    heads: Tensor
    anchors: Tensor


class LinearMarch:
    """The march over time steps of fields h = T v + g, where g is held and v is free.

    stiffness, capacity: places of the symmetric matrices' entries between nodes. extend: T (nodes, n).
    """

    def __init__(
        self, stiffness: Places, capacity: Places, extend: sp.csr_matrix, steps: TimeSteps, scheme: Scheme = SDIRK2
    ) -> None:
        self.extend = sp.csr_matrix(extend)
        self.stiffness, self.capacity = (NodalMatrix(places, extend.shape[0]) for places in (stiffness, capacity))
        self.condensed = Condensed(self.extend, self.stiffness, self.capacity)
        self.ratios = [np.array(row) / scheme.diagonal for row in scheme.rows]
        taus = steps.stage_lengths(scheme.diagonal, scheme.nodes)
        # Equal steps have equal matrices, whatever rounding made of their lengths.
        self.taus = np.array([float(f"{tau:.11e}") for tau in taus.ravel()]).reshape(taus.shape)
        self._latest: tuple[Array, Array, _Stages] | None = None

    def __call__(self, stiffness: Tensor, capacity: Tensor, load: Tensor, held: Tensor, start: Tensor) -> Marched:
        """From the free values `start` (n,); load (steps, stages, nodes); held (steps, 1 + stages, nodes): what constraints add."""
        return Marched(*_March.apply(self, stiffness, capacity, load, held, start))

    def stages(self, k: Array, c: Array) -> _Stages:
        """The stages' matrices for these entries; those of the last call are kept, for its derivatives."""
        latest = self._latest
        if latest is None or not (np.array_equal(latest[0], k) and np.array_equal(latest[1], c)):
            latest = self._latest = k.copy(), c.copy(), _Stages(self.condensed, k, c)
        return latest[2]

    def run(self, k: Array, c: Array, load: Array, held: Array, start: Array) -> tuple[Array, Array]:
        """Heads and anchors (m, steps, stages, nodes) for m loads, held values and starts."""
        stages = self.stages(k, c)
        fixed, anchored = held[..., 1:, :], self._anchored(held)
        right = load
        if held.any():
            moved = self.capacity.product(c, (anchored - fixed) / self.taus[..., None])
            right = load - self.stiffness.product(k, fixed) + moved
        right = self._reduced(right)
        found, anchors = np.empty_like(right), np.empty_like(right)
        free = start.T
        for t, taus in enumerate(self.taus):
            before = free
            changes: list[Array] = []
            for s, tau in enumerate(taus):
                anchor = before
                for ratio, change in zip(self.ratios[s], changes):
                    anchor = anchor + ratio * change
                free = stages.solve(tau, right[t, s] + stages.capacity @ anchor / tau)
                changes.append(free - anchor)
                found[t, s], anchors[t, s] = free, anchor
        if not np.isfinite(found).all():
            raise BilevelError("a time step has no finite solution; check storage, conductivities and loads")
        return self._extended(found) + fixed, self._extended(anchors) + anchored

    def reverse(self, k: Array, c: Array, of_heads: Array, of_anchors: Array) -> tuple[Array, Array, Array]:
        """The cotangents of load, held and start for m cotangents (m, steps, stages, nodes) of heads and anchors."""
        stages = self.stages(k, c)
        free_heads, free_anchors = self._reduced(of_heads), self._reduced(of_anchors)
        forces = np.empty_like(free_heads)
        later = np.zeros_like(free_heads[0, 0])
        for t in reversed(range(len(self.taus))):
            of_changes = [np.zeros_like(later) for _ in self.ratios]
            of_before = np.zeros_like(later)
            for s in reversed(range(len(self.ratios))):
                tau = self.taus[t, s]
                of_free = free_heads[t, s] + of_changes[s] + (later if s == len(self.ratios) - 1 else 0.0)
                forces[t, s] = stages.solve(tau, of_free)
                of_anchor = free_anchors[t, s] - of_changes[s] + stages.capacity @ forces[t, s] / tau
                of_before = of_before + of_anchor
                for i, ratio in enumerate(self.ratios[s]):
                    of_changes[i] = of_changes[i] + ratio * of_anchor
            later = of_before
        of_load = self._extended(forces)
        stored = self.capacity.product(c, of_load / self.taus[..., None])
        of_held = self._of_held(of_heads - stored - self.stiffness.product(k, of_load), of_anchors + stored)
        return of_load, of_held, later.T

    def _anchored(self, held: Array) -> Array:
        """The held part of the anchors (m, steps, stages, nodes)."""
        anchors: list[Array] = []
        for s, ratios in enumerate(self.ratios):
            anchor = held[..., 0, :]
            for i, ratio in enumerate(ratios[:s]):
                anchor = anchor + ratio * (held[..., 1 + i, :] - anchors[i])
            anchors.append(anchor)
        return np.stack(anchors, -2)

    def _of_held(self, of_fixed: Array, of_anchored: Array) -> Array:
        """The transpose of `_anchored`, with what the held values at the stages' ends get besides."""
        fixed, anchored = list(np.moveaxis(of_fixed, -2, 0)), list(np.moveaxis(of_anchored, -2, 0))
        before = np.zeros_like(fixed[0])
        for s in reversed(range(len(self.ratios))):
            before = before + anchored[s]
            for i, ratio in enumerate(self.ratios[s][:s]):
                fixed[i] = fixed[i] + ratio * anchored[s]
                anchored[i] = anchored[i] - ratio * anchored[s]
        return np.stack([before, *fixed], -2)

    def _reduced(self, fields: Array) -> Array:
        """T^T f as (steps, stages, n, m), of fields (m, steps, stages, nodes)."""
        reduced = (self.extend.T @ fields.reshape(-1, fields.shape[-1]).T).reshape(-1, *fields.shape[:-1])
        return np.ascontiguousarray(reduced.transpose(2, 3, 0, 1))

    def _extended(self, free: Array) -> Array:
        """T v as (m, steps, stages, nodes), of values (steps, stages, n, m)."""
        columns = free.transpose(2, 3, 0, 1)
        return (self.extend @ columns.reshape(len(columns), -1)).T.reshape(*columns.shape[1:], -1)


class _Stages:
    """The condensed matrices of one K and C, and factors of K + C / tau."""

    def __init__(self, condensed: Condensed, k: Array, c: Array) -> None:
        self.pattern = condensed.pattern
        self.k, self.c = (gather @ entries for gather, entries in zip(condensed.gather, (k, c)))
        self.capacity = condensed.csr(self.c)
        self.kept = max(KEPT, KEPT_ENTRIES // max(self.pattern.nnz, 1))
        self.factors: dict[float, Factor] = {}

    def solve(self, tau: float, right: Array) -> Array:
        """(K + C / tau)^-1 right (n, m)."""
        factor = self.factors.get(tau)
        if factor is None:
            matrix = torch.from_numpy(self.k + self.c / tau)
            factor = factorise(Sparse(self.pattern, matrix, Structure(symmetric=True)))
            if len(self.factors) >= self.kept:
                del self.factors[next(iter(self.factors))]
            self.factors[tau] = factor
        return factor.solve(torch.from_numpy(np.ascontiguousarray(right.T))).numpy().T


def _arrays(*tensors: Tensor) -> tuple[Array, ...]:
    return tuple(x.detach().numpy() for x in tensors)


def _tensors(arrays: tuple[Array, ...], shape: torch.Size) -> tuple[Tensor, ...]:
    """Results (m, ...) with the leading dimensions that the arguments had."""
    return tuple(torch.from_numpy(np.ascontiguousarray(x)).reshape(*shape, *x.shape[1:]) for x in arrays)


class _Custom(torch.autograd.Function):
    """A function of a march and tensors, whose derivatives are made of others of its kind."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.march, *given = inputs
        found = output if isinstance(output, tuple) else (output,)
        ctx.count = len(given)
        ctx.save_for_backward(*given, *found)
        ctx.save_for_forward(*given, *found)

    @staticmethod
    def split(ctx: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        return ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]

    @staticmethod
    def moved(given: tuple[Tensor, ...], tangents: tuple[Tensor | None, ...]) -> list[Tensor]:
        return [torch.zeros_like(x) if t is None else t for x, t in zip(given, tangents)]

    @classmethod
    def one_by_one(cls, info: Any, in_dims: Any, march: Any, given: Any) -> Any:
        """Each sample by itself."""
        rows = [
            cls.apply(march, *(x if d is None else x.select(d, i) for x, d in zip(given, in_dims[1:])))
            for i in range(info.batch_size)
        ]
        if isinstance(rows[0], tuple):
            return tuple(map(torch.stack, zip(*rows))), (0,) * len(rows[0])
        return torch.stack(rows), 0

    @classmethod
    def at_one_point(cls, info: Any, in_dims: Any, march: Any, given: Any) -> Any:
        """All samples at once where they share the matrices, which are the first two tensors."""
        shared = [_shared(x, d) for x, d in zip(given[:2], in_dims[1:3])]
        if any(x is None for x in shared):
            return cls.one_by_one(info, in_dims, march, given)
        rest = [
            x.expand(info.batch_size, *x.shape) if d is None else x.movedim(d, 0)
            for x, d in zip(given[2:], in_dims[3:])
        ]
        found = cls.apply(march, *shared, *rest)
        return found, (0,) * len(found)


def _shared(x: Tensor, dim: int | None) -> Tensor | None:
    """A tensor that is the same for all samples, once; None where it is not. vmap of jvp repeats what does not vary."""
    if dim is None or x.stride(dim) == 0:
        return x if dim is None else x.select(dim, 0)
    row = x.select(dim, 0)
    return row if bool((x.movedim(dim, 0) == row).all()) else None


class _March(_Custom):
    """(k, c, load, held, start) -> heads, anchors; load, held and start with any leading dimensions."""

    @staticmethod
    def forward(march: LinearMarch, *given: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        shape = given[2].shape[:-3]
        load, held, start = (x.reshape(-1, *x.shape[len(shape) :]) for x in given[2:])
        return _tensors(march.run(*_arrays(*given[:2], load, held, start)), shape)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        (k, c, *others), (heads, anchors) = _Custom.split(ctx)
        dk, dc, load, held, start = _Custom.moved((k, c, *others), tangents)
        rates = (heads - anchors) / torch.from_numpy(ctx.march.taus).unsqueeze(-1)
        moved = load - _Product.apply(ctx.march.stiffness, dk, heads) - _Product.apply(ctx.march.capacity, dc, rates)
        return _March.apply(ctx.march, k, c, moved, held, start)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        (k, c, *_), (heads, anchors) = _Custom.split(ctx)
        march = ctx.march

        def vjp(*cotangents: Tensor) -> tuple[Tensor, ...]:
            force, held, start = _Reverse.apply(march, k, c, *cotangents)
            return *_of_matrices(march, force, heads, anchors), force, held, start

        if any(is_batched_cotangent(x) for x in cotangents):
            return (None, *vjp_of_batched_cotangents(vjp, *cotangents))
        return (None, *vjp(*cotangents))

    @staticmethod
    def vmap(info: Any, in_dims: Any, march: LinearMarch, *given: Tensor) -> Any:
        return _March.at_one_point(info, in_dims, march, given)


class _Reverse(_Custom):
    """(k, c, cotangents of heads and anchors) -> those of load, held and start."""

    @staticmethod
    def forward(march: LinearMarch, *given: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        shape = given[2].shape[:-3]
        cotangents = (x.reshape(-1, *x.shape[len(shape) :]) for x in given[2:])
        return _tensors(march.reverse(*_arrays(*given[:2], *cotangents)), shape)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        given, (force, *_rest) = _Custom.split(ctx)
        dk, dc, of_heads, of_anchors = _Custom.moved(given, tangents)
        stored = _Product.apply(ctx.march.capacity, dc, force / torch.from_numpy(ctx.march.taus).unsqueeze(-1))
        of_heads = of_heads - _Product.apply(ctx.march.stiffness, dk, force) - stored
        return _Reverse.apply(ctx.march, *given[:2], of_heads, of_anchors + stored)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        (k, c, *_), (force, *_rest) = _Custom.split(ctx)
        march = ctx.march

        def vjp(*cotangents: Tensor) -> tuple[Tensor, ...]:
            heads, anchors = _March.apply(march, k, c, *cotangents)
            return *_of_matrices(march, force, heads, anchors), heads, anchors

        if any(is_batched_cotangent(x) for x in cotangents):
            return (None, *vjp_of_batched_cotangents(vjp, *cotangents))
        return (None, *vjp(*cotangents))

    @staticmethod
    def vmap(info: Any, in_dims: Any, march: LinearMarch, *given: Tensor) -> Any:
        return _Reverse.at_one_point(info, in_dims, march, given)


def _of_matrices(march: LinearMarch, force: Tensor, heads: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """The cotangents of the entries of K and C, from those of the loads."""
    rates = (heads - anchors) / torch.from_numpy(march.taus).unsqueeze(-1)
    return -_Outer.apply(march.stiffness, force, heads), -_Outer.apply(march.capacity, force, rates)


class _Product(_Custom):
    """(entries, fields (..., nodes)) -> A fields, for symmetric A."""

    @staticmethod
    def forward(matrix: NodalMatrix, entries: Tensor, fields: Tensor) -> Tensor:  # type: ignore[override]
        return torch.from_numpy(np.ascontiguousarray(matrix.product(*_arrays(entries, fields))))

    @staticmethod
    def jvp(ctx: Any, _: None, entries: Tensor | None, fields: Tensor | None) -> Tensor:
        given, _found = _Custom.split(ctx)
        moved = _Custom.moved(given, (entries, fields))
        return _Product.apply(ctx.march, moved[0], given[1]) + _Product.apply(ctx.march, given[0], moved[1])

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:
        (entries, fields), _found = _Custom.split(ctx)
        return None, _Outer.apply(ctx.march, cotangent, fields), _Product.apply(ctx.march, entries, cotangent)

    @staticmethod
    def vmap(info: Any, in_dims: Any, matrix: NodalMatrix, entries: Tensor, fields: Tensor) -> Any:
        if in_dims[1] is None:
            return _Product.apply(matrix, entries, fields.movedim(in_dims[2], 0)), 0
        return _Product.one_by_one(info, in_dims, matrix, (entries, fields))


class _Outer(_Custom):
    """(left, right (..., nodes)) -> the derivative of left . A right in the entries of A."""

    @staticmethod
    def forward(matrix: NodalMatrix, left: Tensor, right: Tensor) -> Tensor:  # type: ignore[override]
        return torch.from_numpy(matrix.outer(*_arrays(left, right)))

    @staticmethod
    def jvp(ctx: Any, _: None, left: Tensor | None, right: Tensor | None) -> Tensor:
        given, _found = _Custom.split(ctx)
        moved = _Custom.moved(given, (left, right))
        return _Outer.apply(ctx.march, moved[0], given[1]) + _Outer.apply(ctx.march, given[0], moved[1])

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:
        (left, right), _found = _Custom.split(ctx)
        return None, _Product.apply(ctx.march, cotangent, right), _Product.apply(ctx.march, cotangent, left)

    @staticmethod
    def vmap(info: Any, in_dims: Any, matrix: NodalMatrix, left: Tensor, right: Tensor) -> Any:
        return _Outer.one_by_one(info, in_dims, matrix, (left, right))
