"""From second derivatives in bond vectors to those in the strains of cells and the displacements of atoms.

Bond vectors are linear in the unknowns: v = v0 (1 + strain) + u_neighbour - u_centre. The unknowns of a structure are
its nodes of three entries each: two that hold its strain in Voigt order over a length L, then one for each atom.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from physics.atoms.bonds import Bonds
from physics.atoms.potential import BondHessian

if TYPE_CHECKING:
    from scipy import sparse

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


Blocks = tuple[Tensor, Tensor, Tensor]
"""Rows (M,), columns (M,) and values (M, 3, 3) or (M, 1, 3) of a matrix of nodes; places may occur more than once."""


def assemble(hessian: BondHessian, bonds: Bonds, strain: Tensor | None, layout: NodeLayout) -> Tensor:
    """The Hessians (S, 3 W, 3 W) in all unknowns; differentiable.

    strain (E, 3, 6): from `strain_derivative`; None where no cell changes.
    """
    width, count, three = layout.width, layout.count, torch.arange(3)
    one, other, blocks = _stiff(hessian, bonds, strain, layout)
    rows, columns = 3 * one.unsqueeze(-1) + three, 3 * (other % width).unsqueeze(-1) + three
    places = (3 * width * rows).unsqueeze(-1) + columns.unsqueeze(-2)
    flat = blocks.new_zeros(count * (3 * width) ** 2).index_add(0, places.reshape(-1), blocks.reshape(-1))
    matrix = flat.reshape(count, 3 * width, 3 * width)
    if hessian.weight is None or hessian.slope is None:
        return matrix
    one, other, values = _density_slopes(hessian.slope, bonds, strain, layout)
    flat = values.new_zeros(count * width * width, 3).index_add(0, one * width + other % width, values.squeeze(1))
    slopes = flat.reshape(count, width, 3 * width)
    weights = hessian.weight.new_zeros(count * width).index_add(0, layout.nodes, hessian.weight)
    return matrix + slopes.mT @ (weights.reshape(count, width, 1) * slopes)


def products(
    hessian: BondHessian, bonds: Bonds, strain: Tensor | None, layout: NodeLayout
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The product with the same Hessian of one structure, for vectors (3 W,), and its diagonal (3 W,); in numbers."""
    stiff = _compressed(_stiff(hessian, bonds, strain, layout), layout.width)
    diagonal = stiff.diagonal()
    if hessian.weight is None or hessian.slope is None:
        return lambda x: torch.from_numpy(stiff @ x.numpy()), torch.from_numpy(diagonal)
    slopes = _compressed(_density_slopes(hessian.slope, bonds, strain, layout), layout.width)
    upright, weight = slopes.T.tocsr(), np.zeros(layout.width)
    weight[layout.nodes.numpy()] = hessian.weight.numpy()

    def product(x: Tensor) -> Tensor:
        y = x.numpy()
        return torch.from_numpy(stiff @ y + upright @ (weight * (slopes @ y)))

    return product, torch.from_numpy(diagonal + upright.multiply(upright) @ weight)


def _stiff(hessian: BondHessian, bonds: Bonds, strain: Tensor | None, layout: NodeLayout) -> Blocks:
    """All but the part of rank one: each pair of bonds couples its three atoms, and the cell."""
    centre, first = layout.nodes[bonds.centre][hessian.first], layout.nodes[bonds.neighbour][hessian.first]
    second, blocks = layout.nodes[bonds.neighbour][hessian.second], hessian.blocks
    rows, columns = [first, first, centre, centre], [second, centre, second, centre]
    values = [blocks, -blocks, -blocks, blocks]
    if strain is not None:
        starts = layout.width * torch.arange(layout.count)
        every = torch.arange(layout.count * layout.width)
        cell = every // layout.width * layout.width  # the first strain node of each node's structure
        cross = blocks @ strain[hessian.second]  # (P, 3, 6)
        edge = blocks.new_zeros(len(every), 3, 6).index_add(0, first, cross).index_add(0, centre, -cross)
        corner = blocks.new_zeros(layout.count, 6, 6)
        corner = corner.index_add(0, centre // layout.width, strain[hessian.first].mT @ cross)
        for k, mine in enumerate(edge.split(3, -1)):
            rows, columns, values = [*rows, every, cell + k], [*columns, cell + k, every], [*values, mine, mine.mT]
            for m, block in enumerate(corner[:, 3 * k : 3 * k + 3].split(3, -1)):
                rows, columns, values = [*rows, starts + k], [*columns, starts + m], [*values, block]
    return torch.cat(rows), torch.cat(columns), torch.cat(values)


def _density_slopes(slope: Tensor, bonds: Bonds, strain: Tensor | None, layout: NodeLayout) -> Blocks:
    """The slope of each atom's density in all nodes, one row for each atom at the place of its node."""
    own, neighbour = layout.nodes, layout.nodes[bonds.neighbour]
    at_centre = slope.new_zeros(bonds.atoms, 3).index_add(0, bonds.centre, slope)
    rows, columns, values = [own[bonds.centre], own], [neighbour, own], [slope, -at_centre]
    if strain is not None:
        strained = (slope.unsqueeze(1) @ strain).squeeze(1)
        strained = slope.new_zeros(bonds.atoms, 6).index_add(0, bonds.centre, strained)
        for k, mine in enumerate(strained.split(3, -1)):
            rows, columns, values = [*rows, own], [*columns, own // layout.width * layout.width + k], [*values, mine]
    return torch.cat(rows), torch.cat(columns), torch.cat(values).unsqueeze(1)


def _compressed(matrix: Blocks, width: int) -> sparse.csr_matrix:
    """The matrix of one structure in compressed rows, blocks at the same place added."""
    from scipy.sparse import bsr_matrix

    rows, columns, values = matrix
    keys, place = torch.unique(rows * width + columns, return_inverse=True)
    height = values.shape[1]
    data = values.new_zeros(len(keys), height * 3).index_add(0, place, values.reshape(len(values), -1))
    ends = torch.bincount(keys // width, minlength=width).cumsum(0)
    starts = torch.nn.functional.pad(ends, (1, 0)).numpy()
    blocks = data.reshape(-1, height, 3).numpy()
    return bsr_matrix((blocks, (keys % width).numpy(), starts), shape=(height * width, 3 * width)).tocsr()


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
