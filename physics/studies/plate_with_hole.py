"""The study model `plate_with_hole`: elastic constants from full-field displacements of a dog-bone plate in tension."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from bilevel.calibrate.model import Model, ModelConfig, ModelFigure, ModelReports, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.report import InputError
from physics.constitutive.elastic.law import ElasticLaw
from physics.constitutive.kinematics import Kinematics
from physics.constitutive.registry import make_law
from physics.discretisation.write import write_vtu
from physics.solids.loads import Traction
from physics.solids.plate_with_hole import PlateWithHole
from physics.solids.solid import Solid
from physics.studies.law_parameters import parameter_defaults


class PlateModel(Model):
    """Displacements of points on a plate with a hole, plane stress, plus the rigid motion of the camera against it.

    Each row is one component of one point: `component` says "x" or "y"; `x` and `y` are its place from the hole's
    centre. The nuisance parameters shift the field by (translation_x, translation_y) and turn it by a small
    `rotation`.
    """

    class Config(ModelConfig):
        """All lengths in m, from the hole's centre; the traction in Pa."""

        law: str = Field(
            default="linear_elastic", description="name of an installed elastic law with a plane-stress form"
        )
        hole_radius: float = Field(gt=0, description="of the hole")
        width: float = Field(gt=0, description="of the parallel part")
        clamped_at: float = Field(lt=0, description="x of the clamp")
        parallel_from: float = Field(lt=0, description="x where the fillet ends")
        traction_at: float = Field(gt=0, description="x of the loaded end")
        fillet_radius: float = Field(gt=0, description="between the parallel part and the heads")
        traction: float = Field(description="nominal stress on the loaded end")
        divisions: int = Field(default=6, ge=2, description="elements around the hole, in eighths")
        tolerance: float = Field(
            default=0.02, ge=0, description="how far outside an element points may lie, in its size"
        )

    columns = {"x": "m", "y": "m", "component": "text"}  # noqa: RUF012
    value_units = "m"

    def __init__(self, config: Config, observations: ObservationTable, folder: Path) -> None:
        super().__init__(config, observations, folder)
        plate = PlateWithHole(
            config.hole_radius,
            config.width,
            config.clamped_at,
            config.parallel_from,
            config.traction_at,
            config.fillet_radius,
        )
        self.mesh = plate.mesh(config.divisions)
        pull = [Traction("traction", "traction")]
        self.law = make_law(config.law, ElasticLaw)
        self.solid = Solid(self.mesh, self.law, Kinematics.PLANE_STRESS, [self.mesh.fixed("clamp")], pull)
        self.points = torch.stack((observations.columns["x"], observations.columns["y"]), 1)
        self.component = torch.tensor([self._component(row) for row in range(len(observations))])
        places, self.place = torch.unique(self.points, dim=0, return_inverse=True)
        self.interpolate = self.mesh.locate(places.numpy(), config.tolerance)
        self._reports = ModelReports()

    def _component(self, row: int) -> int:
        name = self.observations.labels["component"][row]
        if name not in ("x", "y"):
            where = self.observations.source[row] if self.observations.source else f"observation {row + 1}"
            raise InputError(f"{where}: component '{name}' is neither x nor y")
        return "xy".index(name)

    def parameter_defaults(self) -> Mapping[str, ParameterDefault]:
        return {
            **parameter_defaults(self.law.parameters),
            "translation_x": ParameterDefault("m", value=0.0, description="nuisance"),
            "translation_y": ParameterDefault("m", value=0.0, description="nuisance"),
            "rotation": ParameterDefault("", value=0.0, description="nuisance, anticlockwise, in rad"),
        }

    def _solve(self, parameters: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, object]]:
        """The free displacements, and the parameters of the solid."""
        material = {name: parameters[name] for name in self.law.parameters.names}
        params = {"material": material, "traction": torch.tensor([self.config.traction, 0.0], dtype=torch.float64)}
        solution = self.solid.solve(params)
        self._reports = ModelReports([solution.report], solution.gradients)
        return solution.u, params

    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        state, params = self._solve(parameters)
        field = self.interpolate(self.solid.expand(state, params))[self.place]
        x, y = self.points.unbind(1)
        moved_x = field[:, 0] + parameters["translation_x"] - parameters["rotation"] * y
        moved_y = field[:, 1] + parameters["translation_y"] + parameters["rotation"] * x
        return torch.where(self.component == 0, moved_x, moved_y)

    def reports(self) -> ModelReports:
        return self._reports

    def write_state(self, parameters: Mapping[str, Tensor], folder: Path) -> list[Path]:
        """Displacement, and the mean stress of each element."""
        state, params = self._solve(parameters)
        displacement = self.solid.expand(state, params)
        stress = self.solid.stress(state, params).mean(1)
        voigt = torch.stack((stress[:, 0, 0], stress[:, 1, 1], stress[:, 0, 1]), 1)
        return [write_vtu(folder / "plate.vtu", self.mesh, {"displacement": displacement}, {"stress_xx_yy_xy": voigt})]

    def figures(self, parameters: Mapping[str, Tensor]) -> list[ModelFigure]:
        """The residual displacements on the plate."""
        from matplotlib.figure import Figure

        with torch.no_grad():
            residual = (self.observations.value - self.simulate(parameters)).numpy() * 1e6
        figure = Figure(figsize=(7.0, 3.8), layout="constrained")
        for axes, component in zip(figure.subplots(2, 1, sharex=True), (0, 1)):
            rows = (self.component == component).numpy()
            limit = 3.0 * float(residual[rows].std())
            x, y = (1e3 * self.points[rows].numpy()).T
            means = axes.hexbin(
                *(x, y, residual[rows]), gridsize=(80, 11), cmap="RdBu_r", vmin=-limit, vmax=limit, rasterized=True
            )
            figure.colorbar(means, ax=axes, label="[um]")
            axes.set_title(f"u{'xy'[component]}: measured - model", fontsize="medium")
            axes.set_aspect("equal")
            axes.set_ylabel("y [mm]")
        axes.set_xlabel("x [mm]")
        return [
            ModelFigure("Residual displacements", figure, "Measured minus calibrated model, means over small patches.")
        ]
