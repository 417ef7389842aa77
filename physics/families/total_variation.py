"""Family c: images freed from noise by smoothed total variation, which is non-smooth as its smoothing goes to zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.steps.family import Family, Instance, Variation
from physics.density import Density, Measure
from physics.families.family import generator, neighbours, node_graph
from physics.families.random_field import smooth
from physics.families.variation_states import VariationStates
from physics.local_energy import LocalEnergy
from physics.local_operator import nodal_operator
from physics.mesh import Mesh, Shape, rectangle
from physics.term import Term

COARSE = 100.0
"""The start is the solution of the problem with |g|^2 in place of the total variation, of equal cost at this many e."""


class SmoothedVariation(Density):
    """psi = weight (sqrt(|g|^2 + smoothing^2) - smoothing). Source: Rudin, Osher & Fatemi 1992; Vogel & Oman 1996."""

    parameters = ("weight", "smoothing")

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return params["weight"] * (self._root(x, params) - params["smoothing"])

    def stress(self, x: Tensor, params: Params) -> Tensor:
        return x * (params["weight"] / self._root(x, params)).unsqueeze(-1)

    def tangent(self, x: Tensor, params: Params, state_dims: int) -> Tensor:
        root = self._root(x, params)
        unit = torch.eye(x.shape[-1], dtype=x.dtype)
        along = x.unsqueeze(-1) * x.unsqueeze(-2) / root[..., None, None] ** 2
        return (unit - along) * (params["weight"] / root)[..., None, None]

    def _root(self, x: Tensor, params: Params) -> Tensor:
        return (x.square().sum(-1) + params["smoothing"] ** 2).sqrt()


class Misfit(Density):
    """psi = mass / 2 (u - value)^2."""

    parameters = ("mass", "value")

    def energy(self, x: Tensor, params: Params) -> Tensor:
        return 0.5 * params["mass"] * (x[..., 0, 0] - params["value"]).square()

    def stress(self, x: Tensor, params: Params) -> Tensor:
        return (params["mass"] * (x[..., 0, 0] - params["value"]))[..., None, None].expand(x.shape)

    def tangent(self, x: Tensor, params: Params, state_dims: int) -> Tensor:
        return params["mass"].reshape(-1, 1, *[1] * (2 * state_dims)).expand(*x.shape, *[1] * state_dims)


@dataclass(frozen=True)
class TotalVariation(Family):
    """Noisy images on triangles of side one pixel: discs, half planes and stripes of random grey; larger ones show more.

    TRAINING: noise of standard deviation 0.05 to 0.15 of the range of greys. CONTRAST: 0.2 to 0.3. MESH: shifted nodes.
    LOADS: smooth shades without edges beside the shapes. grey_unit: the same images in another unit.
    """

    grey_unit: float = 1.0

    name: ClassVar[str] = "total_variation"
    version: ClassVar[int] = 1
    training_size: ClassVar[int] = 400

    def instance(self, size: int, seed: int, variation: Variation = Variation.TRAINING) -> Instance:
        rng = generator(self.name, size, seed, variation)
        mesh = _mesh(size, variation, rng)
        points, nodes = mesh.coordinates.numpy(), len(mesh.coordinates)
        noise = rng.uniform(0.2, 0.3) if variation is Variation.CONTRAST else rng.uniform(0.05, 0.15)
        image = _shapes(points, rng)
        if variation is Variation.LOADS:
            image = 0.5 * image + 0.5 * smooth(points, rng.uniform(5.0, 15.0), rng)
        value = torch.from_numpy(image + noise * rng.normal(size=nodes)) * self.grey_unit
        weight = rng.uniform(2.0, 4.0) * noise * self.grey_unit
        smoothing = 10.0 ** rng.uniform(-4.0, -2.0) * self.grey_unit
        terms = [
            Term("variation", mesh.operator(), SmoothedVariation(), Measure((2,))),
            Term("data", nodal_operator(torch.arange(nodes)), Misfit(), Measure((1, 1))),
        ]
        problem = LocalEnergy(terms, nodes)
        params = {
            "variation": {"weight": torch.tensor(weight), "smoothing": torch.tensor(smoothing)},
            "data": {"mass": _areas(mesh), "value": value},
        }
        states = VariationStates(problem, params, mesh, COARSE)
        start = states.first().u
        edges = neighbours(mesh.cells)
        jump = ((value[edges[0]] - value[edges[1]]).abs() / weight)[:, None]
        graph = node_graph(problem, params, edges, torch.empty(nodes, 0, dtype=torch.float64), jump)
        described = (
            f"{variation.value}: {nodes} pixels, noise {noise:.2f}, weight {weight:.3g}, smoothing {smoothing:.1e}"
        )
        return Instance(problem, params, start, graph, described, states=states)


def _mesh(size: int, variation: Variation, rng: np.random.Generator) -> Mesh:
    across = max(6, round(math.sqrt(size)) - 1)
    mesh = rectangle(across, across, (float(across), float(across)), Shape.TRIANGLE)
    if variation is not Variation.MESH:
        return mesh
    x = mesh.coordinates
    inside = ((x > 1e-9) & (x < across - 1e-9)).all(1)
    return mesh.moved(torch.where(inside[:, None], x + torch.from_numpy(rng.uniform(-0.25, 0.25, size=x.shape)), x))


def _shapes(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Greys (N,) between 0 and 1 of one background and about a shape for every 80 pixels, drawn over each other."""
    side = points.max()
    image = np.full(len(points), rng.uniform())
    for _ in range(max(3, round(len(points) / 80))):
        centre, angle = rng.uniform(0.0, side, 2), rng.uniform(0.0, np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        along, across = ((points - centre) @ turn).T
        if rng.uniform() < 0.5:
            inside = np.hypot(along, across) < rng.uniform(2.0, 8.0)
        else:
            inside = (np.abs(along) < rng.uniform(2.0, 10.0)) & (np.abs(across) < rng.uniform(1.5, 6.0))
        image = np.where(inside, rng.uniform(), image)
    return image


def _areas(mesh: Mesh) -> Tensor:
    area = mesh.operator().weights().sum(-1) / mesh.cells.shape[1]
    total = torch.zeros(len(mesh.coordinates), dtype=torch.float64)
    for column in mesh.cells.unbind(1):
        total = total.index_add(0, column, area)
    return total
