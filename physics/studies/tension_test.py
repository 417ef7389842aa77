"""The study model `tension_test`: true stress of a bar in uniaxial tension from J2 plasticity with isotropic hardening."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bilevel.calibrate.model import Model, ModelConfig, ModelFigure, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.report import InputError
from physics.constitutive.inelastic.hardening import Hardening
from physics.constitutive.lame import YOUNG_AND_POISSON
from physics.constitutive.registry import make_law
from physics.studies.law_parameters import parameter_defaults


def tension_stress(hardening: Hardening, strain: Tensor, values: Mapping[str, Tensor]) -> Tensor:
    """Axial true stress (points,), Pa, of a bar of J2 plasticity at logarithmic strains (points,) that only grow.

    Then the return is one equation per point, E (eps - eps_p) = flow stress(eps_p), whatever happened before.
    """
    young = values["youngs_modulus"]
    return young * (strain - hardening.growth(young * strain, torch.zeros_like(strain), young, values))


class TensionTest(Model):
    """Stress of bars in tension; engineering measures are converted at constant volume up to the onset of necking."""

    class Config(ModelConfig):
        hardening: str = Field(default="voce", description="name of an installed hardening law")
        stress: Literal["cauchy", "engineering"] = "cauchy"
        """which stress the observations are"""
        strain: Literal["logarithmic", "engineering"] = "engineering"
        """which strain their column is"""

    columns = {"strain": "-"}  # noqa: RUF012
    value_units = "Pa"

    def __init__(self, config: Config, observations: ObservationTable, folder: Path) -> None:
        super().__init__(config, observations, folder)
        given = observations.columns["strain"]
        negative = torch.nonzero(given < 0).flatten().tolist()
        if negative:
            where = observations.source[negative[0]] if observations.source else f"observation {negative[0] + 1}"
            raise InputError(f"{where}: the strain is negative; a tension test needs strains that are not")
        self.strain = torch.log1p(given) if config.strain == "engineering" else given
        self.hardening = make_law(config.hardening, Hardening)

    def parameter_defaults(self) -> Mapping[str, ParameterDefault]:
        young = [p for p in YOUNG_AND_POISSON if p.name == "youngs_modulus"]
        seating = ParameterDefault(
            "-", value=0.0, description="strain at which the test begins to load the bar, a nuisance"
        )
        return {**parameter_defaults([*young, *self.hardening.parameters]), "seating": seating}

    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return self._stress(self.strain - parameters["seating"], parameters)

    def _stress(self, strain: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        stress = tension_stress(self.hardening, strain, parameters)
        return stress * torch.exp(-strain) if self.config.stress == "engineering" else stress

    def figures(self, parameters: Mapping[str, Tensor]) -> list[ModelFigure]:
        """Stress against strain, measured and calibrated."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.0, 4.5), layout="constrained")
        axes = figure.add_subplot()
        strain = torch.linspace(0.0, float(self.strain.max()), 200, dtype=torch.float64)
        with torch.no_grad():
            curve = self._stress(strain - parameters["seating"], parameters)
        shown = np.expm1 if self.config.strain == "engineering" else np.asarray
        axes.plot(
            shown(self.strain.numpy()), self.observations.value.numpy() / 1e6, "o", ms=3, mfc="none", label="measured"
        )
        axes.plot(shown(strain.numpy()), curve.numpy() / 1e6, label=f"J2, {self.config.hardening.replace('_', ' ')}")
        axes.set_xlabel(f"{self.config.strain} strain [-]")
        axes.set_ylabel(f"{self.config.stress.capitalize()} stress [MPa]")
        axes.grid(True, alpha=0.3)
        axes.legend()
        return [ModelFigure("Tension", figure, "Circles: measured. Line: the calibrated model.")]
