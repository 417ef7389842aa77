"""From second derivatives in bond vectors to those in the strains of cells and the displacements of atoms.

Bond vectors are linear in the unknowns: v = v0 (1 + strain) + u_neighbour - u_centre. The unknowns of a structure are
its nodes of three entries each: two that hold its strain in Voigt order over a length L, then one for each atom.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from physics.atoms.bonds import Bonds
from physics.atoms.potential import BondHessian

STRAIN_NODES = 2


@dataclass(frozen=True)
class NodeLayout:
    """Where the unknowns of S structures are: nodes (N,) of the atoms among all S * width nodes."""

    nodes: Tensor
    width: int
    count: int

    @staticmethod
    def of(counts: Tensor) -> NodeLayout:
        """For structures of the given numbers of atoms (S,), padded to the largest."""
        width = STRAIN_NODES + int(counts.max())
        starts = counts.cumsum(0) - counts
        owner = torch.repeat_interleave(torch.arange(len(counts)), counts)
        place = torch.arange(int(counts.sum())) - starts[owner]
        return NodeLayout(owner * width + STRAIN_NODES + place, width, len(counts))


def strain_matrix(voigt: Tensor) -> Tensor:
    """Symmetric strains (..., 3, 3) from Voigt strains (..., 6): xx yy zz yz xz xy, shears as angles."""
    xx, yy, zz, yz, xz, xy = voigt.unbind(-1)
    return torch.stack([xx, xy / 2, xz / 2, xy / 2, yy, yz / 2, xz / 2, yz / 2, zz], -1).unflatten(-1, (3, 3))


def strain_derivative(vectors: Tensor, lengths: Tensor) -> Tensor:
    """d(v0 strain) / d(scaled Voigt strain) (E, 3, 6) for vectors at rest (E, 3) and lengths L (E,)."""
    basis = strain_matrix(torch.eye(6).to(vectors))
    return torch.einsum("ea,kab->ebk", vectors, basis) / lengths[:, None, None]


def assemble(hessian: BondHessian, bonds: Bonds, strain: Tensor, layout: NodeLayout) -> Tensor:
    """The Hessians (S, 3 W, 3 W) in all unknowns; strain (E, 3, 6) from `strain_derivative`; differentiable."""
    width, count = layout.width, layout.count
    centre, neighbour = layout.nodes[bonds.centre], layout.nodes[bonds.neighbour]
    first, second, blocks = hessian.first, hessian.second, hessian.blocks
    one, other = centre[first], neighbour[second]
    flat = blocks.reshape(-1, 9)
    nodes = blocks.new_zeros(count * width, 9).index_add(0, one, flat)
    between = blocks.new_zeros(count * width * width, 9).index_add(0, one * width + other % width, -flat)
    far = neighbour[first] * width + other % width
    every = torch.arange(count * width)
    whole = (
        blocks.new_zeros(count * width * width, 9)
        .index_add(0, far, flat)
        .index_add(0, every * width + every % width, nodes)
    )
    between, whole = (part.reshape(count, width, width, 3, 3).transpose(2, 3) for part in (between, whole))
    size = (count, 3 * width, 3 * width)
    atoms = (whole.reshape(size) + between.reshape(size) + between.reshape(size).mT)[:, 6:, 6:]
    cross = blocks @ strain[second]  # (P, 3, 6)
    pulled = cross.reshape(-1, 18)
    edge = blocks.new_zeros(count * width, 18).index_add(0, neighbour[first], pulled).index_add(0, one, -pulled)
    edge = edge.reshape(count, 3 * width, 6)[:, 6:]
    corner = blocks.new_zeros(count, 36).index_add(0, one // width, (strain[first].mT @ cross).reshape(-1, 36))
    joined = torch.cat([torch.cat([corner.reshape(count, 6, 6), edge.mT], 2), torch.cat([edge, atoms], 2)], 1)
    if hessian.weight is None or hessian.slope is None:
        return joined
    return joined + _rank_one(hessian.weight, hessian.slope, bonds, strain, layout)


def _rank_one(weight: Tensor, slope: Tensor, bonds: Bonds, strain: Tensor, layout: NodeLayout) -> Tensor:
    """sum_i w_i s_i s_i^T (S, 3 W, 3 W) with s_i the slope of atom i's density in all unknowns of its structure."""
    width, count = layout.width, layout.count
    rows = bonds.atoms
    slopes = slope.new_zeros(count * width * width, 3)
    own = layout.nodes * width  # each atom's row among (S, W nodes)
    for node, sign in ((layout.nodes[bonds.centre], -1.0), (layout.nodes[bonds.neighbour], 1.0)):
        slopes = slopes.index_add(0, own[bonds.centre] + node % width, sign * slope)
    strained = torch.einsum("ebk,eb->ek", strain, slope)
    strained = slope.new_zeros(rows, 6).index_add(0, bonds.centre, strained)
    for k in range(STRAIN_NODES):
        slopes = slopes.index_add(0, own + k, strained[:, 3 * k : 3 * k + 3])
    slopes = slopes.reshape(count, width, 3 * width)
    weights = weight.new_zeros(count * width).index_add(0, layout.nodes, weight).reshape(count, width, 1)
    return slopes.mT @ (weights * slopes)


def products(
    hessian: BondHessian, bonds: Bonds, rest: Tensor, length: Tensor, layout: NodeLayout
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The product with the same Hessian of one structure, for vectors (3 W,), and its diagonal (3 W,); in numbers.

    rest (E, 3): the bond vectors without strain; length: L.
    """
    centre, neighbour = layout.nodes[bonds.centre], layout.nodes[bonds.neighbour]
    size = (layout.width, 3)

    def product(x: Tensor) -> Tensor:
        nodes = x.reshape(size)
        moved = nodes[neighbour] - nodes[centre] + rest @ strain_matrix(x[:6] / length)
        local = (hessian.blocks @ moved[hessian.second].unsqueeze(-1)).squeeze(-1)
        forces = torch.zeros_like(moved).index_add(0, hessian.first, local)
        if hessian.weight is not None and hessian.slope is not None:
            denser = hessian.weight * bonds.sum_at_centres((hessian.slope * moved).sum(-1))
            forces = forces + denser[bonds.centre].unsqueeze(-1) * hessian.slope
        image = forces.new_zeros(size).index_add(0, neighbour, forces).index_add(0, centre, -forces).reshape(-1)
        virial = rest.mT @ forces / length
        shears = 0.5 * (virial + virial.mT)
        strained = torch.stack([*virial.diagonal(), shears[1, 2], shears[0, 2], shears[0, 1]])
        return torch.cat([strained, image[6:]])

    own = hessian.first == hessian.second
    stiff, bond = hessian.blocks[own].diagonal(dim1=1, dim2=2).abs(), hessian.first[own]
    diagonal = stiff.new_zeros(size).index_add(0, centre[bond], stiff).index_add(0, neighbour[bond], stiff).reshape(-1)
    corner = torch.stack([product(e)[k] for k, e in enumerate(torch.eye(6, len(diagonal)).to(diagonal))])
    return product, torch.cat([corner.abs(), diagonal[6:]])


def dynamical(hessian: BondHessian, bonds: Bonds, phases: Tensor) -> Tensor:
    """sum over bonds of conj(B)^T K B (3 N, 3 N), complex, for atoms that move as waves: B dv = phase u_neighbour - u_centre.

    phases (E,): exp(i q . R) of the cell that each bond ends in.
    """
    n = bonds.atoms
    first, second = hessian.first, hessian.second
    ends = ((bonds.centre, -torch.ones_like(phases)), (bonds.neighbour, phases))
    whole = phases.new_zeros(n * n, 9)
    for one, left in ends:
        for other, right in ends:
            factor = left[first].conj() * right[second]
            blocks = factor.unsqueeze(-1) * hessian.blocks.reshape(-1, 9)
            whole = whole.index_add(0, one[first] * n + other[second], blocks)
    matrix = whole.reshape(n, n, 3, 3).transpose(1, 2).reshape(3 * n, 3 * n)
    if hessian.weight is None or hessian.slope is None:
        return matrix
    slopes = phases.new_zeros(n * n, 3)
    for other, factor in ends:
        slopes = slopes.index_add(0, bonds.centre * n + other, factor.unsqueeze(-1) * hessian.slope)
    slopes = slopes.reshape(n, 3 * n)
    return matrix + slopes.mH @ (hessian.weight.unsqueeze(-1) * slopes)
