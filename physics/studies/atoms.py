"""The study model `atoms`: an interatomic potential from properties of crystals at rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bilevel.calibrate.model import Model, ModelConfig, ModelFigure, ModelReports, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.report import InputError
from bilevel.solvers.newton import Newton
from physics.atoms.formats.lammps import write_lammps
from physics.atoms.potential import Potential
from physics.atoms.properties.defects import stacking_fault_energy, vacancy_energy
from physics.atoms.properties.elastic import ElasticTensor, elastic_tensor
from physics.atoms.properties.equation_of_state import equation_of_state
from physics.atoms.properties.phonons import phonon_frequencies
from physics.atoms.relaxation import Relaxed, energy_and_forces, relax
from physics.atoms.structures import Structures
from physics.atoms.units import ANGSTROM, EV
from physics.constitutive.registry import find_law
from physics.local.parameters import LawParameter

SITES = {"sc": 1, "bcc": 2, "fcc": 4, "diamond": 8, "rocksalt": 8, "zincblende": 8, "cesiumchloride": 2}
"""Atoms in the cubic cell of each crystal."""

PASCAL, HERTZ = 1e9, 1e12


class StructureSection(BaseModel):
    """One structure: a crystal by name, element (or formula) and lattice constant, or a file that ASE reads.

    relax: positions and cell, positions alone, or nothing. vacancy: repeats of the supercell that the atom is taken out
    of. layers: of the cell with a stacking fault.
    """

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

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
    layers: int = 12
    """Layers of the cell with a stacking fault."""


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

PHONON = re.compile(r"phonon (\S+) (\S+) (\S+) mode (\d+)")
FORCE = re.compile(r"force (\d+) ([xyz])")


def find_property(name: str, where: str) -> Property:
    """The property of that name, "phonon 0.5 0.5 0 mode 3" and "force 12 x" (atoms and modes count from 1) included."""
    if name in PROPERTIES:
        return PROPERTIES[name]
    if match := PHONON.fullmatch(name):
        point, mode = torch.tensor([[float(x) for x in match.groups()[:3]]]), int(match[4]) - 1
        return lambda at, s: phonon_frequencies(at.structure(s), at.potential, at.params, point)[0, mode] * HERTZ
    if match := FORCE.fullmatch(name):
        atom, axis = int(match[1]) - 1, "xyz".index(match[2])
        return lambda at, s: at.forces(s)[atom, axis] * (EV / ANGSTROM)
    known = (
        ", ".join(n for n in PROPERTIES if not n.startswith("C")) + ", C11 ... C66, phonon qx qy qz mode n, force n x"
    )
    raise InputError(f"{where}: there is no property '{name}'; known are {known}")


class AtomsModel(Model):
    """Properties of crystals at rest under an interatomic potential; each observation names a structure and a property.

    The parameters are the potential's own, in eV and angstrom. Observations of different units come as one section each.
    """

    class Config(ModelConfig):
        """potential: a name among the installed laws. options: what else it is made of (species, cut-off, knots ...)."""

        potential: str
        """The potential: a name among the installed laws."""
        options: dict[str, Any] = {}  # noqa: RUF012
        """What else the potential is made of: species, cut-off, knots."""
        relax: bool | Literal["positions"] = True
        """What is brought to rest: positions and cell, positions alone, or nothing."""
        structures: dict[str, StructureSection] = Field(min_length=1)
        """The structures by name."""

    columns = {"structure": "text", "property": "text"}  # noqa: RUF012
    forward_mode = False
    batched = False

    def __init__(self, config: Config, observations: ObservationTable, folder: Path) -> None:
        super().__init__(config, observations, folder)
        sections = list(config.structures.values())
        atoms = [self._read(name, section) for name, section in config.structures.items()]
        self.potential = self._potential(sorted({s for one in atoms for s in one.get_chemical_symbols()}))
        modes: list[bool | str] = [config.relax if s.relax is None else s.relax for s in sections]
        structures = Structures.of(atoms, list(config.structures))
        self.potential.kinds(structures.numbers, structures.owner, structures.names)
        self.relaxations = Relaxations(structures, modes, sections)
        places = {name: s for s, name in enumerate(config.structures)}
        self.rows: list[tuple[int, Property]] = []
        labels = zip(observations.labels["structure"], observations.labels["property"], strict=True)
        for row, (structure, name) in enumerate(labels):
            where = observations.source[row] if observations.source else f"observation {row + 1}"
            if structure not in places:
                raise InputError(f"{where}: structure '{structure}' is not among structures ({', '.join(places)})")
            self.rows.append((places[structure], find_property(name, where)))

    def _potential(self, elements: list[str]) -> Potential:
        law = find_law(self.config.potential, Potential)  # type: ignore[type-abstract]
        options = dict(self.config.options)
        if "table" in options:
            options["table"] = self.folder / str(options["table"])
        elif "species" not in options:
            options["species"] = tuple(elements)
        try:
            return law(**options)
        except TypeError as error:
            raise InputError(
                f"potential {self.config.potential}: options {sorted(options)} do not fit: {error}"
            ) from None

    def _read(self, name: str, section: StructureSection) -> Any:
        from ase.build import bulk
        from ase.io import read

        if (section.file is None) == (section.crystal is None):
            raise InputError(f"structure {name}: give either a crystal (with element and a) or a file")
        if section.file is not None:
            path = self.folder / section.file
            if not path.is_file():
                raise InputError(f"structure {name}: there is no file {path}")
            return read(path, index=section.index)
        if section.element is None or section.a is None:
            raise InputError(f"structure {name}: a crystal needs its element and its lattice constant a (angstrom)")
        return bulk(section.element, section.crystal, a=section.a)

    def parameter_defaults(self) -> Mapping[str, ParameterDefault]:
        return {p.name: self._default(p) for p in self.potential.parameters}

    def _default(self, parameter: LawParameter) -> ParameterDefault:
        return ParameterDefault(
            parameter.units,
            value=parameter.default,
            lower=parameter.lower if np.isfinite(parameter.lower) else None,
            upper=parameter.upper if np.isfinite(parameter.upper) else None,
            transform="log" if parameter.logarithmic else "none",
            size=self.potential.sizes.get(parameter.name),
            description=parameter.description,
        )

    def simulate(self, parameters: Mapping[str, Tensor]) -> Tensor:
        self.relaxations.solve(self.potential, parameters)
        return torch.stack([of(self.relaxations, s) for s, of in self.rows])

    def reports(self) -> ModelReports:
        solved = self.relaxations.solved
        return ModelReports(
            [report for rest in solved for report in rest.reports], [g for rest in solved for g in rest.gradients]
        )

    def write_state(self, parameters: Mapping[str, Tensor], folder: Path) -> list[Path]:
        """The structures at rest as extxyz, and the potential as LAMMPS reads it."""
        from ase.io import write

        with torch.no_grad():
            self.relaxations.solve(self.potential, parameters)
        atoms = [self.relaxations.structure(s).to_ase()[0] for s in range(len(self.relaxations.structures))]
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / "structures.extxyz", atoms)
        try:
            written = write_lammps(self.potential, parameters, folder)
        except InputError:  # a potential of one's own, which LAMMPS does not know
            written = []
        return [folder / "structures.extxyz", *written]

    def figures(self, parameters: Mapping[str, Tensor]) -> list[ModelFigure]:
        """Energy against volume of each crystal, and the calibrated properties against the measured ones."""
        with torch.no_grad():
            predicted = self.simulate(parameters)
            curves = [self._curve(s) for s, mode in enumerate(self.relaxations.modes) if mode is True]
        measured = self.observations.value
        ratio = (predicted / measured)[measured != 0].numpy()
        names = zip(self.observations.labels["structure"], self.observations.labels["property"], strict=True)
        labels = [f"{s}: {p}" for (s, p), value in zip(names, measured.tolist(), strict=True) if value != 0]
        return [self._parity(labels, ratio), self._energies([curve for curve in curves if curve is not None])]

    def _curve(self, s: int) -> tuple[str, np.ndarray, np.ndarray] | None:
        structure = self.relaxations.structure(s)
        if not bool(structure.periodic.all()):
            return None
        ratios = np.linspace(0.85, 1.2, 15).tolist()
        curve = equation_of_state(structure, self.potential, self.relaxations.params, ratios)
        return structure.names[0], curve.volumes.numpy(), curve.energies.numpy()

    def _parity(self, labels: list[str], ratio: np.ndarray) -> ModelFigure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.0, 1.2 + 0.35 * len(labels)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0.0, color="0.6")
        axes.plot(100.0 * (ratio - 1.0), range(len(labels)), "o")
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        axes.set_xlabel("calibrated over measured - 1 [%]")
        axes.grid(True, alpha=0.3)
        return ModelFigure("Properties", figure, "Calibrated properties relative to the measured ones.")

    def _energies(self, curves: list[tuple[str, np.ndarray, np.ndarray]]) -> ModelFigure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.0, 4.5), layout="constrained")
        axes = figure.add_subplot()
        for name, volumes, energies in curves:
            axes.plot(volumes, energies, "-o", ms=3, label=name)
        axes.set_xlabel("volume per atom [angstrom^3]")
        axes.set_ylabel("energy per atom [eV]")
        axes.grid(True, alpha=0.3)
        axes.legend()
        return ModelFigure("Energy against volume", figure, "Atoms at rest in each cell.")
