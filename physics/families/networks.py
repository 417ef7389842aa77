"""Networks in the unit square or cube: random ones whose mean degree and order differ by kind, and given ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import Delaunay

from bilevel.report import InputError
from physics.discretisation.graph_file import read_graph

THINNING = 0.25
"""The share of a lattice's edges that is taken out before what is no longer connected is dropped."""


@dataclass(frozen=True, eq=False)
class Network:
    """points (N, dim) in the unit square or cube, edges (E, 2) with each edge once, and the mean length of an edge."""

    points: np.ndarray
    edges: np.ndarray

    @property
    def spacing(self) -> float:
        return float(np.linalg.norm(np.diff(self.points[self.edges], axis=1), axis=-1).mean())

    def side(self, low: bool) -> np.ndarray:
        """The nodes nearest to the side x = 0 (or x = 1): a layer half a spacing deep, of one node at the least."""
        distance = self.points[:, 0] if low else 1.0 - self.points[:, 0]
        return np.flatnonzero(distance <= max(distance.min(), 0.5 * self.spacing))


def pores(size: int, rng: np.random.Generator) -> Network:
    """Pores in a block of rock: the shortest edges of a tetrahedralisation of random points, six to a pore on average."""
    points = rng.uniform(size=(size, 3))
    tetrahedra = Delaunay(points).simplices
    pairs = np.concatenate([tetrahedra[:, [i, j]] for i in range(4) for j in range(i)])
    edges = np.unique(np.sort(pairs, 1), axis=0)
    length = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    shortest = np.argsort(length)[: 3 * size]
    return _connected(points, edges[np.sort(shortest)])


def streets(size: int, rng: np.random.Generator) -> Network:
    """Delaunay's triangles of random points of a square, a third of their sides taken out."""
    points = rng.uniform(size=(size, 2))
    triangles = Delaunay(points).simplices
    edges = np.unique(np.sort(np.concatenate([triangles[:, [i, j]] for i in range(3) for j in range(i)]), 1), axis=0)
    return _connected(points, edges[rng.uniform(size=len(edges)) >= 1.0 / 3.0])


def lattice(size: int, dimension: int, rng: np.random.Generator) -> Network:
    """A square or cubic lattice, thinned."""
    count = max(3, round(size ** (1.0 / dimension)))
    number = np.arange(count**dimension).reshape((count,) * dimension)
    edges = np.concatenate(
        [
            np.stack([np.take(number, range(count - 1), a).ravel(), np.take(number, range(1, count), a).ravel()], 1)
            for a in range(dimension)
        ]
    )
    points = np.stack(np.unravel_index(number.ravel(), number.shape), 1) / (count - 1)
    return _connected(points, edges[rng.uniform(size=len(edges)) >= THINNING])


def read_network(nodes: Path, edges: Path) -> Network:
    """The largest connected part of a graph in two tables (`read_graph`), scaled so that x goes from 0 to 1.

    Raises InputError as `read_graph` does, and for nodes that all have one x.
    """
    part = _connected(*read_graph(nodes, edges))
    moved = part.points - part.points.min(0)
    if not moved[:, 0].max() > 0.0:
        raise InputError(f"{nodes}: all nodes have the same x; flow goes along x, from one side to the other")
    return Network(moved / moved[:, 0].max(), part.edges)


def _connected(points: np.ndarray, edges: np.ndarray) -> Network:
    """The largest connected part."""
    matrix = coo_matrix((np.ones(len(edges)), edges.T), (len(points),) * 2)
    part = connected_components(matrix, directed=False)[1]
    kept = part == np.bincount(part).argmax()
    number = np.cumsum(kept) - 1
    return Network(points[kept], number[edges[kept[edges[:, 0]]]])
