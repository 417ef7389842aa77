"""An image of hydraulic conductivity from heads: first linearised, then fully nonlinear, with three priors.

    python examples/conductivity_image/conductivity_image.py

Four pumping experiments on a square aquifer are observed at 25 piezometers; the unknown is log K in 12 x 12 cells.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

import bilevel
from bilevel.composite import PrimalDual
from bilevel.inversion import Discrepancy, LearnedPrior, Prior, Tikhonov, TotalVariationPrior, diagnose, invert
from bilevel.inversion.networks import ConvexDenoiser, DenoiserSchedule, train_denoiser
from bilevel.linalg.linear_map import LinearisedResponse, Matrix
from bilevel.solvers import Tolerance
from physics.discretisation import rectangle
from physics.discretisation.constraints import Dirichlet
from physics.flow.darcy import DarcyFlow

CELLS = 12
SIGMA = 2e-3
MESH = rectangle(CELLS, CELLS)


def nodes_near(points: list[tuple[float, float]]) -> Tensor:
    """The mesh nodes next to points."""
    xy = MESH.coordinates
    return torch.stack([(xy - torch.tensor(p, dtype=xy.dtype)).norm(dim=1).argmin() for p in points])


EDGE = torch.unique(torch.cat([MESH.nodes_on(side) for side in ("left", "right", "bottom", "top")]))
WELLS = [nodes_near([w]) for w in ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))]
SENSORS = nodes_near([(x, y) for x in (0.15, 0.35, 0.5, 0.65, 0.85) for y in (0.15, 0.35, 0.5, 0.65, 0.85)])


def cell_order() -> Tensor:
    """For each mesh cell, its place in a picture of rows (y) and columns (x)."""
    middle = MESH.operator().positions().mean(1)
    column = (middle[:, 0] * CELLS).long()
    row = (middle[:, 1] * CELLS).long()
    return row * CELLS + column


PLACE = cell_order()
FLOWS = [DarcyFlow(MESH, [Dirichlet("edge", EDGE, value=0.0)], wells=well) for well in WELLS]


def heads(log_k: Tensor) -> Tensor:
    """Heads at the piezometers in all experiments (100,) for log K as a picture (12, 12)."""
    found = []
    for flow in FLOWS:
        params = {
            "flow": {"hydraulic_conductivity": log_k.reshape(-1)[PLACE].exp()},
            "wells": torch.ones(1, dtype=torch.float64),
        }
        found.append(flow.expand(bilevel.argmin(flow, flow.start(), params).u, params).reshape(-1)[SENSORS])
    return torch.cat(found)


def nonlinear(data: Tensor, prior: Prior, choice: Discrepancy, iterations: int = 4) -> Tensor:
    """Relinearise at every estimate and invert again: Gauss-Newton with any prior."""
    estimate = torch.zeros(CELLS, CELLS, dtype=torch.float64)
    for _ in range(iterations):
        A = LinearisedResponse(heads, estimate).dense()
        estimate = invert(A, data - heads(estimate) + A(estimate), prior, choice).x
    return estimate


def blocks(size: int, generator: torch.Generator) -> Tensor:
    """A random picture of overlapping rectangles with values around zero: what the learned prior learns from."""
    picture = torch.zeros(size, size)
    for _ in range(size * size // 40):
        top, left = torch.randint(size - 3, (2,), generator=generator).tolist()
        high, wide = torch.randint(3, 8, (2,), generator=generator).tolist()
        picture[top : top + high, left : left + wide] = 0.7 * torch.randn((), generator=generator)
    return picture


def learned_prior() -> LearnedPrior:
    """A denoiser that is firmly nonexpansive by construction, trained on random blocks."""
    generator = torch.Generator().manual_seed(0)
    denoiser = ConvexDenoiser(channels=12, size=5, dtype=torch.float64)
    pictures = [blocks(48, generator) for _ in range(40)]
    train_denoiser(
        denoiser, pictures, DenoiserSchedule(sigma=0.2, steps=300, batch=8, patch=24, rate=1e-2), progress=True
    )
    return LearnedPrior(denoiser, tolerance=1e-4)


def main() -> None:
    torch.set_default_dtype(torch.float64)
    truth = torch.zeros(CELLS, CELLS)
    truth[2:6, 2:7] = 1.0
    truth[7:10, 6:10] = -1.0
    data = heads(truth) + SIGMA * torch.randn(100, generator=torch.Generator().manual_seed(1))

    start = torch.zeros(CELLS, CELLS)
    A: Matrix = LinearisedResponse(heads, start).dense()
    print(diagnose(A, data - heads(start), SIGMA).sentence)

    images = {"truth": truth}
    discrepancy = Discrepancy(sigma=SIGMA, lowest=1e-7, highest=1e1, tolerance=0.02)
    scaled = Discrepancy(sigma=SIGMA, lowest=1e-3, highest=30.0, tolerance=0.05)
    linear = invert(
        A,
        data - heads(start),
        TotalVariationPrior(solver=PrimalDual(tolerance=Tolerance(1e-4))),
        Discrepancy(sigma=3 * SIGMA, lowest=1e-7, highest=1e1),
    )
    images["TV, linearised"] = linear.x
    images["Tikhonov"] = nonlinear(data, Tikhonov(), discrepancy)
    images["TV"] = nonlinear(data, TotalVariationPrior(solver=PrimalDual(tolerance=Tolerance(1e-4))), discrepancy)
    images["learned"] = nonlinear(data, learned_prior(), scaled)
    for name, image in images.items():
        error = float((image - truth).norm() / truth.norm())
        misfit = float((heads(image) - data).square().mean().sqrt() / SIGMA)
        print(f"{name:15} relative error {error:.3f}, misfit {misfit:.2f} sigma")
    draw(images)


def draw(images: dict[str, Tensor]) -> None:
    """The images side by side, beside this file."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(images), figsize=(3 * len(images), 3))
    for axis, (name, image) in zip(axes, images.items()):
        axis.imshow(image, origin="lower", vmin=-1, vmax=1, cmap="RdBu")
        axis.set_title(name)
        axis.axis("off")
    figure.savefig(Path(__file__).with_name("conductivity_image.png"), dpi=80, bbox_inches="tight")


if __name__ == "__main__":
    main()
