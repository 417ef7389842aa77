"""Nodes and cells of one kind, and the facets between them: what every part of a mesh is made from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bilevel.report import InputError
from physics.discretisation.reference_cells import Shape


@dataclass(frozen=True, eq=False)
class Facets:
    """Facets of cells: the cell that each belongs to (F,) and its number within that cell (F,)."""

    cells: np.ndarray
    local: np.ndarray

    def __getitem__(self, keep: np.ndarray) -> Facets:
        return Facets(self.cells[keep], self.local[keep])


@dataclass(frozen=True, eq=False)
class CellComplex:
    """Cells of one kind with their facets.

    coordinates (nodes, dim), in metres. cells (cells, nodes per cell), in the order of `element`, a scikit-fem element,
    which interpolates the geometry as well as the fields. boundaries: named sets of facets; regions: named sets of
    cells (numbers); point_sets: named sets of nodes (numbers). notes: what reading a file left out or changed, in
    sentences.
    """

    coordinates: Tensor
    cells: Tensor
    element: Any
    boundaries: Mapping[str, Facets] = field(default_factory=dict)
    regions: Mapping[str, np.ndarray] = field(default_factory=dict)
    point_sets: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    stays_on_host: ClassVar[bool] = True

    @property
    def dim(self) -> int:
        return self.coordinates.shape[1]

    @property
    def shape(self) -> Shape:
        return Shape(self.element.refdom.name)

    @property
    def degree(self) -> int:
        """The polynomial degree of the element along a line."""
        if len(self.element.doflocs) == len(self.element.refdom.p.T):
            return 1
        return 2 if self.shape.tensor_product else math.ceil(self.element.maxdeg)

    @cached_property
    def positions(self) -> np.ndarray:
        """The coordinates as plain numbers (nodes, dim)."""
        return self.coordinates.detach().numpy()

    @cached_property
    def corners(self) -> np.ndarray:
        """The nodes at the cells' corners (cells, corners), in the order of the reference domain."""
        places = [int(np.linalg.norm(self.element.doflocs - p, axis=1).argmin()) for p in self.element.refdom.p.T]
        return self.cells.numpy()[:, places]

    @cached_property
    def exterior(self) -> Facets:
        """The facets with one cell."""
        return self._sides[0]

    @property
    def interior(self) -> tuple[Facets, Facets]:
        """The facets with two cells, seen from either; InputError for a facet of more than two cells."""
        return self._sides[1], self._sides[2]

    @cached_property
    def facet_keys(self) -> tuple[np.ndarray, Facets]:
        """The sorted corner nodes (cells * facets, corners) of all facets of all cells, and the facets."""
        facets = self.element.refdom.facets
        keys = np.concatenate([np.sort(self.corners[:, list(facet)], axis=1) for facet in facets])
        count = len(self.cells)
        cells = np.tile(np.arange(count, dtype=np.int32), len(facets))
        return keys, Facets(cells, np.repeat(np.arange(len(facets), dtype=np.int8), count))

    @cached_property
    def _sides(self) -> tuple[Facets, Facets, Facets]:
        keys, facets = self.facet_keys
        number = _numbered(keys)
        order = np.lexsort((facets.local, facets.cells, number))
        runs = np.flatnonzero(np.diff(number[order], prepend=-1))
        sizes = np.diff(np.append(runs, len(order)))
        if (sizes > 2).any():
            crowded = order[runs[sizes > 2][0]]
            raise InputError(
                f"mesh: the facet with nodes {keys[crowded].tolist()} belongs to more than two elements, such as element "
                f"{facets.cells[crowded]} ({int((sizes > 2).sum())} such facets); remove elements that lie in one another"
            )
        pairs = runs[sizes == 2]
        return facets[order[runs[sizes == 1]]], facets[order[pairs]], facets[order[pairs + 1]]

    @cached_property
    def facet_nodes(self) -> list[np.ndarray]:
        """For each facet of the reference cell, the local numbers of the nodes on it."""
        vertices, nodes = self.element.refdom.p.T, self.element.doflocs
        found = []
        for facet in self.element.refdom.facets:
            corner = vertices[facet]
            normal = np.linalg.svd(corner[1:] - corner[0])[2][-1]
            found.append(np.flatnonzero(np.abs((nodes - corner[0]) @ normal) < 1e-12))
        return found

    def nodes_of(self, facets: Facets) -> np.ndarray:
        """The nodes on some facets, sorted."""
        cells = self.cells.numpy()
        nodes = [cells[facets.cells[facets.local == f]][:, on].ravel() for f, on in enumerate(self.facet_nodes)]
        return np.unique(np.concatenate(nodes))

    def facet_midpoints(self, facets: Facets) -> np.ndarray:
        """The mean of each facet's nodes (facets, dim)."""
        cells = self.cells.numpy()
        middle = np.empty((len(facets.cells), self.dim))
        for f, on in enumerate(self.facet_nodes):
            here = facets.local == f
            middle[here] = self.positions[cells[facets.cells[here]][:, on]].mean(1)
        return middle

    def facet_normals(self, facets: Facets) -> Tensor:
        """The outward unit normals (facets, dim) of facets, straight between their corners."""
        ends = self.positions[
            np.stack([self.corners[c][list(self.element.refdom.facets[f])] for c, f in zip(facets.cells, facets.local)])
        ]
        edges = ends[:, 1:] - ends[:, :1]
        normal = np.stack((edges[:, 0, 1], -edges[:, 0, 0]), 1) if self.dim == 2 else np.cross(edges[:, 0], edges[:, 1])
        inward = self.positions[self.corners[facets.cells]].mean(1) - ends.mean(1)
        normal *= -np.sign((normal * inward).sum(1, keepdims=True))
        return torch.from_numpy(normal / np.linalg.norm(normal, axis=1, keepdims=True))

    def facets_with(self, nodes: np.ndarray) -> tuple[Facets, np.ndarray]:
        """The facets whose corners are the rows of `nodes` (F, corners), from one side, and which rows have none."""
        keys, facets = self.facet_keys
        number = _numbered(np.concatenate((keys, np.sort(nodes, axis=1))))
        first = np.full(number.max() + 1, -1)
        first[number[: len(keys)][::-1]] = np.arange(len(keys))[::-1]
        place = first[number[len(keys) :]]
        return facets[place[place >= 0]], np.flatnonzero(place < 0)


def _numbered(rows: np.ndarray) -> np.ndarray:
    """Equal rows of ascending node numbers have equal numbers; three nodes tell a facet."""
    base = int(rows.max(initial=0)) + 1
    if base ** min(rows.shape[1], 3) < 2**62:  # one number a row sorts ten times as fast as a row
        keys = rows[:, 0].astype(np.int64)
        for column in rows[:, 1:3].T:
            keys = keys * base + column
        return np.unique(keys, return_inverse=True)[1]
    return np.unique(rows[:, :3], axis=0, return_inverse=True)[1].reshape(-1)


def tensors(coordinates: np.ndarray, cells: np.ndarray) -> tuple[Tensor, Tensor]:
    """Coordinates and cells as a mesh holds them."""
    return (
        torch.as_tensor(np.ascontiguousarray(coordinates), dtype=torch.float64),
        torch.as_tensor(np.ascontiguousarray(cells), dtype=torch.int64),
    )
