"""What is known of the logarithms of cell values before any reading, as sparse whitening matrices.

Differences and curvatures couple neighbours within a zone. The Gaussian field is that of Matern's covariance, as the solution of
(kappa^2 - Laplace) x = white noise by finite volumes (Lindgren, Rue & Lindstrom 2011, J. R. Stat. Soc. B 73:423, section 2.3).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from physics.discretisation import Mesh
from physics.discretisation.mesh_operator import cell_operator, facet_operator
from physics.studies.on_mesh.zones import Zones

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_EDGE = 1.42
"""What lies beyond the edge of a zone holds the field back by kappa / 1.42, so that its variance rises little there
(Roininen, Huttunen & Lasanen 2014, Inverse Probl. Imaging 8:561)."""


def differences(mesh: Mesh, zones: Zones | None, order: int) -> csr_matrix:
    """Differences across the sides between cells of one zone (sides, cells), or of each cell from its neighbours' mean."""
    from scipy.sparse import coo_matrix, diags

    one, other, _ = _sides(mesh, zones)
    rows, ones = np.arange(len(one)), np.ones(len(one))
    place = np.concatenate([rows, rows]), np.concatenate([one, other])
    found = coo_matrix((np.concatenate([ones, -ones]), place), (len(one), len(mesh.cells))).tocsr()
    if order == 1:
        return found
    laplacian = (found.T @ found).tocsr()
    return (diags(1 / np.maximum(laplacian.diagonal(), 1.0)) @ laplacian).tocsr()


def gaussian_field(mesh: Mesh, zones: Zones | None, std: float, length: float) -> csr_matrix:
    """Whitening (cells, cells) of a field with a standard deviation whose correlation falls to 0.14 over a length.

    Matern's covariance with smoothness 1 in the plane and 1/2 in space, where it is the exponential of -2 distance / length.
    """
    from scipy.sparse import coo_matrix, diags

    count, dim = len(mesh.cells), mesh.dim
    smoothness = 2 - dim / 2
    kappa = math.sqrt(8 * smoothness) / length
    # variance of the solution of (kappa^2 - Laplace) x = tau^-1 white noise, eq. after (4)
    variance = math.gamma(smoothness) / ((4 * math.pi) ** (dim / 2) * kappa ** (2 * smoothness))
    volume = cell_operator(mesh, gradient=False, value=True, axisymmetric=False, quadrature=1).evaluate(
        None, slice(None)
    )
    mass = volume[1].sum(1).numpy()
    one, other, edge = _sides(mesh, zones)
    inside = _areas(mesh, mesh.interior[0])
    centre = mesh.positions[mesh.corners].mean(1)
    first, second = (facets.cells for facets in mesh.interior)
    kept = _within(mesh, zones)
    flow = inside[kept] / np.linalg.norm(centre[one] - centre[other], axis=1)
    flow_matrix = coo_matrix((flow, (one, other)), (count, count))
    flow_matrix = flow_matrix + flow_matrix.T
    rim = np.bincount(edge, _areas(mesh, mesh.exterior), count)
    rim += np.bincount(first[~kept], inside[~kept], count) + np.bincount(second[~kept], inside[~kept], count)
    held = kappa**2 * mass + kappa / _EDGE * rim + np.asarray(flow_matrix.sum(1)).reshape(-1)
    return (diags(math.sqrt(variance) / std / np.sqrt(mass)) @ (diags(held) - flow_matrix)).tocsr()


def _within(mesh: Mesh, zones: Zones | None) -> np.ndarray:
    """Which interior sides lie between cells of one zone."""
    one, other = (facets.cells for facets in mesh.interior)
    if zones is None:
        return np.ones(len(one), dtype=bool)
    zone = zones.of_cell.numpy()
    return zone[one] == zone[other]


def _sides(mesh: Mesh, zones: Zones | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two cells of each side within a zone, and the cells of the exterior sides."""
    kept = _within(mesh, zones)
    one, other = (facets.cells[kept] for facets in mesh.interior)
    return one, other, mesh.exterior.cells


def _areas(mesh: Mesh, facets) -> np.ndarray:  # type: ignore[no-untyped-def]
    operator = facet_operator(mesh, facets, axisymmetric=False, quadrature=1)
    return operator.evaluate(None, slice(None))[1].sum(1).numpy()
