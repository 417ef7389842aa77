"""An elastic law is an energy density of the strain; all else about it is derived, or given in closed form."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from physics.constitutive.kinematics import Strain, displacement_gradient
from physics.constitutive.law import Law
from physics.discretisation.matrices import volume_change
from physics.local.density import Density


class ElasticLaw(Law, Density):
    """psi(x, params) in J/m3 = Pa, of F or of the small strain; `energy` and `parameters` are all that a law must give.

        class Hencky(ElasticLaw):
            strain = Strain.SMALL
            parameters = LawParameters(LawParameter("mu", "Pa", lower=0.0))

            def energy(self, x, params):
                return params["mu"] * (x * x).sum((-2, -1))

    Write determinants and inverses by `physics.constitutive.determinant` and `inverse`: those of torch.linalg have no second
    derivative at rest. Stress and tangent come by automatic differentiation unless a law overrides them.
    """

    strain: Strain = Strain.DEFORMATION_GRADIENT

    def plane_stress(self) -> ElasticLaw:
        """The same law with the stress out of the plane eliminated; it sees strains (..., 2, 2)."""
        raise InputError(
            f"{type(self).__name__} has no plane-stress form; use plane strain, or a density of plane strains"
        )


class SplitElasticLaw(ElasticLaw):
    """psi = distortional(x, params) + volumetric(volume change, params): the split that averaged dilatations need.

    The volume change is J - 1 = det F - 1, or tr(strain) for small strains: zero at rest, so that nothing cancels there.
    """

    @abstractmethod
    def distortional(self, x: Tensor, params: Params) -> Tensor:
        """The part of the energy (...) that is not averaged."""

    @abstractmethod
    def volumetric(self, change: Tensor, params: Params) -> Tensor:
        """The part of the energy (...) that depends on the volume change (...) alone."""

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return self.distortional(x, params) + self.volumetric(self.volume_change(x), params)

    def volume_change(self, x: Tensor) -> Tensor:
        """J - 1, or the trace of the small strain, (...)."""
        if self.strain is Strain.SMALL:
            return x.diagonal(dim1=-2, dim2=-1).sum(-1)
        return volume_change(displacement_gradient(x))
