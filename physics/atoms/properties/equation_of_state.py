"""Energy against volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.atoms.potential import Potential
from physics.atoms.relaxation import relax
from physics.atoms.structures import Structures


@dataclass(frozen=True)
class EquationOfState:
    """Volumes (K,) in angstrom^3 and energies (K,) in eV, per atom, with atoms at rest in each cell."""

    volumes: Tensor
    energies: Tensor


def equation_of_state(
    structures: Structures, potential: Potential, params: Params, ratios: Sequence[float]
) -> EquationOfState:
    """One crystal at volumes of `ratios` times its own, positions relaxed; differentiable in params and structure."""
    stretches = torch.as_tensor(ratios, dtype=torch.float64) ** (1.0 / 3.0)
    copies = structures.select([0] * len(ratios)).deformed(stretches[:, None, None] * torch.eye(3).to(stretches))
    rest = relax(copies, potential, params, cell=False)
    atoms = structures.counts[0]
    return EquationOfState(copies.volumes / atoms, rest.energies / atoms)
