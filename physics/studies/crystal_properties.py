"""Properties of a study's structures, each by its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from bilevel.calibrate.study.documented import Documented
from bilevel.report import InputError
from bilevel.solvers.newton import Newton
from physics.atoms.potential import Potential
from physics.atoms.properties.defects import stacking_fault_energy, surface_energy, vacancy_energy
from physics.atoms.properties.elastic import ElasticTensor, elastic_tensor
from physics.atoms.properties.phonons import phonon_frequencies
from physics.atoms.relaxation import Relaxed, energy_and_forces, relax
from physics.atoms.structures import Structures
from physics.atoms.units import ANGSTROM, EV

SITES = {"sc": 1, "bcc": 2, "fcc": 4, "diamond": 8, "rocksalt": 8, "zincblende": 8, "cesiumchloride": 2}
"""Atoms in the cubic cell of each crystal."""

PASCAL, HERTZ = 1e9, 1e12


class StructureSection(Documented):
    """One structure: a crystal by name, element (or formula) and lattice constant, or a file that ASE reads."""

    model_config = ConfigDict(extra="forbid")

    crystal: Literal["sc", "bcc", "fcc", "diamond", "rocksalt", "zincblende", "cesiumchloride"] | None = None
    """A crystal by its name."""
    element: str | None = None
    """The crystal's element, or its formula."""
    a: float | None = Field(default=None, gt=0)
    """The crystal's lattice constant to start from, in angstrom."""
    file: str | None = None
    """A file that ASE reads, in place of a crystal."""
    index: int = 0
    """Which structure of the file."""
    relax: bool | Literal["positions"] | None = None
    """Positions and cell, positions alone, or nothing; the study's own `relax` unless given."""
    vacancy: tuple[int, int, int] | list[list[int]] = (3, 3, 3)
    """Repeats of the supercell that an atom is taken out of."""
    layers: int = Field(default=12, ge=6)
    """Layers of the cell with a stacking fault, and of slabs."""


class Relaxations:
    """The structures of a study at rest for one set of parameters; what is derived from each is found once."""

    def __init__(self, structures: Structures, modes: list[bool | str], sections: list[StructureSection]) -> None:
        self.structures, self.modes, self.sections = structures, modes, sections

    def solve(self, potential: Potential, params: Mapping[str, Tensor]) -> None:
        """Bring all structures to rest, each as it is asked to."""
        self.potential, self.params = potential, params
        self.solved: list[Relaxed] = []
        self.at: dict[int, tuple[Relaxed, int]] = {}
        self._tensors: dict[int, ElasticTensor] = {}
        self._slopes: dict[int, tuple[Tensor, Tensor]] = {}
        for cell in (True, False):
            wanted: bool | str = True if cell else "positions"
            chosen = [s for s, mode in enumerate(self.modes) if mode == wanted]
            if chosen:
                # A crystal that its symmetry holds on a saddle is a smooth function of the parameters, and a fit finds its
                # way back from there; once it has left for another crystal, its properties are those of something else.
                some, solver = self.structures.select(chosen), Newton(check_minimum=False)
                rest = relax(some, potential, params, cell=cell, solver=solver)
                self.solved.append(rest)
                self.at |= {s: (rest, place) for place, s in enumerate(chosen)}

    def structure(self, s: int) -> Structures:
        if s not in self.at:
            return self.structures.select([s])
        rest, place = self.at[s]
        return rest.structures.select([place])

    def energy(self, s: int) -> Tensor:
        """The energy of a structure, in eV."""
        if s in self.at:
            rest, place = self.at[s]
            return rest.energies[place]
        return self._energy_and_forces(s)[0][0]

    def forces(self, s: int) -> Tensor:
        """The forces (N, 3) on a structure's atoms, in eV/angstrom."""
        return self._energy_and_forces(s)[1]

    def _energy_and_forces(self, s: int) -> tuple[Tensor, Tensor]:
        if s not in self._slopes:
            self._slopes[s] = energy_and_forces(self.structure(s), self.potential, self.params)[:2]
        return self._slopes[s]

    def elastic(self, s: int) -> ElasticTensor:
        if s not in self._tensors:
            self._tensors[s] = elastic_tensor(self.structure(s), self.potential, self.params)
            if s in self.at and not bool((torch.linalg.eigvalsh(self._tensors[s].relaxed.detach()) > 0).all()):
                note = f"{self.structures.names[s]} is held at rest by its symmetry alone: its elastic tensor is not positive definite"
                self.at[s][0].reports[0].notes.append(note)
        return self._tensors[s]

    def alone(self, s: int) -> Relaxed:
        """A crystal by itself, for what is built from it."""
        if s not in self.at:
            raise InputError(f"{self.structures.names[s]}: defects are built from a crystal at rest; set relax: true")
        rest, place = self.at[s]
        one = slice(place, place + 1)
        parts = rest.energies[one], rest.forces[one], rest.stresses[one]
        return Relaxed(self.structure(s), *parts, rest.solutions, rest.members, [rest.displacements[place]])


Property = Callable[[Relaxations, int], Tensor]


def _lattice_constant(at: Relaxations, s: int) -> Tensor:
    sites = at.sections[s].crystal
    if sites is None:
        raise InputError(
            f"{at.structures.names[s]}: only a crystal given by name has one lattice constant; use length_a"
        )
    structure = at.structure(s)
    return (structure.volumes[0] / structure.counts[0] * SITES[sites]) ** (1.0 / 3.0) * ANGSTROM


def _vacancy(at: Relaxations, s: int) -> Tensor:
    energy, rest = vacancy_energy(at.alone(s), at.potential, at.params, at.sections[s].vacancy)
    at.solved.append(rest)
    return energy * EV


def _fault(at: Relaxations, s: int) -> Tensor:
    energy = stacking_fault_energy(at.alone(s), at.potential, at.params, at.sections[s].layers)
    return energy * (EV / ANGSTROM**2)


def _surface(at: Relaxations, s: int, indices: tuple[int, int, int]) -> Tensor:
    from ase.build import bulk, surface

    section, name = at.sections[s], at.structures.names[s]
    if section.crystal is None or section.element is None or not any(indices):
        raise InputError(f"{name}: a surface is that of a crystal given by name, with indices that are not all zero")
    slab = surface(bulk(section.element, section.crystal, a=section.a, cubic=True), indices, section.layers)
    slab.pbc = (True, True, False)
    slabs, reference = Structures.of(slab, [f"surface {indices} of {name}"]), at.structures.select([s]).cells[0]
    energy = surface_energy(at.alone(s), slabs, reference, at.potential, at.params)
    return energy * (EV / ANGSTROM**2)


def _length(axis: int) -> Property:
    return lambda at, s: at.structure(s).cells[0, axis].norm() * ANGSTROM


def _constant(i: int, j: int) -> Property:
    return lambda at, s: at.elastic(s).relaxed[i, j] * PASCAL


PROPERTIES: dict[str, Property] = {
    "lattice_constant": _lattice_constant,
    **{f"length_{name}": _length(axis) for axis, name in enumerate("abc")},
    "volume": lambda at, s: at.structure(s).volumes[0] / at.structure(s).counts[0] * ANGSTROM**3,
    "energy": lambda at, s: at.energy(s) / at.structure(s).counts[0] * EV,
    "cohesive_energy": lambda at, s: -at.energy(s) / at.structure(s).counts[0] * EV,
    "bulk_modulus": lambda at, s: at.elastic(s).bulk_modulus * PASCAL,
    **{f"C{i + 1}{j + 1}": _constant(i, j) for i in range(6) for j in range(6)},
    "vacancy_energy": _vacancy,
    "stacking_fault_energy": _fault,
}
"""What an observation's `property` may be; energies and volumes are those of one atom."""

UNITS = (
    ("lattice_constant", "m"),
    ("length", "m"),
    ("volume", "m3"),
    ("bulk_modulus", "Pa"),
    ("C", "Pa"),
    ("stacking_fault_energy", "J/m2"),
    ("surface_energy", "J/m2"),
    ("phonon", "Hz"),
    ("force", "N"),
)
"""Of properties that begin like this; the others are energies of an atom, in J."""

SURFACE = re.compile(r"surface_energy (-?\d+) (-?\d+) (-?\d+)")
PHONON = re.compile(r"phonon (\S+) (\S+) (\S+) mode (\d+)")
FORCE = re.compile(r"force (\d+) ([xyz])")


def units_of(name: str) -> str:
    """The units of a property that is known."""
    return next((units for begin, units in UNITS if name.startswith(begin)), "J")


def find_property(name: str, where: str) -> Property:
    """The property of that name; also "phonon 0.5 0.5 0 mode 3", "force 12 x" (both count from 1), "surface_energy 1 1 1"."""
    if name in PROPERTIES:
        return PROPERTIES[name]
    if match := PHONON.fullmatch(name):
        point, mode = torch.tensor([[float(x) for x in match.groups()[:3]]]), int(match[4]) - 1
        return lambda at, s: phonon_frequencies(at.structure(s), at.potential, at.params, point)[0, mode] * HERTZ
    if match := SURFACE.fullmatch(name):
        h, k, l = (int(x) for x in match.groups())
        return lambda at, s: _surface(at, s, (h, k, l))
    if match := FORCE.fullmatch(name):
        atom, axis = int(match[1]) - 1, "xyz".index(match[2])
        return lambda at, s: at.forces(s)[atom, axis] * (EV / ANGSTROM)
    known = ", ".join(n for n in PROPERTIES if not n.startswith("C"))
    known += ", C11 ... C66, surface_energy h k l, phonon qx qy qz mode n, force n x"
    raise InputError(f"{where}: there is no property '{name}'; known are {known}")
