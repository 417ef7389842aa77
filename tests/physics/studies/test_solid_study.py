"""`kind: solid`: two zones, a notched bar that yields, bodies of closed form, a camera, pressures, masked fields."""

from __future__ import annotations

import re
from pathlib import Path

import meshio
import numpy as np
import pytest
import torch
from mesh_studies import misfit, study, worst_derivative, write_rows

from bilevel.calibrate.fit.run import calibrate
from bilevel.calibrate.report.outputs import write_states
from bilevel.calibrate.study.loading import load_study
from bilevel.calibrate.study.study import Study
from bilevel.report import InputError
from physics.discretisation import Shape, rectangle
from physics.discretisation.write import write_gmsh

BLOCK = """\
title: Block of two zones
model:
  kind: solid
  mesh: {file: block.msh, units: m}
  kinematics: plane_strain
  spread: {youngs_modulus: zones, poissons_ratio: zones}
  supports:
    bottom: {x: 0 m, y: 0 m}
    top: {x: 1 mm, y: -2 mm}
  sensors:
    side: {at: [2 m, 0.5 m], quantity: ux}
    corner: {at: [0.3 m, 0.8 m], quantity: uy}
    middle: {at: [1.2 m, 0.6 m], quantity: uy}
    extensometer: {difference: [corner, middle]}
    push: {through: top, quantity: force_y}
    shear: {through: top, quantity: force_x}
  thickness: 30 cm
parameters:
  - {name: "youngs_modulus[soft]", value: 50, units: MPa}
  - {name: "youngs_modulus[stiff]", value: 200, units: MPa}
  - {name: "poissons_ratio[soft]", value: 0.2}
  - {name: "poissons_ratio[stiff]", value: 0.3}
observations:
  - file: lengths.csv
    value: {column: value, units: mm}
    columns: {sensor: sensor}
    group: lengths
    std: 0.001
  - file: forces.csv
    value: {column: value, units: kN}
    columns: {sensor: sensor}
    group: forces
    std: 0.1
calibration: {verify: false}
"""


def twin(folder: Path, text: str, truth: dict[str, str]) -> Study:
    """A study whose data are its own predictions where some texts are replaced by those of the truth."""
    true = text
    for old, new in truth.items():
        assert old in true
        true = true.replace(old, new)
    (folder / "study.yml").write_text(true)
    problem = load_study(folder / "study.yml").problem
    with torch.no_grad():
        predicted = problem.predict(torch.as_tensor(problem.parameters.start())).numpy()
    table = problem.experiments[0].observations
    rows: dict[str, list[tuple[int, float]]] = {}
    for k, source in enumerate(table.source):
        file, line = source.rsplit(", line ", 1)
        conversion = table.units_of(table.group[k]).conversion
        rows.setdefault(file, []).append((int(line), float(conversion.inverse(predicted[k]))))
    for file, values in rows.items():
        lines = Path(file).read_text().splitlines()
        for line, value in values:
            lines[line - 1] = ",".join([*lines[line - 1].split(",")[:-1], repr(value)])
        Path(file).write_text("\n".join(lines) + "\n")
    (folder / "study.yml").write_text(text)
    return load_study(folder / "study.yml")


def block(folder: Path) -> Study:
    mesh = rectangle(8, 4, (2.0, 1.0), Shape.TRIANGLE, order=2)
    mesh = mesh.with_region("soft", lambda x: x[:, 0] < 1.0).with_region("stiff", lambda x: x[:, 0] > 1.0)
    write_gmsh(folder / "block.msh", mesh)
    write_rows(
        folder / "lengths.csv", "sensor,value", [(name, 0.0) for name in ("side", "corner", "middle", "extensometer")]
    )
    write_rows(folder / "forces.csv", "sensor,value", [("push", 0.0), ("shear", 0.0)])
    truth = {
        "value: 50,": "value: 100,",
        "value: 200,": "value: 400,",
        "value: 0.2}": "value: 0.4}",
        "value: 0.3}": "value: 0.2}",
    }
    return twin(folder, BLOCK, truth)


def test_four_parameters_of_a_block_of_two_zones(tmp_path: Path) -> None:
    """From a start 50 % off, to 1e-6."""
    loaded = block(tmp_path)
    assert worst_derivative(loaded) < 1e-6
    result = calibrate(loaded.problem, settings=loaded.settings)
    values = [e.value for e in result.estimates]
    print("found", values)
    assert values == pytest.approx([100, 400, 0.4, 0.2], rel=1e-6)


NOTCHED = """\
title: Notched bar
model:
  kind: solid
  mesh: {file: bar.msh, units: mm}
  kinematics: plane_strain
  law: j2_plasticity
  hardening: voce
  thickness: 10 mm
  supports:
    bottom: {y: 0 m}
    left: {x: 0 m}
    top: {y: {file: stroke.csv, time: t, value: {column: stroke, units: um}}}
  time: {end: 3, steps: 6}
  sensors:
    force: {through: top, quantity: force_y}
    upper: {at: [0 mm, 5 mm], quantity: uy}
    lower: {at: [0 mm, 1 mm], quantity: uy}
    gauge: {difference: [upper, lower]}
parameters:
  - {name: youngs_modulus, value: 180, units: GPa}
  - {name: poissons_ratio, value: 0.3, fixed: true}
  - {name: yield_stress, value: 250, units: MPa}
  - {name: saturation_stress, value: 150, units: MPa}
  - {name: saturation_rate, value: 40}
observations:
  - {file: force.csv, value: {column: F, units: kN}, columns: {sensor: sensor, time: t}, group: force, std: 0.01}
  - {file: gauge.csv, value: {column: e, units: um}, columns: {sensor: sensor, time: t}, group: gauge, std: 0.01}
calibration: {verify: false}
"""


def notched(folder: Path, cells: tuple[int, int] = (2, 3), steps: int = 6) -> Study:
    """A quarter of a bar whose side is notched halfway; it is stretched, let go, and stretched further."""
    mesh = rectangle(*cells, (5.0, 10.0), order=2)
    x = mesh.coordinates.clone()
    depth = 1.5 * torch.exp(-((x[:, 1] / 2.0) ** 2))
    x[:, 0] *= (5.0 - depth) / 5.0
    mesh = mesh.moved(x)
    write_gmsh(folder / "bar.msh", mesh)
    write_rows(folder / "stroke.csv", "t,stroke", [(0, 0), (1, 40), (2, 20), (3, 80)])
    times = [3 * k / steps for k in range(1, steps + 1)]
    write_rows(folder / "force.csv", "sensor,t,F", [("force", t, 0.0) for t in times])
    write_rows(folder / "gauge.csv", "sensor,t,e", [("gauge", t, 0.0) for t in times])
    truth = {
        "value: 180,": "value: 205,",
        "value: 250,": "value: 320,",
        "value: 150,": "value: 200,",
        "value: 40}": "value: 25}",
    }
    return twin(folder, NOTCHED.replace("steps: 6", f"steps: {steps}"), truth)


@pytest.mark.slow
def test_jacobian_of_the_notched_bar(tmp_path: Path) -> None:
    loaded = notched(tmp_path)
    assert worst_derivative(loaded, (1e-4, 2e-5)) < 1e-5


@pytest.mark.slow
def test_a_notched_bar_that_yields_loaded_and_unloaded(tmp_path: Path) -> None:
    """J2 with Voce's hardening from force and extensometer, to 1e-5."""
    loaded = notched(tmp_path, (3, 4), 12)
    result = calibrate(loaded.problem, settings=loaded.settings)
    values = [e.value for e in result.estimates if e.label != "poissons_ratio"]
    print("found", values)
    assert values == pytest.approx([205, 320, 200, 25], rel=1e-5)


def test_bodies_of_closed_form(tmp_path: Path) -> None:
    """Lame's thick tube under pressure (axisymmetric, plane in z), and a bar that hangs under its own weight."""
    young, nu, a, b, p = 200e9, 0.3, 0.1, 0.2, 50e6
    r = np.linspace(a, b, 5)
    exact = p * a**2 / (b**2 - a**2) * (1 + nu) / young * ((1 - 2 * nu) * r + b**2 / r)
    write_rows(tmp_path / "u.csv", "sensor,r,z,u", [("ux", x, 0.01, u * 1e6) for x, u in zip(r, exact)])
    text = """\
        title: Tube
        model:
          kind: solid
          mesh: {lengths: [10, 2], cells: [12, 2], origin: [10, 0], units: cm, order: 2}
          kinematics: axisymmetric
          supports:
            bottom: {y: 0 m}
            top: {y: 0 m}
          loads: {left: {pressure: inner}}
        parameters:
          - {name: youngs_modulus, value: 200, units: GPa}
          - {name: poissons_ratio, value: 0.3}
          - {name: inner, value: 500, units: bar}
        observations:
          - file: u.csv
            value: {column: u, units: um}
            columns: {sensor: sensor, x: {column: r, units: m}, y: {column: z, units: m}}
        """
    assert misfit(study(tmp_path, text)) < 1e-5 * exact.max()
    weight, length = 77e3, 2.0
    y = np.linspace(0, length, 5)
    hanging = -weight / young * (length**2 - y**2) / 2
    write_rows(tmp_path / "u.csv", "sensor,r,z,u", [("uy", 0.05, at, u * 1e6) for at, u in zip(y, hanging)])
    text = text.replace(
        "lengths: [10, 2], cells: [12, 2], origin: [10, 0], units: cm", "lengths: [0.1, 2], cells: [2, 8]"
    )
    text = text.replace("            bottom: {y: 0 m}\n", "            left: {x: 0 m}\n")
    text = text.replace("loads: {left: {pressure: inner}}", "gravity: {y: -77 kN/m3}").replace(
        "value: 0.3}", "value: 0}"
    )
    text = text.replace("          - {name: inner, value: 500, units: bar}\n", "").replace(
        "axisymmetric", "plane_stress"
    )
    assert misfit(study(tmp_path, text)) < 1e-9 * abs(hanging).max()


def test_strains_at_points_and_the_hoop_strain(tmp_path: Path) -> None:
    """A tube that is pulled along its axis: ezz = exx = -nu eyy; and simple shear of a block, exy = gamma / 2."""
    text = """\
        title: Strains
        model:
          kind: solid
          mesh: {lengths: [2, 3], cells: [2, 2], origin: [1, 0], units: cm, order: 2, triangles: true}
          kinematics: axisymmetric
          supports: {bottom: {y: 0 m}, top: {y: 0.3 mm}}
          sensors:
            inside: {at: [1.3 cm, 1.1 cm], quantity: ezz}
            outside: {at: [2.9 cm, 2.9 cm], quantity: exx}
            gauge: {at: [1.4 cm, 0.3 cm], quantity: eyy}
            across: {difference: [gauge, upper]}
            upper: {at: [2 cm, 2.2 cm], quantity: eyy}
        parameters: [{name: youngs_modulus, value: 1, units: GPa}, {name: poissons_ratio, value: 0.25}]
        observations:
          - {file: e.csv, value: {column: e, units: microstrain}, columns: {sensor: sensor, x: {column: x, units: cm}, y: {column: y, units: cm}}}
        """
    rows = [("inside", 0, 0, -2500), ("outside", 0, 0, -2500), ("gauge", 0, 0, 10000), ("across", 0, 0, 0)]
    write_rows(tmp_path / "e.csv", "sensor,x,y,e", [*rows, ("exy", 1.5, 1.5, 0), ("eyy", 1.5, 1.5, 10000)])
    assert misfit(study(tmp_path, text)) < 1e-9
    text = text.replace("axisymmetric", "plane_strain").replace("quantity: ezz", "quantity: exy")
    sheared = (
        "supports: {bottom: {x: 0 m, y: 0 m}}\n          loads: {top: {x: 4 MPa}, right: {y: 4 MPa}, left: {y: -4 MPa}}"
    )
    text = text.replace("supports: {bottom: {y: 0 m}, top: {y: 0.3 mm}}", sheared)
    write_rows(tmp_path / "e.csv", "sensor,x,y,e", [("inside", 0, 0, 5000), ("exy", 2.5, 1.5, 5000), ("exx", 2, 1, 0)])
    assert misfit(study(tmp_path, text)) < 1e-12


COMPOSITE = """\
title: A stiff layer on one that yields
model:
  kind: solid
  mesh: layers.msh
  kinematics: plane_strain
  laws: {stiff: linear_elastic, soft: j2_plasticity}
  spread: {youngs_modulus: zones}
  supports:
    bottom: {y: 0 m}
    left: {x: 0 m}
    right: {x: 0 m}
    top: {y: {file: stroke.csv, time: t, value: {column: stroke, units: mm}}}
  time: {end: 2, steps: 2}
  sensors: {force: {through: top, quantity: force_y}}
parameters:
  - {name: "youngs_modulus[stiff]", value: 100, units: GPa}
  - {name: "youngs_modulus[soft]", value: 10, units: GPa}
  - {name: poissons_ratio, value: 0.25}
  - {name: yield_stress, value: 60, units: MPa}
  - {name: hardening_modulus, value: 500, units: MPa}
observations:
  - file: u.csv
    value: {column: u, units: mm}
    columns: {sensor: sensor, time: t, x: {column: x, units: m}, y: {column: y, units: m}}
calibration: {verify: false}
"""


def layers(folder: Path) -> tuple[float, float]:
    """Two layers squeezed by 2 % of their height, between rigid walls; where they meet after both steps.

    In each of them the strain is along y alone: the lower one yields at a stress of s0 (1 - nu) / (1 - 2 nu), and its
    slope is from then on K + 4 G h / 3 / (3 G + h) of the hardening modulus h.
    """
    mesh = rectangle(2, 4, (1.0, 2.0), order=2)
    mesh = mesh.with_region("stiff", lambda x: x[:, 1] > 1.0).with_region("soft", lambda x: x[:, 1] < 1.0)
    write_gmsh(folder / "layers.msh", mesh)
    write_rows(folder / "stroke.csv", "t,stroke", [(0, 0), (1, -10), (2, -40)])
    young, nu, strength, hardening = 10e9, 0.25, 60e6, 500e6
    shear, bulk = young / 2 / (1 + nu), young / 3 / (1 - 2 * nu)
    elastic, stiff = bulk + 4 * shear / 3, 10 * (bulk + 4 * shear / 3)
    plastic = bulk + 4 * shear / 3 * hardening / (3 * shear + hardening)
    yields = strength / (2 * shear)  # the strain at which 2 G e reaches the strength
    met = []
    for stroke in (0.01, 0.04):
        soft = stroke * stiff / (elastic + stiff)
        if soft > yields:
            soft = (stiff * stroke - (elastic - plastic) * yields) / (stiff + plastic)
        met.append(-soft * 1e3)
    write_rows(folder / "u.csv", "sensor,t,x,y,u", [("uy", t, 0.3, 1.0, u) for t, u in zip((1, 2), met)])
    assert met[0] / met[1] < 0.25 - 1e-3  # the second step yields
    return met[0], met[1]


def test_an_elastic_zone_beside_one_that_yields(tmp_path: Path) -> None:
    """Against the closed form; and the Jacobian against differences."""
    met = layers(tmp_path)
    loaded = study(tmp_path, COMPOSITE)
    assert misfit(loaded) < 1e-8 * abs(met[1]) * 1e-3
    assert worst_derivative(loaded, (1e-3, 1e-4, 1e-5)) < 1e-6


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("soft: j2_plasticity", "soft: j2", "line 6: model.laws.soft: there is no Law named 'j2'"),
        (
            "soft: j2_plasticity",
            "soft: neo_hookean",
            "line 6: model.laws.soft: 'neo_hookean' cannot stand beside other laws",
        ),
        ("soft: j2_plasticity", "base: j2_plasticity", "line 6: model.laws: the mesh has no zone 'base'"),
        (", soft: j2_plasticity", "", "line 6: model.laws: 4 cells are in no zone of stiff"),
        ("laws:", "law: j2_plasticity\n  laws:", "line 7: model.laws: give one law"),
        (
            "soft: j2_plasticity}",
            "soft: mohr_coulomb}\n  hardening: voce",
            "line 7: model.hardening: none of the laws has one",
        ),
    ],
)
def test_what_is_wrong_with_laws_by_zone_is_named(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    layers(tmp_path)
    assert old in COMPOSITE
    with pytest.raises(InputError, match=re.escape(sentence)):
        study(tmp_path, COMPOSITE.replace(old, new))


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


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("law: j2_plasticity", "law: j2", "line 6: model.law: there is no Law named 'j2'"),
        ("plane_strain", "space", "line 5: model.kinematics: 'space' does not go with a mesh in 2 dimensions"),
        ("left: {x: 0 m}", "left: {z: 0 m}", "line 11: model.supports.left.z: the mesh has 2 dimensions"),
        ("left: {x: 0 m}", "lift: {x: 0 m}", "line 11: model.supports.lift: the mesh has no boundary 'lift'"),
        ("left: {x: 0 m}", "left: {x: 0}", "line 11: model.supports.left.x: '0' has no units"),
        ("  time: {end: 3, steps: 6}\n", "", "line 12: model.supports.top.y: a table over time needs `time:`"),
        ("end: 3,", "end: 4,", "line 12: model.supports.top.y: its table covers times from 0 to 3"),
        ("quantity: force_y", "quantity: ux", "line 15: model.sensors.force.quantity: 'ux' cannot be read there"),
        (
            "upper: {at: [0 mm, 5 mm], quantity: uy}",
            "upper: {at: [0 mm, 5 mm]}",
            "line 16: model.sensors.upper: say which quantity",
        ),
        (
            "[upper, lower]",
            "[upper, lowr]",
            "line 18: model.sensors.gauge.difference: there is no sensor 'lowr'; did you mean 'lower'",
        ),
        ("units: kN", "units: kg", "force.csv, line 2: units 'kg'"),
        ("hardening: voce", "hardening: vice", "line 7: model.hardening: there is no Hardening named 'vice'"),
        ("top: {y: {file: stroke.csv", "top: {y: {file: strike.csv", "strike.csv"),
        ("plane_strain", "plane_stress", "model.*no plane-stress form"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(notched_folder: Path, old: str, new: str, sentence: str) -> None:
    text = (notched_folder / "study.yml").read_text()
    assert old in text
    (notched_folder / "wrong.yml").write_text(text.replace(old, new))
    with pytest.raises(InputError) as error:
        load_study(notched_folder / "wrong.yml")
    assert re.search(sentence, str(error.value)), error.value


@pytest.fixture(scope="module")
def notched_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bar")
    notched(folder)
    return folder


FOOTING = """\
title: Flexible strip on ground at rest
model:
  kind: solid
  mesh: {lengths: [6, 4], cells: [4, 3], order: 2}
  kinematics: plane_strain
  law: mohr_coulomb
  supports:
    bottom: {x: 0 m, y: 0 m}
    left: {x: 0 m}
    right: {x: 0 m}
  loads: {top: {pressure: {file: load.csv, time: t, value: {column: p, units: kPa}}}}
  geostatic: {unit_weight: weight, k0: k0, surface: 4 m}
  time: {end: 1, steps: 2}
parameters:
  - {name: youngs_modulus, value: 20, units: MPa}
  - {name: poissons_ratio, value: 0.3}
  - {name: friction_angle, value: 30, units: deg}
  - {name: dilatancy_angle, value: 5, units: deg}
  - {name: cohesion, value: 5, units: kPa}
  - {name: weight, value: 18, units: kN/m3}
  - {name: k0, value: 0.5}
observations:
  - file: u.csv
    value: {column: u, units: mm}
    columns: {sensor: sensor, time: t, x: {column: x, units: m}, y: {column: y, units: m}}
"""


def test_ground_at_rest_stays_there_and_settles_as_a_column(tmp_path: Path) -> None:
    """Without a load nothing moves; under a wide one, u = p H (1 + nu) (1 - 2 nu) / ((1 - nu) E), while it is elastic."""
    write_rows(tmp_path / "load.csv", "t,p", [(0, 0), (0.5, 0), (1, 20)])
    settled = -20e3 * 4 * 1.3 * 0.4 / (0.7 * 20e6) * 1e3
    write_rows(
        tmp_path / "u.csv", "sensor,t,x,y,u", [("uy", 0.5, 3, 4, 0), ("ux", 0.5, 3, 2, 0), ("uy", 1, 3, 4, settled)]
    )
    assert misfit(study(tmp_path, FOOTING)) < 1e-9


@pytest.mark.slow
def test_derivatives_of_a_strip_that_yields_in_ground_at_rest(tmp_path: Path) -> None:
    write_rows(tmp_path / "load.csv", "t,p", [(0, 0), (1, 90)])
    write_rows(tmp_path / "u.csv", "sensor,t,x,y,u", [("uy", 1, 0, 4, 0), ("uy", 1, 3, 4, 0), ("ux", 1, 2, 3, 0)])
    mesh = rectangle(4, 3, (6.0, 4.0), order=2)
    mesh = mesh.with_boundary("strip", lambda x: (x[:, 1] > 4 - 1e-9) & (x[:, 0] < 1.5))
    write_gmsh(tmp_path / "ground.msh", mesh)
    text = FOOTING.replace("mesh: {lengths: [6, 4], cells: [4, 3], order: 2}", "mesh: ground.msh").replace(
        "{top:", "{strip:"
    )
    assert worst_derivative(study(tmp_path, text), (1e-4, 2e-5)) < 1e-4
