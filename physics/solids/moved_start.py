"""Where to begin when supports have moved: a body left at rest between them has its first cells turned inside out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bilevel.linalg import factorise
from bilevel.problem import Params
from bilevel.report import BilevelError, Counts, SingularError
from bilevel.solvers.cellwise.problem import Guess
from physics.local.energy import LocalEnergy
from physics.solids.cellwise.cells import SolidCells
from physics.solids.extension import Extension

SYSTEMS = 10
"""At most so many linear systems; few bodies take more than four."""


@torch.no_grad()
def moved_start(
    body: LocalEnergy, by_cells: Callable[[], SolidCells | None], coordinates: Tensor, params: Params
) -> Guess:
    """The displacements (n,) near which an equilibrium should lie, and what it took to find them.

    Linear elasticity, where strains are small. Else an extension of the supports' own motion (`Extension.rigid`), and from there,
    for bodies with mean dilatation, Newton's method on displacements and pressures (`LinearisedSolid`): with the pressure
    as an unknown of its own a body that hardly changes its volume is no stiffer than its shear modulus. It ends near a
    solution, or where it gets nowhere. Of all these fields, and rest, the one of least energy. Raises what factorisations
    raise; a body without moved supports begins at rest.
    by_cells: makes the body as linear systems with pressures, if it has that form. coordinates (nodes, d): where its nodes are at rest.
    """
    rest = body.start()
    moved = body.expand(rest, params)
    if not bool(moved.any()):
        return Guess(rest)
    counts, found = Counts(), [rest]
    cells = by_cells()
    if cells is not None:
        found += _by_systems(cells, body, coordinates, params, moved, counts)
    else:
        found += _by_extension(body, coordinates, params, moved, counts)
    counts.values += len(found)
    energies = torch.stack([torch.nan_to_num(body.value(u, params), nan=torch.inf) for u in found])
    return Guess(found[int(energies.argmin())], counts=counts)


def _by_extension(
    body: LocalEnergy, coordinates: Tensor, params: Params, moved: Tensor, counts: Counts
) -> list[Tensor]:
    found = []
    starts = (lambda: _linear(body, params, moved), lambda: Extension(body, params).rigid(moved, coordinates.to(moved)))
    for start in starts:
        try:
            found.append(start())
            counts.factorisations += 1
        except SingularError:  # a body that only its stress or its loads hold: rest will do
            continue
    return found


def _by_systems(
    cells: SolidCells, body: LocalEnergy, coordinates: Tensor, params: Params, moved: Tensor, counts: Counts
) -> list[Tensor]:
    fields = []
    try:
        linear = cells.at_rest(body.start())
        counts.add(linear.counts)
        fields.append(linear.u)
        if cells.near_solution(linear):
            return fields
        fields.append(Extension(body, params).rigid(moved, coordinates.to(moved)))
        counts.factorisations += 1
        guess = cells.about_field(fields[-1])
        gaps = [cells.gap(guess)]
        while True:
            fields.append(guess.u)
            lost = len(gaps) > 2 and not gaps[-1] < gaps[-3]
            if lost or len(gaps) == SYSTEMS or cells.near_solution(guess):
                break
            guess = cells.solve(guess)
            gaps.append(cells.gap(guess))
        counts.add(guess.counts)
    except BilevelError:  # ends the guess, not the solve
        counts.fallbacks += 1
    return fields


def _linear(body: LocalEnergy, params: Params, moved: Tensor) -> Tensor:
    """Linearised about rest, loads and all."""
    still = torch.zeros_like(moved)
    forces, transposed = torch.func.vjp(lambda full: body.nodal_forces(full, params), still)[:2]
    force = body.constraints.reduce(forces + transposed(moved)[0])  # the tangent is symmetric
    return -factorise(body.assembled(still, params)).solve(force)
