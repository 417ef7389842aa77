"""Interatomic potentials: many structures relaxed side by side, the price of a gradient, and a fit of copper."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
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
        stated("silicon C44 unrelaxed", float(tensor.born[3, 3]), "GPa"),
    ]


def shaken(count: int, symbol: str, a: float) -> list[Atoms]:
    """Structures of 1 to 8 atoms, shaken and strained, the same on every machine."""
    generator = np.random.default_rng(0)
    out = []
    for k in range(count):
        atoms = bulk(symbol, a=a, cubic=bool(k % 2)).repeat([(1, 1, 1), (2, 1, 1), (1, 2, 1)][k % 3])
        atoms.rattle(0.05, seed=k)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.02 * generator.standard_normal((3, 3))), scale_atoms=True)
        out.append(atoms)
    return out


def many(count: int) -> list[Record]:
    """Copper from one table, positions and cells: one batch against ASE's loop over a share of the same structures."""
    atoms = shaken(count, "Cu", 3.6)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "cu.eam.alloy"
        write_setfl(tabulate(CaiYe(("Cu",)), tensors(COPPER), densest=100.0, points=3000), file)
        potential = TabulatedEAM(file)
        relax(Structures.of(atoms[:6]), potential, {}, force_tolerance=FORCE, stress_tolerance=STRESS)
        start = time.perf_counter()
        rest = relax(Structures.of(atoms), potential, {}, force_tolerance=FORCE, stress_tolerance=STRESS)
        ours = time.perf_counter() - start
        share = atoms[: max(12, count // 20)]
        start = time.perf_counter()
        energies = [_by_ase(one, EAM(potential=str(file))) for one in share]
        theirs = (time.perf_counter() - start) * count / len(share)
    difference = [abs(float(rest.energies[k]) - e) / len(share[k]) for k, e in enumerate(energies)]
    return [
        stated(f"{count} structures, one batch", ours, "s"),
        stated(f"{count} structures, ASE's BFGS in a loop (from {len(share)})", theirs, "s"),
        at_least("batch over loop", theirs / ours, 10.0),
        at_most("median difference of energies", float(np.median(difference)), 1e-5, "eV/atom"),
    ]


def _by_ase(atoms: Atoms, calculator: Any) -> float:
    copy = atoms.copy()
    copy.calc = calculator
    BFGS(FrechetCellFilter(copy), logfile=None).run(fmax=FORCE, steps=200)
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
    """The gradient of a distance at rest in 55 parameters against the relaxation."""
    cell, potential, params = holed(repeat)
    forward, backward, certificate = math.inf, math.inf, math.nan
    for _ in range(2):
        start = time.perf_counter()
        rest = relax(cell, potential, params, cell=False, force_tolerance=1e-6)
        forward = min(forward, time.perf_counter() - start)
        distance = (rest.structures.positions[1] - rest.structures.positions[5]).norm()
        start = time.perf_counter()
        distance.backward()
        backward = min(backward, time.perf_counter() - start)
        certificate = rest.gradients[0].relative_error
    return [
        stated(f"{row}, {int(cell.counts)} atoms: relaxation", forward, "s"),
        stated(f"{row}: gradient in 55 parameters", backward, "s"),
        at_most(f"{row}: gradient over relaxation", backward / forward, 0.5),
        at_most(f"{row}: certificate", certificate, 1e-6),
    ]


def memory() -> list[Record]:
    """What is kept for the gradient after few and many steps: the implicit function theorem against unrolling."""
    cell, potential, params = holed(2)

    def kept(steps: int, adjoint: Adjoint) -> float:
        solver = GradientDescent(step=Constant(0.01), max_iterations=steps, check_minimum=False)
        return _saved(
            lambda: relax(cell, potential, params, cell=False, solver=solver, adjoint=adjoint, on_fail="ignore")
        )

    exact = kept(40, Exact()) / kept(5, Exact())
    unrolled = kept(40, Unrolled()) / kept(5, Unrolled())
    return [at_most("kept after 40 steps over 5", exact, 1.01), at_least("the same, unrolled", unrolled, 3.0)]


def _saved(work: Callable[[], object]) -> float:
    """Bytes that autograd keeps of what `work` does."""
    total = 0.0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal total
        total += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        work()
    return total


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
