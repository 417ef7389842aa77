"""`kind: solid` seen by a camera: frames with masked points, and the standard deviations of what it saw."""

from __future__ import annotations

import re
from pathlib import Path

import meshio
import numpy as np
import pytest
import torch
from mesh_studies import study, write_rows

from bilevel.calibrate.fit.run import calibrate
from bilevel.calibrate.report.outputs import write_states
from bilevel.calibrate.statistics.state_deviations import state_deviations
from bilevel.calibrate.study.study import Study
from bilevel.report import InputError

DIC = """\
title: Frames of a camera
model:
  kind: solid
  mesh: {lengths: [20, 10], cells: [4, 2], units: mm}
  kinematics: plane_stress
  supports: {left: {x: 0 m}, bottom: {y: 0 m}}
  loads: {right: {x: {file: load.csv, time: frame, value: {column: pull, units: MPa}}}}
  time: {end: 3, steps: 3}
  sensors: {u: {quantity: ux}, v: {quantity: uy}}
parameters:
  - {name: youngs_modulus, value: 100, units: GPa}
  - {name: poissons_ratio, value: 0.2}
  - {name: translation_x, value: 0, units: um}
  - {name: rotation, value: 0}
observations:
  - file: frames.csv
    wide: {columns: [u, v], name: sensor}
    omit: [nan]
    value: {column: moved, units: um}
    columns: {sensor: sensor, time: frame, x: {column: x, units: mm}, y: {column: y, units: mm}}
    std: {column: sigma}
calibration: {verify: false, noise: known}
"""


def frames(folder: Path) -> Study:
    """Three frames of a bar in tension, seen by a camera that slipped by 5 um and turned by 1e-4, some points masked."""
    write_rows(folder / "load.csv", "frame,pull", [(0, 0), (1, 50), (2, 20), (3, 80)])
    rows = []
    for frame, pull in ((1, 50e6), (2, 20e6), (3, 80e6)):
        for k, (x, y) in enumerate([(2e-3, 1e-3), (9e-3, 8e-3), (15e-3, 4e-3), (18e-3, 9e-3)]):
            u = pull / 70e9 * x + 5e-6 - 1e-4 * y
            v = -0.3 * pull / 70e9 * y + 1e-4 * x
            masked = (frame, k) in ((1, 2), (3, 0))
            seen = ("NaN", "NaN") if masked else (u * 1e6 + (50.0 if k == 3 else 0.0), v * 1e6)
            rows.append((frame, x * 1e3, y * 1e3, *seen, 1e6 if k == 3 else 0.1))
    write_rows(folder / "frames.csv", "frame,x,y,u,v,sigma", rows)
    return study(folder, DIC)


def test_frames_of_a_camera_with_masked_points_and_a_sigma_for_each(tmp_path: Path) -> None:
    """A column for u and one for v; a point that is wrong by 50 um has a sigma of 1 m, and counts for nothing."""
    loaded = frames(tmp_path)
    assert len(loaded.problem.value) == 2 * (12 - 2)
    result = calibrate(loaded.problem, settings=loaded.settings)
    found = {e.label: e.value for e in result.estimates}
    expected = {"youngs_modulus": 70, "poissons_ratio": 0.3, "translation_x": 5, "rotation": 1e-4}
    assert found == pytest.approx(expected, rel=1e-6)


def test_standard_deviations_of_the_state_beside_it(tmp_path: Path) -> None:
    """ux = pull x / E: its standard deviation is ux std(E) / E, of uy that of nu / E; the cells have those of E and nu."""
    loaded = frames(tmp_path)
    result = calibrate(loaded.problem, settings=loaded.settings)
    assert result.statistics is not None
    written, failed = write_states(result, tmp_path / "state")
    assert not failed
    assert {path.name for path in written} == {"solid.vtu", "standard_deviations.vtu"}
    state, deviation = (meshio.read(tmp_path / "state" / name) for name in ("solid.vtu", "standard_deviations.vtu"))
    young, nu = result.estimates[0], result.estimates[1]
    x, y = deviation.points[:, 0], deviation.points[:, 1]
    pull = 80e6
    assert state.point_data["displacement"][:, 0] == pytest.approx(pull * x / 70e9, rel=1e-6, abs=1e-15)
    expected = pull * x / 70e9 * young.std / young.value
    assert deviation.point_data["displacement"][:, 0] == pytest.approx(expected, rel=1e-4, abs=1e-15)
    joint = result.statistics.covariance[:2, :2]  # of E in GPa and nu
    slope = np.array([0.3 / young.value, -1.0])
    expected = pull * y / 70e9 * np.sqrt(slope @ joint @ slope)
    assert deviation.point_data["displacement"][:, 1] == pytest.approx(expected, rel=1e-4, abs=1e-15)
    assert deviation.cell_data["youngs_modulus"][0] == pytest.approx(np.full(8, young.std * 1e9), rel=1e-6)
    assert deviation.cell_data["poissons_ratio"][0] == pytest.approx(np.full(8, nu.std), rel=1e-6)


def test_deviations_of_what_the_data_do_not_tell_are_infinite(tmp_path: Path) -> None:
    """Without a reading along y nothing is known of Poisson's ratio, and so of uy; ux is as well known as E."""
    frames(tmp_path)
    blind = DIC.replace("columns: [u, v]", "columns: [u]").replace("  - {name: rotation, value: 0}\n", "")
    loaded = study(tmp_path, blind)
    result = calibrate(loaded.problem, settings=loaded.settings, on_fail="ignore")
    found = state_deviations(result, result.problem.experiments[0])["displacement"]
    moved = found[torch.isfinite(found[:, 1]), 1]
    assert bool((moved == 0).all())  # where the support holds it
    assert bool(torch.isinf(found[:, 1]).any())
    assert bool(torch.isfinite(found[:, 0]).all())


def test_deviations_that_memory_would_not_hold_are_said_to_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = frames(tmp_path)
    result = calibrate(loaded.problem, settings=loaded.settings)
    monkeypatch.setattr("bilevel.calibrate.statistics.state_deviations.LARGEST", 10)
    written, failed = write_states(result, tmp_path / "state")
    assert [path.name for path in written] == ["solid.vtu"]
    assert re.fullmatch(r"the standard deviations of the state .*: not written, .* too much memory", failed[0])


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "u: {quantity: ux}",
            "u: {quantity: force_x}",
            "line 9: model.sensors.u.quantity: 'force_x' cannot be read there",
        ),
        ("u: {quantity: ux}", "u: {}", "line 9: model.sensors.u: a sensor has one of"),
        ("v: {quantity: uy}", "v: {quantity: uy}, d: {difference: [u, v]}", "'u' has no place of its own"),
        (
            ", y: {column: y, units: mm}",
            "",
            "frames.csv, line 2, column 'u': 'u' is read at a place, so map the columns x, y",
        ),
    ],
)
def test_what_is_wrong_with_frames_is_named(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    frames(tmp_path)
    assert old in DIC
    with pytest.raises(InputError, match=re.escape(sentence)):
        study(tmp_path, DIC.replace(old, new))
