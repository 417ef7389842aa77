"""The dog-bone plate with a hole: its mesh, mapped block by block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from physics.discretisation import Mesh, Shape, from_arrays


@dataclass(frozen=True)
class PlateWithHole:
    """Half of a dog-bone specimen with its hole at the origin, in m.

    radius of the hole; width of the parallel part, which reaches from `shoulder` (negative) to `right`, where the
    traction acts; between `left` (clamped) and `shoulder` the width grows along arcs of `fillet` radius.
    """

    radius: float
    width: float
    left: float
    shoulder: float
    right: float
    fillet: float

    def mesh(self, divisions: int = 8, order: int = 2) -> Mesh:
        """Quadrilaterals, with 8 x `divisions` around the hole; boundaries clamp, traction and hole."""
        half = 0.5 * self.width
        points, cells = self._around_hole(divisions, half)
        spacing = half / divisions
        for start, stop in ((self.left, self.shoulder), (self.shoulder, -half), (half, self.right)):
            strip = self._strip(start, stop, max(1, round((stop - start) / (1.5 * spacing))), 2 * divisions)
            cells = np.concatenate((cells, strip[1] + len(points)))
            points = np.concatenate((points, strip[0]))
        points, cells = _merge(points, cells, 1e-6 * self.radius)
        mesh = from_arrays(points, cells, Shape.QUADRILATERAL, order)
        mesh = mesh.moved(torch.from_numpy(self._rounded(mesh.coordinates.numpy())))
        mesh = mesh.with_boundary("clamp", lambda x: x[:, 0] < self.left + 1e-3 * self.radius)
        mesh = mesh.with_boundary("traction", lambda x: x[:, 0] > self.right - 1e-3 * self.radius)
        return mesh.with_boundary("hole", lambda x: np.hypot(x[:, 0], x[:, 1]) < 1.1 * self.radius)

    def _around_hole(self, divisions: int, half: float) -> tuple[np.ndarray, np.ndarray]:
        """An O-grid between the circle and a square, finer towards the circle."""
        angles, layers = 8 * divisions, 2 * divisions
        side = np.linspace(-1.0, 1.0, 2 * divisions + 1)[:-1]
        one = np.ones_like(side)
        square = half * np.concatenate(
            [np.stack(edge, 1) for edge in ((side, -one), (one, side), (-side, one), (-one, -side))]
        )
        circle = self.radius * square / np.linalg.norm(square, axis=1, keepdims=True)
        depth = np.linspace(0.0, 1.0, layers + 1) ** 1.3
        points = circle[None] + depth[:, None, None] * (square - circle)[None]
        layer, angle = np.meshgrid(np.arange(layers), np.arange(angles), indexing="ij")
        turn = (angle + 1) % angles
        cells = np.stack(((layer, angle), (layer + 1, angle), (layer + 1, turn), (layer, turn)))
        return points.reshape(-1, 2), (cells[:, 0] * angles + cells[:, 1]).reshape(4, -1).T

    def _strip(self, start: float, stop: float, along: int, across: int) -> tuple[np.ndarray, np.ndarray]:
        x, t = np.meshgrid(np.linspace(start, stop, along + 1), np.linspace(-1.0, 1.0, across + 1), indexing="ij")
        points = np.stack((x, t * self._half_width(x)), -1).reshape(-1, 2)
        i, j = np.meshgrid(np.arange(along), np.arange(across), indexing="ij")
        corner = i * (across + 1) + j
        cells = np.stack((corner, corner + across + 1, corner + across + 2, corner + 1), -1)
        return points, cells.reshape(-1, 4)

    def _half_width(self, x: np.ndarray) -> np.ndarray:
        beyond = np.clip(self.shoulder - x, 0.0, self.fillet)
        return 0.5 * self.width + self.fillet - np.sqrt(self.fillet**2 - beyond**2)

    def _rounded(self, x: np.ndarray) -> np.ndarray:
        """Nodes in the middle of edges along the hole and the fillets are put on their arcs."""
        edge = self._half_width(x[:, 0])
        x = np.stack((x[:, 0], np.clip(x[:, 1], -edge, edge)), 1)
        distance = np.linalg.norm(x, axis=1, keepdims=True)
        chord = np.abs(distance - self.radius) < 0.02 * self.radius
        return np.where(chord & (distance < self.radius), x * self.radius / distance, x)


def _merge(points: np.ndarray, cells: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    keys = np.round(points / tolerance).astype(np.int64)
    _, first, number = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return points[first], number.reshape(-1)[cells]
