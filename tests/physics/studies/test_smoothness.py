"""Gaussian fields on cells: their variance and correlation against Matern's closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import kv

from physics.discretisation import Shape, box, rectangle
from physics.studies.on_mesh.smoothness import differences, gaussian_field
from physics.studies.on_mesh.zones import Zones

STD, LENGTH = 1.5, 0.4


def covariance(whitening) -> np.ndarray:
    return np.linalg.inv((whitening.T @ whitening).toarray())


@pytest.mark.parametrize(("shape", "off"), [(Shape.QUADRILATERAL, 0.04), (Shape.TRIANGLE, 0.1)])
def test_plane_field_has_materns_covariance(shape, off):
    """Fluxes between the centres of halved squares favour one diagonal a little."""
    mesh = rectangle(30, 30, lengths=(2.0, 2.0), shape=shape)
    found = covariance(gaussian_field(mesh, None, STD, LENGTH))
    centre = mesh.positions[mesh.corners].mean(1)
    middle = int(np.argmin(np.linalg.norm(centre - 1.0, axis=1)))
    distance = np.linalg.norm(centre - centre[middle], axis=1)
    near = (distance > 0) & (distance < 0.8)
    x = np.sqrt(8) * distance[near] / LENGTH
    np.testing.assert_allclose(found[middle][near], STD**2 * x * kv(1, x), atol=off * STD**2)
    assert np.sqrt(np.diag(found)) == pytest.approx(STD, rel=0.12)  # at the edges as well


def test_field_in_space_is_exponential():
    mesh = box(13, 13, 13, lengths=(1.0, 1.0, 1.0))
    found = covariance(gaussian_field(mesh, None, STD, 0.5))
    centre = mesh.positions[mesh.corners].mean(1)
    middle = int(np.argmin(np.linalg.norm(centre - 0.5, axis=1)))
    distance = np.linalg.norm(centre - centre[middle], axis=1)
    far = (distance > 0.15) & (distance < 0.4)  # one cell averages the peak away
    np.testing.assert_allclose(found[middle][far], STD**2 * np.exp(-2 * distance[far] / 0.5), atol=0.05 * STD**2)


def test_zones_are_independent_of_each_other():
    mesh = rectangle(8, 8).with_region("left", lambda x: x[:, 0] < 0.5).with_region("right", lambda x: x[:, 0] > 0.5)
    zones = Zones.of(mesh, ["left", "right"])
    found = covariance(gaussian_field(mesh, zones, STD, LENGTH))
    left = zones.of_cell.numpy() == 0
    assert np.abs(found[np.ix_(left, ~left)]).max() <= 1e-12
    assert differences(mesh, zones, 1).shape[0] == differences(mesh, None, 1).shape[0] - 8


def test_a_linear_field_has_no_curvature_inside():
    mesh = rectangle(6, 6)
    centre = torch.as_tensor(mesh.positions[mesh.corners].mean(1))
    curvature = differences(mesh, None, 2) @ centre[:, 0].numpy()
    inside = ((centre > 0.2) & (centre < 0.8)).all(1).numpy()
    assert np.abs(curvature[inside]).max() <= 1e-14
