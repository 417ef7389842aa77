"""Closed-form starting values on curves whose answer is known, and on a natural clay."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch

from bilevel.report import InputError
from physics.soil.starting_values import (
    compression_and_swelling,
    compression_slope,
    critical_ratio,
    dilatancy_angle,
    friction_angle,
)


def test_slopes_of_an_ideal_oedometer() -> None:
    loading = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    unloading = torch.tensor([8.0, 4.0])
    e_load = 1.0 - 0.1 * torch.log(loading)
    e_unload = e_load[-1] + 0.02 * (math.log(16.0) - torch.log(unloading))
    slopes = compression_and_swelling(torch.cat([loading, unloading]), torch.cat([e_load, e_unload]))
    assert slopes == pytest.approx((0.1, 0.02), rel=1e-12)
    with pytest.raises(InputError, match="unloading branch"):
        compression_and_swelling(loading, e_load)
    with pytest.raises(InputError, match="positive pressure"):
        compression_slope(-loading, e_load)


def test_clay_compression_index(shared_data: Path) -> None:
    """Published Cc = 0.2383 and Cr = 0.0487 per decade of stress."""
    lines = (shared_data / "clay_oedometer_pysigmap.csv").read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))[1:]
    stress = torch.tensor([float(r["sigma_axial_Pa"]) for r in rows])
    e = torch.tensor([float(r["void_ratio"]) for r in rows])
    steep, flat = compression_and_swelling(stress, e)
    assert steep * math.log(10) == pytest.approx(0.2383, rel=0.1)
    assert flat * math.log(10) == pytest.approx(0.0487, rel=0.4)


def test_angles() -> None:
    q, p = torch.tensor([0.0, 150.0, 120.0, 120.0]), torch.full((4,), 100.0)
    assert critical_ratio(q, p, last=2) == pytest.approx(1.2)
    assert math.degrees(friction_angle(1.2)) == pytest.approx(30.0)
    strain = torch.tensor([0.0, -0.01, -0.02, -0.03])
    assert dilatancy_angle(strain, torch.tensor([0.0, -0.001, 0.001, 0.006])) == pytest.approx(math.asin(0.5 / 2.5))
