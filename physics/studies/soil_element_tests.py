"""The study model `soil_element_tests`: a constitutive model against laboratory tests, all of them in one batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from bilevel.calibrate.model import Model, ModelConfig, ModelFigure, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.study.observation_schema import LayoutSection
from bilevel.report import InputError
from physics.constitutive.inelastic.law import InelasticLaw
from physics.constitutive.mandel import mean_pressure
from physics.constitutive.registry import make_law
from physics.soil.control import Quantity
from physics.soil.element_test import IncrementSchedule, March
from physics.soil.laboratory import LaboratoryTest, Layout, Procedure, Sign, Units, read_tests
from physics.soil.sensitivity import sensitive_march
from physics.studies.element_test_figures import draw
from physics.studies.law_parameters import parameter_defaults
from physics.studies.quantities import require_units

OBSERVED = {
    "deviator": Quantity.DEVIATOR,
    "mean_pressure": Quantity.PRESSURE,
    "volumetric_strain": Quantity.STRAIN_VOLUMETRIC,
    "radial_strain": Quantity.STRAIN_RADIAL,
    "axial_strain": Quantity.STRAIN_AXIAL,
    "axial_stress": Quantity.STRESS_AXIAL,
}

STRESSES = ("deviator", "mean_pressure", "axial_stress")


class TableSection(LayoutSection):
    """A table of tests of one kind; `columns` name the driven quantity and what describes the start."""

    file: str
    """a CSV beside the study, the same as under `observations`"""
    kind: str
    """isotropic, oedometer, oedometer_strain, drained_triaxial, drained_triaxial_stress, undrained_triaxial, constant_p_triaxial or uniaxial"""
    sign: Literal["compression_positive", "tension_positive"]
    """of stresses and strains in the file"""
    stress_units: str
    """of all stresses in the file"""
    strain_units: str
    """of all strains in the file"""
    driven: str
    """column of what the machine drives"""
    test: str = "test"
    """column that names the test of each row; the first row of each is its start"""
    void_ratio: str | None = None
    """column of the void ratio at the start, for laws that have one"""
    pressure: str | None = None
    """column of the stress at the start where a strain is driven: mean, or axial in oedometers"""
    time: str | None = None
    """column of times, for laws that depend on the rate"""
    lateral_ratio: float = Field(default=1.0, gt=0)
    """radial over axial stress at the start"""
    increments: int = Field(default=1, ge=1)
    """steps to each row at least"""
    only: list[str] = Field(default=[])
    """the tests that are taken; left out: all"""


class SoilElementTests(Model):
    """Oedometer and triaxial tests; an observation belongs to the row of the path at its own line of the table.

    A group is called after what is observed: deviator, mean_pressure, volumetric_strain (dilation positive), void_ratio,
    axial_strain, radial_strain or axial_stress, with anything after a space to tell groups apart ("deviator dense").
    """

    class Config(ModelConfig):
        material: str
        """name of an installed inelastic law"""
        tables: list[TableSection] = Field(min_length=1)
        """the tests, one table for each kind of test"""
        increments: int = Field(default=0, ge=0)
        """of each test at least; 0: as many as its table asks for"""
        overconsolidation: float = Field(default=1.0, ge=1.0)
        """preconsolidation over mean pressure at the start, for Cam-Clay"""
        void_ratios: list[str] = Field(default=[])
        """tests whose void ratio at the start is uncertain: each is a parameter `void_ratio of TEST`"""

    def __init__(self, config: Config, observations: ObservationTable, folder: Path) -> None:
        super().__init__(config, observations, folder)
        self.law = make_law(config.material, InelasticLaw)
        if config.overconsolidation != 1.0 and "preconsolidation" not in self.law.internal:
            raise InputError(f"overconsolidation is given, but {config.material} has no preconsolidation pressure")
        self.tests = [test for table in config.tables for test in _read(table, folder)]
        for name in config.void_ratios:
            if name not in (names := [test.name for test in self.tests]) or "void_ratio" not in self.law.internal:
                raise InputError(
                    f"void_ratios: there is no test '{name}' with a void ratio (tests: {', '.join(names)})"
                )
        self.schedule = IncrementSchedule.of([test.path for test in self.tests], config.increments)
        self.places = self._match()
        self.runs = 0

    def parameter_defaults(self) -> Mapping[str, ParameterDefault]:
        doubted = {
            _void_ratio(name): ParameterDefault(lower=0.0, description="at the start")
            for name in self.config.void_ratios
        }
        return parameter_defaults(self.law.parameters) | doubted

    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return self._observe(self.run(parameters))

    def run(self, parameters: Mapping[str, Tensor]) -> March:
        """All tests at the given parameters."""
        self.runs += len(self.tests)
        return sensitive_march(self.law, dict(parameters), self._initial, self.schedule)

    def _initial(self, parameters: Mapping[str, Tensor]) -> Tensor:
        stress = torch.stack([test.stress for test in self.tests])
        void_ratio = torch.stack(
            [
                torch.as_tensor(parameters.get(_void_ratio(test.name), test.void_ratio), dtype=torch.float64)
                for test in self.tests
            ]
        )
        known = {"void_ratio": void_ratio, "preconsolidation": self.config.overconsolidation * mean_pressure(stress)}
        return self.law.initial_state(stress, **{name: known[name] for name in self.law.internal if name in known})

    def _match(self) -> list[tuple[int, int, str]]:
        """Test, row and quantity of every observation."""
        rows = {where: (t, r) for t, test in enumerate(self.tests) for r, where in enumerate(test.lines)}
        places = []
        table = self.observations
        for row, (where, group, value) in enumerate(zip(table.source, table.group, table.value)):
            quantity = group.split(" ")[0]
            if quantity == "void_ratio" and float(value) <= 0:
                raise InputError(f"{where}: a void ratio must be positive, got {float(value):g}")
            if quantity != "void_ratio" and quantity not in OBSERVED:
                raise InputError(f"group '{group}' must begin with what is observed: void_ratio, {', '.join(OBSERVED)}")
            if quantity == "void_ratio" and "void_ratio" not in self.law.internal:
                raise InputError(f"group '{group}': {type(self.law).__name__} has no void ratio")
            require_units(table, row, "Pa" if quantity in STRESSES else "")
            if where not in rows:
                raise InputError(
                    f"{where}: this observation is no row of a test in model.tables; the files must be the same"
                )
            places.append((*rows[where], quantity))
        return places

    def _observe(self, march: March) -> Tensor:
        values = {name: [march.quantity(t, q) for t in range(len(self.tests))] for name, q in self._observed().items()}
        if "void_ratio" in self.law.internal:
            column = self.law.position("void_ratio")
            values["void_ratio"] = [march.at_rows(t)[0][:, column] for t in range(len(self.tests))]
        return torch.stack([values[quantity][test][row] for test, row, quantity in self.places])

    def _observed(self) -> dict[str, Quantity]:
        needed = {quantity for _, _, quantity in self.places}
        return {name: quantity for name, quantity in OBSERVED.items() if name in needed}

    def figures(self, parameters: Mapping[str, Tensor]) -> list[ModelFigure]:
        with torch.no_grad():
            march = self.run(parameters)
        return draw(self.tests, march, self.observations, self.places, self.law, parameters)


def _void_ratio(test: str) -> str:
    """The parameter that is the void ratio of a test at its start."""
    return f"void_ratio of {test}"


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
        written=table.written,
        only=tuple(table.only),
    )
