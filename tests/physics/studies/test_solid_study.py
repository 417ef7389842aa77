"""`kind: solid`: two zones, a notched bar that yields, bodies of closed form, strains; what is wrong is named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mesh_studies import misfit, study, worst_derivative, write_rows

from bilevel.calibrate.fit.run import calibrate
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
