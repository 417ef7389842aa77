"""The stress in the ground before loads come: the weight of what lies above, and a share K0 of it sideways."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from bilevel.calibrate.model import ConfigError
from bilevel.calibrate.study.section import Section
from physics.discretisation import Mesh
from physics.solids.loads import BodyForce
from physics.studies.on_mesh.quantities import Given, Signal, quantity


class Geostatic(Section):
    """Level ground at rest under its own weight, which acts from the beginning on; the last axis points up."""

    unit_weight: Given
    """of the ground, by volume"""
    k0: Given
    """horizontal over vertical stress"""
    surface: str
    """level of the ground's surface, as 6 m"""


class Ground:
    """Weight and initial stress of level ground."""

    load = BodyForce("ground")

    def __init__(self, section: Geostatic, mesh: Mesh, folder: Path) -> None:
        """ConfigError for ground above its own surface."""
        self.dim = mesh.dim
        self.weight_signal = Signal.read(section.unit_weight, "N/m3", folder, ("geostatic", "unit_weight"))
        self.k0_signal = Signal.read(section.k0, "", folder, ("geostatic", "k0"))
        self.surface = quantity(section.surface, "m", ("geostatic", "surface"))
        top = float(mesh.coordinates[:, -1].max())
        if top > self.surface + 1e-9 * abs(top):
            raise ConfigError(("geostatic", "surface"), f"the mesh reaches up to {top:g} m, above {self.surface:g} m")

    @property
    def signals(self) -> list[Signal]:
        return [self.weight_signal, self.k0_signal]

    def weight(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """The force by volume (dim,), N/m3."""
        weight = self.weight_signal.at(None, parameters)
        return torch.stack([torch.zeros_like(weight)] * (self.dim - 1) + [-weight])

    def stress(self, positions: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """The initial stress (..., 6), Mandel, tension positive, Pa, at positions (..., dim)."""
        vertical = -self.weight_signal.at(None, parameters) * (self.surface - positions[..., -1])
        sideways = self.k0_signal.at(None, parameters) * vertical
        zero = torch.zeros_like(vertical)
        axes = [sideways, vertical, sideways] if self.dim == 2 else [sideways, sideways, vertical]
        return torch.stack([*axes, zero, zero, zero], -1)
