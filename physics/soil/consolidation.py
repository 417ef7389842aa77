"""Coupled consolidation (Biot u-p, linear elastic skeleton) on meshes, and Terzaghi's and Mandel's solutions in series.

Displacements are quadratic and pressures linear on the same cells (Taylor & Hood 1973), so that undrained steps do not
oscillate. Time is stepped by the theta rule; every step solves the same symmetric indefinite system, factorised once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

import bilevel
from bilevel.linalg.operator import LinearOperator, Sparse, SparsePattern, Structure
from bilevel.problem import Params, Problem
from bilevel.report import InputError
from bilevel.solvers import Newton, Tolerance
from physics.constitutive.lame import ELASTIC, LameParameters
from physics.discretisation import Mesh, rectangle
from physics.discretisation.constraints import Constraint, ConstraintSet
from physics.local.parameters import LawParameter, LawParameters

CONSOLIDATION = ELASTIC + LawParameters(
    LawParameter(
        "mobility", "m2/(Pa s)", lower=0.0, description="permeability over viscosity, k/(rho g) of soil mechanics"
    ),
    LawParameter(
        "storage", "1/Pa", lower=0.0, closed=True, description="1/M of Biot, 0 for incompressible grains and water"
    ),
    LawParameter("biot", "", lower=0.0, upper=1.0, closed=True, description="Biot's coefficient"),
)
LINEAR = Newton(tolerance=Tolerance(relative=1e-12), max_iterations=4)


@dataclass(frozen=True)
class Blocks:
    """Sparse blocks of the discretisation on the full fields, each without its material factor.

    shear: 2 dev:dev, bulk: div div, coupling: p div u, laplace: grad p grad p, mass: p p.
    """

    shear: sp.csr_matrix
    bulk: sp.csr_matrix
    coupling: sp.csr_matrix
    laplace: sp.csr_matrix
    mass: sp.csr_matrix


class Consolidation(Problem):
    """One time step; the unknown is (free displacements, free pressures / pressure unit) at its end.

    params: {"material": values, "old": (full displacements, full pressures) flat, "time_step": s, "force": nodal forces,
    "boundary": prescribed displacements, "pressure": prescribed pressures}, the last three may be left out. Plane strain,
    tension positive, pressure positive in compression. theta: 1 is backward Euler, 1/2 Crank-Nicolson; above 1/2 it damps.
    """

    structure = Structure(symmetric=False)

    def __init__(
        self,
        mesh: Mesh,
        pressure_mesh: Mesh,
        supports: Sequence[Constraint],
        drains: Sequence[Constraint],
        pressure_unit: float = 1.0,
        theta: float = 1.0,
    ) -> None:
        if not 0.5 <= theta <= 1.0:
            raise InputError(f"theta = {theta:g} must lie between 1/2 and 1, or time stepping is unstable")
        if len(mesh.cells) != len(pressure_mesh.cells):
            raise InputError(
                "displacement and pressure need the same cells; give one mesh with order 2 and one with order 1"
            )
        self.mesh, self.pressure_mesh, self.unit, self.theta = mesh, pressure_mesh, pressure_unit, theta
        self.solid = ConstraintSet(supports, len(mesh.coordinates), mesh.dim)
        self.water = ConstraintSet(drains, len(pressure_mesh.coordinates), 1)
        self.blocks = _blocks(mesh, pressure_mesh)

    @property
    def n(self) -> int:
        return self.solid.n + self.water.n

    def expand(self, u: Tensor, params: Params) -> tuple[Tensor, Tensor]:
        """Displacements (nodes, 2) and pressures (pressure nodes,) of an unknown (n,)."""
        solid = self.solid.expand(u[: self.solid.n], params.get("boundary"))
        water = self.water.expand(u[self.solid.n :] * self.unit, params.get("pressure"))
        return solid, water[:, 0]

    def residual(self, u: Tensor, params: Params) -> Tensor:
        values = params["material"]
        moduli, biot = LameParameters.of(values), torch.as_tensor(values["biot"])
        displacement, pressure = self.expand(u, params)
        moved, risen = displacement.reshape(-1) - params["old"][0], pressure - params["old"][1]
        driving = self.theta * pressure + (1.0 - self.theta) * params["old"][1]
        b = self.blocks
        flat = displacement.reshape(-1)
        stress = moduli.mu * _apply(b.shear, flat) + moduli.lame_lambda * _apply(b.bulk, flat)
        balance = stress - biot * _apply(b.coupling.T, pressure)
        if params.get("force") is not None:
            balance = balance - params["force"].reshape(-1)
        flow = biot * _apply(b.coupling, moved) + values["storage"] * _apply(b.mass, risen)
        flow = flow + params["time_step"] * values["mobility"] * _apply(b.laplace, driving)
        return torch.cat(
            [self.solid.reduce(balance.reshape(displacement.shape)), self.unit * self.water.reduce(flow.unsqueeze(-1))]
        )

    def product(self, u: Tensor, params: Params, x: Tensor) -> Tensor:
        return torch.func.jvp(lambda v: self.residual(v, params), (u,), (x,))[1]

    @torch.no_grad()
    def tangent(self, u: Tensor, params: Params) -> LinearOperator:
        values = {name: float(value) for name, value in params["material"].items()}
        moduli, biot = LameParameters.of(values), values["biot"]
        b, step = self.blocks, float(params["time_step"])
        solid, water = self.solid.matrix, self.water.matrix * self.unit
        stiffness = solid.T @ (moduli.mu * b.shear + moduli.lame_lambda * b.bulk) @ solid
        coupling = biot * (water.T @ b.coupling @ solid)
        flow = water.T @ (values["storage"] * b.mass + self.theta * step * values["mobility"] * b.laplace) @ water
        matrix = sp.bmat([[stiffness, -coupling.T], [coupling, flow]], format="csr")
        matrix = (matrix + sp.eye(self.n) * 0.0).tocsr()
        matrix.sort_indices()
        pattern = SparsePattern(self.n, matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32))
        return Sparse(pattern, torch.from_numpy(matrix.data), self.structure)

    def march(self, params: Mapping[str, object], steps: Tensor) -> tuple[Tensor, Tensor]:
        """Displacements (steps, nodes, 2) and pressures (steps, pressure nodes) after each time step (steps,), from rest."""
        CONSOLIDATION.check(params["material"], "Consolidation")  # type: ignore[arg-type]
        old = (
            torch.zeros(self.mesh.coordinates.numel(), dtype=torch.float64),
            torch.zeros(self.water.shape[0], dtype=torch.float64),
        )
        u = torch.zeros(self.n, dtype=torch.float64)
        displacements, pressures = [], []
        for step in steps:
            given = {**params, "old": old, "time_step": step}
            u = bilevel.root(self, u.detach(), given, solver=LINEAR).u
            displacement, pressure = self.expand(u, given)
            old = (displacement.reshape(-1), pressure)
            displacements.append(displacement)
            pressures.append(pressure)
        return torch.stack(displacements), torch.stack(pressures)


def taylor_hood(nx: int, ny: int, lengths: tuple[float, float]) -> tuple[Mesh, Mesh]:
    """The same rectangle with quadratic and with linear quadrilaterals."""
    return rectangle(nx, ny, lengths, order=2), rectangle(nx, ny, lengths, order=1)


def _blocks(mesh: Mesh, pressure_mesh: Mesh) -> Blocks:
    """All blocks by one quadrature that integrates the quadratic fields exactly."""
    order = 2 * mesh.degree + 1
    gradient, weights = mesh.operator(quadrature=order).evaluate(None, slice(None))
    shape = pressure_mesh.operator(gradient=True, value=True, quadrature=order).evaluate(None, slice(None))[0]
    slope, value = shape[..., : mesh.dim], shape[..., mesh.dim]
    dim, cells, corners = mesh.dim, mesh.cells, pressure_mesh.cells
    eye = torch.eye(dim, dtype=torch.float64)
    same = torch.einsum("eaqi,ebqi,eq->eab", gradient, gradient, weights)
    cross = torch.einsum("eaqd,ebqc,eq->eacbd", gradient, gradient, weights)
    div = torch.einsum("eaqc,ebqd,eq->eacbd", gradient, gradient, weights)
    # 2 eps:eps = grad u : grad v + grad u : grad v^T
    shear = torch.einsum("eab,cd->eacbd", same, eye) + cross
    dofs = (cells.unsqueeze(-1) * dim + torch.arange(dim)).flatten(1)
    coupling = torch.einsum("eaq,ebqd,eq->eabd", value, gradient, weights).flatten(2)
    laplace = torch.einsum("eaqi,ebqi,eq->eab", slope, slope, weights)
    mass = torch.einsum("eaq,ebq,eq->eab", value, value, weights)
    count, points = len(mesh.coordinates) * dim, len(pressure_mesh.coordinates)
    square = dofs.shape[1]
    return Blocks(
        _assemble(shear.reshape(-1, square, square), dofs, dofs, count, count),
        _assemble(div.reshape(-1, square, square), dofs, dofs, count, count),
        _assemble(coupling, corners, dofs, points, count),
        _assemble(laplace, corners, corners, points, points),
        _assemble(mass, corners, corners, points, points),
    )


def _assemble(entries: Tensor, rows: Tensor, columns: Tensor, n: int, m: int) -> sp.csr_matrix:
    where = (
        rows.unsqueeze(2).expand(entries.shape).reshape(-1),
        columns.unsqueeze(1).expand(entries.shape).reshape(-1),
    )
    return sp.csr_matrix((entries.reshape(-1).numpy(), (where[0].numpy(), where[1].numpy())), shape=(n, m))


class _Product(torch.autograd.Function):
    """A x for a constant SciPy matrix; linear, so its derivatives are products again."""

    generate_vmap_rule = False

    @staticmethod
    def forward(matrix: sp.csr_matrix, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.from_numpy(np.asarray(matrix @ x.detach().numpy()))

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
        ctx.matrix = inputs[0]

    @staticmethod
    def backward(ctx, cotangent):  # type: ignore[no-untyped-def]
        return None, _Product.apply(ctx.matrix.T, cotangent)

    @staticmethod
    def jvp(ctx, _, tangent):  # type: ignore[no-untyped-def]
        return _Product.apply(ctx.matrix, tangent)


def _apply(matrix: sp.csr_matrix, x: Tensor) -> Tensor:
    return _Product.apply(matrix, x)


def terzaghi_degree(time_factor: Tensor, terms: int = 200) -> Tensor:
    """Average degree of consolidation at T = cv t/H^2, drained at one end (Terzaghi 1923)."""
    m = (torch.arange(terms, dtype=torch.float64) + 0.5) * torch.pi
    return 1.0 - (2.0 / m**2 * torch.exp(-(m**2) * time_factor.unsqueeze(-1))).sum(-1)


def mandel_pressure(time_factor: Tensor, undrained: float, poisson: float, terms: int = 200) -> Tensor:
    """Pressure at the centre of Mandel's slab over its initial value, at T = c t/a^2 (Mandel 1953; Cheng & Detournay 1988).

    undrained, poisson: undrained and drained Poisson's ratios. Roots of tan(b)/b = (1 - nu)/(nu_u - nu).
    """
    from scipy.optimize import brentq

    ratio = (1.0 - poisson) / (undrained - poisson)
    edges = [(k * np.pi + 1e-9, (k + 0.5) * np.pi - 1e-9) for k in range(terms)]
    edges[0] = (1e-3, 0.5 * np.pi - 1e-9)
    roots = torch.tensor([brentq(lambda b: np.sin(b) - ratio * b * np.cos(b), low, high) for low, high in edges])
    sine, cosine = torch.sin(roots), torch.cos(roots)
    weight = sine * (1.0 - cosine) / (roots - sine * cosine)
    decay = torch.exp(-(roots**2) * time_factor.unsqueeze(-1))
    return 2.0 * (weight * decay).sum(-1)
