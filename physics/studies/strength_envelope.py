"""The study model `strength_envelope`: major principal stress at failure against confinement, compression positive."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from bilevel.calibrate.model import Model, ModelConfig, ModelFigure, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.report import InputError
from physics.constitutive.inelastic.drucker_prager import FRICTIONAL, DruckerPrager, MatchedTo
from physics.constitutive.inelastic.hoek_brown import HoekBrown
from physics.local.parameters import LawParameters
from physics.studies.law_parameters import parameter_defaults


class StrengthCriterion(ABC):
    """s1 at failure for the other principal stresses (rows,), all compression positive, Pa."""

    parameters: ClassVar[LawParameters] = LawParameters(*(p for p in FRICTIONAL if p.name != "dilatancy_angle"))

    @abstractmethod
    def major(self, minor: Tensor, intermediate: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        """s1 (rows,)."""


class MohrCoulombStrength(StrengthCriterion):
    """s1 = N s3 + 2 c sqrt(N), N = (1 + sin phi) / (1 - sin phi), whatever s2 is."""

    def major(self, minor: Tensor, intermediate: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        root = torch.tan(math.pi / 4 + params["friction_angle"] / 2)
        return root**2 * minor + 2 * params["cohesion"] * root


class HoekBrownStrength(StrengthCriterion):
    """s1 = s3 + sci (mb s3/sci + s)^a (Hoek, Carranza-Torres & Corkum 2002), whatever s2 is."""

    parameters = HoekBrown.parameters

    def major(self, minor: Tensor, intermediate: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        return HoekBrown().strength(minor, params)


class DruckerPragerStrength(StrengthCriterion):
    """sqrt(J2) = a I1 + k, matched to Mohr-Coulomb in triaxial compression (Drucker & Prager 1952)."""

    def major(self, minor: Tensor, intermediate: Tensor, params: Mapping[str, Tensor]) -> Tensor:
        slope, intercept = DruckerPrager(MatchedTo.COMPRESSION).slopes(params["friction_angle"])
        both = intermediate + minor
        rest = intercept * params["cohesion"] + slope * both
        # J2 = (rest + slope s1)^2 is quadratic in s1; failure in compression is its larger root.
        a, b = 1 / 3 - slope**2, both / 3 + 2 * slope * rest
        c = (intermediate**2 + minor**2 - intermediate * minor) / 3 - rest**2
        return (b + torch.sqrt(b**2 - 4 * a * c)) / (2 * a)


CRITERIA: list[StrengthCriterion] = [MohrCoulombStrength(), HoekBrownStrength(), DruckerPragerStrength()]


class StrengthEnvelope(Model):
    """Major principal stress at failure of triaxial and true triaxial tests; all stresses compression positive.

    Parameters are cohesion and friction_angle (Mohr-Coulomb, Drucker-Prager), or uniaxial_strength, intact_constant,
    geological_strength_index and disturbance (Hoek-Brown; intact rock has an index of 100 and a disturbance of 0).
    """

    class Config(ModelConfig):
        criterion: Literal["mohr_coulomb", "hoek_brown", "drucker_prager"] = Field(description="which strength")

    columns = {"minor": "Pa"}  # noqa: RUF012
    value_units = "Pa"

    def __init__(self, config: Config, observations: ObservationTable, folder: Path) -> None:
        super().__init__(config, observations, folder)
        names = ("mohr_coulomb", "hoek_brown", "drucker_prager")
        self.criterion = CRITERIA[names.index(config.criterion)]
        self.minor = observations.columns["minor"]
        self.intermediate = observations.columns.get("intermediate", self.minor)
        for row in range(len(observations)):
            major, least = float(observations.value[row]), float(self.minor[row])
            if not least <= float(self.intermediate[row]) <= major:
                raise InputError(
                    f"{observations.source_of(row)}: principal stresses are out of order; the value is the largest and minor "
                    "the smallest, compression positive (turn signs with sign: -1)"
                )

    def parameter_defaults(self) -> Mapping[str, ParameterDefault]:
        return parameter_defaults(self.criterion.parameters)

    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return self.criterion.major(self.minor, self.intermediate, parameters)

    def figures(self, parameters: Mapping[str, Tensor]) -> list[ModelFigure]:
        """Major against minor principal stress, measured and calibrated."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.0, 4.5), layout="constrained")
        axes = figure.add_subplot()
        minor = torch.linspace(
            float(self.minor.min().clamp(max=0.0)), float(self.minor.max()), 200, dtype=torch.float64
        )
        with torch.no_grad():
            curve = self.criterion.major(minor, minor, parameters)
        axes.plot(
            self.minor.numpy() / 1e6, self.observations.value.numpy() / 1e6, "o", ms=4, mfc="none", label="measured"
        )
        axes.plot(minor.numpy() / 1e6, curve.numpy() / 1e6, label=self.config.criterion.replace("_", " "))
        axes.set_xlabel("minor principal stress [MPa]")
        axes.set_ylabel("major principal stress at failure [MPa]")
        axes.grid(True, alpha=0.3)
        axes.legend()
        caption = "Circles: measured. Line: the calibrated strength where the two smaller stresses are equal."
        return [ModelFigure("Strength", figure, caption)]
