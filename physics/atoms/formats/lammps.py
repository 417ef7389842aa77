"""Potentials as files and `pair_style` lines of LAMMPS, in metal units."""

from __future__ import annotations

from functools import singledispatch
from pathlib import Path

import torch

from bilevel.problem import Params
from bilevel.report import InputError
from physics.atoms.formats.setfl import write_setfl
from physics.atoms.formats.tabulate import tabulate
from physics.atoms.potential import PairFunctional, Potential
from physics.atoms.stillinger_weber import StillingerWeber
from physics.atoms.tabulated import TabulatedEAM
from physics.atoms.tersoff import Tersoff

DENSEST = 100.0
"""Up to which density the embedding is tabulated where nothing else is said."""


def write_lammps(potential: Potential, params: Params, folder: Path, densest: float = DENSEST) -> list[Path]:
    """Write the potential's file and `in.potential`, which holds its pair_style and pair_coeff lines; returns both.

    Pair and embedded-atom potentials become eam/alloy tables (cut-offs included), up to the density `densest`. Raises
    InputError for potentials that LAMMPS has no style for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    style, file = _file(potential, params, folder, densest)
    lines = [f"pair_style {style}", f"pair_coeff * * {file.name} {' '.join(potential.species)}"]
    script = folder / "in.potential"
    script.write_text("units metal\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return [file, script]


@singledispatch
def _file(potential: Potential, params: Params, folder: Path, densest: float) -> tuple[str, Path]:
    raise InputError(f"{type(potential).__name__} has no LAMMPS pair style")


@_file.register
def _(potential: PairFunctional, params: Params, folder: Path, densest: float) -> tuple[str, Path]:
    known = isinstance(potential, TabulatedEAM)
    table = potential.table if known else tabulate(potential, params, densest=densest)  # type: ignore[attr-defined]
    file = folder / f"{'_'.join(potential.species)}.eam.alloy"
    write_setfl(table, file)
    return "eam/alloy", file


@_file.register
def _(potential: StillingerWeber, params: Params, folder: Path, densest: float) -> tuple[str, Path]:
    names = ("epsilon", "sigma", "a", "lambda", "gamma", "cos0", "A", "B", "p", "q")
    return "sw", _entry(potential, [_number(params[name]) for name in names] + ["0.0"], folder, "sw")


@_file.register
def _(potential: Tersoff, params: Params, folder: Path, densest: float) -> tuple[str, Path]:
    names = ("gamma", "lambda3", "c", "d", "h", "n", "beta", "lambda2", "B", "R", "D", "lambda1", "A")
    numbers = [str(potential.m), *(_number(params[name]) for name in names)]
    return "tersoff", _entry(potential, numbers, folder, "tersoff")


def _entry(potential: Potential, numbers: list[str], folder: Path, ending: str) -> Path:
    """A file with the one entry that an element with itself has."""
    element = potential.species[0]
    file = folder / f"{element}.{ending}"
    comment = f"# {type(potential).__name__}, metal units"
    if isinstance(potential, Tersoff):
        comment += "; LAMMPS takes Tersoff's own cosine between R - D and R + D"
    file.write_text(f"{comment}\n{element} {element} {element} {' '.join(numbers)}\n", encoding="utf-8")
    return file


def _number(value: torch.Tensor) -> str:
    return f"{float(value.detach()):.17g}"
