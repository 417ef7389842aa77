"""Smoothed total variation as linear systems made from gradients and fluxes that cells choose by themselves.

In units of e and a (see `variation_systems`), flux w and gradient g obey w r = g with r = sqrt(|g|^2 + 1). Newton's
method on that equation (Chan, Golub & Mulet 1999, SIAM J. Sci. Comput. 20, 1964, with the matrix made symmetric) takes
for the flux of the next gradient G

    g / r + D (G - g),    D = (I - (w g' + g w') / 2r) / r

with g and w as the last linear system left them. A network says how far to go from there, for each cell by a few
factors of vectors that the cell has anyway, so that it turns with the mesh.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from bilevel.report import Counts, InputError
from bilevel.solvers.cellwise.problem import Guess, Incidence
from bilevel.solvers.cellwise.split import BALANCED
from bilevel.solvers.cellwise.unrolled import UnrolledProblem
from physics.discretisation.matmul import matmul
from physics.local.total_variation.systems import VariationSystems

COARSE = 100.0
"""The start is the solution of the problem with |g|^2 in place of the total variation, of equal cost at this many e."""

SAME_START = 1e-6
"""A start is taken for that solution where its fluxes balance the misfit to this fraction of it."""

LARGEST_FLUX = 0.9999
"""Fluxes, as a fraction of what the total variation allows, are cut here."""

NEAR = 1e-3
"""Where the fluxes of the gradients differ from those of the linear system by less than this fraction, Newton ends it."""

FADING = 0.03
"""Below this difference of fluxes the network's say fades with it, so that convergence stays superlinear."""

WIDEST = 20.0
"""Gradients are cut here on the arc scale: e^20 / 2 times the smoothing."""

FAINT = 1e-15
"""Lengths of vectors are at least this."""


@dataclass(frozen=True, eq=False)
class Gradients:
    """The cells' gradients and fluxes (E, dim) as a linear system left them, in units of e and of a.

    before (E, 1), direction (E, dim): the size, on the arc scale, and direction of the gradients one system earlier.
    """

    primal: Tensor
    flux: Tensor
    before: Tensor
    direction: Tensor


class VariationCells(UnrolledProblem):
    """A denoising problem on a mesh of linear cells; items are the cells, nodes the nodes.

    coarse: the start solves the quadratic problem whose gradients cost as much as those of size coarse * e do.
    """

    outputs = ("length", "towards the dual", "turn", "onward", "flux", "stiffness")
    feature_count = 12

    def __init__(self, systems: VariationSystems, coarse: float = COARSE) -> None:
        self.systems, self.coarse = systems, coarse
        count, nodes = systems.cells.shape
        pairs = torch.stack((torch.arange(count).repeat_interleave(nodes), systems.cells.reshape(-1)))
        self.incidence = Incidence(count, len(systems.data), pairs, torch.empty(pairs.shape[1], 0))

    @staticmethod
    def side_by_side(parts: Sequence[UnrolledProblem]) -> VariationCells:
        own = [part for part in parts if isinstance(part, VariationCells)]
        return VariationCells(VariationSystems.side_by_side([part.systems for part in own]), own[0].coarse)

    def begin(self, start: Tensor) -> Guess:
        """The start with its own fluxes if they nearly balance, else the quadratic problem's solution with the fluxes of that."""
        counts, u, gradients = Counts(), start, self.systems.gradients(start)
        if self._imbalance(u, _flux(gradients)) <= BALANCED:
            return Guess(u, _left(gradients, _flux(gradients), gradients), counts)
        if self._imbalance(u, gradients / self.coarse) > SAME_START:
            u, counts = self.first(), Counts(factorisations=1, back_substitutions=1)
            gradients = self.systems.gradients(u)
        return Guess(u, _left(gradients, gradients / self.coarse, gradients), counts)

    def _imbalance(self, u: Tensor, flux: Tensor) -> float:
        """How far fluxes (E, dim) are from balancing the misfit, relative to that."""
        systems = self.systems
        misfit = systems.mass * (u - systems.data)
        return float((misfit + systems.divergence(systems.cost[:, None] * flux)).norm() / misfit.norm())

    def first(self) -> Tensor:
        """The solution u (n,) of the quadratic problem."""
        count, dim = len(self.systems.cells), self.systems.dim
        slope = torch.eye(dim, dtype=torch.float64).expand(count, dim, dim) / self.coarse
        return self.systems.solution(slope, torch.zeros(count, dim, dtype=torch.float64))[0]

    def detached(self, guess: Guess) -> Guess:
        now: Gradients = guess.memory
        kept = Gradients(now.primal.detach(), now.flux.detach(), now.before.detach(), now.direction.detach())
        return Guess(guess.u.detach(), kept, guess.counts)

    def near_solution(self, guess: Guess) -> bool:
        return bool((self._difference(guess) <= NEAR).all())

    def excess(self, guess: Guess, solution: Tensor) -> Tensor:
        systems, now = self.systems, guess.memory.primal
        then = systems.gradients(solution)
        of_cells = systems.cost * ((_flux(now) - _flux(then)) * (now - then)).sum(1)
        return systems.cell_totals(of_cells) + systems.node_totals(systems.mass * (guess.u - solution).square())

    def features(self, guess: Guess) -> Tensor:
        """Lengths on the arc scale, angles, and the misfit against what the total variation can tell; float32."""
        now: Gradients = guess.memory
        gradient, flux = now.primal.float(), now.flux.float()
        size, carried = _size(gradient)[:, 0], _size(flux)[:, 0]
        arc, allowed = torch.asinh(size), carried.clamp(max=LARGEST_FLUX)
        own = size / (size.square() + 1.0).sqrt()
        unit = gradient / size[:, None]
        aligned = _dot(unit, flux) / carried
        apart = (own.square() + carried.square() - 2.0 * own * carried * aligned).clamp(min=0.0).sqrt()
        misfit = ((guess.u - self.systems.data) / self._contrast).float()[self.systems.cells]
        mean = misfit.mean(1)
        data, of_data, sharpness = self._constant
        columns = (
            arc / 4.0,
            carried.clamp(max=3.0),
            torch.atanh(allowed) / 4.0,
            aligned,
            apart.clamp(max=3.0),
            of_data / 4.0,
            _dot(unit, data),
            (arc - now.before[:, 0].float()) / 4.0,
            _dot(unit, now.direction.float()),
            torch.asinh(mean.abs()),
            torch.asinh(_size(misfit - mean[:, None])[:, 0]),
            sharpness,
        )
        return torch.stack([column.clamp(-5.0, 5.0) for column in columns], 1)

    def solve(self, guess: Guess, outputs: Tensor) -> Guess:
        """The next state; differentiable in `outputs` (E, 6) and in the state."""
        now: Gradients = guess.memory
        about, flux, stiffness = now.primal, _allowed(now.flux), torch.ones_like(now.before)
        if outputs.requires_grad or bool(outputs.any()):
            about, flux, stiffness = self._asked(guess, outputs)
        root = (_dot(about, about)[:, None] + 1.0).sqrt()
        unit = about / root
        crossed = 0.5 * flux[:, :, None] * unit[:, None, :]
        identity = torch.eye(about.shape[1], dtype=about.dtype)
        slope = (identity - crossed - crossed.mT) * (stiffness / root)[:, :, None]
        offset = unit - _times(slope, about)
        u, gradients = self.systems.solution(slope, offset, self.linear_solver)
        counts = replace(
            guess.counts,
            tangents=guess.counts.tangents + 1,
            factorisations=guess.counts.factorisations + 1,
            back_substitutions=guess.counts.back_substitutions + 1,
        )
        return Guess(u, _left(gradients, _times(slope, gradients) + offset, now.primal), counts)

    def targets(self, guess: Guess, solution: Tensor) -> Tensor:
        """None: a few factors of vectors do not reach the solution's state. Raises InputError."""
        raise InputError("total variation has no targets to teach a network supervised; train it unrolled")

    def _asked(self, guess: Guess, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients and fluxes (E, dim) to linearise about, and the factor (E, 1) of the slope."""
        now: Gradients = guess.memory
        say = (self._difference(guess) / FADING).clamp(max=1.0)[self.systems.of_cell]
        length, dual, turn, onward, along, stiffness = (say[:, None] * outputs).T.contiguous()[:, :, None].unbind(0)
        size, flux = _size(now.primal), _allowed(now.flux)
        arc, carried, unit = torch.asinh(size), _size(flux), now.primal / size
        direction = unit + turn * (flux / carried - unit)
        far = arc * (1.0 + length) + dual * (torch.atanh(carried) - arc) + onward * (arc - now.before)
        about = direction * (torch.sinh(far.clamp(-WIDEST, WIDEST)) / _size(direction))
        return about, _allowed(flux + along * (_flux(now.primal) - flux)), stiffness.clamp(-3.0, 3.0).exp()

    def _difference(self, guess: Guess) -> Tensor:
        """Between the fluxes of the gradients and those of the linear system, as a fraction, for each part (parts,)."""
        now: Gradients = guess.memory
        true, totals = _flux(now.primal), self.systems.cell_totals
        return (totals(_dot(true - now.flux, true - now.flux)) / totals(_dot(true, true))).sqrt()

    @cached_property
    def _contrast(self) -> Tensor:
        """The contrast (n,) of the cells around each node."""
        volume = self.systems.volume
        return self.systems.to_nodes(volume * self.systems.contrast) / self.systems.to_nodes(volume)

    @cached_property
    def _constant(self) -> tuple[Tensor, Tensor, Tensor]:
        """What does not change from system to system: the data's gradients, and the smoothing against the contrast."""
        systems = self.systems
        gradients = systems.gradients(systems.data)
        size = _size(gradients)
        sharpness = 0.1 * (systems.smoothing * systems.size / systems.contrast).log()
        return (gradients / size).float(), torch.asinh(size[:, 0]).float(), sharpness.float()


def _left(gradients: Tensor, flux: Tensor, before: Tensor) -> Gradients:
    size = _size(before)
    return Gradients(gradients, flux, torch.asinh(size), before / size)


def _flux(gradients: Tensor) -> Tensor:
    return gradients / (_dot(gradients, gradients)[:, None] + 1.0).sqrt()


def _allowed(flux: Tensor) -> Tensor:
    return flux * (LARGEST_FLUX / _size(flux).clamp(min=LARGEST_FLUX))


def _size(vectors: Tensor) -> Tensor:
    """Lengths (E, 1), never zero, so that they can be divided by and differentiated."""
    return (_dot(vectors, vectors)[:, None] + FAINT**2).sqrt()


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Products (E,) of vectors (E, dim): a sum of columns takes a tenth of the time of a reduction over so few."""
    columns = [a * b for a, b in zip(one.unbind(1), other.unbind(1))]
    return torch.stack(columns).sum(0)


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    return matmul(matrices, vectors[:, :, None])[:, :, 0]
