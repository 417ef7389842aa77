"""What must not change an answer: units, the order of rows, the start, the scale of weights, how rows are cut in experiments."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from bilevel.calibrate import calibrate, load_study
from bilevel.calibrate.result import CalibrationResult
from bilevel.calibrate.study.yaml_lines import read_yaml

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
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
}
Content = dict[str, Any]


class Copy:
    """A study's content in a folder of its own, its tables beside it, to be changed and run."""

    def __init__(self, name: str, folder: Path) -> None:
        self.source, self.folder = EXAMPLES / name, folder
        self.content: Content = json.loads(json.dumps(read_yaml(self.source).content))
        self.factors: dict[str, float] = {}
        for model in self.models():
            if "file" in model:
                model["file"] = str((self.source.parent / model["file"]).resolve())
        for k, entry in enumerate(self.observations()):
            table = folder / f"table{k}.csv"
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

    def run(self) -> CalibrationResult:
        study = self.folder / "study.yml"
        study.write_text(yaml.safe_dump(self.content), encoding="utf-8")
        loaded = load_study(study)
        return calibrate(loaded.problem, settings=replace(loaded.settings, verify=False, tolerance=1e-8, noptmax=200))


def unchanged(copy: Copy) -> None:
    pass


def other_units(copy: Copy) -> None:
    """Everything that has a unit is written in another one: tables, parameters with their bounds, the model's quantities."""

    def scale(rows: list[dict[str, str]], column: str, factor: float) -> None:
        for row in rows:
            row[column] = repr(float(row[column]) * factor) if row[column] else row[column]

    for entry in copy.observations():
        for quantity in (entry["value"], *entry.get("columns", {}).values()):
            if isinstance(quantity, dict) and quantity.get("units") in OTHER_UNITS:
                quantity["units"], factor = OTHER_UNITS[quantity["units"]]
                copy.rows(entry, lambda rows, c=quantity["column"], f=factor: scale(rows, c, f))
                if quantity is entry["value"] and isinstance(entry.get("std"), int | float):
                    entry["std"] *= factor
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
        parameter["value"] *= 1.03 if k % 2 else 0.97


def heavier_weights(copy: Copy) -> None:
    for entry in copy.observations():
        entry["weight"] = 1000.0 * entry.get("weight", 1.0)


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


EVERYWHERE = [other_units, shuffled_rows, another_start, heavier_weights, split_rows]
QUICK = ["nist/misra1a/study.yml", "nist/kirby2/study.yml", "nist/hahn1/study.yml", "treloar/study_extended_tube.yml"]
LONG = ["oude_korendijk/study.yml", "dalem/study.yml", "treloar/study_ogden.yml"]


def compare(name: str, change: Callable[[Copy], None], folder: Path) -> None:
    """Parameters to 1e-6 of a standard deviation, standard deviations to 1e-4."""
    (folder / "before").mkdir()
    (folder / "after").mkdir()
    before, after = Copy(name, folder / "before"), Copy(name, folder / "after")
    change(after)
    first, second = before.run(), after.run()
    assert first.converged
    assert second.converged
    for one, other in zip(first.estimates, second.estimates, strict=True):
        factor = after.factors.get(one.label, 1.0)
        assert other.value / factor == pytest.approx(one.value, rel=1e-13, abs=1e-6 * one.std), one.label
        assert other.std / factor == pytest.approx(one.std, rel=1e-4), one.label


@pytest.mark.parametrize("change", [*EVERYWHERE, split_experiments], ids=lambda c: c.__name__)
@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)], ids=lambda n: n
)
def test_an_answer_does_not_depend_on(name: str, change: Callable[[Copy], None], tmp_path: Path) -> None:
    compare(name, change, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("change", [other_units, another_start, heavier_weights], ids=lambda c: c.__name__)
def test_sand_and_its_path_do_not_depend_on(change: Callable[[Copy], None], tmp_path: Path) -> None:
    """Rows of a laboratory test are a path; their order is what was done."""
    compare("hochstetten_sand/study.yml", change, tmp_path)
