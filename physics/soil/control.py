"""What a laboratory machine controls: linear conditions on stress and strain, six for every increment."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from bilevel.report import InputError

R2 = math.sqrt(2.0)
AXIAL, RADIAL, TRACE = (1.0, 0.0, 0.0), (0.0, 0.5, 0.5), (1.0, 1.0, 1.0)


class Quantity(Enum):
    """A controlled or observed quantity: (is it a stress?, its weights on the six Mandel components).

    Tension and elongation are positive, so p and q carry the laboratory's sign through their weights: p = -tr/3,
    q = -(axial - radial). The axis of the specimen is x.
    """

    STRAIN_AXIAL = (False, (*AXIAL, 0.0, 0.0, 0.0))
    STRAIN_RADIAL = (False, (*RADIAL, 0.0, 0.0, 0.0))
    STRAIN_VOLUMETRIC = (False, (*TRACE, 0.0, 0.0, 0.0))
    STRESS_AXIAL = (True, (*AXIAL, 0.0, 0.0, 0.0))
    STRESS_RADIAL = (True, (*RADIAL, 0.0, 0.0, 0.0))
    PRESSURE = (True, (-1 / 3, -1 / 3, -1 / 3, 0.0, 0.0, 0.0))
    DEVIATOR = (True, (-1.0, 0.5, 0.5, 0.0, 0.0, 0.0))
    SHEAR_STRAIN_XY = (False, (0.0, 0.0, 0.0, 0.0, 0.0, 1 / R2))
    SHEAR_STRESS_XY = (True, (0.0, 0.0, 0.0, 0.0, 0.0, 1 / R2))
    STRAIN_YY = (False, (0.0, 1.0, 0.0, 0.0, 0.0, 0.0))
    STRESS_YY = (True, (0.0, 1.0, 0.0, 0.0, 0.0, 0.0))
    STRAIN_ZZ = (False, (0.0, 0.0, 1.0, 0.0, 0.0, 0.0))
    STRESS_ZZ = (True, (0.0, 0.0, 1.0, 0.0, 0.0, 0.0))

    @property
    def is_stress(self) -> bool:
        return self.value[0]

    def weights(self) -> Tensor:
        """Its weights on the Mandel components (6,)."""
        return torch.tensor(self.value[1], dtype=torch.float64)

    def of(self, stress: Tensor, strain: Tensor) -> Tensor:
        """Its value (*batch,) for stresses and strains (*batch, 6)."""
        return (stress if self.is_stress else strain) @ self.weights().to(stress)


SYMMETRY = torch.tensor([0.0, 1.0, -1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
NO_SHEAR = torch.eye(6, dtype=torch.float64)[3:]


@dataclass(frozen=True)
class Control:
    """Six linear conditions S stress + E strain = target, from two or three controlled quantities.

    Two quantities control an axisymmetric test: equal lateral strains and no shear complete them. Four control a test
    in the x-y plane with shear xy: no shear yz, xz completes them.
    Raises InputError for another number, or for conditions that do not determine the increment.
    """

    quantities: tuple[Quantity, ...]

    def __post_init__(self) -> None:
        if len(self.quantities) not in (2, 4):
            named = ", ".join(q.name.lower() for q in self.quantities) or "none"
            raise InputError(
                f"a path controls two quantities (axisymmetric) or four (plane with shear), {len(self.quantities)} given: {named}"
            )
        stress, strain = self.rows()
        if int(torch.linalg.matrix_rank(stress + strain)) < 6:
            named = " and ".join(q.name.lower() for q in self.quantities)
            raise InputError(f"controlling {named} does not determine the increment; choose independent quantities")

    def rows(self) -> tuple[Tensor, Tensor]:
        """S and E, (6, 6) each, the controlled quantities first."""
        stress, strain = torch.zeros(6, 6, dtype=torch.float64), torch.zeros(6, 6, dtype=torch.float64)
        for row, quantity in enumerate(self.quantities):
            (stress if quantity.is_stress else strain)[row] = quantity.weights()
        count = len(self.quantities)
        strain[count:] = torch.cat([SYMMETRY.unsqueeze(0), NO_SHEAR]) if count == 2 else NO_SHEAR[:2]
        return stress, strain
