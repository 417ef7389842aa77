"""r(u, params) = sum over q of w_q B_q^T s(B_q u, params_q): fluxes that derive from no energy, on meshes and graphs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from torch import Tensor

from bilevel.linalg.operator import Sparse, Structure
from bilevel.problem import Params, Problem
from bilevel.report import BilevelError, require
from physics.discretisation.constraints import Constraint
from physics.local.density import Density
from physics.local.energy import LocalEnergy
from physics.local.term import Term


class Flux(Density):
    """A flux s(x, params) conjugate to the state x, given in closed form; it derives from no energy."""

    symmetric = False

    def energy(self, x: Tensor, params: Params) -> Tensor:
        raise BilevelError(
            f"{type(self).__name__} derives from no energy; put it into a LocalResidual, not a LocalEnergy"
        )

    @abstractmethod
    def stress(self, x: Tensor, params: Params) -> Tensor:
        """s, shaped like x; differentiable in x and params."""


Own = TypeVar("Own", bound="LocalResidual")


class LocalResidual(Problem):
    """The balance of fluxes of a nodal field (nodes, components), to be solved with `bilevel.root`.

    Terms, constraints and parameters are those of `LocalEnergy`; terms may be fluxes as well as densities, and the
    tangent is not symmetric. structure: what is known of it beyond that. kernel, floating: as for `LocalEnergy`.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        nodes: int,
        components: int = 1,
        constraints: Sequence[Constraint] = (),
        *,
        structure: Structure | None = None,
        kernel: Tensor | None = None,
        floating: bool = False,
    ) -> None:
        self._assembly = LocalEnergy(terms, nodes, components, constraints, kernel=kernel, floating=floating)
        self.structure = structure or Structure()

    @property
    def n(self) -> int:
        """The number of free degrees of freedom."""
        return self._assembly.n

    def for_unknown(self: Own, u0: Tensor) -> Own:
        require(
            tuple(u0.shape) == (self.n,), f"{type(self).__name__} takes an unknown ({self.n},), not {tuple(u0.shape)}"
        )
        return self

    def start(self) -> Tensor:
        """The field at rest: u = 0 (n,)."""
        return self._assembly.start()

    def expand(self, u: Tensor, params: Params = None) -> Tensor:
        """The full field (nodes, components) from u (n,) with the boundary values in params; differentiable."""
        return self._assembly.expand(u, params)

    def fields(self, term: Term, params: Params) -> Params:
        """The parameters of a term, in shape to broadcast against (cells, points)."""
        return self._assembly.fields(term, params)

    def nodal_forces(self, full: Tensor, params: Params) -> Tensor:
        """The balance (nodes, components) at a full field, constraints aside: the reactions; zero at free nodes."""
        return self._assembly.nodal_forces(full, params)

    def residual(self, u: Tensor, params: Params) -> Tensor:
        return self._assembly.residual(u, params)

    def magnitude(self, u: Tensor, params: Params) -> Tensor:
        return self._assembly.magnitude(u, params)

    def tangent(self, u: Tensor, params: Params) -> Sparse:
        return replace(self._assembly.tangent(u, params), structure=self.structure)

    def parameter_vjp(self, u: Tensor, params: Params, adjoint: Tensor, wanted: Sequence[Tensor]) -> list[Tensor]:
        return self._assembly.parameter_vjp(u, params, adjoint, wanted)
