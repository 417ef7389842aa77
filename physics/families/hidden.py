"""Shapes that no family is trained on: holes, notches, waists and stiff inclusions of bars and sheets."""

from __future__ import annotations

from enum import Enum

import numpy as np
import torch
from torch import Tensor

from physics.discretisation import Mesh, Shape, from_arrays


class Hidden(str, Enum):
    """What is done to a shape."""

    HOLE = "hole"
    NOTCH = "notch"
    WAIST = "waist"
    INCLUSION = "inclusion"

    @staticmethod
    def draw(rng: np.random.Generator, dim: int) -> Hidden:
        """In space a waist or an inclusion."""
        kinds = list(Hidden) if dim == 2 else [Hidden.WAIST, Hidden.INCLUSION]
        return kinds[rng.integers(len(kinds))]


STIFFER = 30.0
"""An inclusion against what surrounds it."""


def disc(mesh: Mesh, rng: np.random.Generator) -> Tensor:
    """Which cells (E,) lie in a ball somewhere inside, of a fifth to a third of the least side."""
    low, high = mesh.coordinates.amin(0), mesh.coordinates.amax(0)
    side = float((high - low).min())
    radius = side * rng.uniform(0.2, 0.33)
    centre = low + 0.5 * side + torch.from_numpy(rng.uniform(size=mesh.dim)) * (high - low - side)
    return torch.linalg.vector_norm(mesh.coordinates[mesh.cells].mean(1) - centre, dim=1) < radius


def wedge(mesh: Mesh, rng: np.random.Generator) -> Tensor:
    """Which cells (E,) lie in a notch from above, up to half as deep as the height."""
    low, high = mesh.coordinates.amin(0), mesh.coordinates.amax(0)
    tip = float(high[1]) - rng.uniform(0.3, 0.5) * float(high[1] - low[1])
    at = float(low[0]) + rng.uniform(0.3, 0.7) * float(high[0] - low[0])
    middles = mesh.coordinates[mesh.cells].mean(1)
    return (middles[:, 1] > tip) & ((middles[:, 0] - at).abs() < 0.5 * (middles[:, 1] - tip))


def without(mesh: Mesh, gone: Tensor) -> Mesh:
    """A plane mesh without some cells (E,), its ends named left and right again."""
    shape = Shape.TRIANGLE if mesh.cells.shape[1] == 3 else Shape.QUADRILATERAL
    cells, low, high = mesh.cells[~gone], float(mesh.coordinates[:, 0].min()), float(mesh.coordinates[:, 0].max())
    used, number = torch.unique(cells, return_inverse=True)
    rest = from_arrays(mesh.coordinates[used].numpy(), number.numpy(), shape)
    near = 1e-6 * (high - low)
    named = rest.with_boundary("left", lambda x: x[:, 0] < low + near)
    return named.with_boundary("right", lambda x: x[:, 0] > high - near)


def waisted(mesh: Mesh, rng: np.random.Generator) -> Mesh:
    """Cross-sections narrowed by up to half about a place between the ends."""
    x = mesh.coordinates
    low, high = x.amin(0), x.amax(0)
    at, width = rng.uniform(0.35, 0.65), rng.uniform(0.1, 0.2)
    along = (x[:, :1] - low[0]) / (high[0] - low[0])
    narrow = 1.0 - rng.uniform(0.3, 0.5) * torch.exp(-(((along - at) / width) ** 2))
    middle = 0.5 * (low + high)
    return mesh.moved(torch.cat((x[:, :1], middle[1:] + narrow * (x[:, 1:] - middle[1:])), 1))


def changed(mesh: Mesh, kind: Hidden, rng: np.random.Generator) -> Mesh:
    """The shape; an inclusion leaves it as it is."""
    if kind is Hidden.WAIST:
        return waisted(mesh, rng)
    if kind is Hidden.INCLUSION:
        return mesh
    return without(mesh, disc(mesh, rng) if kind is Hidden.HOLE else wedge(mesh, rng))
