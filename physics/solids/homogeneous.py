"""Homogeneous deformation: the tests of rubber; the inner problem finds the stretches that are not prescribed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from bilevel.linalg.operator import Structure
from bilevel.problem import EnergyProblem, Params
from bilevel.report import InputError, chosen
from physics.constitutive.elastic.hyperelastic import Hyperelastic


class Mode(Enum):
    """Which principal stretches a test prescribes; direction 1 is the one whose stress is measured."""

    UNIAXIAL = "uniaxial"
    EQUIBIAXIAL = "equibiaxial"
    PURE_SHEAR = "pure shear"
    BIAXIAL = "biaxial"


@dataclass(frozen=True, eq=False)
class Loading:
    """Prescribed stretches of a batch of tests.

    first (rows,): stretch in direction 1. second (rows,): stretch in direction 2, where it is prescribed. lateral
    (rows,) bool: directions 2 and 3 are both free (uniaxial) and equal, as isotropy makes them.
    """

    first: Tensor
    second: Tensor
    lateral: Tensor

    @staticmethod
    def of(modes: Sequence[Mode], first: Tensor, second: Tensor | None = None) -> Loading:
        """From a mode and a stretch for each row; `second` is needed where the mode is BIAXIAL.

        Raises InputError for stretches that are not positive, and for a missing second stretch.
        """
        bad = torch.nonzero(~(first > 0.0)).flatten()
        if len(bad):
            raise InputError(f"row {int(bad[0])}: the stretch must be positive, got {float(first[bad[0]])}")
        modes = [chosen(Mode, mode) for mode in modes]
        if second is None and Mode.BIAXIAL in modes:
            raise InputError(f"row {list(modes).index(Mode.BIAXIAL)}: a biaxial test needs its second stretch")
        own = torch.ones_like(first) if second is None else second
        other = {Mode.EQUIBIAXIAL: first, Mode.BIAXIAL: own}
        rows = [other[mode][i] if mode in other else torch.ones_like(first[i]) for i, mode in enumerate(modes)]
        lateral = torch.tensor([mode is Mode.UNIAXIAL for mode in modes])
        return Loading(first, torch.stack(rows), lateral)

    def stretches(self, free: Tensor) -> Tensor:
        """All principal stretches (rows, 3), given the free one (rows,)."""
        return torch.stack((self.first, torch.where(self.lateral, free, self.second), free), -1)

    def incompressible(self) -> Tensor:
        """All principal stretches (rows, 3) where the volume does not change."""
        return self.stretches(torch.where(self.lateral, self.first**-0.5, 1.0 / (self.first * self.second)))


class HomogeneousDeformation(EnergyProblem):
    """The strain energy of each row of a loading, to be minimised over the logarithm of its free stretch.

    The unknown is (rows, 1), one sample a row; params are the law's own. Stress-free directions result.
    """

    batch_dims = 1
    structure = Structure(symmetric=True)

    def __init__(self, law: Hyperelastic, loading: Loading) -> None:
        if not isinstance(law, Hyperelastic):
            raise InputError(f"{type(law).__name__} is no Hyperelastic law, whose energy principal stretches determine")
        self.law = law
        self.loading = loading

    def start(self) -> Tensor:
        """The incompressible solution (rows, 1)."""
        return torch.log(self.loading.incompressible()[:, 2:])

    def value(self, u: Tensor, params: Params) -> Tensor:
        return self.law.energy_of_stretches(self.stretches(u), params)

    def stretches(self, u: Tensor) -> Tensor:
        """Principal stretches (rows, 3)."""
        return self.loading.stretches(torch.exp(u[:, 0]))

    def nominal_stress(self, u: Tensor, params: Params) -> Tensor:
        """The principal nominal stresses dW/d lambda_i (rows, 3), in Pa; zero in free directions at the solution."""
        return torch.func.grad(lambda x: self.law.energy_of_stretches(x, params).sum())(self.stretches(u))


def incompressible_stress(law: Hyperelastic, loading: Loading, params: Params) -> Tensor:
    """The nominal stresses in directions 1 and 2 (rows, 2), in Pa, of an incompressible material.

    Direction 3 is free of stress, which eliminates the pressure: P_i = dW/dl_i - (l_3 / l_i) dW/dl_3. What depends on the
    volume alone cancels, so params may leave out volumetric parameters.
    """
    rest = {p.name: torch.tensor(p.default or 0.0, dtype=torch.float64) for p in law.parameters if p.volumetric}
    values = {**rest, **params} if not all(name in params for name in law.parameters.given_in(params).names) else params
    stretches = loading.incompressible()
    slope = torch.func.grad(lambda x: law.distortion_of_stretches(x, values).sum())(stretches)
    return slope[:, :2] - stretches[:, 2:] / stretches[:, :2] * slope[:, 2:]
