"""The block of `block.py` solved by others, each function in a process of its own: torch-fem, and scikit-fem with SciPy.

Each returns what its forward solve and gradient took, and the gradient's norm by stiffness and by Poisson's ratio, which
tells whether all solved the same problem. Every process solves a small block first: imports and first calls are not timed.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.core.block import POISSON, STRETCH, TOLERANCE, Block, ours

Found = dict[str, float]


ONE_INCREMENT_UP_TO = 20_000


def bilevel_block(n: int) -> Found:
    """Ours, cold: with patterns and symbolic analysis."""
    ours(Block(4))
    block = Block(n)
    cost = ours(block)
    return _found(block, cost.forward, cost.gradient, cost.by_young, cost.by_poisson)


def torch_fem_block(n: int) -> Found:
    """torch-fem: energy by torch.func, PARDISO (faster here than its CG), increments that it needs."""
    _torch_fem(Block(4))
    return _torch_fem(Block(n))


def _torch_fem(block: Block) -> Found:
    from torchfem import Solid
    from torchfem.materials import Hyperelastic3D

    torch.set_default_dtype(torch.float64)
    young = block.young.clone().requires_grad_()
    poisson = torch.tensor(POISSON, requires_grad=True)

    def psi(f: Tensor, params: Tensor) -> Tensor:
        c = f.mT @ f
        log = 0.5 * torch.logdet(c)
        return 0.5 * params[0] * (torch.trace(c) - 3.0) - params[0] * log + 0.5 * params[1] * log**2

    started = time.perf_counter()
    mu = young / (2.0 * (1.0 + poisson))
    params = torch.stack([mu, 2.0 * mu * poisson / (1.0 - 2.0 * poisson)], -1)
    material = Hyperelastic3D(psi, params)
    model = Solid(block.mesh.coordinates, block.mesh.cells[:, _usual_order(block)], material)
    left, right = block.mesh.nodes_on("left"), block.mesh.nodes_on("right")
    model.constraints[left] = True
    model.constraints[right] = True
    model.displacements[right, 0] = STRETCH
    # Beyond some ten thousand unknowns its Newton method does not arrive in one increment.
    increments = torch.linspace(0.0, 1.0, 2 if block.dofs < ONE_INCREMENT_UP_TO else 3)
    u, *_ = model.solve(
        increments=increments,
        rtol=TOLERANCE,
        atol=0.0,
        max_iter=20,
        method="direct",
        differentiable_parameters=material.params,
    )
    solved = time.perf_counter()
    free = block.solid.constraints.free
    by_young, by_poisson = torch.autograd.grad(block.misfit(u.reshape(-1)[free]), (young, poisson))
    ended = time.perf_counter()
    return _found(block, solved - started, ended - solved, by_young.numpy(), float(by_poisson))


def scikit_fem_block(n: int) -> Found:
    """scikit-fem's assembly of forms, full Newton steps from the affine stretch, SciPy's direct solver."""
    _scikit_fem(Block(4))
    return _scikit_fem(Block(n))


def _scikit_fem(block: Block) -> Found:
    import skfem
    from scipy.sparse.linalg import splu
    from skfem.helpers import ddot, grad

    lines = np.linspace(0.0, 1.0, block.n + 1)
    mesh = skfem.MeshHex.init_tensor(lines, lines, lines)
    basis = skfem.Basis(mesh, skfem.ElementVector(skfem.ElementHex1()), intorder=3)
    by_cell = basis.with_element(skfem.ElementHex0())
    young = block.young.numpy()

    @skfem.LinearForm
    def forces(v: Any, w: Any) -> Any:
        return ddot(w["mu"] * w["f"] + (w["lam"] * w["log"] - w["mu"]) * w["back"], grad(v))

    @skfem.BilinearForm
    def stiffness(du: Any, v: Any, w: Any) -> Any:
        moved, back = grad(du), w["back"]
        turned = np.einsum("il...,kl...,kj...->ij...", back, moved, back)
        change = w["mu"] * moved + w["lam"] * ddot(back, moved) * back + (w["mu"] - w["lam"] * w["log"]) * turned
        return ddot(change, grad(v))

    @skfem.Functional
    def by_mu(w: Any) -> Any:
        return ddot(w["f"] - w["back"], grad(w["state"]))

    @skfem.Functional
    def by_lam(w: Any) -> Any:
        return ddot(w["log"] * w["back"], grad(w["state"]))

    def kinematics(full: np.ndarray) -> dict[str, Any]:
        f = grad(basis.interpolate(full)) + np.eye(3)[:, :, None, None]
        stacked = np.moveaxis(f, (0, 1), (2, 3))
        back = np.moveaxis(np.linalg.inv(stacked), (2, 3), (1, 0))
        return {"f": f, "back": np.ascontiguousarray(back), "log": np.log(np.linalg.det(stacked))}

    started = time.perf_counter()
    mu = young / (2.0 * (1.0 + POISSON))
    lam = 2.0 * mu * POISSON / (1.0 - 2.0 * POISSON)
    given: dict[str, Any] = {"mu": by_cell.interpolate(mu), "lam": by_cell.interpolate(lam)}
    fixed = np.unique(np.concatenate([basis.get_dofs(lambda x, v=v: x[0] == v).all() for v in (0.0, 1.0)]))
    free = np.setdiff1d(np.arange(basis.N), fixed)
    full = np.zeros(basis.N)
    full[basis.nodal_dofs[0]] = STRETCH * mesh.p[0]
    affine, first = full.copy(), None
    for _ in range(30):
        given |= kinematics(full)
        residual = forces.assemble(basis, **given)[free]
        factor = splu(stiffness.assemble(basis, **given)[free][:, free].tocsc())
        first = np.linalg.norm(residual) if first is None else first
        if np.linalg.norm(residual) <= TOLERANCE * first:
            break
        full[free] -= factor.solve(residual)
    solved = time.perf_counter()
    surface = (np.abs(mesh.p[1:] - 0.5) == 0.5).any(0)
    cotangent = np.zeros(basis.N)
    cotangent[basis.nodal_dofs[:, surface]] = 2.0 * (full - affine)[basis.nodal_dofs[:, surface]]
    state = np.zeros(basis.N)
    state[free] = -factor.solve(cotangent[free])
    given |= {"state": basis.interpolate(state)}
    slope_mu, slope_lam = (form.elemental(basis, **given) for form in (by_mu, by_lam))
    by_young = (mu * slope_mu + lam * slope_lam) / young
    mu_slope = -mu / (1.0 + POISSON)
    lam_slope = mu_slope * lam / mu + 2.0 * mu / (1.0 - 2.0 * POISSON) ** 2
    by_poisson = float(mu_slope @ slope_mu + lam_slope @ slope_lam)
    return _found(block, solved - started, time.perf_counter() - solved, by_young, by_poisson)


def _usual_order(block: Block) -> Tensor:
    """The corners of a brick of the block in the usual order: round the bottom, then round the top."""
    corners = block.mesh.coordinates[block.mesh.cells[0]]
    x, y, z = (corners > corners.mean(0)).long().unbind(-1)
    return torch.argsort(4 * z + 2 * y + (x ^ y))


def _found(block: Block, forward: float, gradient: float, by_young: np.ndarray, by_poisson: float) -> Found:
    return {
        "dofs": float(block.dofs),
        "forward": forward,
        "gradient": gradient,
        "by_young": float(np.linalg.norm(by_young)),
        "by_poisson": by_poisson,
    }
