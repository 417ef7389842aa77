"""The inner problem: the energy of atoms and cells as a function of displacements and strains."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.linalg.operator import Dense, LinearOperator, MatrixFree, Structure
from bilevel.problem import DENSE_LIMIT, EnergyProblem, Params, dense_jacobian
from bilevel.torch_internals import is_transformed, plain, pytree
from physics.atoms.bonds import Bonds
from physics.atoms.hessian import STRAIN_NODES, NodeLayout, assemble, products, strain_derivative, strain_matrix
from physics.atoms.neighbours import Neighbours
from physics.atoms.potential import BondHessian, Potential
from physics.atoms.rigid import held_and_null
from physics.atoms.structures import Structures, times

LARGEST_STRETCH = 2.0
"""How much longer or shorter a cell may become than it was at the start."""

FACTORISED_UP_TO = 2000
"""Unknowns up to which the Hessian is assembled: its matrix is dense, for bonds reach far. Beyond, conjugate gradients win."""


class CrystalEnergy(EnergyProblem):
    """E(strains, displacements) + pressure volume - loads . positions of S structures, a batch where S > 1.

    Positions are r0 (1 + strain) + u and cells H0 (1 + strain). The unknown (S, 3 W), or (3 W,) of one structure, has two
    nodes for the stretch (1 + strain, in Voigt order) times L, then one for each atom; L = sqrt(atoms) (volume per
    atom)^(1/3) brings it to the size of displacements. Entries that are held, or only pad, have a unit spring to their
    start. It is the stretch and not the strain, for solvers judge rounding by H u: near the start that must not vanish.
    Parameters: "potential", "positions" (N, 3), "cells" (S, 3, 3), "pressure" (), "loads" (N, 3).
    strained (S, 6): which strain components are free.
    """

    def __init__(self, structures: Structures, potential: Potential, strained: Tensor) -> None:
        self.structures, self.potential = structures, potential
        self.batch_dims = int(len(structures) > 1)
        self.layout = NodeLayout.of(structures.counts)
        self.kinds = potential.kinds(structures.numbers, structures.owner, structures.names)
        self.neighbours = Neighbours(structures.counts, structures.periodic)
        self.owner = structures.owner
        self.lengths = stretch_lengths(structures)
        self._latest: tuple[list[Tensor], LinearOperator] | None = None
        self.free, null = held_and_null(structures, strained, self.layout)
        self.structure = Structure(symmetric=True, null_space=null if self.batch_dims else _first(null))

    @property
    def n(self) -> int:
        return 3 * self.layout.width

    def start(self) -> Tensor:
        """No strain, no displacement."""
        rest = torch.zeros(len(self.structures), self.n, dtype=torch.float64)
        rest[:, :3] = self.lengths.unsqueeze(-1)
        return rest if self.batch_dims else rest[0]

    def parameters(self, potential: Params, pressure: Tensor | float = 0.0) -> dict[str, Params]:
        """What the energy depends on, from the potential's parameters."""
        given = self.structures
        return {
            "potential": potential,
            "positions": given.positions,
            "cells": given.cells,
            "pressure": torch.as_tensor(pressure, dtype=torch.float64),
            "loads": given.loads,
        }

    def placed(self, u: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Positions (N, 3) and cells (S, 3, 3) at u."""
        strain, moved = self._split(u)
        gradient = torch.eye(3).to(strain) + strain
        rest = params["positions"]
        return times(rest, gradient, self.owner) + moved, params["cells"] @ gradient

    def bonds(self, u: Tensor, params: Params) -> tuple[Bonds, Tensor]:
        """The bonds at u, and their vectors (E, 3) at rest; differentiable."""
        centre, neighbour, images = self._pairs(u, params)
        strain, moved = self._split(u)
        owner, rest = self.owner[centre], params["positions"]
        at_rest = rest[neighbour] - rest[centre] + times(images, params["cells"], owner)
        gradient = torch.eye(3).to(strain) + strain
        vectors = times(at_rest, gradient, owner) + moved[neighbour] - moved[centre]
        known = self.kinds, self.owner, self.structures.numbers
        return Bonds(vectors, centre, neighbour, images, *known, *self.placed(u, params)), at_rest

    def energies(self, u: Tensor, params: Params) -> Tensor:
        """The potential energy (S,) of each structure at u, in eV."""
        atoms = self.potential.energies(self.bonds(u, params)[0], params["potential"])
        return atoms.new_zeros(len(self.structures)).index_add(0, self.owner, atoms)

    def value(self, u: Tensor, params: Params) -> Tensor:
        positions, cells = self.placed(u, params)
        held = torch.where(self.free, 0.0, u - self.start()).reshape(-1, self.n)
        work = (params["loads"] * positions).sum(-1)
        total = self.energies(u, params) + 0.5 * (held * held).sum(-1)
        total = torch.where(self.out_of_shape(plain(u)), torch.inf, total)
        total = (
            total
            + params["pressure"] * determinant(cells).abs()
            - torch.zeros_like(total).index_add(0, self.owner, work)
        )
        return total if self.batch_dims else total[0]

    def residual(self, u: Tensor, params: Params) -> Tensor:
        if torch.is_grad_enabled() or any(map(is_transformed, [u, *pytree.tree_leaves(params)])):
            return super().residual(u, params)
        return self.value_and_residual(u, params)[1]  # in numbers, cheaper than by a transform of torch.func

    def value_and_residual(self, u: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            v = u.detach().requires_grad_()
            value = self.value(v, params)
            (residual,) = torch.autograd.grad(value.sum(), v)
        return value.detach(), residual

    @torch.no_grad()
    def tangent(self, u: Tensor, params: Params) -> LinearOperator:
        # Adjoint and certificate ask again for the tangent where the solver had it: it costs as much as a factorisation.
        made_of = [u, *(leaf for leaf in pytree.tree_leaves(params) if isinstance(leaf, Tensor))]
        if self._latest is None or not all(map(torch.equal, made_of, self._latest[0])):
            self._latest = ([tensor.detach().clone() for tensor in made_of], self._tangent(u, params))
        return self._latest[1]

    def _tangent(self, u: Tensor, params: Params) -> LinearOperator:
        if type(self.potential).bond_hessian is Potential.bond_hessian:
            return self._known_as_a_whole(u, params)
        if self.n > FACTORISED_UP_TO and not self.batch_dims:
            return self._by_products(u, params)
        matrix = self.hessian(u, params)
        return Dense(matrix if self.batch_dims else matrix[0], self.structure)

    def product(self, u: Tensor, params: Params, x: Tensor) -> Tensor:
        tensors = [u, x, *(leaf for leaf in pytree.tree_leaves(params) if isinstance(leaf, Tensor))]
        differentiated = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        if self.n <= DENSE_LIMIT or differentiated or any(map(is_transformed, tensors)):
            return super().product(u, params, x)
        return self.tangent(u, params).matmul(x)  # in numbers, many times cheaper than differentiating twice

    def product_transposed(self, u: Tensor, params: Params, x: Tensor) -> Tensor:
        return self.product(u, params, x)

    def hessian(self, u: Tensor, params: Params) -> Tensor:
        """The assembled second derivatives (S, 3 W, 3 W) at u, of a potential that knows those in its bonds."""
        matrix = assemble(*self._local(u, params), self.layout)
        free = self.free.to(matrix)
        matrix = matrix * free.unsqueeze(-1) * free.unsqueeze(-2) + torch.diag_embed(1.0 - free)
        return matrix + self._pressed(u, params)

    def _local(self, u: Tensor, params: Params) -> tuple[BondHessian, Bonds, Tensor | None]:
        """Second derivatives in the bonds, the bonds, and their derivative in strains where a cell is free."""
        bonds, rest = self.bonds(u, params)
        local = self.potential.bond_hessian(bonds, params["potential"])
        assert local is not None
        if not bool(self.free[:, :6].any()):
            return local, bonds, None
        return local, bonds, strain_derivative(rest, self.lengths[bonds.owner[bonds.centre]])

    def _known_as_a_whole(self, u: Tensor, params: Params) -> LinearOperator:
        if self.batch_dims or self.n <= DENSE_LIMIT:
            return Dense(dense_jacobian(lambda v: self.residual(v, params), u), self.structure)
        product = lambda x: super(CrystalEnergy, self).product(u, params, x)  # noqa: E731
        return MatrixFree(self.n, product, product, self.structure)

    def _by_products(self, u: Tensor, params: Params) -> MatrixFree:
        bonded, diagonal = products(*self._local(u, params), self.layout)
        free, pressed = self.free[0].to(u), self._pressed(u, params)

        def product(x: Tensor) -> Tensor:
            image = free * bonded(free * x) + (1.0 - free) * x
            return image if pressed.dim() == 0 else image + pressed[0] @ x

        scale = free * diagonal + (1.0 - free)
        return MatrixFree(self.n, product, product, self.structure, diagonal=scale.clamp(min=1e-3 * float(scale.max())))

    def _pressed(self, u: Tensor, params: Params) -> Tensor:
        """The Hessian of pressure times volume in the strains, padded to (S, 3 W, 3 W); 0 without pressure."""
        if float(plain(params["pressure"])) == 0.0:
            return u.new_zeros(())
        scaled = (u - self.start()).reshape(len(self.structures), self.n)[:, :6]

        def volume(strains: Tensor, cell: Tensor, length: Tensor, free: Tensor) -> Tensor:
            return determinant(cell @ (torch.eye(3).to(strains) + strain_matrix(strains * free / length))).abs()

        second = torch.vmap(torch.func.hessian(volume))(scaled, params["cells"], self.lengths, self.free[:, :6].to(u))
        rest = self.n - 6
        return torch.nn.functional.pad(params["pressure"] * second, (0, rest, 0, rest))

    def _split(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Strain matrices (S, 3, 3) and displacements (N, 3)."""
        free = torch.where(self.free, (u - self.start()).reshape(-1, self.n), 0.0)
        nodes = free.reshape(-1, 3)
        return strain_matrix(free[:, : 3 * STRAIN_NODES] / self.lengths.unsqueeze(-1)), nodes[self.layout.nodes]

    def out_of_shape(self, u: Tensor, margin: float = 1.0) -> Tensor:
        """Structures (S) that a trial step has deformed by LARGEST_STRETCH * margin: they would have bonds without end."""
        strain, moved = self._split(u)
        limit = LARGEST_STRETCH * margin
        finite = torch.isfinite(strain).all((-2, -1)).index_fill(0, self.owner[~torch.isfinite(moved).all(-1)], False)
        stretches = torch.linalg.eigvalsh(torch.eye(3).to(strain) + torch.where(finite[:, None, None], strain, 0.0))
        return ~finite | (stretches[:, 0] < 1.0 / limit) | (stretches[:, 2] > limit)

    def _pairs(self, u: Tensor, params: Params) -> tuple[Tensor, Tensor, Tensor]:
        numbers = {name: plain(params[name]) for name in ("positions", "cells")}
        positions, cells = self.placed(plain(u), numbers)
        lost = self.out_of_shape(plain(u))
        positions = torch.where(lost[self.owner].unsqueeze(-1), numbers["positions"], positions)
        cells = torch.where(lost[:, None, None], numbers["cells"], cells)
        return self.neighbours.within(positions, cells, self.potential.cutoff(params["potential"]))


def stretch_lengths(structures: Structures) -> Tensor:
    """L (S,): strains times L are of the size of displacements that change the energy as much."""
    counts = structures.counts.to(structures.volumes)
    periodic = structures.periodic.any(-1)
    volume = torch.where(periodic, structures.volumes.detach() / counts, torch.ones_like(counts))
    return counts.sqrt() * volume ** (1.0 / 3.0)


def determinant(matrices: Tensor) -> Tensor:
    """Determinants (...) of (..., 3, 3), with derivatives of every order."""
    a, b, c = matrices.unbind(-2)
    return (a * torch.linalg.cross(b, c, dim=-1)).sum(-1)


def _first(null: Tensor | None) -> Tensor | None:
    return None if null is None else null[0]
