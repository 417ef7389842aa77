"""Potentials of bonds and the angles between them, with their second derivatives in closed form."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from bilevel.problem import Params
from physics.atoms.bonds import Bonds
from physics.atoms.potential import BondHessian, Potential, across_and_along, second_derivatives


class BondOrder(Potential):
    """E = sum over bonds b of U(r_b, zeta_b), zeta_b = sum over the other bonds k of its centre of g(r_b, r_k, cos theta_bk).

    Tersoff 1988; with U linear in zeta also Stillinger and Weber 1985. U and g are functions of numbers, entry by entry.
    linear: whether U is linear in zeta, with a coefficient that does not depend on r.
    """

    linear: bool = False

    @abstractmethod
    def bond(self, r: Tensor, zeta: Tensor, params: Params) -> Tensor:
        """U (E,) in eV at lengths r and orders zeta (E,)."""

    @abstractmethod
    def angle(self, one: Tensor, other: Tensor, cosine: Tensor, params: Params) -> Tensor:
        """g (T,) at lengths of the bond and of the other one, and the cosine between them (T,)."""

    def energies(self, bonds: Bonds, params: Params) -> Tensor:
        first, second = pairs_of_bonds(bonds)
        r = bonds.lengths
        normal = bonds.vectors / r.unsqueeze(-1)
        cosine = (normal[first] * normal[second]).sum(-1)
        zeta = torch.zeros_like(r).index_add(0, first, self.angle(r[first], r[second], cosine, params))
        return bonds.sum_at_centres(self.bond(r, zeta, params))

    def bond_hessian(self, bonds: Bonds, params: Params) -> BondHessian:
        first, second = pairs_of_bonds(bonds)
        r = bonds.lengths
        normal = bonds.vectors / r.unsqueeze(-1)
        n, m, one, other = normal[first], normal[second], r[first], r[second]
        cosine = (n * m).sum(-1)
        g, (g1, g2, gc), gg = second_derivatives(lambda a, b, c: self.angle(a, b, c, params), one, other, cosine)
        zeta = torch.zeros_like(r).index_add(0, first, g)
        _, (ur, uz), uu = second_derivatives(lambda a, b: self.bond(a, b, params), r, zeta)
        # The cosine's derivatives in the two vectors: p = dc/dv, C = d2c/dv dv.
        p, q = (m - _by(cosine, n)) / one[:, None], (n - _by(cosine, m)) / other[:, None]
        eye = torch.eye(3).to(r)
        own = across_and_along(gg[0][0], g1 / one, n) + _symmetric(gg[0][2], n, p) + _by(gg[2][2], _outer(p, p))
        own = own - _by(gc / one, _symmetric(1.0, n, p) + _by(cosine / one, eye - _outer(n, n)))
        far = across_and_along(gg[1][1], g2 / other, m) + _symmetric(gg[1][2], m, q) + _by(gg[2][2], _outer(q, q))
        far = far - _by(gc / other, _symmetric(1.0, m, q) + _by(cosine / other, eye - _outer(m, m)))
        mixed = _by(gg[0][1], _outer(n, m)) + _by(gg[0][2], _outer(n, q)) + _by(gg[1][2], _outer(p, m))
        mixed = mixed + _by(gg[2][2], _outer(p, q))
        mixed = mixed + _by(gc / one, _by(1.0 / other, eye - _outer(m, m)) - _outer(n, q))
        weight = uz[first]
        blocks = across_and_along(uu[0][0], ur / r, normal)
        blocks = blocks.index_add(0, first, _by(weight, own)).index_add(0, second, _by(weight, far))
        mixed = _by(weight, mixed)
        bond = torch.arange(len(r))
        places, others = [bond, first, second], [bond, second, first]
        values = [blocks, mixed, mixed.mT]
        if not self.linear:
            along, across = _by(g1, n) + _by(gc, p), _by(g2, m) + _by(gc, q)
            slope = torch.zeros_like(normal).index_add(0, first, along)
            a, b, curved = self._curved(bonds, first, second, normal, slope, across, uu)
            places, others, values = [*places, a], [*others, b], [*values, curved]
        return BondHessian(torch.cat(places), torch.cat(others), torch.cat(values))

    def _curved(
        self,
        bonds: Bonds,
        first: Tensor,
        second: Tensor,
        normal: Tensor,
        slope: Tensor,
        across: Tensor,
        uu: list[list[Tensor]],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The part U_zz dzeta dzeta + U_rz (dr dzeta + dzeta dr) as blocks between all bonds of each centre.

        slope (E, 3): d zeta_b / dv_b; across (T, 3): d zeta_first / dv_second.
        """
        slot, width = bonds.slots()
        count = bonds.atoms * width
        place = bonds.centre * width + slot  # of each bond among (N, M)
        order = torch.zeros(count * width, 3).to(normal)  # d zeta_b / dv_k at (atom, b, k)
        order = order.index_add(0, place * width + slot, slope).index_add(
            0, place[first] * width + slot[second], across
        )
        order = order.reshape(bonds.atoms, width, width, 3)
        second_order, coupling = (torch.zeros(count).to(normal).index_add(0, place, uu[1][k]) for k in (1, 0))
        ahead = torch.zeros(count, 3).to(normal).index_add(0, place, normal).reshape(bonds.atoms, width, 3)
        second_order, coupling = second_order.reshape(bonds.atoms, width), coupling.reshape(bonds.atoms, width)
        whole = torch.einsum("nb,nbki,nblj->nklij", second_order, order, order)
        cross = torch.einsum("nb,nbi,nblj->nblij", coupling, ahead, order)  # rows b, columns l
        whole = whole + cross + cross.transpose(1, 2).mT
        number = torch.full((count,), -1).index_copy(0, place, torch.arange(len(place))).reshape(bonds.atoms, width)
        a, b = number.unsqueeze(2).expand(-1, -1, width), number.unsqueeze(1).expand(-1, width, -1)
        real = (a >= 0) & (b >= 0)
        return a[real], b[real], whole[real]


def pairs_of_bonds(bonds: Bonds) -> tuple[Tensor, Tensor]:
    """All ordered pairs (T,) of different bonds of one centre."""
    counts = torch.bincount(bonds.centre, minlength=bonds.atoms)
    starts = counts.cumsum(0) - counts
    many = counts[bonds.centre]  # partners of each bond, itself included
    first = torch.repeat_interleave(torch.arange(len(many)), many)
    within = torch.arange(len(first)) - torch.repeat_interleave(many.cumsum(0) - many, many)
    second = starts[bonds.centre[first]] + within
    different = first != second
    return first[different], second[different]


def _by(factor: Tensor, values: Tensor) -> Tensor:
    """Values (T, ...) times one factor each (T,)."""
    return factor.reshape(-1, *([1] * (values.dim() - 1))) * values


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return a.unsqueeze(-1) * b.unsqueeze(-2)


def _symmetric(factor: Tensor | float, a: Tensor, b: Tensor) -> Tensor:
    """factor (a b^T + b a^T)."""
    both = _outer(a, b) + _outer(b, a)
    return both if isinstance(factor, float) else _by(factor, both)
