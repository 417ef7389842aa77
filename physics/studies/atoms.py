"""The study model `atoms`: an interatomic potential from properties of crystals at rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from bilevel.calibrate.model import Model, ModelConfig, ModelFigure, ModelReports, ParameterDefault
from bilevel.calibrate.observations import ObservationTable
from bilevel.calibrate.study.registry import import_file
from bilevel.report import InputError
from physics.atoms.formats.lammps import write_lammps
from physics.atoms.potential import Potential
from physics.atoms.properties.equation_of_state import equation_of_state
from physics.atoms.structures import Structures
from physics.constitutive.registry import find_law
from physics.local.parameters import LawParameter
from physics.studies.crystal_properties import SITES, Property, Relaxations, StructureSection, find_property, units_of
from physics.studies.quantities import require_units


class AtomsModel(Model):
    """Properties of crystals at rest under an interatomic potential; each observation names a structure and a property.

    The parameters are the potential's own, in eV and angstrom. Observations of different units come as one section each.
    Properties: lattice_constant, length_a, length_b, length_c, volume, energy, cohesive_energy (of one atom), bulk_modulus,
    C11 ... C66, vacancy_energy, stacking_fault_energy, "surface_energy h k l", "phonon qx qy qz mode n", "force n x".
    """

    class Config(ModelConfig):
        """The potential, and the structures."""

        potential: str
        """The potential: a name among the installed laws, or in your own file."""
        file: str | None = None
        """A Python file of your own, beside the study, that defines the potential."""
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
            require_units(observations, row, units_of(name))

    def _potential(self, elements: list[str]) -> Potential:
        if self.config.file is not None:
            return self._own_potential(self.folder / self.config.file)
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

    def _own_potential(self, file: Path) -> Potential:
        found = getattr(import_file(file), self.config.potential, None)
        if not isinstance(found, Potential):
            raise InputError(f"{file}: has no potential called '{self.config.potential}' (an object, not its class)")
        if not len(found.parameters) or self.config.options:
            raise InputError(f"{file}: {self.config.potential} must come with its options and `parameters`, with units")
        return found

    def _read(self, name: str, section: StructureSection) -> Any:
        from ase.build import bulk
        from ase.io import read

        if (section.file is None) == (section.crystal is None):
            raise InputError(f"structure {name}: give either a crystal (with element and a) or a file")
        try:
            if section.file is not None:
                return read(self.folder / section.file, index=section.index)
            if section.element is None or section.a is None:
                raise InputError("a crystal needs its element and its lattice constant a (angstrom)")
            return bulk(section.element, section.crystal, a=section.a)
        except InputError as error:
            raise InputError(f"structure {name}: {error}") from None
        except Exception as error:  # whatever ASE's many readers and builders raise
            given = section.file or f"{section.crystal} {section.element}"
            raise InputError(f"structure {name}: ASE can make nothing of {given}: {error!r}") from error

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
        """Calibrated properties against the measured ones, and the energy of each crystal against its lattice constant."""
        with torch.no_grad():
            predicted = self.simulate(parameters)
            curves = [self._curve(s) for s, mode in enumerate(self.relaxations.modes) if mode is True]
        measured = self.observations.value
        ratio = (predicted / measured)[measured != 0].numpy()
        names = zip(self.observations.labels["structure"], self.observations.labels["property"], strict=True)
        labels = [f"{s}: {p}" for (s, p), value in zip(names, measured.tolist(), strict=True) if value != 0]
        known = [curve for curve in curves if curve is not None]
        return [self._parity(labels, ratio), *([self._energies(known)] if known else [])]

    def _curve(self, s: int) -> tuple[str, np.ndarray, np.ndarray] | None:
        """Lattice constants in angstrom, or cube roots of the volume of an atom, and energies of an atom in eV."""
        structure, crystal = self.relaxations.structure(s), self.relaxations.sections[s].crystal
        if not bool(structure.periodic.all()):
            return None
        ratios = (np.linspace(0.94, 1.08, 15) ** 3).tolist()
        curve = equation_of_state(structure, self.potential, self.relaxations.params, ratios)
        lengths = (curve.volumes * (1 if crystal is None else SITES[crystal])) ** (1.0 / 3.0)
        return structure.names[0], lengths.numpy(), curve.energies.numpy()

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
        axes.set_xlabel("lattice constant [angstrom]")
        axes.set_ylabel("energy per atom [eV]")
        axes.grid(True, alpha=0.3)
        axes.legend()
        caption = "Atoms at rest in each cell; of a structure from a file, against the cube root of an atom's volume."
        return ModelFigure("Energy against lattice constant", figure, caption)
