"""A solid body: mesh, law, kinematics, supports and loads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, TypeAlias, overload

import torch
from torch import Tensor

import bilevel
from bilevel.linalg.operator import Sparse
from bilevel.problem import Params, Problem
from bilevel.report import InputError, Solution, chosen, require
from bilevel.solvers import Newton, Tolerance
from bilevel.solvers.cellwise.problem import CellwiseEnergy, Guess
from bilevel.solvers.solver import Solver
from physics.constitutive.elastic.law import ElasticLaw
from physics.constitutive.inelastic.law import InelasticLaw
from physics.constitutive.inelastic.zoned import ZonedLaw
from physics.constitutive.kinematics import Kinematics, Strain, measure
from physics.constitutive.law import Law
from physics.constitutive.mandel import to_matrix
from physics.discretisation import Mesh
from physics.discretisation.constraints import Constraint
from physics.discretisation.operator import LocalOperator
from physics.discretisation.rigid_body_modes import rigid_body_modes
from physics.local.density import Density, FunctionDensity, rows_of
from physics.local.energy import LocalEnergy
from physics.local.residual import LocalResidual
from physics.local.term import Term
from physics.solids.beyond_limits import beyond_limits
from physics.solids.cellwise.body import BodyCells
from physics.solids.cellwise.cells import SolidCells
from physics.solids.loads import Load
from physics.solids.locking import REMARK, STIFF, stiffness_ratio
from physics.solids.material_points import MaterialFlux, MaterialTerm
from physics.solids.mean_dilatation import MeanDilatation
from physics.solids.moved_start import moved_start
from physics.solids.rest import require_derivatives_at_rest
from physics.solids.zoned_points import ZonedFlux

EQUILIBRIUM = Newton(tolerance=Tolerance(relative=1e-9), max_iterations=50)
"""The default solver of inelastic bodies."""

SAMPLED = 100
"""Cells whose constants are looked at for remarks."""

AnyLaw: TypeAlias = "Density | InelasticLaw | Callable[..., Tensor]"


class SolidBody(Problem):
    """What elastic and inelastic bodies have in common; see `Solid`."""

    def __init__(
        self,
        mesh: Mesh,
        law: AnyLaw,
        kinematics: Kinematics | None = None,
        constraints: Sequence[Constraint] = (),
        loads: Sequence[Load] = (),
        *,
        mean_dilatation: bool = False,
        floating: bool = False,
        strain: Strain | None = None,
        quadrature: int | None = None,
    ) -> None:
        if kinematics is None and mesh.dim == 2:
            raise InputError("a plane solid needs its kinematics: PLANE_STRAIN, PLANE_STRESS or AXISYMMETRIC")
        self.mesh = mesh
        self.kinematics = chosen(Kinematics, kinematics or Kinematics.THREE_DIMENSIONAL)
        strain = strain and chosen(Strain, strain)
        if self.kinematics.dim != mesh.dim:
            needed = self.kinematics.dim
            raise InputError(f"{self.kinematics.value} needs a mesh in {needed} dimensions, this one has {mesh.dim}")
        for what, items, kind in (("constraints", constraints, Constraint), ("loads", loads, Load)):
            listed = isinstance(items, Sequence) and all(isinstance(item, kind) for item in items)
            require(listed, f"{what} must be a list of {kind.__name__} objects, not {items!r}")
        axisymmetric = self.kinematics is Kinematics.AXISYMMETRIC
        operator = mesh.operator(axisymmetric=axisymmetric, quadrature=quadrature)
        self.material = self._material(law, operator, mean_dilatation, strain)
        terms = [self.material, *(load.term(mesh, self.kinematics) for load in loads)]
        kernel = rigid_body_modes(mesh.coordinates, axisymmetric)
        self._assemble(terms, constraints, kernel, floating)

    mesh: Mesh
    kinematics: Kinematics
    material: Term

    @property
    def n(self) -> int:
        """The number of free degrees of freedom."""
        raise NotImplementedError

    def start(self, params: Params = None) -> Tensor:
        """The body at rest, u = 0 (n,); with params of an elastic body where `solve` begins (see `moved_start`)."""
        raise NotImplementedError

    def expand(self, u: Tensor, params: Params = None) -> Tensor:
        """The displacement (nodes, dim) from u (n,) with the boundary values in params; differentiable."""
        raise NotImplementedError

    def residual(self, u: Tensor, params: Params) -> Tensor:
        raise NotImplementedError

    def reactions(self, u: Tensor, params: Params) -> Tensor:
        """The forces (nodes, dim) of the supports on the body, N; zero at free nodes of a body in equilibrium."""
        raise NotImplementedError

    def solve(self, params: Params, start: Tensor | None = None, solver: Solver | None = None) -> Solution:
        """The equilibrium, differentiable in all params; raises ConvergenceError, at a limit load for instance."""
        raise NotImplementedError

    def strain(self, u: Tensor, params: Params) -> Tensor:
        """F or the small strain at the quadrature points, (cells, points, 3, 3)."""
        raise NotImplementedError

    def stress(self, u: Tensor, params: Params) -> Tensor:
        """The stress conjugate to `strain`: first Piola-Kirchhoff of F, or Cauchy of the small strain, in Pa."""
        raise NotImplementedError

    def _material(self, law: Any, operator: LocalOperator, mean_dilatation: bool, strain: Strain | None) -> Term:
        """The law on the mesh."""
        raise NotImplementedError

    def _assemble(self, terms: list[Term], constraints: Sequence[Constraint], kernel: Tensor, floating: bool) -> None:
        """The sum of the terms."""
        raise NotImplementedError

    def _measured(self, u: Tensor, params: Params) -> Tensor:
        """The strain as the law sees it, (cells, points, ...)."""
        local = self.material.operator.apply(self.expand(u, params), (params or {}).get("coordinates"))
        return self.material.measure.state(local)


class Solid(SolidBody):
    """A solid body in equilibrium; the unknown is made of its free displacements, in m.

        mesh = physics.discretisation.rectangle(20, 10, (2.0, 1.0), order=2)
        solid = Solid(mesh, NeoHookean(), Kinematics.PLANE_STRAIN, [mesh.fixed("left")], [Traction("pull", "right")])
        params = {"material": {"mu": 1e5, "lame_lambda": 4e5}, "pull": torch.tensor([1e4, 0.0])}
        solution = solid.solve(params)
        displacement = solid.expand(solution.u, params)  # (nodes, dim)

    law: an `ElasticLaw`, or a Python function psi(F, params) (psi(strain, params) with `strain=Strain.SMALL`) of states
    (cells, points, 3, 3), or (.., 2, 2) in plane stress: the body is an `ElasticSolid`, an energy to be minimised. An
    `InelasticLaw`: it is an `InelasticSolid`, a residual to be zeroed at the end of an increment. kinematics: needed in
    two dimensions. mean_dilatation: one volume change per element, so that nearly incompressible laws do not lock.
    floating: declares that rigid motions are left free; the loads must then balance. params: "material", the loads by
    name, "boundary" and "coordinates" (nodes, dim). Raises InputError for a body that nothing holds, for kinematics that
    fit neither mesh nor law, and for a density that has no stiffness at rest.
    """

    @overload
    def __new__(
        cls,
        mesh: Mesh,
        law: InelasticLaw,
        kinematics: Kinematics | None = None,
        constraints: Sequence[Constraint] = (),
        loads: Sequence[Load] = (),
        *,
        mean_dilatation: bool = False,
        floating: bool = False,
        strain: Strain | None = None,
        quadrature: int | None = None,
    ) -> InelasticSolid: ...

    @overload
    def __new__(
        cls,
        mesh: Mesh,
        law: Density | Callable[..., Tensor],
        kinematics: Kinematics | None = None,
        constraints: Sequence[Constraint] = (),
        loads: Sequence[Load] = (),
        *,
        mean_dilatation: bool = False,
        floating: bool = False,
        strain: Strain | None = None,
        quadrature: int | None = None,
    ) -> ElasticSolid: ...

    def __new__(cls, mesh: Mesh | None = None, law: AnyLaw | None = None, *args: Any, **options: Any) -> Solid:
        if cls is Solid:
            cls = InelasticSolid if isinstance(law, InelasticLaw) else ElasticSolid
        return object.__new__(cls)


class ElasticSolid(LocalEnergy, Solid, CellwiseEnergy):
    """The potential energy of a solid body, to be minimised over its displacements."""

    __init__ = SolidBody.__init__

    def _material(self, law: Any, operator: LocalOperator, mean_dilatation: bool, strain: Strain | None) -> Term:
        density = _density(law, self.kinematics)
        own = density.strain if isinstance(density, ElasticLaw) else Strain.DEFORMATION_GRADIENT
        self._strain = strain or own
        seen = measure(self.kinematics, self._strain)
        self._by_autodiff = type(density).tangent is Density.tangent
        if self._by_autodiff:
            require_derivatives_at_rest(density, seen)
        linear = (
            self.mesh.cells.shape[1] == self.mesh.corners.shape[1] and self.kinematics is not Kinematics.PLANE_STRESS
        )
        self._may_lock = linear and not mean_dilatation and isinstance(density, ElasticLaw)
        return (MeanDilatation.of if mean_dilatation else Term)("material", operator, density, seen)

    def _assemble(self, terms: list[Term], constraints: Sequence[Constraint], kernel: Tensor, floating: bool) -> None:
        nodes = len(self.mesh.coordinates)
        LocalEnergy.__init__(self, terms, nodes, self.mesh.dim, constraints, kernel=kernel, floating=floating)

    def reactions(self, u: Tensor, params: Params) -> Tensor:
        return self.nodal_forces(self.expand(u, params), params)

    def start(self, params: Params = None) -> Tensor:
        return super().start() if params is None else self.first_guess(params).u

    def first_guess(self, params: Params) -> Guess:
        """Where `solve` begins (see `moved_start`), and what it takes to find that."""
        positions = (params or {}).get("coordinates", self.mesh.coordinates)
        return moved_start(self, lambda: self._by_pressures(params), positions, params)

    def _by_pressures(self, params: Params) -> SolidCells | None:
        """The body as linear systems where its pressures can be unknowns; the systems are made on the host alone."""
        on_host = self.material.operator.cells.device.type == "cpu"
        return self.cellwise(params) if on_host and isinstance(self.material, MeanDilatation) else None

    def solve(self, params: Params, start: Tensor | None = None, solver: Solver | None = None) -> Solution:
        return bilevel.argmin(self, self.start(params) if start is None else start, params, solver=solver)

    @cached_property
    def by_cells(self) -> BodyCells:
        """The body as its cells see it; InputError where first guesses do not know its kinematics, strain or loads."""
        known = (Kinematics.PLANE_STRAIN, Kinematics.THREE_DIMENSIONAL)
        if self.kinematics not in known or self._strain is not Strain.DEFORMATION_GRADIENT:
            raise InputError(
                "first guesses know bodies in plane strain or in space, with laws of the deformation gradient"
            )
        return BodyCells(self, self.mesh, self.material)

    def cellwise(self, params: Params) -> SolidCells | None:
        if "coordinates" in (params or {}):
            return None
        try:
            return SolidCells(self.by_cells, params)
        except InputError:
            return None

    @torch.no_grad()
    def tangent(self, u: Tensor, params: Params) -> Sparse:
        if self._by_autodiff:  # once more, now that there are parameters
            density = self.material.density
            first = rows_of(self.fields(self.material, params), density, slice(0, 1))
            require_derivatives_at_rest(density, self.material.measure, first)
            self._by_autodiff = False
        return super().tangent(u, params)

    @torch.no_grad()
    def remarks(self, u: Tensor, params: Params) -> list[str]:
        """Where the law has no finite energy, or whether the elements are too stiff for it."""
        if self._strain is Strain.DEFORMATION_GRADIENT and (said := self._beyond_limits(u, params)):
            return said
        if not self._may_lock:
            return []
        some = slice(0, None, max(1, len(self.mesh.cells) // SAMPLED))
        density = self.material.density
        constants = rows_of(self.fields(self.material, params), density, some)
        ratio = stiffness_ratio(density, self.material.measure, constants, u)
        return [REMARK.format(ratio=ratio)] if ratio > STIFF else []

    def _beyond_limits(self, u: Tensor, params: Params) -> list[str]:
        state, density = self._measured(u, params), self.material.density
        return beyond_limits(density, state, density.energy(state, self.fields(self.material, params)))

    def strain(self, u: Tensor, params: Params) -> Tensor:
        return self._measured(u, params)

    def stress(self, u: Tensor, params: Params) -> Tensor:
        return self.material.density.stress(self._measured(u, params), self.fields(self.material, params))


class InelasticSolid(LocalResidual, Solid):
    """The equilibrium of a solid body at the end of an increment of load, with a non-symmetric tangent.

    params also have "begin": the material's state (cells, points, size) and strain (cells, points, 6, Mandel) at the
    beginning of the increment, {"state": ..., "strain": ...}, as `begin` makes them for virgin material and `end` at the
    end of an increment. Raises InputError for plane stress and mean dilatation, which need an energy.
    """

    __init__ = SolidBody.__init__

    def _material(self, law: Any, operator: LocalOperator, mean_dilatation: bool, strain: Strain | None) -> Term:
        _require_no_energy(law, self.kinematics, mean_dilatation, strain)
        self._flux = ZonedFlux(law) if isinstance(law, ZonedLaw) and law.elastic else MaterialFlux(law)
        return MaterialTerm("material", operator, self._flux, measure(self.kinematics, self._flux.measured))

    def _assemble(self, terms: list[Term], constraints: Sequence[Constraint], kernel: Tensor, floating: bool) -> None:
        nodes = len(self.mesh.coordinates)
        LocalResidual.__init__(self, terms, nodes, self.mesh.dim, constraints, kernel=kernel, floating=floating)

    @property
    def law(self) -> InelasticLaw:
        return self._flux.law

    def begin(self, state: Tensor | None = None) -> dict[str, Tensor]:
        """The start of a history: one state (size,) everywhere, by default virgin and without stress, and no strain."""
        if state is None:
            state = self.law.initial_state(self.start().new_zeros(6))
        if state.shape[-1:] != (self.law.size,):
            name, size = type(self.law).__name__, self.law.size
            raise InputError(f"{name} has states of size {size}, got {tuple(state.shape)}")
        points = (len(self.mesh.cells), self.material.operator.points)
        strain = state.new_zeros(*points, 6)
        return {"state": state.expand(*points, -1).clone(), "strain": strain}

    def end(self, u: Tensor, params: Params) -> dict[str, Tensor]:
        """State and strain at the end of the increment, where the next one begins."""
        measured = self._measured(u, params)
        state = self._flux.state(measured, self.fields(self.material, params))
        return {"state": state, "strain": self._flux.strain(measured)}

    def reactions(self, u: Tensor, params: Params) -> Tensor:
        return self.nodal_forces(self.expand(u, params), params)

    def start(self, params: Params = None) -> Tensor:
        return super().start()

    def solve(self, params: Params, start: Tensor | None = None, solver: Solver | None = None) -> Solution:
        return bilevel.root(self, self.start() if start is None else start, params, solver=solver or EQUILIBRIUM)

    def product(self, u: Tensor, params: Params, x: Tensor) -> Tensor:
        # The tangent as the transpose of its transpose: laws in principal stresses have no forward mode.
        transposed = torch.func.vjp(lambda v: self.residual(v, params), u)[1]
        return torch.func.vjp(lambda w: transposed(w)[0], torch.zeros_like(u))[1](x)[0]

    def strain(self, u: Tensor, params: Params) -> Tensor:
        return to_matrix(self._flux.strain(self._measured(u, params)))

    def stress(self, u: Tensor, params: Params) -> Tensor:
        return to_matrix(self.end(u, params)["state"][..., :6])


def _density(law: AnyLaw, kinematics: Kinematics) -> Density:
    if isinstance(law, Law) and not isinstance(law, Density):
        raise InputError(f"{type(law).__name__} is no law of a solid; take an ElasticLaw or an InelasticLaw")
    density = law if isinstance(law, Density) else FunctionDensity(law)
    if kinematics is Kinematics.PLANE_STRESS and isinstance(density, ElasticLaw):
        return density.plane_stress()
    return density


def _require_no_energy(law: InelasticLaw, kinematics: Kinematics, mean_dilatation: bool, strain: Strain | None) -> None:
    name = f"{type(law).__name__} is an inelastic law"
    if kinematics is Kinematics.PLANE_STRESS:
        raise InputError(f"{name}, which has no plane-stress form; use plane strain or a solid in three dimensions")
    if mean_dilatation:
        raise InputError(
            f"{name} without an energy whose dilatation could be averaged; use elements of order 2 instead"
        )
    if strain is not None:
        raise InputError(f"{name} of the small strain; leave `strain` out")
