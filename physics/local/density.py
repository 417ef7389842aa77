"""Energy densities psi(state, params): a user's one function, or a model with stress and tangent in closed form."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError, require
from physics.discretisation.operator import local_matrix
from physics.local.parameters import LawParameters


class Density(ABC):
    """An energy density over many points at once.

    State x has shape (..., *state) and parameters broadcast against the leading dimensions (cells, points).
    event_dims: how many trailing dimensions of a parameter belong to one value (0 for scalars; 1 for a vector at
    each point; a mapping names exceptions), so that () + event is shared, (E,) + event a field per cell and (E, Q)
    + event one per point. affine: the energy is linear in the state (a load), so it has no tangent. symmetric:
    whether the tangent is. optional: without parameters the density is zero. parameters: what it needs, as far as it
    says so.
    """

    event_dims: int | Mapping[str, int] = 0
    affine: bool = False
    symmetric: bool = True
    optional: bool = False
    parameters: LawParameters = LawParameters()

    def require(self, params: Params, owner: str) -> None:  # noqa: B027 - only laws know all of theirs
        """Raise InputError for parameters that are missing or not known, as laws do; `owner` says whose they are."""

    def check(self, params: Params) -> None:  # noqa: B027 - most densities have no bounds
        """Raise InputError for parameters outside their physical bounds; here there are none."""

    @abstractmethod
    def energy(self, x: Tensor, params: Params) -> Tensor:
        """psi (...) at states x (..., *state)."""

    def stress(self, x: Tensor, params: Params) -> Tensor:
        """d psi / d x, shaped like x; differentiable in x and params."""
        return torch.func.grad(lambda y: self.energy(y, params).sum())(x)

    def tangent(self, x: Tensor, params: Params, state_dims: int) -> Tensor:
        """d stress / d x (..., *state, *state), row by row in one sweep."""
        lead, state = x.shape[: x.dim() - state_dims], x.shape[x.dim() - state_dims :]
        basis = torch.eye(state.numel(), dtype=x.dtype, device=x.device).reshape(-1, *state)
        # Reverse over reverse: forward derivatives of a gradient run through decompositions in Python.
        vjp = torch.func.vjp(lambda y: self.stress(y, params), x)[1]
        rows = torch.vmap(lambda row: vjp(row.expand(x.shape))[0])(basis)
        return rows.movedim(0, len(lead)).reshape(*lead, *state, *state)

    def energy_and_stress(self, x: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Both at once; override where they share work."""
        return self.energy(x, params), self.stress(x, params)

    def work(self, x: Tensor, rate: Tensor, params: Params, weights: Tensor) -> Tensor:
        """The sum over all points of w stress(x) . rate, for rates shaped like x and weights (cells, points)."""
        return (per_point(weights, x) * self.stress(x, params) * rate).sum()

    def element_matrices(self, x: Tensor, params: Params, cells: Cells) -> Tensor:
        """The element matrices as cells.planes (P, e, A, A) from cells.weights w (e, Q) and B (e, A, Q, m); see `local_matrix`."""
        tangent = cells.measure.to_cell_tangent(
            self.tangent(x, params, len(cells.measure.shape)), cells.matrix.shape[-1]
        )
        return local_matrix(cells.weights[..., None, None, None, None] * tangent, cells.matrix, cells.planes)


class FunctionDensity(Density):
    """A user's function psi(state, params) -> energy density, or psi(gradient, value, params) with `with_value=True`.

    It is called with all points at once: the state has leading dimensions (cells, points), and so have parameters
    that are fields; those shared by all cells come as they are. It must be made of torch operations.
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        *,
        with_value: bool = False,
        event_dims: int | Mapping[str, int] = 0,
    ) -> None:
        usable = callable(function) and not isinstance(function, type)
        require(
            usable, f"a density is a Density or a function of state and parameters, not {function!r}; is a () missing?"
        )
        self.function = function
        self.with_value = with_value
        self.event_dims = event_dims

    def energy(self, x: Tensor, params: Params) -> Tensor:
        if self.with_value:
            return self.function(x[..., :-1], x[..., -1], params)
        return self.function(x, params)


class LinearLoad(Density):
    """The work of a load: psi = - load . u, loads (C,), (E, C) or (E, Q, C) per area, volume or node; zero if not given."""

    event_dims = 1
    affine = True
    optional = True

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return -(self._fitting(params, x) * x[..., 0]).sum(-1)

    def stress(self, x: Tensor, params: Params) -> Tensor:
        return -self._fitting(params, x).unsqueeze(-1).expand(x.shape)

    @staticmethod
    def _fitting(load: Tensor, x: Tensor) -> Tensor:
        components, needed = load.shape[-1], x.shape[-2]
        require(components in (1, needed), f"a load has {components} components, what it acts on has {needed}")
        return load


def per_point(field: Tensor, like: Tensor) -> Tensor:
    """A field (cells, points) with as many trailing dimensions as `like` has more, to multiply it."""
    return field.reshape(*field.shape, *[1] * (like.dim() - field.dim()))


def as_density(density: Density | Callable[..., Tensor]) -> Density:
    """A density, or a user's function made into one."""
    return density if isinstance(density, Density) else FunctionDensity(density)


@dataclass(frozen=True, eq=False)
class Cells:
    """What some cells contribute to their matrices beside the density: how the state is measured and summed up.

    measure: from B u to the state. weights w (e, Q), matrix B (e, A, Q, m). planes: the pairs of components wanted.
    """

    measure: Measure
    weights: Tensor
    matrix: Tensor
    planes: Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Measure:
    """The affine map from B u (..., C, m) to the state that a density sees (..., *shape): x = M vec(B u) + offset.

    matrix (k, C m) or None for a mere reshape; offset (k,) or None.
    """

    shape: tuple[int, ...]
    matrix: Tensor | None = None
    offset: Tensor | None = None

    @property
    def columns(self) -> int:
        """C m, the number of entries of B u."""
        return math.prod(self.shape) if self.matrix is None else self.matrix.shape[1]

    def state(self, local: Tensor) -> Tensor:
        """x (..., *shape) from B u (..., C, m)."""
        x = self._linear(local)
        if self.offset is not None:
            x = x + self.offset.to(x)
        return x.reshape(*x.shape[:-1], *self.shape)

    def rate(self, local: Tensor) -> Tensor:
        """The change of x (..., *shape) with a change of B u (..., C, m)."""
        x = self._linear(local)
        return x.reshape(*x.shape[:-1], *self.shape)

    def _linear(self, local: Tensor) -> Tensor:
        x = local.flatten(-2)
        return x if self.matrix is None else x @ self.matrix.to(x).mT

    def to_cell_stress(self, stress: Tensor, components: int) -> Tensor:
        """d psi / d (B u) as (..., C, m) from d psi / d x."""
        s = stress.flatten(stress.dim() - len(self.shape))
        if self.matrix is not None:
            s = s @ self.matrix.to(s)
        return s.reshape(*s.shape[:-1], components, -1)

    def to_cell_tangent(self, tangent: Tensor, width: int) -> Tensor:
        """d2 psi / d (B u)^2 as (..., C, m, C, m) from d2 psi / d x^2."""
        lead = tangent.shape[: tangent.dim() - 2 * len(self.shape)]
        size = 1
        for length in self.shape:
            size *= length
        a = tangent.reshape(*lead, size, size)
        if self.matrix is not None:
            a = self.matrix.to(a).mT @ a @ self.matrix.to(a)
        components = a.shape[-1] // width
        return a.reshape(*lead, components, width, components, width)


def fields_of(
    params: Params, density: Density, shape: tuple[int, int], name: str, device: torch.device | None = None
) -> Params:
    """The parameters of a term with its fields arranged to broadcast against (cells, points); raises InputError.

    shape: (cells, points). device: where Python's numbers go.
    """
    cells, points = shape

    def arrange(value: Any, event: int, path: str) -> Any:
        if isinstance(value, Mapping):
            return {key: arrange(v, event_of(key, event), f"{path}.{key}") for key, v in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(arrange(v, event, f"{path}[{i}]") for i, v in enumerate(value))
        if not isinstance(value, Tensor):
            number = isinstance(value, (int, float))
            return torch.as_tensor(value, dtype=torch.get_default_dtype(), device=device) if number else value
        return _field(value, event, cells, points, path)

    def event_of(key: str, event: int) -> int:
        return density.event_dims.get(key, 0) if isinstance(density.event_dims, Mapping) else event

    return arrange(params, density.event_dims if isinstance(density.event_dims, int) else 0, name)


def _field(value: Tensor, event: int, cells: int, points: int, path: str) -> Tensor:
    lead = value.dim() - event
    if lead == 0:
        return value
    if lead == 1 and value.shape[0] in (1, cells):
        return value.unsqueeze(1)
    if lead == 2 and value.shape[0] in (1, cells) and value.shape[1] in (1, points):
        return value
    tail = f" followed by the {event} dimension(s) of one value" if event else ""
    raise InputError(
        f"parameter {path} has shape {tuple(value.shape)}; expected () shared, ({cells},) per cell "
        f"or ({cells}, {points}) per point{tail}"
    )


def rows_of(params: Params, density: Density, rows: slice) -> Params:
    """The fields made by `fields_of`, cut to some cells."""
    events = density.event_dims

    def cut(value: Any, event: int) -> Any:
        if isinstance(value, Mapping):
            return {
                key: cut(v, events.get(key, 0) if isinstance(events, Mapping) else event) for key, v in value.items()
            }
        if isinstance(value, (list, tuple)):
            return type(value)(cut(v, event) for v in value)
        if isinstance(value, Tensor) and value.dim() == event + 2 and value.shape[0] > 1:
            return value[rows]
        return value

    return cut(params, events if isinstance(events, int) else 0)
