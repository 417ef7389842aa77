"""E(u, params) = sum over q of w_q psi(B_q u, params_q): the one physical abstraction, for meshes and for graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from bilevel.linalg.operator import Sparse, Structure
from bilevel.problem import EnergyProblem, Params
from bilevel.report import InputError, require
from bilevel.torch_internals import pytree
from physics.discretisation.constraints import Constraint, ConstraintSet
from physics.discretisation.rigid_body_modes import unconstrained_modes
from physics.local.assembly import Scatter
from physics.local.definite import absolute
from physics.local.density import FunctionDensity, fields_of
from physics.local.parameter_jvp import jvp_by_pieces
from physics.local.parameter_vjp import vjp_by_pieces
from physics.local.pieces import Piece, pieces
from physics.local.term import Term

Own = TypeVar("Own", bound="LocalEnergy")


class LocalEnergy(EnergyProblem):
    """The energy of a nodal field (nodes, components), as a sum of terms, under constraints.

    The unknown is the vector u (n,) of the free degrees of freedom; `expand` makes the full field of it. Parameters
    are a dictionary: one entry for each term by its name ("material": {...}; scalars, one value per cell, or one
    per point), "boundary": prescribed values and jumps by the constraint's name, and "coordinates": the nodes'
    coordinates, if they are to be differentiated. Value and residual are differentiable in u and in all of them.

    kernel (nodes, components, k): motions that the energy does not see (rigid-body modes, constants), or None if there are
    none. Those that the constraints leave free raise InputError, unless `floating=True` declares them as null space.
    Raises InputError for parameters that no term knows, and, where a tangent is asked for, outside the bounds of their law.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        nodes: int,
        components: int = 1,
        constraints: Sequence[Constraint] = (),
        *,
        kernel: Tensor | None = None,
        floating: bool = False,
    ) -> None:
        names = [term.name for term in terms]
        if len(set(names)) < len(names) or {"boundary", "coordinates"} & set(names):
            raise InputError(f"terms need names of their own, other than 'boundary' and 'coordinates'; got {names}")
        self.terms = tuple(terms)
        self.constraints = ConstraintSet(constraints, nodes, components)
        if self.constraints.n == 0:
            raise InputError("all degrees of freedom are constrained; there is nothing to solve for")
        self._stiff = [term for term in self.terms if not term.density.affine]
        self._symmetric = all(term.density.symmetric for term in self.terms)
        self._scatter: Scatter | None = None
        self.closes_over = any(isinstance(term.density, FunctionDensity) for term in self.terms)
        self.structure = self._structure(kernel, floating)

    @property
    def n(self) -> int:
        """The number of free degrees of freedom."""
        return self.constraints.n

    def for_unknown(self: Own, u0: Tensor) -> Own:
        require(
            tuple(u0.shape) == (self.n,), f"{type(self).__name__} takes an unknown ({self.n},), not {tuple(u0.shape)}"
        )
        return self

    @property
    def scatter(self) -> Scatter:
        """The pattern and scatter maps, made on first use."""
        if self._scatter is None:
            cells = [term.operator.cells for term in self._stiff]
            self._scatter = Scatter(cells, self.constraints, self._symmetric)
        return self._scatter

    def start(self) -> Tensor:
        """The field at rest: u = 0 (n,)."""
        return torch.zeros(self.n, dtype=torch.float64, device=self.constraints.free.device)

    def expand(self, u: Tensor, params: Params = None) -> Tensor:
        """The full field (nodes, components) from u (n,) with the boundary values in params; differentiable."""
        return self.constraints.expand(u, (params or {}).get("boundary"))

    def value(self, u: Tensor, params: Params) -> Tensor:
        full = self.expand(u, self._checked(params))
        energies = [
            p.term.energy(p.local, p.matrix, p.weights, p.params) for p in self._pieces(self.terms, full, params)
        ]
        return torch.stack(energies).sum()

    def value_and_residual(self, u: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        full = self.expand(u, self._checked(params))
        value, total = full.new_zeros(()), torch.zeros_like(full)
        for term in self.terms:
            both = [
                p.term.energy_and_force(p.local, p.matrix, p.weights, p.params)
                for p in self._pieces([term], full, params)
            ]
            if both:
                energies, forces = zip(*both)
                value, total = value + torch.stack(energies).sum(), _added(term, total, forces)
        return value, self.constraints.reduce(total)

    def residual(self, u: Tensor, params: Params) -> Tensor:
        full = self.expand(u, self._checked(params))
        return self.constraints.reduce(self.nodal_forces(full, params))

    @torch.no_grad()
    def magnitude(self, u: Tensor, params: Params) -> Tensor:
        """The sums of the sizes of the cells' forces: they do not change with a datum, which no cell sees."""
        full = self.expand(u, self._checked(params))
        return self.constraints.reduce(self.nodal_forces(full, params, sizes=True), sizes=True)

    def nodal_forces(
        self, full: Tensor, params: Params, terms: Sequence[Term] | None = None, sizes: bool = False
    ) -> Tensor:
        """dE/du (nodes, components) at a full field, constraints aside: minus the reactions; zero at free nodes.

        sizes: the sum of absolute values over the cells instead.
        """
        total = torch.zeros_like(full)
        for term in self.terms if terms is None else terms:
            forces = [p.term.force(p.local, p.matrix, p.weights, p.params) for p in self._pieces([term], full, params)]
            if forces:
                total = _added(term, total, [force.abs() for force in forces] if sizes else forces)
        return total

    def tangent(self, u: Tensor, params: Params) -> Sparse:
        return self.assembled(self.expand(u.detach(), params), params)

    def definite_tangent(self, u: Tensor, params: Params) -> Sparse | None:
        """The tangent with the absolute eigenvalues of each element's matrix."""
        return self.assembled(self.expand(u.detach(), params), params, absolute) if self._symmetric else None

    @torch.no_grad()
    def assembled(self, full: Tensor, params: Params, change: Callable[[Tensor], Tensor] | None = None) -> Sparse:
        """The tangent at a full field (nodes, components); each element's planes (P, e, A, A) are changed before they are added."""
        full, params = pytree.tree_map(
            lambda leaf: leaf.detach() if isinstance(leaf, Tensor) else leaf, (full, self._checked(params))
        )
        sums = self.scatter.zeros(full)
        for group, term in enumerate(self._stiff):
            if params is not None and term.name in params:
                term.density.check(params[term.name])
            for p in self._pieces([term], full, params):
                planes = p.term.stiffness(p.local, p.matrix, p.weights, p.params, self._symmetric)
                self.scatter.add(sums, planes if change is None else change(planes), group, p.rows)
        return Sparse(self.scatter.pattern, self.scatter.finish(sums), self.structure)

    def parameter_vjp(self, u: Tensor, params: Params, adjoint: Tensor, wanted: Sequence[Tensor]) -> list[Tensor]:
        return vjp_by_pieces(self, u, self._checked(params) or {}, adjoint, wanted)

    def parameter_jvp(self, u: Tensor, params: Params, moved: Sequence[Params]) -> Tensor | None:
        return jvp_by_pieces(self, u, self._checked(params) or {}, moved)

    def fields(self, term: Term, params: Params) -> Params:
        """The parameters of a term, in shape to broadcast against (cells, points)."""
        density, operator = term.density, term.operator
        named = (params or {}).get(term.name)
        if named is None and density.parameters and not density.optional:
            raise InputError(f"params['{term.name}'] is missing; it needs {', '.join(density.parameters.names)}")
        if named is not None:
            density.require(named, f"params['{term.name}']")
        shape = (operator.cells.shape[0], operator.points)
        return fields_of(term.own(params or {}), density, shape, term.name, operator.cells.device)

    def _pieces(self, terms: Sequence[Term], full: Tensor, params: Params) -> Iterator[Piece]:
        coordinates = (params or {}).get("coordinates")
        for term in terms:
            yield from pieces(term, full, self.fields(term, params), coordinates)

    def _checked(self, params: Params) -> Params:
        if params is not None and not isinstance(params, Mapping):
            raise InputError(f"parameters are a dictionary by term, got {type(params).__name__}")
        known = {name for term in self.terms for name in term.names} | {"boundary", "coordinates"}
        unknown = set(params or ()) - known
        if unknown:
            raise InputError(f"params has {sorted(unknown)}, but the energy knows only {sorted(known)}")
        return params

    def _structure(self, kernel: Tensor | None, floating: bool) -> Structure:
        if kernel is None:
            return Structure(symmetric=True)
        motions = unconstrained_modes(self.constraints, [term.operator.cells for term in self._stiff], kernel)
        if motions.shape[1] and not floating:
            raise InputError(
                f"{motions.shape[1]} motion(s) cost no energy and no constraint prevents them (rigid motion, or a "
                "constant field); add boundary conditions, or declare them with floating=True"
            )
        near = kernel.reshape(-1, kernel.shape[-1])[self.constraints.free]
        return Structure(symmetric=True, null_space=motions if motions.shape[1] else None, near_null_space=near)


def _added(term: Term, total: Tensor, forces: Sequence[Tensor]) -> Tensor:
    """The nodal sums (nodes, components) with the forces (e, A, C) on all cells of a term, in pieces."""
    nodes, added = term.operator.cells.reshape(-1), torch.cat(list(forces)).flatten(0, 1)
    if total.shape[1] == 1:  # twice as fast along one dimension
        return total[:, 0].index_add(0, nodes, added[:, 0]).unsqueeze(1)
    return total.index_add(0, nodes, added)
