"""Where to begin when supports have moved: a body left at rest between them has its first cells turned inside out."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bilevel.linalg import Sparse, factorise
from bilevel.problem import Params
from bilevel.report import SingularError
from physics.local.energy import LocalEnergy
from physics.local.pieces import pieces


@torch.no_grad()
def moved_start(body: LocalEnergy, params: Params) -> Tensor:
    """The displacements (n,) of least energy among none, linear elasticity, and the harmonic extension of the supports' own.

    Linear elasticity is near where rotations are small; the harmonic extension inverts no cell of a body that is stretched.
    Raises what factorisations raise; a body without moved supports begins at rest.
    """
    rest = body.start()
    moved = body.expand(rest, params)
    if not bool(moved.any()):
        return rest
    found = [rest]
    for start in (_linear, _harmonic):
        try:
            found.append(start(body, params, moved))
        except SingularError:  # a body that only its stress or its loads hold: rest will do
            continue
    energies = torch.stack([torch.nan_to_num(body.value(u, params), nan=torch.inf) for u in found])
    return found[int(energies.argmin())]


def _linear(body: LocalEnergy, params: Params, moved: Tensor) -> Tensor:
    """Linearised about rest, loads and all."""
    still = torch.zeros_like(moved)
    change = torch.func.vjp(lambda full: body.nodal_forces(full, params), still)[1](moved)[
        0
    ]  # the tangent is symmetric
    force = body.constraints.reduce(body.nodal_forces(still, params) + change)
    return -factorise(body.assembled(still, params)).solve(force)


def _harmonic(body: LocalEnergy, params: Params, moved: Tensor) -> Tensor:
    """Each component by itself, where the squares of its gradient are least."""
    scatter, force = body.scatter, torch.zeros_like(moved)
    sums = scatter.zeros(moved)
    for rows, cells, matrices in _laplacians(body, params, moved):
        planes = matrices.new_zeros(len(scatter.planes), *matrices.shape)
        for number, (i, k) in enumerate(scatter.planes):
            if i == k:
                planes[number] = matrices
        scatter.add(sums, planes, 0, rows)
        force.index_add_(0, cells.reshape(-1), (matrices @ moved[cells]).flatten(0, 1))
    matrix = Sparse(scatter.pattern, scatter.finish(sums), body.structure)
    return -factorise(matrix).solve(body.constraints.reduce(force))


def _laplacians(body: LocalEnergy, params: Params, full: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Some cells at a time: which, their nodes (e, A), and the integrals (e, A, A) of products of gradients."""
    material = body.terms[0]
    fields, coordinates = body.fields(material, params), (params or {}).get("coordinates")
    for piece in pieces(material, full, fields, coordinates):
        gradients = piece.matrix[..., : full.shape[1]]
        matrices = torch.einsum("eaqi,ebqi,eq->eab", gradients, gradients, piece.weights)
        yield piece.rows, material.operator.cells[piece.rows], matrices
