"""The study model `soil_element_tests`: a constitutive model against laboratory tests, all of them in one batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bilevel.calibrate.model import Model, ModelConfig, ModelFigure, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.settings import TransformName
from bilevel.report import InputError
from physics.constitutive.inelastic.cam_clay import (
    CamClayConstantPoissonRatio,
    CamClayConstantShearModulus,
    ModifiedCamClay,
)
from physics.constitutive.inelastic.drucker_prager import DruckerPrager
from physics.constitutive.inelastic.hypoplastic import Hypoplastic
from physics.constitutive.inelastic.intergranular import HypoplasticIntergranular
from physics.constitutive.inelastic.law import Material
from physics.constitutive.inelastic.mohr_coulomb import MohrCoulomb
from physics.constitutive.mandel import mean_pressure
from physics.constitutive.parameters import Parameter
from physics.soil.control import Quantity
from physics.soil.element_test import March, Schedule
from physics.soil.laboratory import LaboratoryTest, Layout, Procedure, Sign, Units, read_tests
from physics.soil.sensitivity import sensitive_march

MATERIALS: Mapping[str, type[Material]] = {
    "hypoplastic": Hypoplastic,
    "hypoplastic_intergranular": HypoplasticIntergranular,
    "cam_clay_constant_poisson_ratio": CamClayConstantPoissonRatio,
    "cam_clay_constant_shear_modulus": CamClayConstantShearModulus,
    "drucker_prager": DruckerPrager,
    "mohr_coulomb": MohrCoulomb,
}
OBSERVED = {
    "deviator": Quantity.DEVIATOR,
    "mean_pressure": Quantity.PRESSURE,
    "volumetric_strain": Quantity.STRAIN_VOLUMETRIC,
    "radial_strain": Quantity.STRAIN_RADIAL,
    "axial_strain": Quantity.STRAIN_AXIAL,
    "axial_stress": Quantity.STRESS_AXIAL,
}


class TableSection(BaseModel):
    """A table of tests of one kind; `columns` name the driven quantity and what describes the start."""

    model_config = ConfigDict(extra="forbid")
    file: str
    kind: str
    sign: Literal["compression_positive", "tension_positive"]
    stress_units: str
    strain_units: str
    driven: str
    test: str = "test"
    void_ratio: str | None = None
    pressure: str | None = None
    time: str | None = None
    lateral_ratio: float = Field(default=1.0, gt=0)
    increments: int = Field(default=1, ge=1)
    only: list[str] = []


class SoilElementTests(Model):
    """Oedometer and triaxial tests; an observation belongs to the row of the path at its own line of the table.

    A group is called after what is observed: deviator, mean_pressure, volumetric_strain (dilation positive), void_ratio,
    axial_strain, radial_strain or axial_stress, with anything after a space to tell groups apart ("deviator dense").
    """

    class Config(ModelConfig):
        """overconsolidation: preconsolidation over mean pressure at the start, for Cam-Clay."""

        material: str
        tables: list[TableSection] = Field(min_length=1)
        increments: int = Field(default=0, ge=0)
        overconsolidation: float = Field(default=1.0, ge=1.0)

    def __init__(self, config: Config, observations: ObservationTable, folder: Path) -> None:
        super().__init__(config, observations, folder)
        if config.material not in MATERIALS:
            raise InputError(f"there is no material '{config.material}'; known: {', '.join(MATERIALS)}")
        self.material = MATERIALS[config.material]()
        self.tests = [test for table in config.tables for test in _read(table, folder)]
        self.schedule = Schedule.of([test.path for test in self.tests], config.increments)
        self.places = self._match()
        self.runs = 0

    def parameter_defaults(self) -> Mapping[str, ParameterDefault]:
        return {parameter.name: _default(parameter) for parameter in self.material.parameters}

    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return self._observe(self.run(parameters))

    def run(self, parameters: Mapping[str, Tensor]) -> March:
        """All tests at the given parameters."""
        self.runs += len(self.tests)
        return sensitive_march(self.material, dict(parameters), self._initial, self.schedule)

    def _initial(self, _parameters: Mapping[str, Tensor]) -> Tensor:
        stress = torch.stack([test.stress for test in self.tests])
        void_ratio = torch.tensor([test.void_ratio for test in self.tests], dtype=torch.float64)
        if isinstance(self.material, Hypoplastic):
            return self.material.initial_state(stress, void_ratio)
        if isinstance(self.material, ModifiedCamClay):
            return self.material.initial_state(
                stress, void_ratio, self.config.overconsolidation * mean_pressure(stress)
            )
        return stress

    def _match(self) -> list[tuple[int, int, str]]:
        """Test, row and quantity of every observation."""
        rows = {where: (t, r) for t, test in enumerate(self.tests) for r, where in enumerate(test.lines)}
        places = []
        for where, group, value in zip(self.observations.source, self.observations.group, self.observations.value):
            quantity = group.split(" ")[0]
            if quantity == "void_ratio" and float(value) <= 0:
                raise InputError(f"{where}: a void ratio must be positive, got {float(value):g}")
            if quantity != "void_ratio" and quantity not in OBSERVED:
                raise InputError(f"group '{group}' must begin with what is observed: void_ratio, {', '.join(OBSERVED)}")
            if quantity == "void_ratio" and "void_ratio" not in self.material.internal:
                raise InputError(f"group '{group}': {type(self.material).__name__} has no void ratio")
            if where not in rows:
                raise InputError(
                    f"{where}: this observation is no row of a test in model.tables; the files must be the same"
                )
            places.append((*rows[where], quantity))
        return places

    def _observe(self, march: March) -> Tensor:
        values = {name: [march.quantity(t, q) for t in range(len(self.tests))] for name, q in self._observed().items()}
        if "void_ratio" in self.material.internal:
            column = self.material.position("void_ratio")
            values["void_ratio"] = [march.at_rows(t)[0][:, column] for t in range(len(self.tests))]
        return torch.stack([values[quantity][test][row] for test, row, quantity in self.places])

    def _observed(self) -> dict[str, Quantity]:
        needed = {quantity for _, _, quantity in self.places}
        return {name: quantity for name, quantity in OBSERVED.items() if name in needed}

    def figures(self, parameters: Mapping[str, Tensor]) -> list[ModelFigure]:
        from physics.studies.element_test_figures import draw

        with torch.no_grad():
            march = self.run(parameters)
        return draw(self.tests, march, self.observations, self.places, self.material, parameters)


def _read(table: TableSection, folder: Path) -> list[LaboratoryTest]:
    layout = Layout(table.test, table.driven, table.void_ratio, table.pressure, table.time)
    return read_tests(
        folder / table.file,
        Procedure.named(table.kind),
        layout,
        sign=Sign(table.sign),
        units=Units(table.stress_units, table.strain_units),
        lateral_ratio=table.lateral_ratio,
        increments=table.increments,
        only=tuple(table.only),
    )


def _default(parameter: Parameter) -> ParameterDefault:
    def finite(x: float) -> float | None:
        return x if abs(x) < float("inf") else None

    positive = parameter.lower == 0.0 and finite(parameter.upper) is None
    transform: TransformName = "log" if positive and not parameter.closed else "none"
    return ParameterDefault(
        units=parameter.units,
        lower=finite(parameter.lower),
        upper=finite(parameter.upper),
        transform=transform,
        description=parameter.description,
    )
