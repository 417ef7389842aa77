"""Family c: volumes freed from noise by smoothed total variation, which is non-smooth as its smoothing goes to zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from bilevel.acceleration.family import Family, Instance, Variation
from physics.discretisation import Mesh, Shape, box
from physics.families.family import generator
from physics.families.random_field import smooth
from physics.local.total_variation.cells import VariationCells
from physics.local.total_variation.denoising import Denoising
from physics.local.total_variation.systems import VariationSystems


@dataclass(frozen=True)
class DenoisedVolumes(Family):
    """Noisy volumes, as of tomography, on tetrahedra of side one voxel: balls and blocks of random grey; larger ones hold more.

    TRAINING: noise of standard deviation 0.05 to 0.15 of the range of greys. CONTRAST: 0.2 to 0.3. MESH: shifted nodes.
    LOADS: smooth shades without edges beside the shapes. GEOMETRY: slabs. grey_unit: the same volumes in another unit.
    """

    grey_unit: float = 1.0

    name: ClassVar[str] = "total_variation"
    version: ClassVar[int] = 2
    training_size: ClassVar[int] = 512

    def instance(self, size: int, seed: int, variation: Variation = Variation.TRAINING) -> Instance:
        rng = generator(self.name, size, seed, variation)
        mesh = _mesh(size, variation, rng)
        points, nodes = mesh.coordinates.numpy(), len(mesh.coordinates)
        noise = rng.uniform(0.2, 0.3) if variation is Variation.CONTRAST else rng.uniform(0.05, 0.15)
        image = _shapes(points, rng)
        if variation is Variation.LOADS:
            image = 0.5 * image + 0.5 * smooth(points, rng.uniform(5.0, 15.0), rng)
        value = torch.from_numpy(image + noise * rng.normal(size=nodes)) * self.grey_unit
        weight = rng.uniform(1.0, 2.0) * noise * self.grey_unit
        smoothing = 10.0 ** rng.uniform(-6.0, -3.0) * self.grey_unit
        problem = Denoising(mesh)
        params = {
            "variation": {"weight": torch.tensor(weight), "smoothing": torch.tensor(smoothing)},
            "data": {"mass": _volumes(mesh), "value": value},
        }
        cellwise = VariationCells(VariationSystems.of(problem, params))
        start = cellwise.first()
        described = (
            f"{variation.value}: {nodes} voxels, noise {noise:.2f}, weight {weight:.3g}, smoothing {smoothing:.1e}"
        )
        return Instance(problem, params, start, described, cellwise=cellwise)


def _mesh(size: int, variation: Variation, rng: np.random.Generator) -> Mesh:
    across = max(3, round(size ** (1.0 / 3.0)) - 1)
    if variation is Variation.GEOMETRY:
        return box(2 * across, across, -(-across // 2), (2.0 * across, float(across), across / 2.0), Shape.TETRAHEDRON)
    mesh = box(across, across, across, (float(across),) * 3, Shape.TETRAHEDRON)
    if variation is not Variation.MESH:
        return mesh
    x = mesh.coordinates
    inside = ((x > 1e-9) & (x < across - 1e-9)).all(1)
    return mesh.moved(torch.where(inside[:, None], x + torch.from_numpy(rng.uniform(-0.15, 0.15, size=x.shape)), x))


def _shapes(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Greys (N,) between 0 and 1 of one background and a shape for every 80 voxels, drawn over each other."""
    side = points.max()
    image = np.full(len(points), rng.uniform())
    for _ in range(max(3, round(len(points) / 80))):
        centre, turn = rng.uniform(0.0, side, 3), np.linalg.qr(rng.normal(size=(3, 3)))[0]
        place = np.abs((points - centre) @ turn)
        if rng.uniform() < 0.5:
            inside = np.linalg.norm(place, axis=1) < rng.uniform(1.5, 5.0)
        else:
            inside = (place < rng.uniform(1.5, 6.0, 3)).all(1)
        image = np.where(inside, rng.uniform(), image)
    return image


def _volumes(mesh: Mesh) -> Tensor:
    volume = mesh.operator().weights().sum(-1) / mesh.cells.shape[1]
    total = torch.zeros(len(mesh.coordinates), dtype=torch.float64)
    for column in mesh.cells.unbind(1):
        total = total.index_add(0, column, volume)
    return total
