"""An embedded-atom potential as tables, for codes that read setfl."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.report import InputError
from physics.atoms.bonds import Bonds
from physics.atoms.formats.setfl import Setfl, pair_order
from physics.atoms.potential import PairFunctional


@torch.no_grad()
def tabulate(potential: PairFunctional, params: Params, *, densest: float, points: int = 5000) -> Setfl:
    """Tables of F up to the density `densest`, f and r phi up to the cut-off, each at so many points.

    Raises InputError for a potential that is neither a pair potential nor an embedded-atom one.
    """
    from ase.data import atomic_masses, atomic_numbers

    if not isinstance(potential, PairFunctional):
        raise InputError(
            f"{type(potential).__name__} has no embedded-atom tables; setfl holds pair and embedding functions"
        )
    cutoff, species = potential.cutoff(params), len(potential.species)
    r = torch.linspace(0.0, cutoff, points, dtype=torch.float64)
    rho = torch.linspace(0.0, densest, points, dtype=torch.float64)
    pairs = {pair: _bonds(pair[0], pair[1], points) for pair in pair_order(species)}
    r_phi = torch.stack([_finite(r * potential.pair(r, bonds, params)) for bonds in pairs.values()])
    embedding, density = r.new_zeros(species, points), r.new_zeros(species, points)
    if potential.embeds:
        for k in range(species):
            density[k] = _finite(potential.density(r, pairs[(0, k)], params))
            embedding[k] = _finite(potential.embedding(rho, _bonds(k, k, points - 1), params))
    numbers = [atomic_numbers[symbol] for symbol in potential.species]
    return Setfl(
        tuple(potential.species), float(rho[1]), float(r[1]), cutoff, embedding.numpy(), density.numpy(), r_phi.numpy(),
        tuple(float(atomic_masses[n]) for n in numbers), ((0.0, "fcc"),) * species,
        (f"{type(potential).__name__} as tables", "units: metal", ""),
    )  # fmt: skip


def _bonds(centre: int, neighbour: int, count: int) -> Bonds:
    """So many atoms of one kind, each with a bond to one more of another."""
    kinds = torch.full((count + 1,), centre)
    kinds[count] = neighbour
    places, zeros = torch.arange(count), torch.zeros(count, 3, dtype=torch.float64)
    return Bonds(zeros, places, torch.full((count,), count), zeros, kinds, places, kinds, zeros, zeros)


def _finite(values: Tensor) -> Tensor:
    """Tables have no room for the infinite value of a pair energy at r = 0."""
    return torch.where(torch.isfinite(values), values, 2.0 * values[1] - values[2] if len(values) > 2 else 0.0)
