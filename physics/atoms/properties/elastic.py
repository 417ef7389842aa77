"""The elastic tensor of a crystal at rest: Born's term less what the atoms give way within the cell."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from physics.atoms.crystal_energy import CrystalEnergy
from physics.atoms.potential import Potential
from physics.atoms.structures import Structures
from physics.atoms.units import GPA


@dataclass(frozen=True)
class ElasticTensor:
    """Stiffness (6, 6) in GPa, Voigt order xx yy zz yz xz xy.

    relaxed: with atoms that follow the strain as they like. born: with atoms that are carried along (unrelaxed).
    """

    relaxed: Tensor
    born: Tensor

    @property
    def cubic(self) -> tuple[Tensor, Tensor, Tensor]:
        """C11, C12 and C44, as means over the three axes."""
        c = self.relaxed
        off = (c[0, 1] + c[0, 2] + c[1, 2]) / 3.0
        return c.diagonal()[:3].mean(), off, c.diagonal()[3:].mean()

    @property
    def bulk_modulus(self) -> Tensor:
        """The response to hydrostatic pressure, 1 / sum of the compliances (Reuss; the only one for cubic crystals)."""
        return 1.0 / torch.linalg.inv(self.relaxed)[:3, :3].sum()


def elastic_tensor(structures: Structures, potential: Potential, params: Params) -> ElasticTensor:
    """The elastic tensor of one crystal as it is, in GPa; differentiable in params, positions and cell.

    C = (E_ee - E_eu E_uu^-1 E_ue) / V with E the energy of strains e and displacements u (Born and Huang 1954, section 24).
    At a minimum of the energy (`relax`) it is the tensor of elastic constants; elsewhere the second derivative of the
    energy in symmetric strains. Raises InputError for more than one structure, or one that is not a crystal.
    """
    if len(structures) != 1 or not bool(structures.periodic.all()):
        raise InputError(f"elastic constants are those of one crystal, got {', '.join(structures.names)}")
    moving = replace(structures, movable=torch.ones_like(structures.movable))
    problem = CrystalEnergy(moving, potential, torch.ones(1, 6, dtype=torch.bool))
    hessian = problem.hessian(problem.start(), problem.parameters(params))[0]
    scale = problem.lengths**2 / structures.volumes * GPA
    strain, coupled, atoms = hessian[:6, :6], hessian[:6, 6:], hessian[6:, 6:]
    null = problem.structure.null_space
    assert null is not None
    z = null[6:]
    # A uniform translation costs nothing: lifting it leaves the solution orthogonal to it.
    regular = atoms + hessian.detach().abs().max() * (z @ z.mT)
    # The coupling's rows sum to zero up to rounding; one atom a cell has nothing else.
    coupled = coupled - (coupled @ z) @ z.mT
    follow = coupled @ torch.linalg.solve(regular, coupled.mT)
    return ElasticTensor((strain - follow) * scale, strain * scale)
