"""Copies of the shipped studies in which something is changed that must not change the answer."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bilevel.calibrate import calibrate, load_study
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.study.yaml_lines import read_yaml

OTHER_UNITS = {
    "m": ("mm", 1e3),
    "min": ("s", 60.0),
    "m/d": ("m/s", 1.0 / 86400.0),
    "1/m": ("1/km", 1e3),
    "m3/d": ("L/min", 1e3 / 1440.0),
    "d": ("h", 24.0),
    "MPa": ("Pa", 1e6),
    "kPa": ("Pa", 1e3),
    "GPa": ("MPa", 1e3),
    "%": ("1", 1e-2),
    "um": ("mm", 1e-3),
    "h": ("min", 60.0),
    "angstrom": ("nm", 0.1),
    "eV": ("meV", 1e3),
}
Content = dict[str, Any]
TOLERANCE = 1e-8
"""Of the offset, in standard deviations."""
REACHED = {"net3": 1e-7}
"""The same where the outer loop ends above it: 8.8e-8 on this network, below which no step reduces phi."""


class Copy:
    """A study's content in a folder of its own, its tables beside it, to be changed and run."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source, self.folder = source, folder
        self.content: Content = json.loads(json.dumps(read_yaml(self.source).content))
        self.factors: dict[str, float] = {}
        for model in self.models():
            for key in {"file", "mesh", "groups"} & set(model):
                model[key] = str((self.source.parent / model[key]).resolve())
        for k, entry in enumerate(self.observations()):
            # A model that reads the tables of its observations finds them by their names.
            table = folder / (entry["file"] if any("tables" in model for model in self.models()) else f"table{k}.csv")
            table.write_text((self.source.parent / entry["file"]).read_text(encoding="utf-8"), encoding="utf-8")
            entry["file"] = table.name

    def sections(self) -> list[Content]:
        return [self.content, *self.content.get("experiments", [])]

    def observations(self) -> list[Content]:
        return [entry for section in self.sections() for entry in section.get("observations", [])]

    def models(self) -> list[Content]:
        return [section["model"] for section in self.sections() if "model" in section]

    def rows(self, entry: Content, change: Callable[[list[dict[str, str]]], None]) -> None:
        table = self.folder / entry["file"]
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
        names = list(rows[0])
        change(rows)
        with table.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)

    def scale(self, entry: Content, column: str, factor: float) -> None:
        def change(rows: list[dict[str, str]]) -> None:
            for row in rows:
                row[column] = repr(float(row[column]) * factor) if row[column] else row[column]

        self.rows(entry, change)

    def run(self) -> CalibrationResult:
        study = self.folder / "study.yml"
        study.write_text(yaml.safe_dump(self.content), encoding="utf-8")
        loaded = load_study(study)
        tolerance = REACHED.get(self.source.parent.name, TOLERANCE)
        return calibrate(
            loaded.problem, settings=replace(loaded.settings, verify=False, tolerance=tolerance, noptmax=200)
        )


def unchanged(copy: Copy) -> None:
    pass


def other_units(copy: Copy) -> None:
    """Everything that has a unit is written in another one: tables, parameters with their bounds, the model's quantities."""

    for entry in copy.observations():
        for quantity in (entry["value"], *entry.get("columns", {}).values()):
            if isinstance(quantity, dict) and quantity.get("units") in OTHER_UNITS:
                quantity["units"], factor = OTHER_UNITS[quantity["units"]]
                copy.scale(entry, quantity["column"], factor)
                if quantity is entry["value"] and isinstance(entry.get("std"), int | float):
                    entry["std"] *= factor
                elif quantity is entry["value"] and isinstance(entry.get("std"), dict):
                    copy.scale(entry, entry["std"]["column"], factor)
    for parameter in copy.content["parameters"]:
        if parameter.get("units") in OTHER_UNITS:
            parameter["units"], factor = OTHER_UNITS[parameter["units"]]
            copy.factors[parameter["name"]] = factor
            for key in {"value", "lower", "upper"} & set(parameter):
                parameter[key] *= factor
    for model in copy.models():
        for key, value in model.items():
            model[key] = in_other_units(value)


def in_other_units(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: in_other_units(v) for key, v in value.items()}
    if isinstance(value, list):
        return [in_other_units(v) for v in value]
    found = re.fullmatch(r"([-+.\deE]+) (\S+)", value) if isinstance(value, str) else None
    if found is None or found[2] not in OTHER_UNITS:
        return value
    unit, factor = OTHER_UNITS[found[2]]
    return f"{float(found[1]) * factor!r} {unit}"


def shuffled_rows(copy: Copy) -> None:
    for k, entry in enumerate(copy.observations()):
        copy.rows(entry, random.Random(k).shuffle)


def another_start(copy: Copy) -> None:
    for k, parameter in enumerate(copy.content["parameters"]):
        if not parameter.get("fixed"):
            parameter["value"] *= 1.03 if k % 2 else 0.97


def heavier_weights(copy: Copy) -> None:
    for entry in copy.observations():
        if "std" not in entry:
            entry["weight"] = 1000.0 * entry.get("weight", 1.0)
        elif isinstance(entry["std"], dict):
            copy.scale(entry, entry["std"]["column"], 1e-3)
        else:
            entry["std"] *= 1e-3


def split_rows(copy: Copy) -> None:
    """Each table of observations is read in two halves, as an entry each of the same group."""
    for section in copy.sections():
        halves = []
        for entry in section.get("observations", []):
            other = {**entry, "file": f"half_{entry['file']}"}
            (copy.folder / other["file"]).write_bytes((copy.folder / entry["file"]).read_bytes())

            def keep(rows: list[dict[str, str]], first: bool) -> None:
                rows[:] = rows[::2] if first else rows[1::2]

            copy.rows(entry, lambda rows: keep(rows, True))
            copy.rows(other, lambda rows: keep(rows, False))
            halves += [entry, other]
        if halves:
            section["observations"] = halves


def split_experiments(copy: Copy) -> None:
    """Each entry of observations becomes an experiment of its own."""
    split_rows(copy)
    entries = copy.content.pop("observations")
    copy.content["experiments"] = [{"name": f"part{k}", "observations": [entry]} for k, entry in enumerate(entries)]


def renumbered_nodes(copy: Copy) -> None:
    """The nodes of the mesh in another order."""
    import meshio

    (model,) = copy.models()
    mesh = meshio.read(model["mesh"])
    order = np.random.default_rng(0).permutation(len(mesh.points))
    mesh.points = mesh.points[order]
    for block in mesh.cells:
        block.data = np.argsort(order)[block.data]
    model["mesh"] = str(copy.folder / "renumbered.msh")
    meshio.write(model["mesh"], mesh, file_format="gmsh22", binary=False)


def shuffled_network(copy: Copy) -> None:
    """Junctions and pipes of a file of EPANET in another order."""
    _edit_network(copy, ("JUNCTIONS", "PIPES", "PUMPS", "TANKS"), lambda lines: random.Random(0).shuffle(lines))


def other_datum(copy: Copy) -> None:
    """All elevations of a file of EPANET a thousand feet higher."""

    def lift(lines: list[str]) -> None:
        for k, line in enumerate(lines):
            name, height, *rest = line.split("\t")
            lines[k] = "\t".join([name, repr(float(height) + 1000.0), *rest])

    _edit_network(copy, ("JUNCTIONS", "RESERVOIRS", "TANKS"), lift)


def _edit_network(copy: Copy, sections: tuple[str, ...], change: Callable[[list[str]], None]) -> None:
    (model,) = copy.models()
    parts = re.split(r"(?m)^\[(\w+)\]\n", Path(model["file"]).read_text(encoding="utf-8"))
    text = parts[0]
    for name, part in zip(parts[1::2], parts[2::2]):
        lines = part.splitlines()
        if name in sections:
            remarks = [line for line in lines if line.startswith(";")]
            lines = [line for line in lines if line.strip() and not line.startswith(";")]
            change(lines)
            lines = [*remarks, *lines, ""]
        text += f"[{name}]\n" + "\n".join(lines) + "\n"
    model["file"] = str(copy.folder / "network.inp")
    Path(model["file"]).write_text(text, encoding="utf-8")
