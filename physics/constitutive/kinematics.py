"""Which strain a law sees, and how a displacement gradient of fewer dimensions makes it."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor

from physics.constitutive.mandel import from_matrix
from physics.local.density import Measure


class Kinematics(Enum):
    """The assumption that makes a plane problem of a solid one; axisymmetric coordinates are (radius, axis)."""

    THREE_DIMENSIONAL = "three-dimensional"
    PLANE_STRAIN = "plane strain"
    PLANE_STRESS = "plane stress"
    AXISYMMETRIC = "axisymmetric"

    @property
    def dim(self) -> int:
        return 3 if self is Kinematics.THREE_DIMENSIONAL else 2


class Strain(Enum):
    """What a law is a function of: matrices (..., 3, 3), (..., 2, 2) in plane stress; or Mandel vectors (..., 6)."""

    DEFORMATION_GRADIENT = "deformation gradient F = I + grad u"
    SMALL = "small strain, the symmetric part of grad u"
    SMALL_MANDEL = "small strain as a Mandel vector"


def displacement_gradient(f: Tensor) -> Tensor:
    """H = F - I (..., d, d)."""
    return f - torch.eye(f.shape[-1], dtype=f.dtype, device=f.device)


def measure(kinematics: Kinematics, strain: Strain) -> Measure:
    """The map from B u to the strain; the third row of an axisymmetric B u is the hoop term u_r / r."""
    size = 2 if kinematics is Kinematics.PLANE_STRESS else 3
    gradient = _embedding(kinematics, size)
    if strain is Strain.SMALL:
        swap = torch.arange(size * size).reshape(size, size).mT.reshape(-1)
        return Measure((size, size), 0.5 * (gradient + gradient[swap]))
    if strain is Strain.SMALL_MANDEL:
        units = torch.eye(9, dtype=torch.float64).reshape(9, 3, 3)
        return Measure((6,), from_matrix(units).mT @ gradient)
    identity = torch.eye(size, dtype=torch.float64).reshape(-1)
    return Measure((size, size), None if kinematics is Kinematics.THREE_DIMENSIONAL else gradient, identity)


def _embedding(kinematics: Kinematics, size: int) -> Tensor:
    """The displacement gradient (size * size) as a linear map of B u (components * columns)."""
    components = kinematics.dim
    columns = 3 if kinematics in (Kinematics.THREE_DIMENSIONAL, Kinematics.AXISYMMETRIC) else 2
    matrix = torch.zeros((size, size, components, columns), dtype=torch.float64)
    for i in range(components):
        for j in range(components):
            matrix[i, j, i, j] = 1.0
    if kinematics is Kinematics.AXISYMMETRIC:
        matrix[2, 2, 0, 2] = 1.0
    return matrix.reshape(size * size, components * columns)
