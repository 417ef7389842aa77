"""The study kind `atoms`: the shipped examples, their numbers, what they write, and what is said of bad input."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.tersoff import Tersoff as AseTersoff
from ase.io import read, write
from crystals import COPPER, defaults, tensors

from bilevel.calibrate.fit.run import calibrate
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.study.loading import load_study
from bilevel.report import InputError
from physics.atoms import CaiYe, StillingerWeber, Structures, TabulatedEAM, Tersoff, UserSite, energy_and_forces
from physics.atoms.cutoff import taper
from physics.atoms.formats.lammps import write_lammps
from physics.atoms.units import BOLTZMANN, JOULE_PER_SQUARE_METRE

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def fitted(study: Path) -> tuple[CalibrationResult, dict[str, float], dict[str, float]]:
    """The result, the parameters, and the predictions over the measurements by structure and property."""
    loaded = load_study(study)
    result = calibrate(loaded.problem, settings=replace(loaded.settings, verify=False))
    table = loaded.problem.experiments[0].observations
    ratio = result.evaluation.prediction / table.value.numpy()
    return (
        result,
        {e.label: e.value for e in result.estimates},
        dict(zip(table.labels["property"], ratio.tolist(), strict=True)),
    )


def test_silicon_from_a_start_that_is_far(tmp_path: Path) -> None:
    """To what published parameters give: found again, and in at most eight iterations."""
    shutil.copytree(EXAMPLES / "silicon_sw", tmp_path, dirs_exist_ok=True)
    values = {"lattice_constant": "5.43095,angstrom", "cohesive_energy": "4.33660,eV", "C11": "151.424527,GPa",
              "C12": "76.422108,GPa", "C44": "56.449281,GPa"}  # fmt: skip
    rows = "\n".join(f"silicon,{name},{value}" for name, value in values.items())
    (tmp_path / "silicon.csv").write_text(f"structure,property,value,unit\n{rows}\n")
    result, found, ratio = fitted(tmp_path / "study.yml")
    assert result.converged
    assert len(result.iterations) - 1 <= 8
    assert found["sigma"] == pytest.approx(2.0951, rel=1e-4)
    assert found["epsilon"] == pytest.approx(2.1683, rel=1e-4)
    assert found["lambda"] == pytest.approx(21.0, rel=1e-3)
    assert max(abs(r - 1.0) for r in ratio.values()) < 1e-4


@pytest.mark.slow
def test_argon_cannot_meet_three_properties_with_two_parameters() -> None:
    """The bulk modulus is 75.18 epsilon/sigma^3 whatever they are, and the spread of the estimates knows of it."""
    result, found, ratio = fitted(EXAMPLES / "argon" / "study.yml")
    assert result.converged
    modulus = 75.18 * found["epsilon"] / found["sigma"] ** 3 * 160.2177
    assert ratio["bulk_modulus"] * 3.298 == pytest.approx(modulus, rel=5e-3)
    misfit = [abs(r - 1.0) for r in ratio.values()]
    assert max(misfit) > 0.01
    spread = {e.label: e.std / e.value for e in result.estimates}  # type: ignore[operator]
    assert spread["epsilon"] > 0.3 * max(misfit)
    published = 119.8 * BOLTZMANN
    assert abs(found["epsilon"] - published) < 3.0 * spread["epsilon"] * found["epsilon"]


@pytest.mark.slow
def test_copper_meets_six_properties(shared_data: Path) -> None:
    result, _, ratio = fitted(EXAMPLES / "copper_eam" / "study.yml")
    assert result.converged
    for name, value in ratio.items():
        assert value == pytest.approx(1.0, abs=0.03 if name == "vacancy_energy" else 0.01)
    lines = [line for line in (shared_data / "metals_experimental.csv").read_text().splitlines() if line[:1] != "#"]
    copper = dict(zip(lines[0].split(","), next(line for line in lines if line[:3] == "Cu,").split(","), strict=True))
    ours = (EXAMPLES / "copper_eam" / "copper.csv").read_text()
    for column, scale in (
        ("a0_300K_m", 1e10),
        ("Ecoh_eV", 1),
        ("Evac_eV", 1),
        ("C11_lowT_Pa", 1e-9),
        ("C44_lowT_Pa", 1e-9),
    ):
        assert f"{float(copper[column]) * scale:g}" in ours


def test_what_a_study_writes(tmp_path: Path) -> None:
    loaded = load_study(EXAMPLES / "silicon_sw" / "study.yml")
    model = loaded.problem.experiments[0].model
    params = defaults(StillingerWeber)
    files = model.write_state(params, tmp_path)
    assert [file.name for file in files] == ["structures.extxyz", "Si.sw", "in.potential"]
    atoms = read(tmp_path / "structures.extxyz")
    assert atoms.cell.cellpar()[0] * np.sqrt(2) == pytest.approx(5.43095, rel=1e-5)
    numbers = [float(x) for x in (tmp_path / "Si.sw").read_text().splitlines()[1].split()[3:]]
    assert numbers == pytest.approx([2.1683, 2.0951, 1.8, 21.0, 1.2, -1 / 3, 7.049556277, 0.6022245584, 4, 0, 0])
    assert "pair_style sw" in (tmp_path / "in.potential").read_text()
    titles = [figure.title for figure in model.figures(params)]
    assert titles == ["Properties", "Energy against lattice constant"]


def test_exported_potentials_read_back(tmp_path: Path) -> None:
    atoms = bulk("Si", cubic=True, a=5.43)
    atoms.rattle(0.05, seed=0)
    params = {**defaults(Tersoff), "lambda3": torch.tensor(0.2)}
    file, _ = write_lammps(Tersoff(), params, tmp_path)
    theirs = atoms.copy()
    theirs.calc = AseTersoff.from_lammps(file)
    assert float(energy_and_forces(Structures.of(atoms), Tersoff(), params)[0]) == pytest.approx(
        theirs.get_potential_energy(), abs=1e-8
    )
    copper = Structures.of(bulk("Cu", a=3.6))
    file, _ = write_lammps(CaiYe(("Cu",)), tensors(COPPER), tmp_path)
    again = energy_and_forces(copper, TabulatedEAM(file), {})[0]
    assert float(again) == pytest.approx(float(energy_and_forces(copper, CaiYe(("Cu",)), tensors(COPPER))[0]), abs=1e-6)
    with pytest.raises(InputError, match="UserSite has no LAMMPS pair style"):
        write_lammps(UserSite(lambda *x: x[0].sum(), ("Cu",), 3.0), {}, tmp_path)


STUDY = """
title: t
model:
  kind: atoms
  potential: {potential}
  structures:
    crystal: {structure}
parameters:
  - {{name: epsilon, value: 2.1, units: eV}}
  - {{name: sigma, value: 2.1, units: angstrom}}
observations:
  - file: data.csv
    value: {{column: value, units: GPa}}
    columns: {{structure: structure, property: property}}
"""


@pytest.mark.parametrize(
    ("potential", "structure", "row", "message"),
    [
        ("tersof", "{crystal: diamond, element: Si, a: 5.4}", "crystal,C11", "there is no Potential named 'tersof'"),
        ("stillinger_weber", "{crystal: diamond, element: Si}", "crystal,C11", "structure crystal: a crystal needs"),
        ("stillinger_weber", "{file: absent.xyz}", "crystal,C11", "structure crystal: ASE can make nothing of absent"),
        ("stillinger_weber", "{file: data.csv}", "crystal,C11", "structure crystal: ASE can make nothing of data.csv"),
        (
            "stillinger_weber",
            "{crystal: fcc, element: Xx, a: 4}",
            "crystal,C11",
            "crystal: ASE can make nothing of fcc",
        ),
        (
            "stillinger_weber\n  options: {species: [Si]}",
            "{crystal: fcc, element: Cu, a: 4}",
            "crystal,C11",
            "crystal: .* not know the element Cu",
        ),
        ("stillinger_weber", "{crystal: diamond, element: Si, a: 0.1}", "crystal,C11", "crystal: its periodic cell is"),
        ("stillinger_weber", "{element: Si, a: 5.4}", "crystal,C11", "structure crystal: give either a crystal"),
        ("stillinger_weber", "{crystal: diamond, element: Si, a: 5.4}", "other,C11", "structure 'other' is not among"),
        ("stillinger_weber", "{crystal: diamond, element: Si, a: 5.4}", "crystal,C77", "there is no property 'C77'"),
        ("eam_splines", "{crystal: fcc, element: Cu, a: 3.6}", "crystal,C11", "potential eam_splines: options"),
    ],
)
def test_bad_studies_say_what_is_wrong(tmp_path: Path, potential: str, structure: str, row: str, message: str) -> None:
    (tmp_path / "study.yml").write_text(STUDY.format(potential=potential, structure=structure))
    (tmp_path / "data.csv").write_text(f"structure,property,value\n{row},150\n")
    with pytest.raises(InputError, match=message):
        load_study(tmp_path / "study.yml")


def test_forces_of_a_file_are_fitted_as_they_are(tmp_path: Path) -> None:
    """No relaxation: frames with forces, as from electronic structure."""
    atoms = bulk("Si", cubic=True, a=5.43)
    atoms.rattle(0.1, seed=0)
    write(tmp_path / "frames.extxyz", atoms)
    forces = energy_and_forces(Structures.of(atoms), StillingerWeber(), defaults(StillingerWeber))[1]
    rows = [f"frame,force {k + 1} {axis},{float(forces[k, i])!r}" for k in range(8) for i, axis in enumerate("xyz")]
    (tmp_path / "data.csv").write_text("structure,property,value\n" + "\n".join(rows) + "\n")
    text = STUDY.format(potential="stillinger_weber", structure="{file: frames.extxyz, relax: false}")
    text = text.replace("crystal:", "frame:").replace("units: GPa", "units: eV/angstrom")
    (tmp_path / "study.yml").write_text(text)
    _, found, _ = fitted(tmp_path / "study.yml")
    assert found["epsilon"] == pytest.approx(2.1683, rel=1e-6)
    assert found["sigma"] == pytest.approx(2.0951, rel=1e-6)


OWN = """
import torch
from physics.atoms import UserPair
from physics.constitutive import LawParameter, LawParameters


def phi(r, p):
    x = torch.exp(-p["alpha"] * (r - p["r0"]))
    return p["depth"] * x * (x - 2.0)


mine = UserPair(phi, ["Cu"], end=6.0, parameters=LawParameters(
    LawParameter("depth", "eV", lower=0.0), LawParameter("alpha", "1/angstrom", lower=0.0), LawParameter("r0", "angstrom")))
undeclared = UserPair(phi, ["Cu"], end=6.0)
"""


def cut_bonds(a: float, normal: np.ndarray) -> float:
    """The energy in J/m^2 of an unrelaxed face of Morse's fcc crystal: half of the bonds that cross a plane."""
    cells = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3), -1).reshape(-1, 3)
    vectors = a / 2 * cells[cells.sum(1) % 2 == 0]
    r, through = np.linalg.norm(vectors, axis=1), vectors @ normal / np.linalg.norm(normal)
    crossing = (r > 0) & (r < 6.0) & (through > 0)
    r, through = r[crossing], through[crossing]
    x = np.exp(-1.36 * (r - 2.87))
    phi = 0.35 * x * (x - 2.0) * taper(torch.from_numpy(r), 5.0, 6.0).numpy()
    return float(-(phi * through).sum() / (2 * a**3 / 4)) * JOULE_PER_SQUARE_METRE


def test_a_potential_of_ones_own_and_surfaces(tmp_path: Path) -> None:
    """Morse's potential, written once more, gives what ours does."""
    (tmp_path / "own.py").write_text(OWN)
    names = ["lattice_constant", "bulk_modulus", "surface_energy 1 1 1", "surface_energy 1 0 0"]
    (tmp_path / "data.csv").write_text("structure,property,value\n" + "".join(f"crystal,{n},1\n" for n in names))
    text = STUDY.format(potential="mine", structure="{crystal: fcc, element: Cu, a: 3.6, layers: 6}")
    head, section = text[: text.index("parameters:")], text[text.index("  - file") :]
    text = head + "observations:\n"
    for units, own in (("angstrom", names[:1]), ("GPa", names[1:2]), ("J/m2", names[2:])):
        chosen = f"    where: {{property: [{', '.join(own)}]}}\n    group: {own[0]}\n"
        text += section.replace("units: GPa", f"units: {units}") + chosen
    values = {"depth": "0.35 eV", "alpha": "1.36 1/angstrom", "r0": "2.87 angstrom"}
    rows = [f"  - {{name: {n}, value: {v.split()[0]}, units: {v.split()[1]}}}" for n, v in values.items()]
    text += "parameters:\n" + "\n".join(rows) + "\n"

    def predictions(study: str) -> np.ndarray:
        (tmp_path / "study.yml").write_text(study)
        loaded = load_study(tmp_path / "study.yml")
        return calibrate(loaded.problem, settings=replace(loaded.settings, noptmax=0)).evaluation.prediction

    mine = predictions(text.replace("potential: mine", "potential: mine\n  file: own.py"))
    ours = predictions(text.replace("potential: mine", "potential: morse\n  options: {end: 6.0}"))
    assert mine == pytest.approx(ours, rel=1e-9)
    for energy, normal in ((mine[2], [1, 1, 1]), (mine[3], [1, 0, 0])):
        assert 0.95 < energy / cut_bonds(mine[0] * 1e10, np.array(normal)) < 1.0
    with pytest.raises(InputError, match="undeclared must come with its options and `parameters`, with units"):
        predictions(text.replace("potential: mine", "potential: undeclared\n  file: own.py"))
    with pytest.raises(InputError, match="has no potential called 'absent'"):
        predictions(text.replace("potential: mine", "potential: absent\n  file: own.py"))
