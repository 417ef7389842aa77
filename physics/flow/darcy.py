"""Flow on meshes by any law of the gradient, with storage, leakage, sources and wells; Darcy flow and heat conduction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from bilevel.solvers.cellwise.problem import SplitEnergy
from physics.constitutive.flow.linear import Linear
from physics.discretisation import Mesh
from physics.discretisation.constraints import Constraint
from physics.discretisation.operator import FixedOperator, nodal_operator
from physics.discretisation.point_location import Interpolation
from physics.discretisation.rigid_body_modes import constant_modes
from physics.flow.cellwise import FlowCells, flow_cells
from physics.local.density import Density, Measure
from physics.local.energy import LocalEnergy
from physics.local.parameters import LawParameter, LawParameters
from physics.local.term import Term

VALUE = Measure((1,))
"""A nodal scalar itself."""


class Spring(Density):
    """psi = 1/2 stiffness (h - level)^2, the pull towards a level; zero without parameters."""

    optional = True

    def stiffness(self, params: Params) -> Tensor:
        raise NotImplementedError

    def level(self, params: Params) -> Tensor:
        raise NotImplementedError

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return 0.5 * self.stiffness(params) * (x[..., 0] - self.level(params)).square()

    def stress(self, x: Tensor, params: Params) -> Tensor:
        return (self.stiffness(params) * (x[..., 0] - self.level(params)))[..., None]

    def tangent(self, x: Tensor, params: Params, state_dims: int) -> Tensor:
        return self.stiffness(params)[..., None, None].expand(*x.shape, 1)


class Storage(Spring):
    """One implicit time step: psi = capacity / (2 tau) (h - anchor)^2. params: the capacity's name, anchor, tau."""

    def __init__(self, capacity: str) -> None:
        self.name = capacity
        self.parameters = LawParameters(LawParameter(capacity), LawParameter("anchor"), LawParameter("tau"))

    def stiffness(self, params: Params) -> Tensor:
        if "tau" not in params:
            raise InputError(
                "storage only acts in time steps: use `march`, or leave its parameters out for the steady state"
            )
        return params[self.name] / params["tau"]

    def level(self, params: Params) -> Tensor:
        return params["anchor"]


class Leakage(Spring):
    """Exchange through a confining layer: psi = (h - head)^2 / (2 resistance). params: resistance, head beyond it."""

    parameters = LawParameters(LawParameter("resistance"), LawParameter("head"))

    def stiffness(self, params: Params) -> Tensor:
        return 1.0 / params["resistance"]

    def level(self, params: Params) -> Tensor:
        return params["head"]


class Exchange(Spring):
    """Exchange through a boundary (Robin): psi = coefficient / 2 (h - level)^2. params: coefficient, level outside."""

    parameters = LawParameters(LawParameter("coefficient", lower=0.0, closed=True), LawParameter("level"))

    def stiffness(self, params: Params) -> Tensor:
        return params["coefficient"]

    def level(self, params: Params) -> Tensor:
        return params["level"]


class Source(Density):
    """What flows in: psi = -q h, per volume, area or node; zero without parameters. params: q itself."""

    affine = True
    optional = True

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return -params * x[..., 0]

    def stress(self, x: Tensor, params: Params) -> Tensor:
        return -params.unsqueeze(-1).expand(x.shape)


class Diffusion(LocalEnergy, SplitEnergy):
    """A scalar field driven by its gradient: - div(flux) = source; the unknown is the field at the nodes that are not fixed.

        flow = Diffusion(mesh, [mesh.fixed("left", value=1.0), mesh.fixed("right")], law=Forchheimer())
        solution = bilevel.argmin(flow, flow.start(), {"flow": {"linear": a, "quadratic": b}})

    params: "flow": those of the law, shared (), per cell (E,) or per point (E, Q); "storage": {"capacity": c} for time
    steps; "leakage": {"resistance", "head"}; optional "source" per volume, "inflow_NAME" per area for each boundary in
    `inflow`, "exchange_NAME": {"coefficient", "level"} for each in `exchange`, "wells" (K,). Names and units of two common cases: `DarcyFlow`, `HeatConduction`.
    """

    law: Density = Linear("conductivity", "")
    capacity: ClassVar[str] = "capacity"

    def __init__(
        self,
        mesh: Mesh,
        constraints: Sequence[Constraint] = (),
        *,
        law: Density | None = None,
        axisymmetric: bool = False,
        leaky: bool = False,
        transient: bool = False,
        inflow: Sequence[str] = (),
        exchange: Sequence[str] = (),
        wells: Tensor | Interpolation | None = None,
        floating: bool = False,
    ) -> None:
        """law: how the flux grows with the gradient, even in it. axisymmetric: the first coordinate is the radius.

        inflow: boundaries with a given flux. exchange: those with a Robin condition. wells: nodes (K,), or points located
        in the mesh, whose discharge goes to the nodes around them by their shape functions.
        leaky, transient: with leakage, with storage. Prescribed values may vary in time; see `time_stepping.march`.
        floating: nothing fixes the level of the field. Raises InputError if nothing does (no constraint, leakage, exchange
        or storage) and floating is False.
        """
        self.mesh, self.law = mesh, law or self.law
        gradient = mesh.operator(axisymmetric=axisymmetric)
        pick = torch.eye(gradient.width, dtype=torch.float64)[: mesh.dim] if axisymmetric else None  # leave 1/r out
        self.values = mesh.operator(gradient=False, value=True, axisymmetric=axisymmetric)
        terms = [
            Term("flow", gradient, self.law, Measure((mesh.dim,), pick)),
            Term("source", self.values, Source(), VALUE),
        ]
        if transient:
            terms.append(Term("storage", self.values, Storage(self.capacity), VALUE))
        if leaky:
            terms.append(Term("leakage", self.values, Leakage(), VALUE))
        for name in inflow:
            operator = mesh.boundary_operator(name, axisymmetric=axisymmetric)
            terms.append(Term(f"inflow_{name}", operator, Source(), VALUE))
        for name in exchange:
            operator = mesh.boundary_operator(name, axisymmetric=axisymmetric)
            terms.append(Term(f"exchange_{name}", operator, Exchange(), VALUE))
        if wells is not None:
            terms.append(Term("wells", _at_wells(wells), Source(), VALUE))
        kernel = None if leaky or transient or exchange else constant_modes(len(mesh.coordinates))
        super().__init__(terms, len(mesh.coordinates), 1, constraints, kernel=kernel, floating=floating)

    def cellwise(self, params: Params) -> FlowCells | None:
        return flow_cells(self, params)

    def stage(self, params: Mapping[str, Any], anchor: Tensor, tau: Tensor) -> Params:
        """The parameters of one implicit step of length tau from the field `anchor` (nodes, 1); see `time_stepping.march`."""
        level = self.values.apply(anchor, params.get("coordinates"))[..., 0, 0]
        return {**params, "storage": {**params["storage"], "anchor": level, "tau": tau}}


def _at_wells(wells: Tensor | Interpolation) -> FixedOperator:
    """What a well's discharge works on: the field at a node, or interpolated at a point."""
    if isinstance(wells, Tensor):
        return nodal_operator(wells)
    return FixedOperator(wells.nodes, wells.weights[:, :, None, None], wells.weights.new_ones(len(wells.nodes), 1))


class DarcyFlow(Diffusion):
    """Groundwater flow; the unknown is the hydraulic head h [m] at the nodes that are not fixed.

    params: "flow": {"hydraulic_conductivity": K [m/d]} (), per cell (E,) or per point (E, Q);
    "storage": {"specific_storage": Ss [1/m]} for time steps; "leakage": {"resistance" [d], "head" [m]}; optional
    "source" [1/d], "inflow_NAME" [m/d] for each boundary in `inflow`, "wells" (K,) [m3/d] of injection.
    In plan view give transmissivity for K, storativity for Ss and recharge [m/d] for the source.
    """

    law = Linear("hydraulic_conductivity", "m/d")
    capacity = "specific_storage"


class HeatConduction(Diffusion):
    """Heat conduction: the same energy; the unknown is the temperature [K] at the nodes that are not fixed.

    params: "flow": {"thermal_conductivity": k [W/(m K)]}; "storage": {"heat_capacity": rho c [J/(m3 K)]} for time
    steps; "leakage": {"resistance" [m3 K/W], "head" [K]}; optional "source" [W/m3], "inflow_NAME" [W/m2], "wells" [W].
    """

    law = Linear("thermal_conductivity", "W/(m K)")
    capacity = "heat_capacity"
