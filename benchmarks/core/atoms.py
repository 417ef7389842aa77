"""Interatomic potentials: many structures relaxed side by side, the price of a gradient, and a fit of copper."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.eam import EAM
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from torch import Tensor

from benchmarks.alone import alone
from benchmarks.record import Record, at_least, at_most, near, stated
from bilevel.calibrate.fit.run import calibrate
from bilevel.calibrate.study.loading import load_study
from bilevel.implicit.strategies import Adjoint, Exact, Unrolled
from bilevel.solvers import GradientDescent
from bilevel.solvers.steps import Constant
from physics.atoms import (
    CaiYe,
    LennardJones,
    SplineEAM,
    StillingerWeber,
    Structures,
    TabulatedEAM,
    elastic_tensor,
    relax,
    supercell,
    tabulate,
    without,
    write_setfl,
)
from physics.atoms.potential import Potential
from physics.atoms.units import GPA

LINE = "Atoms: published constants, 1,000 structures in one batch against a loop, the price of a gradient, copper's fit"
DURATION = "20 minutes"

COPPER = {"F0": 2.185, "n": 0.404, "F1": 0.888, "alpha": 0.397, "beta": 6.203, "ra": 2.277, "chi": 8.936}
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FORCE, STRESS = 1e-3, 1e-2
"""Where both ways of relaxing stop, in eV/angstrom and GPa."""


def tensors(values: dict[str, float]) -> dict[str, Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def run(quick: bool) -> list[Record]:
    """All four parts."""
    torch.set_default_dtype(torch.float64)
    records = [*constants(), *many(60 if quick else 1000), *price(3 if quick else 4, "250-atom cell")]
    if not quick:
        records += price(8, "2,000-atom cell")
    return records + memory() + fit(quick)


def constants() -> list[Record]:
    """Published numbers of Lennard-Jones argon and Stillinger-Weber silicon."""
    unit = tensors({"epsilon": 1.0, "sigma": 1.0})
    potential = LennardJones(("Ar",), 20.0, 2.0)
    rest = relax(Structures.of(bulk("Ar", a=1.6)), potential, unit)
    modulus = float(elastic_tensor(rest.structures, potential, unit).bulk_modulus) / GPA
    published = {p.name: torch.tensor(p.default) for p in StillingerWeber.parameters}
    silicon = relax(Structures.of(bulk("Si")), StillingerWeber(), published)
    tensor = elastic_tensor(silicon.structures, StillingerWeber(), published)
    c11, c12, c44 = (float(c) for c in tensor.cubic)
    return [
        near("Lennard-Jones r0", float(rest.structures.cells[0, 0, 1]) * math.sqrt(2), 1.0902, 1.1e-3, "sigma"),
        near("Lennard-Jones energy", float(rest.energies), -8.610, 8.6e-3, "epsilon"),
        near("Lennard-Jones bulk modulus", modulus, 75.18, 0.075, "epsilon/sigma^3"),
        near("silicon a", float(silicon.structures.cells[0, 0, 1]) * 2, 5.431, 0.016, "angstrom"),
        near("silicon energy", float(silicon.energies) / 2, -4.3366, 0.013, "eV"),
        near("silicon C11", c11, 151.4, 0.45, "GPa"),
        near("silicon C12", c12, 76.4, 0.23, "GPa"),
        near("silicon C44", c44, 56.4, 0.17, "GPa"),
        # 117.2 GPa (Cowley 1988) is of epsilon = 2.315 eV, which gives silicon's measured cohesive energy of 4.63 eV.
        stated("silicon C44 unrelaxed", float(tensor.born[3, 3]), "GPa"),
        near("the same at epsilon 2.315 eV", float(tensor.born[3, 3]) * 2.315 / 2.1683, 117.2, 0.35, "GPa"),
    ]


def shaken(count: int, symbol: str, a: float) -> list[Atoms]:
    """Structures of 1 to 16 atoms, shaken and strained, the same on every machine."""
    generator = np.random.default_rng(0)
    out = []
    for k in range(count):
        atoms = bulk(symbol, a=a, cubic=bool(k % 2)).repeat([(1, 1, 1), (2, 1, 1), (1, 2, 1)][k % 3])
        atoms.rattle(0.05, seed=k)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.02 * generator.standard_normal((3, 3))), scale_atoms=True)
        out.append(atoms)
    return out


def many(count: int) -> list[Record]:
    """Positions and cells of copper from one table, and of silicon: one batch against ASE's loop over a share of them."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "cu.eam.alloy"
        write_setfl(tabulate(CaiYe(("Cu",)), tensors(COPPER), densest=100.0, points=3000), file)
        eam = lambda: EAM(potential=str(file))  # noqa: E731
        records = against("copper, ASE's EAM", shaken(count, "Cu", 3.6), TabulatedEAM(file), {}, eam)
    try:
        from matscipy.calculators.manybody import Manybody
        from matscipy.calculators.manybody.explicit_forms import stillinger_weber as forms
    except ImportError:
        return [*records, stated("silicon, matscipy's Stillinger-Weber", None, target="not installed")]
    sw = lambda: Manybody(**forms.StillingerWeber(forms.Stillinger_Weber_PRB_31_5262_Si))  # noqa: E731
    published = {p.name: torch.tensor(p.default) for p in StillingerWeber.parameters}
    atoms = shaken(count, "Si", 5.43)
    return records + against("silicon, matscipy's Stillinger-Weber", atoms, StillingerWeber(), published, sw)


def against(
    row: str, atoms: list[Atoms], potential: Potential, params: dict[str, Tensor], calculator: Callable[[], Any]
) -> list[Record]:
    """One batch against ASE's BFGS over positions and cell, structure by structure, with an independent calculator."""
    count = len(atoms)
    relax(Structures.of(atoms[:6]), potential, params, force_tolerance=FORCE, stress_tolerance=STRESS)
    start = time.perf_counter()
    rest = relax(Structures.of(atoms), potential, params, force_tolerance=FORCE, stress_tolerance=STRESS)
    ours = time.perf_counter() - start
    share = atoms[:12]
    start = time.perf_counter()
    energies = [_by_ase(one, calculator()) for one in share]
    theirs = (time.perf_counter() - start) * count / len(share)
    difference = [abs(float(rest.energies[k]) - e) / len(share[k]) for k, e in enumerate(energies)]
    return [
        stated(f"{row}: {count} structures, one batch", ours, "s"),
        stated(f"{row}: in a loop (from {len(share)})", theirs, "s"),
        at_least(f"{row}: loop over batch", theirs / ours, 10.0),
        at_most(f"{row}: median difference of energies", float(np.median(difference)), 1e-5, "eV/atom"),
    ]


def _by_ase(atoms: Atoms, calculator: Any) -> float:
    copy = atoms.copy()
    copy.calc = calculator
    cell_too: Any = FrechetCellFilter(copy)
    BFGS(cell_too, logfile=None).run(fmax=FORCE, steps=200)
    return copy.get_potential_energy()


def splines() -> tuple[SplineEAM, dict[str, Tensor]]:
    """Copper as 55 values at the knots of three splines."""
    potential, smooth, params = SplineEAM(("Cu",), start=1.5, end=5.5, densest=40.0), CaiYe(("Cu",)), tensors(COPPER)
    r, rho = torch.from_numpy(potential.pair_grid.knots()), torch.from_numpy(potential.embedding_grid.knots())
    x = params["beta"] * (r / params["ra"] - 1.0)
    pair = -params["alpha"] * (1.0 + x) * torch.exp(-x)
    density = torch.exp(-params["chi"] * (r / smooth.re - 1.0))
    return potential, {"pair": pair, "density": density, "embedding": smooth.embedding(rho, None, params)}  # type: ignore[arg-type]


def holed(repeat: int) -> tuple[Structures, SplineEAM, dict[str, Tensor]]:
    """A cubic supercell of copper with a vacancy, and its potential with 55 parameters."""
    potential, params = splines()
    crystal = relax(Structures.of(bulk("Cu", a=3.6)), potential, params).structures
    k = repeat
    cell = supercell(crystal, [[-k, k, k], [k, -k, k], [k, k, -k]])
    return without(cell, 0), potential, {name: value.requires_grad_() for name, value in params.items()}


def price(repeat: int, row: str) -> list[Record]:
    """The gradient of a distance at rest in 55 parameters against the relaxation, from shaken atoms and from a lattice."""
    cell, potential, params = holed(repeat)
    shaken = 0.05 * torch.randn(cell.positions.shape, generator=torch.Generator().manual_seed(0))
    starts = {"shaken": replace(cell, positions=cell.positions + shaken), "lattice": cell}
    records: list[Record] = []
    for name, start in starts.items():
        forward, backward, certificate = math.inf, math.inf, math.nan
        for _ in range(2):
            begin = time.perf_counter()
            rest = relax(start, potential, params, cell=False)
            forward = min(forward, time.perf_counter() - begin)
            distance = (rest.structures.positions[1] - rest.structures.positions[5]).norm()
            begin = time.perf_counter()
            distance.backward()
            backward = min(backward, time.perf_counter() - begin)
            certificate = rest.gradients[0].relative_error
        called = f"{row}, {name}"
        records += [
            stated(
                f"{called}, {int(cell.counts)} atoms: relaxation, {rest.reports[0].iterations} iterations", forward, "s"
            ),
            stated(f"{called}: gradient in 55 parameters", backward, "s"),
            at_most(f"{called}: gradient over relaxation", backward / forward, 0.5),
            at_most(f"{called}: certificate", certificate, 1e-6),
        ]
    return records


def memory() -> list[Record]:
    """Peak memory of a relaxation and its gradient in few and in many steps, each in a process of its own."""

    def grown(adjoint: str) -> float:
        peaks = [alone("benchmarks.core.atoms:descend", steps=steps, adjoint=adjoint)["peak_mb"] for steps in (10, 110)]
        return peaks[1] - peaks[0]

    return [
        at_most("memory that 100 more steps take", grown("Exact"), 5.0, "MB"),
        at_least("the same, unrolled", grown("Unrolled"), 50.0, "MB"),
    ]


def descend(steps: int, adjoint: str) -> dict[str, float]:
    """A relaxation by so many steps of gradient descent, far from rest, and its gradient; run by `alone`."""
    torch.set_default_dtype(torch.float64)
    cell, potential, params = holed(2)
    strategy: Adjoint = {"Exact": Exact(), "Unrolled": Unrolled()}[adjoint]
    solver = GradientDescent(step=Constant(0.01), max_iterations=steps, check_minimum=False)
    rest = relax(cell, potential, params, cell=False, solver=solver, adjoint=strategy, on_fail="ignore")
    (rest.structures.positions[1] - rest.structures.positions[5]).norm().backward()
    return {"steps": float(rest.reports[0].iterations)}


def fit(quick: bool) -> list[Record]:
    """Copper's six properties from a start 30 % off."""
    if quick:
        return []
    study = load_study(EXAMPLES / "copper_eam" / "study.yml")
    start = time.perf_counter()
    result = calibrate(study.problem, settings=study.settings)
    seconds = time.perf_counter() - start
    table = study.problem.experiments[0].observations
    ratio = np.abs(result.evaluation.prediction / table.value.numpy() - 1.0)
    limits = [0.03 if name == "vacancy_energy" else 0.01 for name in table.labels["property"]]
    rows = [at_most(f"copper {n}", float(r), limit) for n, r, limit in zip(table.labels["property"], ratio, limits)]
    return [
        *rows,
        at_most("copper's fit", seconds, 300.0, "s"),
        stated("iterations", float(len(result.iterations) - 1)),
    ]
