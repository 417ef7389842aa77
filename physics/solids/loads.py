"""Loads on a solid, each given as params[name]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from physics.constitutive.kinematics import Kinematics
from physics.discretisation.mesh import Mesh
from physics.discretisation.operator import nodal_operator
from physics.local.density import LinearLoad, Measure
from physics.local.term import Term


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
