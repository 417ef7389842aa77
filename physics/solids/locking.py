"""Whether a body's elements are too stiff for a nearly incompressible law."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.local.density import Density, Measure

STIFF = 50.0
"""Bulk modulus over shear modulus from which linear elements lock visibly: a Poisson's ratio of 0.49."""

REMARK = (
    "linear elements lock where the bulk modulus is {ratio:.3g} times the shear modulus: displacements may be far too "
    "small; take order=2, or mean_dilatation=True on quadrilaterals and hexahedra"
)


def stiffness_ratio(density: Density, measure: Measure, params: Params, like: Tensor) -> float:
    """The largest ratio of bulk to shear modulus at rest over the first points of the cells given by params."""
    rest = measure.state(like.new_zeros(1, 1, measure.columns, 1))
    tangent = density.tangent(rest, params, 2)
    bulk = torch.einsum("...iijj->...", tangent) / 9.0
    strain = like.new_zeros(3, 3)
    strain[0, 1] = strain[1, 0] = 0.5
    shear = torch.einsum("ij,...ijkl,kl->...", strain, tangent, strain)
    return float((bulk / shear).max())
