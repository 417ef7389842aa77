"""The linear Darcy problem of `darcy.py` by jaxopt's conjugate gradients, with JAX's implicit derivative."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

import bilevel
from benchmarks.core.darcy import log_conductivity, mesh_of
from benchmarks.references.plain_darcy import PlainDarcy
from physics.flow import DarcyFlow


def bilevel_darcy(cells: int) -> dict[str, float]:
    """Ours, cold: with patterns and symbolic analysis."""
    _bilevel(10)
    return _bilevel(cells)


def _bilevel(cells: int) -> dict[str, float]:
    mesh = mesh_of(cells, 2)
    flow = DarcyFlow(mesh, [mesh.fixed("left", value=1.0), mesh.fixed("right")])
    log_k = log_conductivity(mesh).requires_grad_()
    started = time.perf_counter()
    u = bilevel.argmin(flow, flow.start(), {"flow": {"hydraulic_conductivity": log_k.exp()}}).u
    solved = time.perf_counter()
    (by_cell,) = torch.autograd.grad((u - 0.5).square().sum(), log_k)
    ended = time.perf_counter()
    return {"forward": solved - started, "gradient": ended - solved, "by_cell": float(by_cell.norm())}


def jaxopt_darcy(cells: int) -> dict[str, float]:
    """Matrix-free products by gather and scatter, CG to a relative residual of 1e-8; compilation is not timed."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import jax.numpy as jnp
    from jaxopt.linear_solve import solve_cg

    mesh = mesh_of(cells, 2)
    held = torch.cat([mesh.nodes_on("left"), mesh.nodes_on("right")]).numpy()
    free = np.setdiff1d(np.arange(len(mesh.coordinates)), held)
    geometry = PlainDarcy(mesh.coordinates.numpy(), mesh.cells.numpy(), free, coefficient=0.0)
    width = geometry.cells.shape[1]
    flat = geometry.gradients.reshape(len(geometry.cells), -1, width)
    weights = np.repeat(geometry.weights, 2, axis=1)
    unit = jnp.asarray(np.einsum("eza,ez,ezb->eab", flat, weights, flat))
    nodes, inner = jnp.asarray(geometry.cells), jnp.asarray(free)
    boundary = jnp.zeros(geometry.size).at[mesh.nodes_on("left").numpy()].set(1.0)

    def forces(full: Any, k: Any) -> Any:
        local = k[:, None] * jnp.einsum("eab,eb->ea", unit, full[nodes])
        return jnp.zeros(geometry.size).at[nodes].add(local)[inner]

    def solve(log_k: Any) -> Any:
        k = jnp.exp(log_k)
        right = -forces(boundary, k)

        def product(u: Any) -> Any:
            return forces(jnp.zeros(geometry.size).at[inner].set(u), k)

        return solve_cg(product, right, tol=1e-8, maxiter=100_000)

    def misfit(log_k: Any) -> Any:
        return ((solve(log_k) - 0.5) ** 2).sum()

    log_k = jnp.asarray(log_conductivity(mesh).numpy())
    forward, both = jax.jit(solve), jax.jit(jax.value_and_grad(misfit))
    ahead, ahead_both = forward.lower(log_k).compile(), both.lower(log_k).compile()
    started = time.perf_counter()
    ahead(log_k).block_until_ready()
    solved = time.perf_counter()
    _, by_cell = ahead_both(log_k)
    by_cell.block_until_ready()
    ended = time.perf_counter()
    gradient = (ended - solved) - (solved - started)
    return {"forward": solved - started, "gradient": gradient, "by_cell": float(jnp.linalg.norm(by_cell))}
