"""The keys of `kind: solid`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bilevel.calibrate.model import ModelConfig
from physics.studies.on_mesh.equilibria import SolverName
from physics.studies.on_mesh.ground import Geostatic
from physics.studies.on_mesh.loading import Components, LoadSection
from physics.studies.on_mesh.mesh_section import MeshSection
from physics.studies.on_mesh.sensors import PointsSection, SensorSection
from physics.studies.on_mesh.spread import SpreadSection
from physics.studies.on_mesh.time_section import TimeSection


class SolidConfig(ModelConfig):
    """Every quantity carries its units; in its place may stand the name of a parameter, or a table over time."""

    mesh: MeshSection
    """the body at rest"""
    kinematics: Literal["plane_strain", "plane_stress", "axisymmetric", "space"]
    """what makes a plane problem of a solid one; axisymmetric: x is the radius"""
    law: str = "linear_elastic"
    """name of an installed elastic or inelastic law"""
    laws: dict[str, str] = Field(default={})
    """in place of law, one for each group of cells that share out the mesh, as {pile: linear_elastic, soil: mohr_coulomb}"""
    hardening: str | None = None
    """name of an installed hardening law, of laws that have one"""
    terms: int | None = Field(default=None, ge=1)
    """number of terms, of laws that have any number"""
    mean_dilatation: bool = False
    """one volume change a cell, so that nearly incompressible laws do not lock"""
    thickness: str = "1 m"
    """of a plane body; forces are multiplied by it"""
    zones: list[str] | None = None
    """groups of cells that share out the mesh; left out: all of its groups, where zones are asked for"""
    spread: dict[str, SpreadSection] = Field(default={})
    """by parameter of the material: uniform (left out), zones, cells or pilot points"""
    supports: dict[str, Components] = Field(default={})
    """prescribed displacements by the boundary's (or point set's) name in the mesh"""
    loads: dict[str, LoadSection] = Field(default={})
    """by the boundary's name in the mesh"""
    gravity: Components | None = None
    """weight by volume, as {y: -20 kN/m3}"""
    geostatic: Geostatic | None = None
    """the stress in the ground before loads come, of inelastic laws"""
    time: TimeSection | None = None
    """steps of a history of loads; left out: one step. Without units: 1 is as good as 1 s"""
    sensors: dict[str, SensorSection] = Field(default={})
    """by names of your own; `through` reads the force of a support on the body"""
    points: PointsSection | None = None
    """a table of points; the displacements of P1 are P1.ux, P1.uy"""
    solver: SolverName = "newton"
    """learned: one elastic solve begins at a guess by guess.pt beside the study, which `bilevel train-steps` makes"""
    follow_path: bool = False
    """each elastic solve goes along the loads from none, whatever equilibrium may be nearer"""
    tolerance: float = Field(default=1e-6, ge=0)
    """how far outside a cell places of sensors may lie, in its size"""
