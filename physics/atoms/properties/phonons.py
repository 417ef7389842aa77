"""Phonons at chosen wave vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from physics.atoms.crystal_energy import CrystalEnergy
from physics.atoms.hessian import dynamical
from physics.atoms.potential import Potential
from physics.atoms.structures import Structures
from physics.atoms.units import TERAHERTZ

AT_REST = 1e-10
"""Squared frequencies below this fraction of the largest are taken as zero: their root has no derivative there."""


def phonon_frequencies(structures: Structures, potential: Potential, params: Params, points: Tensor) -> Tensor:
    """Frequencies (Q, 3 N) in THz of one crystal, ascending; differentiable in params, positions and cell.

    points (Q, 3): wave vectors in units of the reciprocal vectors of the cell as it is given. Unstable modes have negative
    frequencies. Exact for every wave vector: the energies of atoms depend on their own bonds alone, so no supercell is
    needed. Raises InputError for more than one structure, or a potential whose atoms see beyond their own bonds.
    """
    if len(structures) != 1:
        raise InputError(f"phonons are those of one structure, got {', '.join(structures.names)}")
    problem = CrystalEnergy(structures, potential, torch.zeros(1, 6, dtype=torch.bool))
    given = problem.parameters(params)
    bonds, _ = problem.bonds(problem.start(), given)
    hessian = potential.bond_hessian(bonds, params)
    if hessian is None:
        raise InputError(
            f"phonons of {type(potential).__name__}: take a supercell and the wave vector 0 of its Hessian"
        )
    masses = structures.masses.repeat_interleave(3)
    weight = (masses.unsqueeze(0) * masses.unsqueeze(1)).rsqrt()
    squares = []
    for point in points.to(bonds.images):
        angle = 2.0 * math.pi * (bonds.images @ point)
        phases = torch.polar(torch.ones_like(angle), angle)
        matrix = dynamical(hessian, bonds, phases) * weight
        squares.append(torch.linalg.eigvalsh(0.5 * (matrix + matrix.mH)))
    square = torch.stack(squares)
    small = square.abs() < AT_REST * square.detach().abs().max()
    root = torch.sqrt(torch.where(small, 1.0, square.abs())) * square.sign()
    return torch.where(small, 0.0, root) * TERAHERTZ
