"""Time steps of a linear problem K h + C dh/dt = f: one factorisation for each length of step, exact derivatives of any order.

The stages are those of `time_stepping.march`, (K + C / tau) h = f + C / tau anchor, but their matrices do not depend on
what is found. So a tangent is the same march under other loads, an adjoint the transposed march backwards in time, and
the derivatives of both are marches again; all directions go at once through the factors of the first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from bilevel.torch_internals import is_batched_cotangent, vjp_of_batched_cotangents
from physics.flow.condensed import Array, NodalMatrix
from physics.flow.stage_march import StageMarch


class Marched(NamedTuple):
    """The field at the end of each stage (..., steps, stages, nodes), and the anchor from which that stage was a step."""

    heads: Tensor
    anchors: Tensor


class LinearMarch(StageMarch):
    """The march of a linear problem, differentiable in all that it is given."""

    def __call__(self, stiffness: Tensor, capacity: Tensor, load: Tensor, held: Tensor, start: Tensor) -> Marched:
        """From the free values `start` (n,); load (steps, stages, nodes); held (steps, 1 + stages, nodes): what constraints add."""
        return Marched(*_March.apply(self, stiffness, capacity, load, held, start))


def arrays(*tensors: Tensor) -> tuple[Array, ...]:
    """Tensors as NumPy's arrays."""
    return tuple(x.detach().numpy() for x in tensors)


def _tensors(arrays: tuple[Array, ...], shape: torch.Size) -> tuple[Tensor, ...]:
    """Results (m, ...) with the leading dimensions that the arguments had."""
    return tuple(torch.from_numpy(np.ascontiguousarray(x)).reshape(*shape, *x.shape[1:]) for x in arrays)


class Custom(torch.autograd.Function):
    """A function of a march (or a steady problem) and tensors, whose derivatives are made of others of its kind."""

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

    @staticmethod
    def swept(vjp: Callable[..., tuple[Tensor, ...]], *cotangents: Tensor) -> tuple[Any, ...]:
        """What `backward` returns, for one cotangent or many at once."""
        if any(is_batched_cotangent(x) for x in cotangents):
            return (None, *vjp_of_batched_cotangents(vjp, *cotangents))
        return (None, *vjp(*cotangents))

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
    def at_one_point(cls, info: Any, in_dims: Any, march: Any, given: Any, matrices: int = 2) -> Any:
        """All samples at once where they share the matrices, which are the first tensors."""
        shared = [_shared(x, d) for x, d in zip(given[:matrices], in_dims[1 : 1 + matrices])]
        if any(x is None for x in shared):
            return cls.one_by_one(info, in_dims, march, given)
        rest = [
            x.expand(info.batch_size, *x.shape) if d is None else x.movedim(d, 0)
            for x, d in zip(given[matrices:], in_dims[1 + matrices :])
        ]
        found = cls.apply(march, *shared, *rest)
        return found, (0,) * len(found) if isinstance(found, tuple) else 0


def _shared(x: Tensor, dim: int | None) -> Tensor | None:
    """A tensor that is the same for all samples, once; None where it is not. vmap of jvp repeats what does not vary."""
    if dim is None or x.stride(dim) == 0:
        return x if dim is None else x.select(dim, 0)
    row = x.select(dim, 0)
    return row if bool((x.movedim(dim, 0) == row).all()) else None


class _March(Custom):
    """(k, c, load, held, start) -> heads, anchors; load, held and start with any leading dimensions."""

    @staticmethod
    def forward(march: LinearMarch, *given: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        shape = given[2].shape[:-3]
        load, held, start = (x.reshape(-1, *x.shape[len(shape) :]) for x in given[2:])
        return _tensors(march.run(*arrays(*given[:2], load, held, start)), shape)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        (k, c, *others), (heads, anchors) = Custom.split(ctx)
        dk, dc, load, held, start = Custom.moved((k, c, *others), tangents)
        rates = (heads - anchors) / torch.from_numpy(ctx.march.taus).unsqueeze(-1)
        moved = load - Product.apply(ctx.march.stiffness, dk, heads) - Product.apply(ctx.march.capacity, dc, rates)
        return _March.apply(ctx.march, k, c, moved, held, start)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        (k, c, *_), (heads, anchors) = Custom.split(ctx)
        march = ctx.march

        def vjp(*cotangents: Tensor) -> tuple[Tensor, ...]:
            force, held, start = _Reverse.apply(march, k, c, *cotangents)
            return *_of_matrices(march, force, heads, anchors), force, held, start

        return Custom.swept(vjp, *cotangents)

    @staticmethod
    def vmap(info: Any, in_dims: Any, march: LinearMarch, *given: Tensor) -> Any:
        return _March.at_one_point(info, in_dims, march, given)


class _Reverse(Custom):
    """(k, c, cotangents of heads and anchors) -> those of load, held and start."""

    @staticmethod
    def forward(march: LinearMarch, *given: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        shape = given[2].shape[:-3]
        cotangents = (x.reshape(-1, *x.shape[len(shape) :]) for x in given[2:])
        return _tensors(march.reverse(*arrays(*given[:2], *cotangents)), shape)

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor | None) -> tuple[Tensor, ...]:
        given, (force, *_rest) = Custom.split(ctx)
        dk, dc, of_heads, of_anchors = Custom.moved(given, tangents)
        stored = Product.apply(ctx.march.capacity, dc, force / torch.from_numpy(ctx.march.taus).unsqueeze(-1))
        of_heads = of_heads - Product.apply(ctx.march.stiffness, dk, force) - stored
        return _Reverse.apply(ctx.march, *given[:2], of_heads, of_anchors + stored)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        (k, c, *_), (force, *_rest) = Custom.split(ctx)
        march = ctx.march

        def vjp(*cotangents: Tensor) -> tuple[Tensor, ...]:
            heads, anchors = _March.apply(march, k, c, *cotangents)
            return *_of_matrices(march, force, heads, anchors), heads, anchors

        return Custom.swept(vjp, *cotangents)

    @staticmethod
    def vmap(info: Any, in_dims: Any, march: LinearMarch, *given: Tensor) -> Any:
        return _Reverse.at_one_point(info, in_dims, march, given)


def _of_matrices(march: LinearMarch, force: Tensor, heads: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """The cotangents of the entries of K and C, from those of the loads."""
    rates = (heads - anchors) / torch.from_numpy(march.taus).unsqueeze(-1)
    return -Outer.apply(march.stiffness, force, heads), -Outer.apply(march.capacity, force, rates)


def _product_rule(function: type[Custom], ctx: Any, *tangents: Tensor | None) -> Tensor:
    """The tangent of a function that is linear in each of two tensors."""
    (one, other), _found = Custom.split(ctx)
    moved, moved_too = Custom.moved((one, other), tangents)
    return function.apply(ctx.march, moved, other) + function.apply(ctx.march, one, moved_too)


class Product(Custom):
    """(entries, fields (..., nodes)) -> A fields, for symmetric A."""

    @staticmethod
    def forward(matrix: NodalMatrix, entries: Tensor, fields: Tensor) -> Tensor:  # type: ignore[override]
        return torch.from_numpy(np.ascontiguousarray(matrix.product(*arrays(entries, fields))))

    @staticmethod
    def jvp(ctx: Any, _: None, entries: Tensor | None, fields: Tensor | None) -> Tensor:
        return _product_rule(Product, ctx, entries, fields)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:
        (entries, fields), _found = Custom.split(ctx)
        matrix = ctx.march
        return Custom.swept(lambda w: (Outer.apply(matrix, w, fields), Product.apply(matrix, entries, w)), cotangent)

    @staticmethod
    def vmap(info: Any, in_dims: Any, matrix: NodalMatrix, entries: Tensor, fields: Tensor) -> Any:
        if in_dims[1] is None:
            return Product.apply(matrix, entries, fields.movedim(in_dims[2], 0)), 0
        return Product.one_by_one(info, in_dims, matrix, (entries, fields))


class Outer(Custom):
    """(left, right (..., nodes)) -> the derivative of left . A right in the entries of A."""

    @staticmethod
    def forward(matrix: NodalMatrix, left: Tensor, right: Tensor) -> Tensor:  # type: ignore[override]
        return torch.from_numpy(matrix.outer(*arrays(left, right)))

    @staticmethod
    def jvp(ctx: Any, _: None, left: Tensor | None, right: Tensor | None) -> Tensor:
        return _product_rule(Outer, ctx, left, right)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:
        (left, right), _found = Custom.split(ctx)
        matrix = ctx.march
        return Custom.swept(lambda w: (Product.apply(matrix, w, right), Product.apply(matrix, w, left)), cotangent)

    @staticmethod
    def vmap(info: Any, in_dims: Any, matrix: NodalMatrix, left: Tensor, right: Tensor) -> Any:
        return Outer.one_by_one(info, in_dims, matrix, (left, right))
