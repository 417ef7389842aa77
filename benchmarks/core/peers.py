"""The same block and the same Darcy problem solved by the libraries that a user would pick instead, each in its own process."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from benchmarks.alone import alone
from benchmarks.record import Record, at_least, at_most, stated

LINE = "the block against torch-fem and scikit-fem, Darcy against jaxopt: forward, gradient and peak memory"
DURATION = "10 minutes"

SMALL = 20_000
DIFFERENT = 1e-3
"""Norms of gradients that differ by more are of another problem, or wrong."""


def run_block(peer: str, module: str, function: str, n: int, mine: dict[str, Any]) -> list[Record]:
    """The rows of one peer on the block; torch-fem is what the targets were set for."""
    if find_spec(module) is None:
        return [stated(f"peer {peer}", None, target="not installed")]
    theirs = alone(f"benchmarks.references.peers_block:{function}", n=n)
    size = f"block, {mine['dofs'] / 1000:.0f}k dofs"
    if "error" in theirs:
        return [stated(f"{peer}, {size}", None, target=theirs["error"])]
    rows = [
        stated(f"{peer} forward, {size}", theirs["forward"], "s"),
        stated(f"{peer} gradient, {size}", theirs["gradient"], "s"),
        stated(f"{peer} peak memory, {size}", theirs["peak_mb"], "MB"),
        *(_same(f"{peer}, by {what}, {size}", theirs[key], mine[key]) for what, key in _GRADIENTS),
    ]
    ratios = (theirs["forward"] / mine["forward"], theirs["gradient"] / mine["gradient"])
    memory = mine["peak_mb"] / theirs["peak_mb"]
    labels = (f"{peer} / ours, forward, {size}", f"{peer} / ours, gradient, {size}", f"ours / {peer}, memory, {size}")
    if peer != "torch-fem":
        return [*rows, *(stated(label, value) for label, value in zip(labels, (*ratios, memory), strict=True))]
    goals = (6.0, 4.0) if mine["dofs"] < SMALL else (10.0, 15.0)
    faster = [at_least(label, ratio, goal) for label, ratio, goal in zip(labels, ratios, goals)]
    return [*rows, *faster, at_most(labels[2], memory, 1 / 3)]


_GRADIENTS = (("stiffness", "by_young"), ("Poisson's ratio", "by_poisson"))


def _same(row: str, theirs: float, mine: float) -> Record:
    return at_most(f"relative difference of the gradient's norm, {row}", abs(theirs / mine - 1.0), DIFFERENT)


def block_records(n: int, with_direct: bool) -> list[Record]:
    """Ours and all peers on one block; scikit-fem with SuperLU only where that ends."""
    mine = alone("benchmarks.references.peers_block:bilevel_block", n=n)
    if "error" in mine:
        raise RuntimeError(f"our own block failed: {mine['error']}")
    size = f"block, {mine['dofs'] / 1000:.0f}k dofs"
    rows = [
        stated(f"ours, cold: forward, {size}", mine["forward"], "s"),
        stated(f"ours, cold: gradient, {size}", mine["gradient"], "s"),
        stated(f"ours, cold: peak memory, {size}", mine["peak_mb"], "MB"),
        *run_block("torch-fem", "torchfem", "torch_fem_block", n, mine),
    ]
    return [*rows, *run_block("scikit-fem", "skfem", "scikit_fem_block", n, mine)] if with_direct else rows


def darcy_records(cells: int) -> list[Record]:
    """jaxopt's CG on linear Darcy flow."""
    if find_spec("jaxopt") is None:
        return [stated("peer jaxopt", None, target="not installed")]
    mine, theirs = (
        alone(f"benchmarks.references.peers_darcy:{name}_darcy", cells=cells) for name in ("bilevel", "jaxopt")
    )
    size = f"Darcy, {cells * (cells - 1) / 1000:.0f}k unknowns"
    if "error" in mine or "error" in theirs:
        return [stated(f"jaxopt, {size}", None, target=mine.get("error", theirs.get("error", "")))]
    return [
        stated(f"ours, cold: forward, {size}", mine["forward"], "s"),
        stated(f"ours, cold: gradient, {size}", mine["gradient"], "s"),
        stated(f"jaxopt CG forward, {size}", theirs["forward"], "s"),
        stated(f"jaxopt CG gradient, {size}", theirs["gradient"], "s"),
        _same(f"jaxopt, by cell, {size}", theirs["by_cell"], mine["by_cell"]),
        stated(f"jaxopt / ours, forward, {size}", theirs["forward"] / mine["forward"]),
        stated(f"jaxopt / ours, gradient, {size}", theirs["gradient"] / mine["gradient"]),
    ]


def run(quick: bool) -> list[Record]:
    jax_fem = (
        "not installed: it needs PETSc, for which there are no wheels"
        if find_spec("jax_fem") is None
        else "not timed here"
    )
    return [
        *(row for n in ((6,) if quick else (14, 25)) for row in block_records(n, with_direct=n < 20)),
        *darcy_records(40 if quick else 316),
        stated("peer JAX-FEM", None, target=jax_fem),
    ]
