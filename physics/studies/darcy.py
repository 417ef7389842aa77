"""The study model `darcy`: groundwater on a mesh of one's own, steady or in time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import model_validator

from bilevel.calibrate.model import ModelConfig, ParameterDefault
from bilevel.calibrate.study.section import Section
from physics.studies.on_mesh.diffusion import DiffusionModel
from physics.studies.on_mesh.drives import Boundaries, Words
from physics.studies.on_mesh.mesh_section import MeshSection
from physics.studies.on_mesh.quantities import Given
from physics.studies.on_mesh.sensors import PointsSection, SensorSection
from physics.studies.on_mesh.spread import SpreadSection
from physics.studies.on_mesh.time_section import TimeSection


class RiverBed(Section):
    """Water that passes a layer between aquifer and river in proportion to the difference of their heads."""

    coefficient: Given
    """flow by area of the boundary (by its length in plan view) and by difference of heads"""
    head: Given
    """beyond the layer"""


class DarcyBoundary(Section):
    """The condition on one boundary; boundaries without one let nothing pass."""

    head: Given | None = None
    """prescribed there"""
    inflow: Given | None = None
    """by area of the boundary, or by its length in plan view"""
    river: RiverBed | None = None
    """exchange with open water through a bed"""

    @model_validator(mode="after")
    def _one(self) -> DarcyBoundary:
        if sum(x is not None for x in (self.head, self.inflow, self.river)) != 1:
            raise ValueError("give one of: head, inflow, river")
        return self


class Aquitard(Section):
    """A layer above or below the whole aquifer, in plan view."""

    resistance: Given
    """of the layer, thickness over conductivity"""
    head: Given
    """beyond it"""


class Well(Section):
    """A well at a place of its own, anywhere in the mesh."""

    at: list[str]
    """coordinates, as [120 m, 340 m]"""
    rate: Given
    """of injection; pumped water counts negative. In a section by its width"""


class DarcyModel(DiffusionModel):
    """Heads and flows of groundwater on a mesh: in plan view, in a vertical section, around an axis, or in space.

    Each row is a reading: its `sensor` is one of `sensors` or `points`, or `head` at the row's own x, y (z). The
    parameters are transmissivity and storativity in plan view, else hydraulic_conductivity and specific_storage, and any
    name that stands in place of a quantity.
    """

    class Config(ModelConfig):
        """Every quantity carries its units; in its place may stand the name of a parameter, or a table over time."""

        mesh: MeshSection
        """where the water flows"""
        geometry: Literal["plan", "section", "axisymmetric", "space"]
        """plan: seen from above; section: vertical, of unit width; axisymmetric: x is the radius; space: in three dimensions"""
        zones: list[str] | None = None
        """groups of cells that share out the mesh; left out: all of its groups, where zones are asked for"""
        spread: dict[str, SpreadSection] = {}
        """by parameter of the material: uniform (left out), zones, cells or pilot points"""
        anisotropic: bool = False
        """whether there is a parameter anisotropy: the last principal conductivity over the first"""
        direction: str = "0 deg"
        """of the first principal conductivity from x, anticlockwise"""
        boundaries: dict[str, DarcyBoundary] = {}
        """by their names in the mesh"""
        recharge: dict[str, Given] = {}
        """by zone, or `all`: by area in plan view, else by volume"""
        aquitard: Aquitard | None = None
        """leakage through a layer above or below, in plan view"""
        wells: dict[str, Well] = {}
        """by names of your own"""
        time: TimeSection | None = None
        """steps of a transient model; left out: a steady one"""
        initial: str = "steady"
        """head at the start: steady (as the values at that time make it), a quantity, or a parameter's name"""
        sensors: dict[str, SensorSection] = {}
        """by names of your own; `through` reads the flow into the aquifer through a boundary"""
        points: PointsSection | None = None
        """a table of observation wells, by name"""

        @model_validator(mode="after")
        def _in_plan(self) -> DarcyModel.Config:
            if self.aquitard is not None and self.geometry != "plan":
                raise ValueError("an aquitard belongs to a plan view; elsewhere give its layer a zone or a river bed")
            return self

    optional_columns: ClassVar[Mapping[str, str]] = {"time": "d", "x": "m", "y": "m", "z": "m"}

    def words(self) -> Words:
        geometry = self.config.geometry
        if geometry == "plan":
            defaults = {
                "transmissivity": ParameterDefault("m2/d", lower=0.0, transform="log"),
                "storativity": ParameterDefault("", lower=0.0, transform="log"),
            }
            rates = ("m/d", "m2/d", "m/d", "m3/d")
        else:
            defaults = {
                "hydraulic_conductivity": ParameterDefault("m/d", lower=0.0, transform="log"),
                "specific_storage": ParameterDefault("1/m", lower=0.0, transform="log"),
            }
            rates = ("1/d", "m/d", "1/d", "m2/d" if geometry == "section" else "m3/d")
        return Words("head", "m", "d", defaults, "flow", "head", *rates)

    def boundaries(self) -> Boundaries:
        found, config = Boundaries(), self.config
        for name, condition in config.boundaries.items():
            key = ("boundaries", name)
            if condition.head is not None:
                found.prescribed[name] = ((*key, "head"), condition.head)
            elif condition.inflow is not None:
                found.inflow[name] = ((*key, "inflow"), condition.inflow)
            else:
                found.exchange[name] = ((*key, "river"), condition.river.coefficient, condition.river.head)
        found.sources = {zone: (("recharge", zone), given) for zone, given in config.recharge.items()}
        found.wells = {name: (("wells", name), well.at, well.rate) for name, well in config.wells.items()}
        if config.aquitard is not None:
            found.leakage = (("aquitard",), config.aquitard.resistance, config.aquitard.head)
        return found
