"""What all materials share: the strain that they see, and the split of their energy into distortion and volume."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from bilevel.problem import Params
from physics.constitutive.kinematics import Strain
from physics.discretisation.matrices import determinant
from physics.local.density import Density


class Material(Density):
    """psi(x, params) = distortional(x, params) + volumetric(dilatation(x), params), in J/m3 = Pa.

    The dilatation is J = det F, or tr(strain) for small strains. Elements that average the dilatation need the split.
    """

    strain: Strain = Strain.DEFORMATION_GRADIENT

    @abstractmethod
    def distortional(self, x: Tensor, params: Params) -> Tensor:
        """The part of the energy (...) that is not averaged."""

    @abstractmethod
    def volumetric(self, dilatation: Tensor, params: Params) -> Tensor:
        """The part of the energy (...) that depends on the dilatation alone."""

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return self.distortional(x, params) + self.volumetric(self.dilatation(x), params)

    def dilatation(self, x: Tensor) -> Tensor:
        """J = det F, or the trace of the small strain, (...)."""
        return determinant(x) if self.strain is Strain.DEFORMATION_GRADIENT else x.diagonal(dim1=-2, dim2=-1).sum(-1)
