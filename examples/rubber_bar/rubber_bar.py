"""A rubber bar stretched and bent in one step: a learned first guess beside load stepping, same state, same gradient."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from torch import Tensor

import bilevel
from bilevel.acceleration.learned_guess import guess_solver
from bilevel.acceleration.weights_file import Weights, shipped
from bilevel.problem import Params
from bilevel.solvers import LoadStepping, Newton, Solver, Tolerance
from bilevel.solvers.steps import TrustRegion
from physics.discretisation import rectangle
from physics.families.large_strain import LargeStrain, PlaneMotion
from physics.solids import NeoHookean
from physics.solids.cellwise.cells import SolidCells
from physics.solids.cellwise.nearly_incompressible import NearlyIncompressibleSolid

HERE = Path(__file__).parent
LENGTH, ACROSS = 3.0, 40
SHEAR_MODULUS, POISSON_RATIO = 0.6e6, 0.48
"""Pa; a soft natural rubber, nearly incompressible."""
MOTION = PlaneMotion(LENGTH, stretch=1.8, angle=1.5)
TOLERANCE = Tolerance(relative=1e-10)

MESH = rectangle(round(LENGTH * ACROSS), ACROSS, (LENGTH, 1.0))
BAR = NearlyIncompressibleSolid(MESH, NeoHookean(), [MESH.fixed("left"), MESH.fixed("right")])
RIGHT = MESH.nodes_on("right")


@dataclass
class Solved:
    """A state, what it cost, and the end force's derivative with respect to every cell's modulus."""

    positions: Tensor
    force: float
    sensitivity: Tensor
    seconds: float
    factorisations: int


def path(params: Params, fraction: float) -> Params:
    """The parameters at a fraction of the load."""
    end = MOTION.displacement(MESH.coordinates[RIGHT], fraction)
    return {**params, "boundary": {"right": end}}


def solve(solver: Solver) -> Solved:
    mu = torch.full((len(MESH.cells),), SHEAR_MODULUS, dtype=torch.float64, requires_grad=True)
    material = {"mu": mu, "lame_lambda": mu * (2.0 * POISSON_RATIO / (1.0 - 2.0 * POISSON_RATIO))}
    params = path({"material": material}, 1.0)
    began = time.perf_counter()
    solution = bilevel.argmin(BAR, BAR.start(), params, solver=solver)
    seconds = time.perf_counter() - began
    field = BAR.expand(solution.u, params)
    force = BAR.nodal_forces(field, params)[RIGHT, 0].sum()
    (sensitivity,) = torch.autograd.grad(force, mu)
    positions = MESH.coordinates + field.detach()
    return Solved(positions, float(force.detach()), sensitivity, seconds, solution.report.counts.factorisations)


def load_stepping() -> LoadStepping:
    """From rest, with cutback and tangent predictor."""
    inner = Newton(step=TrustRegion(), tolerance=TOLERANCE, max_iterations=15)
    return LoadStepping(path, inner, first=0.1, predict=True)


def learned_guess() -> Solver:
    """The shipped weights before Newton's method."""
    weights = Weights.load(shipped(LargeStrain()), LargeStrain())
    return guess_solver(
        weights.networks, lambda _, params: SolidCells(BAR.by_cells, params, MOTION), TOLERANCE, path=path
    )


def draw(axes: Axes, positions: Tensor, values: Tensor | None) -> None:
    from matplotlib.collections import PolyCollection

    cells = positions[MESH.cells].numpy()
    if values is None:
        axes.add_collection(PolyCollection(cells, facecolors="0.88", edgecolors="none"))
    else:
        drawn = PolyCollection(cells, array=values.numpy(), cmap="RdBu_r", edgecolors="face", linewidths=0.1)
        drawn.set_clim(-float(values.abs().quantile(0.99)), float(values.abs().quantile(0.99)))
        axes.add_collection(drawn)
        axes.figure.colorbar(drawn, ax=axes, label="d force / d ln(modulus) of each cell [N/m]", shrink=0.8)
    axes.set_aspect("equal")
    axes.autoscale_view()


def main() -> None:
    from matplotlib.figure import Figure

    solve(learned_guess())  # what a process compiles once
    runs = {"load stepping": solve(load_stepping()), "learned guess": solve(learned_guess())}
    for name, run in runs.items():
        print(f"{name}: {run.seconds:.2f} s, {run.factorisations} factorisations, end force {run.force / 1e3:.4f} kN/m")
    stepped, learned = runs.values()
    apart = (learned.positions - stepped.positions).abs().max() / LENGTH
    gradient = torch.linalg.vector_norm(learned.sensitivity - stepped.sensitivity)
    gradient = gradient / torch.linalg.vector_norm(stepped.sensitivity)
    print(f"states differ by {float(apart):.1e} of the length, gradients by {float(gradient):.1e}")
    figure = Figure(figsize=(7.5, 4.0), layout="constrained")
    axes = figure.add_subplot()
    draw(axes, MESH.coordinates, None)
    draw(axes, learned.positions, SHEAR_MODULUS * learned.sensitivity)
    axes.set_xlabel("x [m]")
    axes.set_ylabel("y [m]")
    figure.savefig(HERE / "rubber_bar.png", dpi=120)


if __name__ == "__main__":
    main()
