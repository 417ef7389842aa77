"""The study model `tension_test`: true stress of a bar in uniaxial tension from J2 plasticity with isotropic hardening."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

import bilevel
from bilevel.calibrate.model import Model, ModelConfig, ModelFigure, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.implicit.strategies import Exact
from bilevel.problem import Params
from bilevel.report import InputError
from physics.constitutive.inelastic.j2 import Hardening, LinearHardening, Swift, Voce
from physics.constitutive.inelastic.local_problem import LocalProblem, local_newton

LAWS: Mapping[str, Hardening] = {"linear": LinearHardening(), "voce": Voce(), "swift": Swift()}


class MonotonicTension(LocalProblem):
    """The bar's plastic strain at each total strain: E (eps - eps_p) = flow stress(eps_p), or eps_p = 0 below yield.

    In monotonic uniaxial tension the return map of J2 plasticity is one equation per point, whatever happened before.
    """

    def __init__(self, hardening: Hardening) -> None:
        self.hardening = hardening

    def residual(self, u: Tensor, params: Params) -> Tensor:
        values, strain = params
        plastic, young = u[..., 0], values["young_modulus"]
        overstress = strain - plastic - self.hardening.flow_stress(plastic, values) / young
        yields = young * strain > self.hardening.flow_stress(torch.zeros_like(plastic), values)
        return torch.where(yields, overstress, -plastic).unsqueeze(-1)

    def stress(self, strain: Tensor, values: Mapping[str, Tensor]) -> Tensor:
        """Axial true stress (points,), Pa, at logarithmic strains (points,)."""
        start = (strain - strain.abs().max() * 1e-2).clamp_min(0.0).unsqueeze(-1)
        plastic = bilevel.root(
            self, start, (dict(values), strain), solver=local_newton(1e-14), adjoint=Exact(certify=False)
        ).u[:, 0]
        return values["young_modulus"] * (strain - plastic)


class TensionTest(Model):
    """Stress of bars in tension; engineering measures are converted at constant volume up to the onset of necking."""

    class Config(ModelConfig):
        """stress: which stress the observations are. strain: which strain their column is."""

        hardening: Literal["linear", "voce", "swift"] = "voce"
        stress: Literal["cauchy", "engineering"] = "cauchy"
        strain: Literal["logarithmic", "engineering"] = "engineering"

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
        self.bar = MonotonicTension(LAWS[config.hardening])

    def parameter_defaults(self) -> Mapping[str, ParameterDefault]:
        hardening = LAWS[self.config.hardening].parameters
        young = ParameterDefault("Pa", lower=0.0, transform="log", description="Young's modulus")
        return {"young_modulus": young} | {
            p.name: ParameterDefault(p.units, lower=0.0, transform="log", description=p.description) for p in hardening
        }

    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return self._stress(self.strain, parameters)

    def _stress(self, strain: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        stress = self.bar.stress(strain, parameters)
        return stress * torch.exp(-strain) if self.config.stress == "engineering" else stress

    def figures(self, parameters: Mapping[str, Tensor]) -> list[ModelFigure]:
        """Stress against strain, measured and calibrated."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.0, 4.5), layout="constrained")
        axes = figure.add_subplot()
        strain = torch.linspace(0.0, float(self.strain.max()), 200, dtype=torch.float64)
        with torch.no_grad():
            curve = self._stress(strain, parameters)
        shown = np.expm1 if self.config.strain == "engineering" else np.asarray
        axes.plot(
            shown(self.strain.numpy()), self.observations.value.numpy() / 1e6, "o", ms=3, mfc="none", label="measured"
        )
        axes.plot(shown(strain.numpy()), curve.numpy() / 1e6, label=f"J2, {self.config.hardening} hardening")
        axes.set_xlabel(f"{self.config.strain} strain [-]")
        axes.set_ylabel(f"{self.config.stress.capitalize()} stress [MPa]")
        axes.grid(True, alpha=0.3)
        axes.legend()
        return [ModelFigure("Tension", figure, "Circles: measured. Line: the calibrated model.")]
