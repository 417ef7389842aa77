"""Constraints on a nodal field, u_full = T u_free + g(values): prescribed values, ties, periodicity, affine relations.

Degrees of freedom are numbered node * components + component. Where two constraints name the same one, they must agree.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from bilevel.report import InputError
from bilevel.torch_internals import is_transformed


@dataclass(frozen=True)
class Equations:
    """u[slaves[k]] = sum of coefficients * u[masters] over the entries with row k, plus an offset."""

    slaves: np.ndarray
    rows: np.ndarray
    masters: np.ndarray
    coefficients: np.ndarray


@dataclass(frozen=True, eq=False)
class Constraint(ABC):
    """One named set of constraints; its offsets may be given as params["boundary"][name]."""

    name: str

    @abstractmethod
    def equations(self, components: int) -> Equations:
        """The constrained degrees of freedom and what they follow."""

    @abstractmethod
    def default(self) -> float | Tensor:
        """The offsets used where the parameters name none."""

    def offset_shape(self, components: int) -> tuple[int, ...]:
        """(nodes, components constrained): the shape that given offsets are broadcast to."""
        count = len(self.equations(components).slaves)
        return (count, 1)


@dataclass(frozen=True, eq=False)
class Dirichlet(Constraint):
    """u = value at nodes (K,), for some components (default all); value (), (components,) or (K, components)."""

    nodes: Tensor
    components: Sequence[int] | None = None
    value: float | Tensor = 0.0

    def equations(self, components: int) -> Equations:
        slaves = _dofs(self.nodes, self.components, components, self.name)
        none = np.empty(0, dtype=np.int64)
        return Equations(slaves, none, none, np.empty(0))

    def default(self) -> float | Tensor:
        return self.value

    def offset_shape(self, components: int) -> tuple[int, ...]:
        return (len(self.nodes), components if self.components is None else len(self.components))


@dataclass(frozen=True, eq=False)
class Tie(Constraint):
    """u(slave) = u(master) + jump, by nodes (K,), for some components; jump () or (components,) or (K, components)."""

    slaves: Tensor
    masters: Tensor
    components: Sequence[int] | None = None
    jump: float | Tensor = 0.0

    def equations(self, components: int) -> Equations:
        if len(self.slaves) != len(self.masters):
            raise InputError(f"tie '{self.name}': {len(self.slaves)} slave nodes against {len(self.masters)} masters")
        slaves = _dofs(self.slaves, self.components, components, self.name)
        masters = _dofs(self.masters, self.components, components, self.name)
        return Equations(slaves, np.arange(len(slaves)), masters, np.ones(len(slaves)))

    def default(self) -> float | Tensor:
        return self.jump

    def offset_shape(self, components: int) -> tuple[int, ...]:
        return (len(self.slaves), components if self.components is None else len(self.components))


@dataclass(frozen=True, eq=False)
class Affine(Constraint):
    """One degree of freedom as a combination of others: u[slave] = sum of coefficient * u[node, component] + offset.

    slave: (node, component). masters: entries (node, component, coefficient).
    """

    slave: tuple[int, int]
    masters: Sequence[tuple[int, int, float]]
    offset: float | Tensor = 0.0

    def equations(self, components: int) -> Equations:
        nodes = np.array([node * components + component for node, component, _ in self.masters], dtype=np.int64)
        slave = np.array([self.slave[0] * components + self.slave[1]])
        coefficients = np.array([coefficient for _, _, coefficient in self.masters], dtype=float)
        return Equations(slave, np.zeros(len(nodes), dtype=np.int64), nodes, coefficients)

    def default(self) -> float | Tensor:
        return self.offset


def periodic(
    name: str,
    coordinates: Tensor,
    minus: Tensor,
    plus: Tensor,
    components: Sequence[int] | None = None,
    jump: float | Tensor = 0.0,
) -> Tie:
    """The tie of nodes `plus` to their partners among `minus`, found by a common shift; coordinates (nodes, dim)."""
    from scipy.spatial import cKDTree

    x = coordinates.detach().numpy()
    low, high = x[minus.numpy()], x[plus.numpy()]
    if len(low) != len(high):
        raise InputError(f"periodic '{name}': {len(low)} nodes on one side, {len(high)} on the other")
    shift = high.mean(0) - low.mean(0)
    distance, partner = cKDTree(low + shift).query(high)
    if distance.max() > 1e-6 * np.linalg.norm(shift) or len(np.unique(partner)) != len(partner):
        raise InputError(
            f"periodic '{name}': node {int(plus[int(distance.argmax())])} has no partner on the opposite side"
        )
    return Tie(name, plus, minus[torch.from_numpy(partner)], components, jump)


class ConstraintSet:
    """All constraints of a field of `nodes` x `components`, resolved into u_full = T u_free + g.

    free (n,): the independent degrees of freedom. matrix: T as scipy CSR (N, n). Raises InputError for cycles, for a
    degree of freedom that is prescribed and follows others too, and (from `expand`) for one with two values.
    """

    def __init__(self, constraints: Sequence[Constraint], nodes: int, components: int) -> None:
        self.shape = (nodes, components)
        names = [constraint.name for constraint in constraints]
        if len(set(names)) < len(names):
            raise InputError(f"two constraints have the same name: {', '.join(sorted(names))}")
        total = nodes * components
        taken = np.zeros(total, dtype=bool)
        self._offsets: list[tuple[Constraint, Tensor, Tensor]] = []
        self._again: list[tuple[Constraint, Tensor, Tensor]] = []
        prescribed: dict[int, str] = {}
        follow = sp.csr_matrix((total, total))
        for constraint in constraints:
            equations = constraint.equations(components)
            _require_range(constraint.name, equations, total, components)
            kept = ~taken[equations.slaves] & _first(equations.slaves)
            if not len(equations.rows):
                self._note_repeated(constraint, equations.slaves, kept, prescribed)
            taken[equations.slaves] = True
            use = kept[equations.rows]
            where = (equations.slaves[equations.rows[use]], equations.masters[use])
            follow = follow + sp.csr_matrix((equations.coefficients[use], where), shape=(total, total))
            positions = torch.from_numpy(np.flatnonzero(kept))
            self._offsets.append((constraint, positions, torch.from_numpy(equations.slaves[kept])))
        self.free = torch.from_numpy(np.flatnonzero(~taken))
        resolved = _resolve(follow)
        self.matrix = resolved[:, self.free.numpy()].tocsr()
        self._linked = follow.nnz > 0
        entries = resolved.tocoo()
        self._rows, self._columns = (
            torch.from_numpy(entries.row.astype(np.int64)),
            torch.from_numpy(entries.col.astype(np.int64)),
        )
        self._coefficients = torch.from_numpy(entries.data)
        self.links = follow

    @property
    def n(self) -> int:
        return len(self.free)

    @property
    def selects(self) -> bool:
        """Whether each full degree of freedom is at most one free one, with factor 1."""
        return bool((np.diff(self.matrix.indptr) <= 1).all() and (self.matrix.data == 1.0).all())

    def expand(self, u: Tensor, values: Mapping[str, Any] | None) -> Tensor:
        """The full field (nodes, components) from u (n,), with offsets by constraint name; differentiable in both."""
        given = dict(values or {})
        full = u.new_zeros(self.shape[0] * self.shape[1]).index_add(0, self.free, u)
        offsets = {}
        for constraint, positions, dofs in self._offsets:
            value = torch.as_tensor(given.pop(constraint.name, constraint.default()), dtype=u.dtype, device=u.device)
            offsets[constraint.name] = _broadcast(constraint, value, self.shape[1]).reshape(-1)
            full = full.index_add(0, dofs, offsets[constraint.name][positions])
        for constraint, positions, dofs in self._again:
            self._require_same(constraint, offsets[constraint.name][positions], full[dofs], dofs)
        if given:
            raise InputError(
                f"params['boundary'] names {sorted(given)}, but the constraints are {self.names or 'none'}"
            )
        return self._linked_to(full).reshape(self.shape)

    def _note_repeated(
        self, constraint: Constraint, slaves: np.ndarray, kept: np.ndarray, prescribed: dict[int, str]
    ) -> None:
        """Remember which values this constraint prescribes where another one does already."""
        again = np.flatnonzero(~kept & np.isin(slaves, list(prescribed)))
        prescribed |= dict.fromkeys(slaves[kept].tolist(), constraint.name)
        if len(again):
            self._again.append((constraint, torch.from_numpy(again), torch.from_numpy(slaves[again])))

    def _require_same(self, constraint: Constraint, value: Tensor, held: Tensor, dofs: Tensor) -> None:
        """Raise InputError where a degree of freedom is prescribed twice, with different values."""
        if is_transformed(value) or is_transformed(held):  # its numbers cannot be read; the plain solve has
            return
        gap = (value - held).detach().abs()
        apart = torch.nonzero(gap > 1e-12 * torch.maximum(value.detach().abs(), held.detach().abs())).reshape(-1)
        if len(apart):
            k = int(apart[0])
            node, component = divmod(int(dofs[k]), self.shape[1])
            raise InputError(
                f"constraint '{constraint.name}' prescribes {float(value[k]):.6g} at node {node}, component {component}, "
                f"where another one prescribes {float(held[k]):.6g} ({len(apart)} such); leave the nodes that they share to "
                "one of them, as mesh.fixed(..., without=[...]) does"
            )

    def extend(self, u: Tensor) -> Tensor:
        """T u (nodes, components): the full field from u (n,) without offsets, the transpose of `reduce`."""
        full = u.new_zeros(self.shape[0] * self.shape[1]).index_add(0, self.free, u)
        return self._linked_to(full).reshape(self.shape)

    def reduce(self, full: Tensor, sizes: bool = False) -> Tensor:
        """T^T r (n,) of a full nodal field r (nodes, components), or |T|^T r for sizes, which do not cancel."""
        flat = full.reshape(-1)
        if self._linked:
            coefficients = self._coefficients.abs() if sizes else self._coefficients
            flat = torch.zeros_like(flat).index_add(0, self._columns, coefficients * flat[self._rows])
        return flat[self.free]

    def _linked_to(self, full: Tensor) -> Tensor:
        if not self._linked:
            return full
        return torch.zeros_like(full).index_add(0, self._rows, self._coefficients * full[self._columns])

    @property
    def names(self) -> list[str]:
        return [constraint.name for constraint, _, _ in self._offsets]


def _dofs(nodes: Tensor, chosen: Sequence[int] | None, components: int, name: str) -> np.ndarray:
    chosen = range(components) if chosen is None else chosen
    if any(component not in range(components) for component in chosen):
        raise InputError(
            f"constraint '{name}': components {list(chosen)}, but the field has {components}, counted from 0"
        )
    return (nodes.numpy()[:, None] * components + np.asarray(list(chosen), dtype=np.int64)).ravel()


def _require_range(name: str, equations: Equations, total: int, components: int) -> None:
    named = np.concatenate((equations.slaves, equations.masters))
    if len(equations.slaves) == 0:
        raise InputError(f"constraint '{name}' holds no node")
    if named.min() < 0 or named.max() >= total:
        raise InputError(
            f"constraint '{name}' names node {named.max() // components}, but there are {total // components}"
        )


def _first(values: np.ndarray) -> np.ndarray:
    first = np.zeros(len(values), dtype=bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first


def _resolve(follow: sp.csr_matrix) -> sp.csr_matrix:
    """(I - S)^-1 for relations that follow each other in chains; raises InputError if they go round."""
    total = follow.shape[0]
    resolved, power = sp.identity(total, format="csr"), follow
    for _ in range(64):
        if power.nnz == 0:
            return resolved
        resolved = resolved + power
        power = power @ follow
        power.eliminate_zeros()
    raise InputError("constraints: some ties follow each other in a circle; name one master for each group")


def _broadcast(constraint: Constraint, value: Tensor, components: int) -> Tensor:
    shape = constraint.offset_shape(components)
    if value.dim() == 1 and shape[1] == 1 and value.shape[0] == shape[0]:
        value = value.unsqueeze(-1)
    try:
        return value.expand(shape)
    except RuntimeError:
        raise InputError(
            f"constraint '{constraint.name}': values {tuple(value.shape)} do not fit {shape} (nodes, components)"
        ) from None
