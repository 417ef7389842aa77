"""The study model `rubber_tests`: a hyperelastic law from homogeneous tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

import bilevel
from bilevel.calibrate.model import Model, ModelConfig, ModelFigure, ModelReports, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.report import InputError
from physics.constitutive.elastic.hyperelastic import Hyperelastic
from physics.constitutive.registry import make_law
from physics.solids.homogeneous import HomogeneousDeformation, Loading, Mode, incompressible_stress
from physics.studies.law_parameters import parameter_defaults


class RubberTests(Model):
    """Nominal stress in direction 1 of uniaxial, equibiaxial, pure shear and general biaxial tests of a rubber.

    Modes are uniaxial, equibiaxial, pure shear and biaxial; the last needs a column second_stretch, and a column direction
    (1 or 2) where the stress of the second direction was measured.

    The parameters are the law's own; Ogden's are mu_1, alpha_1, mu_2 ... An incompressible law has its pressure
    eliminated, and no volumetric parameters; of a compressible one the inner problem finds the free stretches.
    """

    class Config(ModelConfig):
        law: str = Field(description="name of an installed hyperelastic law")
        terms: int | None = Field(default=None, ge=1, description="number of terms, of laws that have any number")
        incompressible: bool = True
        """whether the pressure is eliminated; else the law has its volumetric parameters, too"""

    columns = {"stretch": "", "mode": "text"}  # noqa: RUF012
    value_units = "Pa"

    def __init__(self, config: Config, observations: ObservationTable, folder: Path) -> None:
        super().__init__(config, observations, folder)
        self.law = make_law(config.law, Hyperelastic, terms=config.terms)
        modes = [self._mode(row, name) for row, name in enumerate(observations.labels["mode"])]
        self.loading = Loading.of(modes, observations.columns["stretch"], self._column("second_stretch"))
        self.direction = self._directions(modes)
        self._reports = ModelReports()

    def _column(self, name: str) -> Tensor | None:
        return self.observations.columns.get(name)

    def _directions(self, modes: list[Mode]) -> Tensor:
        """0 or 1 for each row, the direction in which the stress was measured."""
        given = self._column("direction")
        if given is None:
            return torch.zeros(len(modes), dtype=torch.long)
        for row, mode in enumerate(modes):
            if float(given[row]) not in ((1.0, 2.0) if mode is Mode.BIAXIAL else (1.0,)):
                raise InputError(
                    f"{self.observations.source_of(row)}: direction {float(given[row]):g} is none of a {mode.value} test"
                )
        return given.long() - 1

    def _mode(self, row: int, name: str) -> Mode:
        known = {mode.value: mode for mode in Mode}
        if name not in known:
            where = self.observations.source[row] if self.observations.source else f"observation {row + 1}"
            raise InputError(f"{where}: mode '{name}' is none of {', '.join(known)}")
        return known[name]

    def parameter_defaults(self) -> Mapping[str, ParameterDefault]:
        rigid = self.config.incompressible
        return parameter_defaults(p for p in self.law.parameters if not (rigid and p.volumetric))

    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        stress = self._stress(self.loading, self._law_parameters(parameters))
        return stress.gather(1, self.direction[:, None])[:, 0]

    def _law_parameters(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: parameters[name] for name in self.parameter_defaults()}

    def _stress(self, loading: Loading, values: dict[str, Tensor]) -> Tensor:
        if self.config.incompressible:
            return incompressible_stress(self.law, loading, values)
        problem = HomogeneousDeformation(self.law, loading)
        solution = bilevel.argmin(problem, problem.start(), values)
        self._reports = ModelReports([solution.report], solution.gradients)
        return problem.nominal_stress(solution.u, values)

    def reports(self) -> ModelReports:
        return self._reports

    def figures(self, parameters: Mapping[str, Tensor]) -> list[ModelFigure]:
        """Nominal stress against stretch, measured and calibrated, by mode."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.0, 4.5), layout="constrained")
        axes = figure.add_subplot()
        measured = self.observations.columns["stretch"].numpy()
        names = self.observations.labels["mode"]
        for k, name in enumerate(dict.fromkeys(names)):
            rows = [i for i, label in enumerate(names) if label == name]
            if name == Mode.BIAXIAL.value:
                continue  # a surface over two stretches, no line
            curve = torch.linspace(1.0, float(np.max(measured[rows])), 150, dtype=torch.float64)
            with torch.no_grad():
                loading = Loading.of([self._mode(rows[0], name)] * len(curve), curve)
                line = self._stress(loading, self._law_parameters(parameters))[:, 0].numpy()
            axes.plot(measured[rows], self.observations.value[rows].numpy() / 1e6, "o", ms=4, color=f"C{k}", mfc="none")
            axes.plot(curve.numpy(), line / 1e6, color=f"C{k}", label=name)
        axes.set_xlabel("stretch")
        axes.set_ylabel("nominal stress [MPa]")
        axes.grid(True, alpha=0.3)
        axes.legend()
        title = f"{self.config.law.replace('_', ' ')}: nominal stress"
        return [ModelFigure(title, figure, "Circles: measured. Lines: the calibrated law.")]
