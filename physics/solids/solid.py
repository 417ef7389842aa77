"""A solid body as an energy problem: mesh, material, kinematics, supports and loads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from physics.constitutive.elastic.law import Material
from physics.constitutive.elastic.linear_elastic import LinearElastic
from physics.constitutive.kinematics import Kinematics, Strain, measure
from physics.discretisation import Mesh
from physics.discretisation.constraints import Constraint
from physics.discretisation.operator import nodal_operator
from physics.discretisation.rigid_body_modes import rigid_body_modes
from physics.local.density import Density, FunctionDensity, LinearLoad, Measure, fields_of
from physics.local.energy import LocalEnergy
from physics.local.term import Term
from physics.solids.mean_dilatation import MeanDilatation


@dataclass(frozen=True)
class Load(ABC):
    """A load given as params[name]; zero where the parameters do not name it."""

    name: str

    @abstractmethod
    def term(self, mesh: Mesh, kinematics: Kinematics) -> Term:
        """The work of the load as a term of the energy."""


@dataclass(frozen=True)
class Traction(Load):
    """A dead traction on a boundary, in Pa: (dim,), or (facets, dim), or (facets, points, dim)."""

    boundary: str

    def term(self, mesh: Mesh, kinematics: Kinematics) -> Term:
        operator = mesh.boundary_operator(self.boundary, axisymmetric=kinematics is Kinematics.AXISYMMETRIC)
        return Term(self.name, operator, LinearLoad(), Measure((mesh.dim, 1)))


@dataclass(frozen=True)
class BodyForce(Load):
    """A force per volume, in N/m3: (dim,), or (cells, dim), or (cells, points, dim)."""

    quadrature: int | None = None

    def term(self, mesh: Mesh, kinematics: Kinematics) -> Term:
        axisymmetric = kinematics is Kinematics.AXISYMMETRIC
        operator = mesh.operator(gradient=False, value=True, axisymmetric=axisymmetric, quadrature=self.quadrature)
        return Term(self.name, operator, LinearLoad(), Measure((mesh.dim, 1)))


@dataclass(frozen=True)
class NodalForce(Load):
    """Forces on some nodes (default all), in N: (dim,) or (nodes, dim)."""

    nodes: Tensor | None = None

    def term(self, mesh: Mesh, kinematics: Kinematics) -> Term:
        nodes = torch.arange(len(mesh.coordinates)) if self.nodes is None else self.nodes
        return Term(self.name, nodal_operator(nodes), LinearLoad(), Measure((mesh.dim, 1)))


class Solid(LocalEnergy):
    """The potential energy of a solid body, to be minimised over its displacements (nodes, dim), in m.

        mesh = physics.discretisation.rectangle(20, 10, (2.0, 1.0), order=2)
        solid = Solid(mesh, NeoHookean(), Kinematics.PLANE_STRAIN, [mesh.fixed("left")], [Traction("pull", "right")])
        params = {"material": {"mu": 1e5, "lame_lambda": 4e5}, "pull": torch.tensor([1e4, 0.0])}
        solution = bilevel.argmin(solid, solid.start(), params)
        displacement = solid.expand(solution.u, params)

    material: a `Material`, or a Python function psi(F, params) (psi(strain, params) with `strain=Strain.SMALL`) of
    states (cells, points, 3, 3), or (.., 2, 2) in plane stress. kinematics: needed in two dimensions.
    mean_dilatation: one volume change per element, so that nearly incompressible materials do not lock. floating:
    declares that rigid motions are left free; the loads must then balance. params: "material", the loads by name,
    "boundary" and "coordinates" (nodes, dim). Raises InputError for a body that nothing holds, and for kinematics
    that do not fit mesh or material.
    """

    def __init__(
        self,
        mesh: Mesh,
        material: Density | Callable[..., Tensor],
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
        kinematics = kinematics or Kinematics.THREE_DIMENSIONAL
        if kinematics.dim != mesh.dim:
            raise InputError(f"{kinematics.value} needs a mesh in {kinematics.dim} dimensions, this one has {mesh.dim}")
        self.mesh, self.kinematics = mesh, kinematics
        density = material if isinstance(material, Density) else FunctionDensity(material)
        state = strain or (density.strain if isinstance(density, Material) else Strain.DEFORMATION_GRADIENT)
        density = _condensed(density) if kinematics is Kinematics.PLANE_STRESS else density
        axisymmetric = kinematics is Kinematics.AXISYMMETRIC
        operator = mesh.operator(axisymmetric=axisymmetric, quadrature=quadrature)
        if mean_dilatation:
            self.material: Term = MeanDilatation.of("material", operator, density, measure(kinematics, state))
        else:
            self.material = Term("material", operator, density, measure(kinematics, state))
        terms = [self.material, *(load.term(mesh, kinematics) for load in loads)]
        kernel = rigid_body_modes(mesh.coordinates, axisymmetric)
        super().__init__(terms, len(mesh.coordinates), mesh.dim, constraints, kernel=kernel, floating=floating)

    def strain(self, u: Tensor, params: Params) -> Tensor:
        """The state that the material sees, F or the small strain, (cells, points, 3, 3)."""
        local = self.material.operator.apply(self.expand(u, params), (params or {}).get("coordinates"))
        return self.material.measure.state(local)

    def stress(self, u: Tensor, params: Params) -> Tensor:
        """The stress conjugate to `strain`: first Piola-Kirchhoff of F, or Cauchy of the small strain, in Pa."""
        operator, density = self.material.operator, self.material.density
        own = fields_of(params["material"], density, operator.cells.shape[0], operator.points, "material")
        return density.stress(self.strain(u, params), own)


def _condensed(density: Density) -> Density:
    if isinstance(density, LinearElastic):
        return density.plane_stress()
    if isinstance(density, Material):
        raise InputError(
            f"{type(density).__name__} has no plane-stress form; use plane strain, or a density of plane strains"
        )
    return density
