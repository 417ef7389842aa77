"""Relaxing many structures: positions, and cells, at rest under a potential, differentiable in its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import bilevel
from bilevel.implicit.strategies import Adjoint
from bilevel.problem import Params
from bilevel.report import GradientReport, InputError, OnFail, Solution, SolveReport, fail
from bilevel.solvers.evaluations import Tolerance
from bilevel.solvers.newton import Newton
from bilevel.solvers.solver import Solver
from physics.atoms.crystal_energy import LARGEST_STRETCH, CrystalEnergy
from physics.atoms.potential import Potential
from physics.atoms.structures import Structures
from physics.atoms.units import GPA

VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")

ALONE_FROM = 100
"""Atoms from which a structure is solved by itself: its Hessian fills the processor."""

UNEVEN = 1.5
"""Structures are solved side by side where the largest has at most so many times the unknowns of the smallest."""

NEARLY = 0.99
"""Which share of the largest stretch is counted as having reached it."""


@dataclass
class Relaxed:
    """Structures at rest.

    structures: with positions and cells that carry gradients. energies (S,): in eV, potential energy alone.
    forces (S,), stresses (S,): the largest force left in eV/angstrom, the largest stress left in GPa (beside the pressure).
    solutions: of the inner solves; `members` says which structures each of them holds. displacements: by structure, for a
    warm start.
    """

    structures: Structures
    energies: Tensor
    forces: Tensor
    stresses: Tensor
    solutions: list[Solution]
    members: list[list[int]]
    displacements: list[Tensor]

    @property
    def reports(self) -> list[SolveReport]:
        return [solution.report for solution in self.solutions]

    @property
    def gradients(self) -> list[GradientReport]:
        """The certificates of all gradients taken so far."""
        return [report for solution in self.solutions for report in solution.gradients]

    @property
    def converged(self) -> list[bool]:
        """Whether each structure (S) came to rest."""
        flags = [False] * len(self.structures)
        for solution, members in zip(self.solutions, self.members):
            for s, status in zip(members, solution.report.status):
                flags[s] = status.ok
        return flags


def relax(
    structures: Structures,
    potential: Potential,
    params: Params,
    *,
    cell: bool | Sequence[str] = True,
    pressure: Tensor | float = 0.0,
    solver: Solver | None = None,
    adjoint: Adjoint | None = None,
    force_tolerance: float = 1e-9,
    stress_tolerance: float = 1e-7,
    start: Sequence[Tensor] | None = None,
    on_fail: OnFail = "raise",
) -> Relaxed:
    """Structures at the minimum of their energy, differentiable in params, positions, cells and loads.

    cell: whether the cells of crystals relax too, or which strain components ("xx", ..., "xy") do. pressure: in GPa.
    solver: Newton by default; its own tolerance is replaced by force_tolerance (eV/angstrom) and stress_tolerance (GPa):
    no force and no stress is larger at the end. start: `displacements` of an earlier relaxation. Raises InputError for
    unknown elements and parameters out of bounds, ConvergenceError, which names the structures that did not converge.
    """
    potential.check(params)
    out = Relaxed(
        structures, torch.empty(0), torch.empty(0), torch.empty(0), [], [], [torch.empty(0)] * len(structures)
    )
    pieces: dict[int, tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = {}
    for members in _side_by_side(structures.counts.tolist()):
        some = structures.select(members)
        problem = CrystalEnergy(some, potential, _strained(some, cell))
        _refuse_held(problem)
        given = problem.parameters(params, torch.as_tensor(pressure, dtype=torch.float64) / GPA)
        tolerance = _tolerance(problem, force_tolerance, stress_tolerance)
        solution = bilevel.argmin(
            problem,
            _start(problem, members, start),
            given,
            solver=replace(solver or Newton(), tolerance=tolerance),  # type: ignore[type-var]
            adjoint=adjoint,
            on_fail="ignore",
        )
        out.solutions.append(solution)
        out.members.append(members)
        _complain(problem, solution, on_fail)
        for s, piece in zip(members, _at_rest(problem, solution.u, given)):
            pieces[s] = piece
            out.displacements[s] = piece[4]
    ordered = [pieces[s] for s in range(len(structures))]
    out.structures = replace(
        structures, positions=torch.cat([p[0] for p in ordered]), cells=torch.stack([p[1] for p in ordered])
    )
    out.energies = torch.stack([p[2] for p in ordered])
    out.forces, out.stresses = torch.stack([p[3] for p in ordered]).unbind(-1)
    return out


def energy_and_forces(structures: Structures, potential: Potential, params: Params) -> tuple[Tensor, Tensor, Tensor]:
    """Energies (S,) in eV, forces (N, 3) in eV/angstrom and stresses (S, 6) in GPa, as they are; differentiable.

    Stresses come in Voigt order xx yy zz yz xz xy, tension positive; they are zero for structures without a cell.
    """
    potential.check(params)
    everything = torch.ones(len(structures), 6, dtype=torch.bool)
    moving = replace(structures, movable=torch.ones_like(structures.movable), loads=torch.zeros_like(structures.loads))
    problem = CrystalEnergy(moving, potential, everything)
    problem.free = torch.ones_like(problem.free)
    given, rest = problem.parameters(params), problem.start()
    energies = problem.energies(rest, given)
    slope = torch.func.grad(lambda u: problem.energies(u, given).sum())(rest).reshape(len(structures), -1)
    forces = -slope.reshape(-1, 3)[problem.layout.nodes]
    periodic = structures.periodic.any(-1)
    volumes = torch.where(periodic, structures.volumes, 1.0)
    stresses = slope[:, :6] * (problem.lengths / volumes * GPA).unsqueeze(-1)
    return energies, forces, torch.where(periodic.unsqueeze(-1), stresses, 0.0)


def _side_by_side(counts: list[int]) -> list[list[int]]:
    """Groups of structures of similar size; large ones by themselves."""
    groups: list[list[int]] = []
    smallest = 0
    for s in sorted(range(len(counts)), key=lambda s: counts[s]):
        unknowns = counts[s] + 2
        if groups and counts[s] < ALONE_FROM and unknowns <= UNEVEN * smallest:
            groups[-1].append(s)
        else:
            groups.append([s])
            smallest = unknowns
    return [sorted(group) for group in groups]


def _strained(structures: Structures, cell: bool | Sequence[str]) -> Tensor:
    if isinstance(cell, bool):
        return (structures.periodic.all(-1) & cell).unsqueeze(-1).expand(-1, 6)
    unknown = [name for name in cell if name not in VOIGT]
    if unknown or isinstance(cell, str):
        raise InputError(f"strain components are a list of {', '.join(VOIGT)}, got {cell!r}")
    return torch.tensor([name in cell for name in VOIGT]).expand(len(structures), 6)


def _refuse_held(problem: CrystalEnergy) -> None:
    held = torch.nonzero(~problem.free.any(-1)).flatten().tolist()
    if held:
        raise InputError(
            f"{problem.structures.names[held[0]]}: every atom and strain component is held; there is nothing to relax"
        )


def _tolerance(problem: CrystalEnergy, force: float, stress: float) -> Tolerance:
    """One for the norm of all forces and scaled stresses, so that each of them meets its own."""
    if not (force > 0 and stress > 0):
        raise InputError(f"tolerances must be positive, got {force} eV/angstrom and {stress} GPa")
    scaled = stress / GPA * problem.structures.volumes.detach() / problem.lengths
    with_cell = problem.free[:, :6].any(-1)
    smallest = float(torch.where(with_cell, scaled, torch.inf).min())
    return Tolerance(relative=1e-14, absolute=min(force, smallest))


def _start(problem: CrystalEnergy, members: list[int], start: Sequence[Tensor] | None) -> Tensor:
    u = problem.start()
    if start is None:
        return u
    padded = [torch.nn.functional.pad(start[s], (0, problem.n - len(start[s]))) for s in members]
    return torch.stack(padded).reshape(u.shape)


def _complain(problem: CrystalEnergy, solution: Solution, on_fail: OnFail) -> None:
    names, report = problem.structures.names, solution.report
    failed = [s for s, status in enumerate(report.status) if not status.ok]
    if not failed:
        return
    first = failed[0]
    among = f"{len(failed)} of {len(names)} structures: {', '.join(names[s] for s in failed[:5])}"
    others = f" ({among})" if len(failed) > 1 else ""
    sentence = (
        f"{names[first]} did not come to rest{others}: {report.status[first].value} ({report.iterations} iterations, forces "
        f"{float(report.residual.reshape(-1)[first]):.3g} eV/angstrom)"
    )
    if bool(problem.out_of_shape(solution.u.detach(), NEARLY)[first]):
        sentence += (
            f"; its cell has changed by the factor {LARGEST_STRETCH:g}, as far as one relaxation goes: start from a cell nearer "
            "to rest, unless the potential has no minimum there"
        )
    fail(sentence, on_fail)


def _at_rest(problem: CrystalEnergy, u: Tensor, params: Params) -> list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """For each structure: positions, cell, energy, (largest force, largest stress), displacements."""
    structures = problem.structures
    positions, cells = problem.placed(u, params)
    bonds, _ = problem.bonds(u, params)
    with torch.no_grad():
        problem.potential.inspect(bonds, params["potential"], structures.names)
        residual = problem.residual(u.detach(), params).detach().reshape(len(structures), -1)
    energies = problem.energies(u, params)
    force = residual[:, 6:].abs().amax(-1)
    stress = residual[:, :6].abs().amax(-1) * problem.lengths / structures.volumes.detach() * GPA
    left = torch.stack([force, stress], -1)
    flat = u.detach().reshape(len(structures), -1)
    return list(zip(positions.split(structures.counts.tolist()), cells, energies, left, flat, strict=True))
