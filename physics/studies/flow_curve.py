"""The study model `flow_curve`: flow stress against plastic strain."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from bilevel.calibrate.model import Model, ModelConfig, ModelFigure, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.report import InputError
from physics.constitutive.inelastic.hardening import Hardening
from physics.constitutive.inelastic.hardening_sum import HardeningSum
from physics.constitutive.registry import make_law
from physics.studies.law_parameters import parameter_defaults


class FlowCurve(Model):
    """True flow stress of a metal at equivalent plastic strains, from one hardening law or a sum of several.

    The parameters are the law's own; of a sum they are yield_stress and those of the terms, which end in _1, _2 ...
    """

    class Config(ModelConfig):
        hardening: list[str] = Field(min_length=1, description="names of installed hardening laws, whose terms add up")

    columns = {"plastic_strain": "-"}  # noqa: RUF012
    value_units = "Pa"

    def __init__(self, config: Config, observations: ObservationTable, folder: Path) -> None:
        super().__init__(config, observations, folder)
        self.strain = observations.columns["plastic_strain"]
        negative = torch.nonzero(self.strain < 0).flatten().tolist()
        if negative:
            raise InputError(f"{observations.source_of(negative[0])}: the plastic strain is negative")
        terms = [make_law(name, Hardening) for name in config.hardening]
        self.law = terms[0] if len(terms) == 1 else HardeningSum(terms)

    def parameter_defaults(self) -> Mapping[str, ParameterDefault]:
        return parameter_defaults(self.law.parameters)

    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return self.law.flow_stress(self.strain, parameters)

    def figures(self, parameters: Mapping[str, Tensor]) -> list[ModelFigure]:
        """Flow stress against plastic strain, measured and calibrated."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.0, 4.5), layout="constrained")
        axes = figure.add_subplot()
        strain = torch.linspace(0.0, float(self.strain.max()), 200, dtype=torch.float64)
        with torch.no_grad():
            curve = self.law.flow_stress(strain, parameters)
        axes.plot(self.strain.numpy(), self.observations.value.numpy() / 1e6, "o", ms=3, mfc="none", label="measured")
        axes.plot(strain.numpy(), curve.numpy() / 1e6, label=" + ".join(self.config.hardening).replace("_", " "))
        axes.set_xlabel("equivalent plastic strain [-]")
        axes.set_ylabel("flow stress [MPa]")
        axes.grid(True, alpha=0.3)
        axes.legend()
        return [ModelFigure("Flow curve", figure, "Circles: measured. Line: the calibrated law.")]
