"""What an inner problem is: an energy to minimise, a residual to zero, or a map to hold fixed.

A problem is a pure function of the unknown and of all the tensors that it depends on. Solvers and the implicit layer
see vectors of shape (*batch, n); the functions that users write see the unknown in the shape of their own start.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from bilevel.linalg.devices import moved
from bilevel.linalg.found_sparsity import FoundSparsity, Sparsity
from bilevel.linalg.operator import Dense, LinearOperator, MatrixFree, Structure
from bilevel.torch_internals import jvp

Params: TypeAlias = Any
"""A tensor, or nested dicts, lists and tuples of tensors (and of constants, which carry no gradient)."""

Function: TypeAlias = Callable[..., Tensor]
Self = TypeVar("Self", bound="Problem")

DENSE_LIMIT = 2500
"""Problems without a tangent of their own are linearised densely up to this size, by products above it."""
DENSE_CHUNK = 512
"""Rows of a dense tangent that are made at once: each keeps every intermediate result of the residual."""


class Problem(ABC):
    """A root problem r(u, params) = 0 with its linearisation.

    batch_dims: how many leading dimensions of the unknown count independent samples.
    structure: what is known of the tangent (see `Structure`).
    closes_over: whether it calls a user's function, which may depend on tensors that are not among the parameters.
    """

    batch_dims: int = 0
    closes_over: bool = False
    structure: Structure = Structure()

    @abstractmethod
    def residual(self, u: Tensor, params: Params) -> Tensor:
        """The residual (*batch, n) at u (*batch, n); differentiable with torch.func in u and params."""

    def tangent(self, u: Tensor, params: Params) -> LinearOperator:
        """The derivative of the residual with respect to u, for solving; need not be differentiable."""
        n = u.shape[-1]
        if n <= DENSE_LIMIT:
            return Dense(dense_jacobian(lambda v: self.residual(v, params), u), self.structure)
        return MatrixFree(
            n,
            lambda x: self.product(u, params, x),
            lambda x: self.product_transposed(u, params, x),
            self.structure,
            tuple(u.shape[:-1]),
            dtype=u.dtype,
            device=u.device,
        )

    def definite_tangent(self, u: Tensor, params: Params) -> LinearOperator | None:
        """A positive definite matrix near an energy's tangent that is not, where a model knows one; for Newton's method."""
        return None

    def product(self, u: Tensor, params: Params, x: Tensor) -> Tensor:
        """Tangent times x, differentiable in u, params and x."""
        if self.structure.symmetric:
            # Reverse over reverse: several times faster in PyTorch than forward over reverse.
            return torch.func.vjp(lambda v: self.residual(v, params), u)[1](x)[0]
        return jvp(lambda v: self.residual(v, params), (u,), (x,))

    def product_transposed(self, u: Tensor, params: Params, x: Tensor) -> Tensor:
        """Transposed tangent times x, differentiable in u, params and x."""
        return torch.func.vjp(lambda v: self.residual(v, params), u)[1](x)[0]

    def parameter_vjp(self, u: Tensor, params: Params, adjoint: Tensor, wanted: Sequence[Tensor]) -> list[Tensor]:
        """The derivatives of adjoint . residual(u, params) in the tensors `wanted`, of which u and params are made.

        In numbers only, so that models may go piece by piece; `adjoint` is (*batch, n).
        """
        with torch.enable_grad():
            work = (self.residual(u, params) * adjoint).sum()
        if not work.requires_grad:  # none of them has any influence
            return [torch.zeros_like(tensor) for tensor in wanted]
        return list(torch.autograd.grad(work, wanted, allow_unused=True, materialize_grads=True))

    def parameter_jvp(self, u: Tensor, params: Params, moved: Sequence[Params]) -> Tensor | None:
        """The residual's derivatives (m, n) at u in m directions of the parameters, where a model knows a quick way.

        A direction is structured like params, with None for tensors that do not move; the same ones in each. In numbers
        only; None where there is no quicker way than to differentiate the residual m times.
        """
        return None

    def magnitude(self, u: Tensor, params: Params) -> Tensor | None:
        """The sizes (*batch, n) of the terms that cancel in each entry of the residual, where a model knows its terms.

        Convergence is measured against them. Sizes that do not depend on the datum of u make it independent of that too.
        """
        return None

    def remarks(self, u: Tensor, params: Params) -> list[str]:
        """Sentences on u (n,), where a solve ended, that a user should read; notes of its report, and of its error."""
        return []

    def collect(self, params: Params) -> Params:
        """The given parameters together with those that the problem itself owns."""
        return params

    def prepared(self, params: Params) -> Problem:
        """This problem for many evaluations at these very parameters, in numbers.

        For models of which much depends on parameters alone, to work that out once; the solvers ask for it.
        """
        return self

    def for_unknown(self: Self, u0: Tensor) -> Self:
        """This problem, made ready for an unknown shaped like u0."""
        if u0.dim() != self.batch_dims + 1:
            raise ValueError(
                f"{type(self).__name__} takes an unknown with {self.batch_dims + 1} dimension(s), got shape {tuple(u0.shape)}"
            )
        return self

    def to(self: Self, device: torch.device | str) -> Self:
        """A copy whose tensors are on another device; unknown and parameters are given on the same one."""
        return moved(self, device)

    def probe(self, u: Tensor, params: Params) -> Tensor:
        """Something cheap that depends on all that the problem depends on; used to find undeclared tensors."""
        return self.residual(u, params)


class EnergyProblem(Problem):
    """A minimisation problem: adds the energy's value; the tangent is symmetric.

    Models with a sparse Hessian or a closed-form residual subclass this and override `residual` and `tangent`.
    """

    structure = Structure(symmetric=True)

    @abstractmethod
    def value(self, u: Tensor, params: Params) -> Tensor:
        """The energy (*batch) at u (*batch, n); differentiable with torch.func in u and params."""

    def residual(self, u: Tensor, params: Params) -> Tensor:
        return torch.func.grad(lambda v: self.value(v, params).sum())(u)

    def value_and_residual(self, u: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Energy and residual at one point; override where they share work."""
        return self.value(u, params), self.residual(u, params)

    def probe(self, u: Tensor, params: Params) -> Tensor:
        return self.value(u, params)


class _UserFunction:
    """A user's function f(u, params) or module, called with the unknown in the user's shape."""

    def __init__(self, function: Function, batch_dims: int) -> None:
        self.function = function
        self.batch_dims = batch_dims
        self.event_shape: tuple[int, ...] | None = None

    def __call__(self, u: Tensor, params: Params) -> Tensor:
        u = u.reshape(self.shape_of(u))
        if isinstance(self.function, torch.nn.Module):
            owned, given = params
            return torch.func.functional_call(self.function, owned, (u,) if given is None else (u, given))
        return self.function(u) if params is None else self.function(u, params)

    def shape_of(self, u: Tensor) -> tuple[int, ...]:
        """The shape in which the function sees an unknown u (..., n)."""
        return (*u.shape[:-1], *((u.shape[-1],) if self.event_shape is None else self.event_shape))

    def collect(self, params: Params) -> Params:
        if not isinstance(self.function, torch.nn.Module):
            return params
        owned = dict(self.function.named_parameters()) | dict(self.function.named_buffers())
        return (owned, params)

    def for_unknown(self, u0: Tensor) -> _UserFunction:
        ready = copy.copy(self)
        ready.event_shape = tuple(u0.shape[self.batch_dims :])
        return ready


class _FromFunction(Problem):
    """Shared by the three problems made from a user's function."""

    closes_over = True

    def __init__(self, function: Function, *, batch_dims: int = 0, structure: Structure | None = None) -> None:
        if not callable(function):
            raise TypeError(
                f"{type(function).__name__} is neither a Problem of the kind asked for nor a function of the unknown and its "
                "parameters; bodies and flows know their solver themselves (`solve`), residuals without an energy go to root"
            )
        self.batch_dims = batch_dims
        self._function = _UserFunction(function, batch_dims)
        if structure is not None:
            self.structure = structure

    def collect(self, params: Params) -> Params:
        return self._function.collect(params)

    def for_unknown(self: Self, u0: Tensor) -> Self:
        if u0.dim() < self.batch_dims:
            raise ValueError(
                f"the start has shape {tuple(u0.shape)}, but the problem has {self.batch_dims} batch dimension(s)"
            )
        ready = copy.copy(self)
        ready._function = self._function.for_unknown(u0)  # type: ignore[attr-defined]
        return ready


class _MaybeSparse(_FromFunction):
    """A user's function whose tangent is sparse where that is known or found.

    sparsity: where the tangent has entries, as a scipy.sparse matrix (n, n) or pairs of unknowns (m, 2). From some hundreds
    of unknowns on it is found by itself, and checked by a random product at every tangent; where the tangent is not
    sparse, it is dense or known by its products.
    """

    def __init__(
        self,
        function: Function,
        *,
        batch_dims: int = 0,
        structure: Structure | None = None,
        sparsity: Sparsity | None = None,
    ) -> None:
        super().__init__(function, batch_dims=batch_dims, structure=structure)
        self._tangent = FoundSparsity(function, sparsity)

    def tangent(self, u: Tensor, params: Params) -> LinearOperator:
        if self._tangent.worthwhile(u.shape[-1]) and (u.dim() == 1 or self.structure.null_space is None):
            sparse = self._tangent.at(lambda v: self.residual(v, params), u, self.structure)
            if sparse is not None:
                return sparse
        return super().tangent(u, params)


class Energy(_MaybeSparse, EnergyProblem):
    """The energy E(u, params) (E(u) where no parameters are given) -> scalar, or one value per sample when `batch_dims` > 0, as a Python function or module.

    A `torch.nn.Module` is called as module(u) or module(u, params); its own parameters are collected by themselves.
    The function sees u in the shape of the start that the user gives, and must work under torch.func.
    """

    structure = Structure(symmetric=True)

    def value(self, u: Tensor, params: Params) -> Tensor:
        energy = self._function(u, params)
        if not isinstance(energy, Tensor) or tuple(energy.shape) != tuple(u.shape[:-1]):
            got = tuple(energy.shape) if isinstance(energy, Tensor) else type(energy).__name__
            raise ValueError(
                f"the energy must return shape {tuple(u.shape[:-1])} (one value per sample), it returned {got}"
            )
        return energy

    def value_and_residual(self, u: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        def total(v: Tensor) -> tuple[Tensor, Tensor]:
            energy = self.value(v, params)
            return energy.sum(), energy

        residual, energy = torch.func.grad(total, has_aux=True)(u)
        return energy, residual


class Residual(_MaybeSparse):
    """The residual r(u, params), shaped like u, as a Python function or module; its tangent need not be symmetric."""

    def residual(self, u: Tensor, params: Params) -> Tensor:
        return _vector_like(u, self._function(u, params), self._function.shape_of(u), "residual")


class FixedPoint(_FromFunction):
    """The map T(u, params), shaped like u, whose fixed point u = T(u, params) is sought; its residual is u - T(u)."""

    def residual(self, u: Tensor, params: Params) -> Tensor:
        return u - self.map(u, params)

    def map(self, u: Tensor, params: Params) -> Tensor:
        """T(u, params) as a vector (*batch, n)."""
        return _vector_like(u, self._function(u, params), self._function.shape_of(u), "map")


def _vector_like(u: Tensor, value: Tensor, shape: tuple[int, ...], what: str) -> Tensor:
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"the {what} must be shaped like the unknown, {shape}, it returned {got}")
    return value.reshape(u.shape)


def dense_jacobian(function: Callable[[Tensor], Tensor], u: Tensor) -> Tensor:
    """d function / d u as (*batch, n, n), for a function that treats the samples of u (*batch, n) independently."""
    vjp = torch.func.vjp(function, u)[1]
    basis = torch.eye(u.shape[-1], dtype=u.dtype, device=u.device)
    rows = torch.vmap(lambda e: vjp(e.expand(u.shape))[0], chunk_size=DENSE_CHUNK)(basis)
    return rows.movedim(0, -2)
