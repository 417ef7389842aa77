"""The study model `heat`: heat conduction on a mesh of one's own, steady or in time."""

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


class Convection(Section):
    """Heat exchanged with a fluid in proportion to the difference of temperatures."""

    coefficient: Given
    """of heat transfer, W/(m2 K)"""
    temperature: Given
    """of the fluid"""


class HeatBoundary(Section):
    """The condition on one boundary; boundaries without one let nothing pass."""

    temperature: Given | None = None
    """prescribed there"""
    heat_flux: Given | None = None
    """into the body, by area"""
    convection: Convection | None = None
    """exchange with a fluid"""

    @model_validator(mode="after")
    def _one(self) -> HeatBoundary:
        if sum(x is not None for x in (self.temperature, self.heat_flux, self.convection)) != 1:
            raise ValueError("give one of: temperature, heat_flux, convection")
        return self


class PointSource(Section):
    """A heater at a place of its own, anywhere in the mesh."""

    at: list[str]
    """coordinates, as [3 mm, 40 mm]"""
    rate: Given
    """of heat; in a section by its width"""


class HeatModel(DiffusionModel):
    """Temperatures and heat flows in a body: a section of unit width, a body around an axis, or one in space.

    Each row is a reading: its `sensor` is one of `sensors` or `points`, or `temperature` at the row's own x, y (z). The
    parameters are thermal_conductivity and heat_capacity (by volume), and any name that stands in place of a quantity.
    """

    class Config(ModelConfig):
        """Every quantity carries its units; in its place may stand the name of a parameter, or a table over time."""

        mesh: MeshSection
        """the body"""
        geometry: Literal["section", "axisymmetric", "space"]
        """section: of unit width; axisymmetric: x is the radius; space: in three dimensions"""
        zones: list[str] | None = None
        """groups of cells that share out the mesh; left out: all of its groups, where zones are asked for"""
        spread: dict[str, SpreadSection] = {}
        """by parameter of the material: uniform (left out), zones, cells or pilot points"""
        anisotropic: bool = False
        """whether there is a parameter anisotropy: the last principal conductivity over the first"""
        direction: str = "0 deg"
        """of the first principal conductivity from x, anticlockwise"""
        boundaries: dict[str, HeatBoundary] = {}
        """by their names in the mesh"""
        sources: dict[str, Given] = {}
        """of heat by volume, by zone, or `all`"""
        point_sources: dict[str, PointSource] = {}
        """by names of your own"""
        time: TimeSection | None = None
        """steps of a transient model; left out: a steady one"""
        initial: str = "steady"
        """temperature at the start: steady (as the values at that time make it), a quantity, or a parameter's name"""
        sensors: dict[str, SensorSection] = {}
        """by names of your own; `through` reads the heat flow into the body through a boundary"""
        points: PointsSection | None = None
        """a table of thermometers, by name"""

    optional_columns: ClassVar[Mapping[str, str]] = {"time": "s", "x": "m", "y": "m", "z": "m"}

    def words(self) -> Words:
        defaults = {
            "thermal_conductivity": ParameterDefault("W/(m K)", lower=0.0, transform="log"),
            "heat_capacity": ParameterDefault("J/(m3 K)", lower=0.0, transform="log"),
        }
        point = "W/m" if self.config.geometry == "section" else "W"
        return Words("temperature", "K", "s", defaults, "heat_flow", "temperature", "W/m3", "W/m2", "W/(m2 K)", point)

    def boundaries(self) -> Boundaries:
        found, config = Boundaries(), self.config
        for name, condition in config.boundaries.items():
            key = ("boundaries", name)
            if condition.temperature is not None:
                found.prescribed[name] = ((*key, "temperature"), condition.temperature)
            elif condition.heat_flux is not None:
                found.inflow[name] = ((*key, "heat_flux"), condition.heat_flux)
            else:
                found.exchange[name] = (
                    (*key, "convection"),
                    condition.convection.coefficient,
                    condition.convection.temperature,
                )
        found.sources = {zone: (("sources", zone), given) for zone, given in config.sources.items()}
        found.wells = {name: (("point_sources", name), s.at, s.rate) for name, s in config.point_sources.items()}
        return found
