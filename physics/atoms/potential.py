"""What a potential is: a law that gives the energy of every atom from its bonds, and what is known of its second derivatives.

`PairFunctional` (pair potentials, embedded atoms) and `BondOrder` (Stillinger-Weber, Tersoff) have their derivatives in
closed form from those of functions of numbers; `SiteEnergy` (a user's many-body function) those of one atom and its
neighbours by automatic differentiation; `AnyEnergy` (networks) is differentiated as a whole.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from bilevel.torch_internals import plain
from physics.atoms.bonds import Bonds
from physics.constitutive.law import Law

CACHED = 2**17
"""Numbers of an intermediate result that stay in the processor's cache."""

Radial = Callable[..., Tensor]


@dataclass(frozen=True)
class BondHessian:
    """The second derivatives of an energy in its bond vectors: sum_p dv_first . block dv_second + sum_i w_i (sum_e g_e . dv_e)^2.

    first, second (P,): bonds of one centre; a pair of different bonds comes in both orders. blocks (P, 3, 3).
    weight (N,), slope (E, 3): the part of rank one of each atom, or None where there is none.
    """

    first: Tensor
    second: Tensor
    blocks: Tensor
    weight: Tensor | None = None
    slope: Tensor | None = None


class Potential(Law):
    """The energy of atoms as a function of their bonds, in eV and angstrom.

    species: chemical symbols of the elements that it knows.
    """

    species: tuple[str, ...]

    @property
    def sizes(self) -> Mapping[str, int]:
        """How many entries a parameter has that is not one number."""
        return {}

    @abstractmethod
    def cutoff(self, params: Params) -> float:
        """The distance, in angstrom, from which on atoms do not see each other."""

    @abstractmethod
    def energies(self, bonds: Bonds, params: Params) -> Tensor:
        """The energy (N,) of every atom."""

    def bond_hessian(self, bonds: Bonds, params: Params) -> BondHessian | None:
        """The second derivatives in the bond vectors, differentiable; None where only the whole can be differentiated."""
        return None

    def inspect(self, bonds: Bonds, params: Params, names: tuple[str, ...]) -> None:
        """Raise InputError, which names the structure, where atoms are outside what the potential is made for."""

    def kinds(self, numbers: Tensor, owner: Tensor, names: tuple[str, ...]) -> Tensor:
        """The place of each atom's element among `species`; raises InputError for an element that is not there."""
        from ase.data import atomic_numbers, chemical_symbols

        table = torch.full((len(chemical_symbols),), -1)
        table[[atomic_numbers[symbol] for symbol in self.species]] = torch.arange(len(self.species))
        kinds = table[numbers]
        if bool((kinds < 0).any()):
            first = int(torch.nonzero(kinds < 0)[0])
            raise InputError(
                f"{names[int(owner[first])]}: {type(self).__name__} does not know the element "
                f"{chemical_symbols[int(numbers[first])]}; it knows {', '.join(self.species)}"
            )
        return kinds


class PairFunctional(Potential):
    """E_i = F(rho_i) + 1/2 sum_j phi(r_ij), rho_i = sum_j f(r_ij) (Daw and Baskes 1984; without F, a pair potential).

    `pair` and `density` are functions of the distances (E,) of the bonds, each of which depends on its own entry alone.
    """

    embeds: bool = False

    @abstractmethod
    def pair(self, r: Tensor, bonds: Bonds, params: Params) -> Tensor:
        """phi (E,) at distances r (E,)."""

    def density(self, r: Tensor, bonds: Bonds, params: Params) -> Tensor:
        """f (E,) at distances r (E,), by which the neighbour adds to the density at the centre."""
        raise NotImplementedError

    def embedding(self, rho: Tensor, bonds: Bonds, params: Params) -> Tensor:
        """F (N,) at densities rho (N,)."""
        raise NotImplementedError

    def energies(self, bonds: Bonds, params: Params) -> Tensor:
        r = bonds.lengths
        total = bonds.sum_at_centres(0.5 * self.pair(r, bonds, params))
        if self.embeds:
            total = total + self.embedding(bonds.sum_at_centres(self.density(r, bonds, params)), bonds, params)
        return total

    def bond_hessian(self, bonds: Bonds, params: Params) -> BondHessian:
        r = bonds.lengths
        normal = bonds.vectors / r.unsqueeze(-1)
        _, (first,), ((second,),) = second_derivatives(lambda x: 0.5 * self.pair(x, bonds, params), r)
        weight = slope = None
        if self.embeds:
            f, (df,), ((ddf,),) = second_derivatives(lambda x: self.density(x, bonds, params), r)
            rho = bonds.sum_at_centres(f)
            _, (embed,), ((weight,),) = second_derivatives(lambda x: self.embedding(x, bonds, params), rho)
            first, second = first + embed[bonds.centre] * df, second + embed[bonds.centre] * ddf
            slope = df.unsqueeze(-1) * normal
        bond = torch.arange(len(r))
        return BondHessian(bond, bond, across_and_along(second, first / r, normal), weight, slope)


class SiteEnergy(Potential):
    """E = sum_i e(vectors to the neighbours of i): a function of one atom and its neighbours."""

    @abstractmethod
    def site(self, vectors: Tensor, centre: Tensor, neighbours: Tensor, params: Params) -> Tensor:
        """The energy () of one atom from the vectors (M, 3) to its neighbours; their kinds (M,), and its own ().

        Must work under torch.func. Vectors beyond the cut-off are fillers, and must not add to the energy.
        """

    def energies(self, bonds: Bonds, params: Params) -> Tensor:
        vectors, kinds, _ = self._padded(bonds, params)
        return torch.vmap(lambda v, c, n: self.site(v, c, n, params))(vectors, bonds.kinds, kinds)

    def bond_hessian(self, bonds: Bonds, params: Params) -> BondHessian:
        vectors, kinds, places = self._padded(bonds, params)
        second = torch.func.hessian(lambda v, c, n: self.site(v, c, n, params))
        size = vectors.shape[:2]
        chunk = max(1, CACHED // (3 * size[1] ** 3))
        full = torch.vmap(second, chunk_size=chunk)(vectors, bonds.kinds, kinds)  # (N, M, 3, M, 3)
        number = torch.full(size, -1).reshape(-1).index_copy(0, places, torch.arange(len(places))).reshape(size)
        one, other = number.unsqueeze(2).expand(*size, size[1]), number.unsqueeze(1).expand(*size, size[1])
        real = (one >= 0) & (other >= 0)
        return BondHessian(one[real], other[real], full.movedim(2, 3)[real])

    def _padded(self, bonds: Bonds, params: Params) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors (N, M, 3) and kinds (N, M) of the neighbours, filled up from beyond the cut-off; places of the bonds."""
        slot, width = bonds.slots()
        width = max(width, 1)
        places = bonds.centre * width + slot
        far = bonds.vectors.new_tensor([2.0 * self.cutoff(params), 0.0, 0.0])
        vectors = far.expand(bonds.atoms * width, 3).index_copy(0, places, bonds.vectors)
        kinds = torch.zeros(bonds.atoms * width, dtype=torch.long).index_copy(0, places, bonds.ends[1])
        return vectors.reshape(-1, width, 3), kinds.reshape(-1, width), places


def second_derivatives(function: Radial, *x: Tensor) -> tuple[Tensor, tuple[Tensor, ...], list[list[Tensor]]]:
    """Values, first and second derivatives of a function that treats every entry of its arguments (E,) by itself."""
    every = tuple(range(len(x)))

    def total(*y: Tensor) -> tuple[Tensor, Tensor]:
        value = function(*y)
        return value.sum(), value

    def slope(k: int, *y: Tensor) -> tuple[Tensor, tuple[Tensor, tuple[Tensor, ...]]]:
        first, value = torch.func.grad(total, every, has_aux=True)(*y)
        return first[k].sum(), (value, first)

    rows = [torch.func.grad(lambda *y, k=k: slope(k, *y), every, has_aux=True)(*x) for k in every]
    value, first = rows[0][1]
    return value, first, [list(row) for row, _ in rows]


def across_and_along(along: Tensor, across: Tensor, normal: Tensor) -> Tensor:
    """along n n^T + across (1 - n n^T), (E, 3, 3), for normals (E, 3)."""
    outer = normal.unsqueeze(-1) * normal.unsqueeze(-2)
    return across[:, None, None] * torch.eye(3).to(normal) + (along - across)[:, None, None] * outer


def numbers(params: Mapping[str, Tensor], name: str) -> Tensor:
    """A parameter as a plain number, for what must not be differentiated."""
    return plain(torch.as_tensor(params[name]))
