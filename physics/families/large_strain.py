"""Family b: neo-Hookean bodies in plane strain under a large displacement of their right end in one step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from bilevel.problem import Params
from bilevel.steps.family import Family, Instance, Variation
from physics.families.family import generator, neighbours, node_graph
from physics.families.random_field import log_normal
from physics.families.solid_states import PlaneNeoHookean, SolidStates
from physics.mesh import Mesh, Shape, rectangle
from physics.solids import Solid


@dataclass(frozen=True)
class EndMotion:
    """The right end of a bar turns by `angle` (radians) on an arc, while it is pulled by `stretch` and moved by `shear` heights."""

    length: float
    stretch: float = 1.0
    angle: float = 0.0
    shear: float = 0.0

    def displacement(self, points: np.ndarray, fraction: float) -> np.ndarray:
        """Displacements (K, 2) of the end's nodes at points (K, 2), at a fraction of the load."""
        angle = fraction * self.angle
        stretch = 1.0 + fraction * (self.stretch - 1.0)
        across = points[:, 1] - 0.5
        along = stretch * self.length
        arc = along * np.array([np.sinc(angle / np.pi), angle / 2.0 * np.sinc(angle / (2.0 * np.pi)) ** 2])
        end = arc[None] + across[:, None] * np.array([-math.sin(angle), math.cos(angle)])
        return end + np.array([0.0, 0.5 + fraction * self.shear]) - points


@dataclass(frozen=True)
class LargeStrain(Family):
    """Bars of height 1 clamped at both ends, stretched to 1.5-3, or stretched and bent, or stretched and sheared; log-normal stiffness.

    TRAINING: rectangles in quadrilaterals, lengths 2 to 4, Poisson's ratios 0.3 to 0.49. CONTRAST: standard deviation
    of the log-stiffness 0.8 to 1.2 in place of 0.2 to 0.7. MESH: triangles, with shifted nodes. LOADS: stretched, bent
    and sheared at once. stiffness_unit, length_unit: the same problems in other units.
    """

    stiffness_unit: float = 1.0

    name: ClassVar[str] = "large_strain"
    version: ClassVar[int] = 1
    training_size: ClassVar[int] = 150

    def instance(self, size: int, seed: int, variation: Variation = Variation.TRAINING) -> Instance:
        rng = generator(self.name, size, seed, variation)
        length = rng.uniform(2.0, 4.0)
        poisson = 0.5 - 0.5 * 10.0 ** rng.uniform(-1.7, -0.4)
        motion = _motion(length, variation, rng)
        mesh = _mesh(size, length, variation, rng)
        deviation = rng.uniform(0.8, 1.2) if variation is Variation.CONTRAST else rng.uniform(0.2, 0.7)
        middles = mesh.coordinates[mesh.cells].mean(1).numpy()
        correlation = np.exp(rng.uniform(np.log(0.1), np.log(1.0)))
        mu = torch.from_numpy(log_normal(middles, correlation, deviation, rng)) * self.stiffness_unit
        held = [mesh.fixed("left"), mesh.fixed("right")]
        solid = PlaneNeoHookean(mesh, held)
        material = {"mu": mu, "lame_lambda": mu * (2.0 * poisson / (1.0 - 2.0 * poisson))}
        end = mesh.coordinates[mesh.nodes_on("right")].numpy()

        def path(params: Params, fraction: float) -> Params:
            moved = torch.from_numpy(motion.displacement(end, fraction))
            return {**params, "boundary": {"right": moved}}

        params = path({"material": material}, 1.0)
        states = SolidStates(solid, params, {"left": 0.0, "right": motion.angle})
        start = _classical_start(solid, states, params)
        graph = node_graph(solid, params, neighbours(mesh.cells), *_node_features(solid, mu, poisson))
        described = (
            f"{variation.value}: {len(mesh.coordinates)} nodes, {mesh.shape.value}, length {length:.2f}, "
            f"stretch {motion.stretch:.2f}, angle {motion.angle:.2f}, shear {motion.shear:.2f}, nu {poisson:.3f}, deviation {deviation:.2f}"
        )
        return Instance(solid, params, start, graph, described, states=states, path=path)


def _classical_start(solid: Solid, states: SolidStates, params: Params) -> Tensor:
    """The rotated linear-elastic field where no element is inverted in it, else zero displacement of the free nodes."""
    linear = states.begin(solid.start()).u
    return linear if bool(torch.isfinite(solid.value(linear, params))) else solid.start()


def _motion(length: float, variation: Variation, rng: np.random.Generator) -> EndMotion:
    sign = rng.choice([-1.0, 1.0])
    if variation is Variation.LOADS:
        return EndMotion(
            length,
            rng.uniform(1.3, 1.8),
            sign * length * rng.uniform(0.2, 0.6),
            rng.choice([-1, 1]) * rng.uniform(0.2, 1),
        )
    kind = rng.integers(3)
    if kind == 0:
        return EndMotion(length, stretch=rng.uniform(1.5, 3.0))
    if kind == 1:
        return EndMotion(length, stretch=rng.uniform(1.2, 2.0), angle=sign * length * rng.uniform(0.3, 0.7))
    return EndMotion(length, stretch=rng.uniform(1.2, 2.0), shear=sign * rng.uniform(0.5, 2.0))


def _mesh(size: int, length: float, variation: Variation, rng: np.random.Generator) -> Mesh:
    across = max(4, round(math.sqrt(size / length)))
    along = round(across * length)
    if variation is not Variation.MESH:
        return rectangle(along, across, (length, 1.0))
    mesh = rectangle(along, across, (length, 1.0), Shape.TRIANGLE)
    x = mesh.coordinates.clone()
    inside = (x[:, 0] > 1e-9) & (x[:, 0] < length - 1e-9) & (x[:, 1] > 1e-9) & (x[:, 1] < 1.0 - 1e-9)
    shift = torch.from_numpy(rng.uniform(-0.2, 0.2, size=x.shape)) / across
    return mesh.moved(torch.where(inside[:, None], x + shift, x))


def _node_features(solid: Solid, mu: Tensor, poisson: float) -> tuple[Tensor, Tensor]:
    """Whether a node is free, and Poisson's ratio; edges know the mean log-stiffness of the cells at their two ends."""
    mesh = solid.mesh
    nodes = len(mesh.coordinates)
    free = torch.zeros(nodes, dtype=torch.float64)
    free[solid.constraints.free // 2] = 1.0
    total, count = torch.zeros(nodes, dtype=torch.float64), torch.zeros(nodes, dtype=torch.float64)
    logarithm = mu.log() - mu.log().mean()
    for column in mesh.cells.unbind(1):
        total.index_add_(0, column, logarithm)
        count.index_add_(0, column, torch.ones_like(logarithm))
    mean = total / count
    edges = neighbours(mesh.cells)
    features = torch.stack((free, torch.full_like(free, 2.0 * poisson)), 1)
    return features, (0.5 * (mean[edges[0]] + mean[edges[1]]))[:, None]
