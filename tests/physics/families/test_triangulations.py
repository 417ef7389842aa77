"""Meshes of families: they fill the unit square or cube, and know their sides."""

import numpy as np
import pytest
import torch

from physics.families.triangulations import regular, shifted

MADE = {
    "shifted": lambda: shifted(400, np.random.default_rng(3)),
    "few": lambda: shifted(16, np.random.default_rng(4)),
    "square": lambda: regular(400, 2),
    "cube": lambda: regular(343, 3),
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE.keys())
def test_cells_fill_the_whole_and_sides_are_held_at_all_their_nodes(make):
    mesh = make()
    volumes = mesh.operator().weights().sum(1)
    assert float(volumes.sum()) == pytest.approx(1.0, rel=1e-12)
    assert float(volumes.min()) > 0.05 * float(volumes.mean())
    for name, place in (("left", 0.0), ("right", 1.0)):
        on_side = torch.nonzero((mesh.coordinates[:, 0] - place).abs() < 1e-12)[:, 0]
        assert torch.equal(mesh.nodes_on(name), on_side)


def test_another_seed_shifts_other_nodes():
    one, other = (shifted(100, np.random.default_rng(seed)).coordinates for seed in (0, 1))
    assert not torch.equal(one, other)
    assert float((one - other).abs().max()) < 0.1
