"""PEST control files, version 2 with external tables: parameters, observations, groups, weights, prior information.

White et al. (2020), PEST++ version 5 user manual, section 4.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from bilevel.calibrate.study.csv_file import read_csv
from bilevel.calibrate.study.files import read_text, write_atomically
from bilevel.report import InputError

MAX_BYTES = 100_000_000
TRANSFORMS = ("none", "log", "fixed", "tied")


@dataclass(frozen=True)
class PestParameter:
    """A row of the parameter data; `partrans` is none, log, fixed or tied."""

    parnme: str
    partrans: str
    parchglim: str
    parval1: float
    parlbnd: float
    parubnd: float
    pargp: str
    scale: float = 1.0
    offset: float = 0.0
    dercom: int = 1


@dataclass(frozen=True)
class PestObservation:
    """A row of the observation data; weight = 1/sigma."""

    obsnme: str
    obsval: float
    weight: float
    obgnme: str


@dataclass(frozen=True)
class PriorInformation:
    """An equation such as `1.0 * log(k) = -4.5`, its weight and group."""

    pilbl: str
    equation: str
    weight: float
    obgnme: str


@dataclass(frozen=True)
class ParameterGroup:
    """A row of the parameter groups; their increments are those of finite differences."""

    pargpnme: str
    inctyp: str = "relative"
    derinc: float = 0.01
    derinclb: float = 0.0
    forcen: str = "switch"
    derincmul: float = 2.0
    dermthd: str = "parabolic"


@dataclass(frozen=True)
class PestCase:
    """What a control file says; control: its keywords, as noptmax."""

    parameters: Sequence[PestParameter]
    observations: Sequence[PestObservation]
    prior_information: Sequence[PriorInformation] = ()
    groups: Sequence[ParameterGroup] = ()
    command: Sequence[str] = ()
    control: Mapping[str, str] | None = None


Row = TypeVar("Row", PestParameter, PestObservation, PriorInformation, ParameterGroup)
_TABLES: dict[str, tuple[str, str, type[Any]]] = {
    "parameter groups": ("groups", "pargp_data", ParameterGroup),
    "parameter data": ("parameters", "par_data", PestParameter),
    "observation data": ("observations", "obs_data", PestObservation),
    "prior information": ("prior_information", "pi_data", PriorInformation),
}


def write_pst(case: PestCase, file: Path) -> list[Path]:
    """Write a control file and its tables beside it; returns all paths, the control file last."""
    file.parent.mkdir(parents=True, exist_ok=True)
    control = {"pestmode": "estimation", "noptmax": "0", **(case.control or {})}
    lines = ["pcf version=2", "* control data keyword", *(f"{key:20} {value}" for key, value in control.items())]
    written: list[Path] = []

    def table(section: str, name: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        path = file.with_name(f"{file.stem}.{name}.csv")
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([header, *rows])
        write_atomically(path, buffer.getvalue())
        written.append(path)
        lines.extend([f"* {section} external", path.name])

    for section, (attribute, name, row_type) in _TABLES.items():
        rows = getattr(case, attribute)
        if section == "prior information":
            lines += ["* model command line", *case.command]
            table("model input", "tplfile_data", ["pest_file", "model_file"], [])
            table("model output", "insfile_data", ["pest_file", "model_file"], [])
        if rows or section != "prior information":
            table(section, name, [field.name for field in fields(row_type)], [astuple(row) for row in rows])
    write_atomically(file, "\n".join(lines) + "\n")
    return [*written, file]


def read_pst(file: Path | str) -> PestCase:
    """Read a control file of version 2 and its tables; InputError, with file and line, for what is wrong."""
    file = Path(file)
    sections = _sections(file)
    found: dict[str, Any] = {attribute: [] for attribute, _, _ in _TABLES.values()}
    for section, lines in sections.items():
        name = section.removesuffix(" external")
        if name in _TABLES and section.endswith(" external"):
            attribute, _, row_type = _TABLES[name]
            for line in lines:
                found[attribute] += _rows(file.parent / line.split()[0], row_type)
    for section in ("parameter data", "observation data"):
        if f"{section} external" not in sections:
            raise InputError(f"{file}: has no section '* {section} external'")
    control = dict(pair for line in sections.get("control data keyword", []) if len(pair := line.split(None, 1)) == 2)
    case = PestCase(**found, command=sections.get("model command line", []), control=control)
    _require_consistent(file, case)
    return case


def _sections(file: Path) -> dict[str, list[str]]:
    sections: dict[str, list[str]] = {}
    lines = [line.partition("#")[0].strip() for line in read_text(file, MAX_BYTES).splitlines()]
    lines = [line for line in lines if line]
    if not lines or lines[0].lower().split() != ["pcf", "version=2"]:
        raise InputError(
            f"{file}, line 1: expected 'pcf version=2'; write the control file in version 2, as pestchek or pyEMU do"
        )
    current: list[str] = []
    for line in lines[1:]:
        if line.startswith("*"):
            current = sections.setdefault(" ".join(line[1:].lower().split()), [])
        else:
            current.append(line)
    return sections


def _rows(path: Path, row_type: type[Row]) -> list[Row]:
    file = read_csv(path)
    columns: dict[str, Sequence[Any]] = {}
    for field in fields(row_type):
        if field.name in file.header:
            texts = field.type == "str"
            columns[field.name] = file.texts(field.name) if texts else file.numbers(field.name).tolist()
        elif field.name in ("scale", "offset", "dercom") or row_type is ParameterGroup:
            continue
        else:
            raise InputError(f"{path}, line 1: has no column '{field.name}' (columns: {', '.join(file.header)})")
    found = []
    for i in range(len(file.rows)):
        values = {name: column[i] for name, column in columns.items()}
        if "dercom" in values:
            values["dercom"] = int(values["dercom"])
        row = row_type(**values)
        if isinstance(row, PestParameter) and row.partrans.lower() not in TRANSFORMS:
            raise InputError(f"{file.where(i)}: partrans is none, log, fixed or tied, not '{row.partrans}'")
        if not isinstance(row, (PestParameter, ParameterGroup)) and not (0 <= row.weight < math.inf):
            raise InputError(f"{file.where(i)}: expected a weight that is not negative, got {row.weight:g}")
        found.append(row)
    return found


def _require_consistent(file: Path, case: PestCase) -> None:
    for what, names in (
        ("parameter", [p.parnme for p in case.parameters]),
        ("observation", [o.obsnme for o in case.observations]),
    ):
        if len(set(names)) < len(names):
            raise InputError(f"{file}: {what} '{next(n for n in names if names.count(n) > 1)}' is given more than once")
    known = {group.pargpnme for group in case.groups}
    for p in case.parameters:
        if known and p.pargp not in known:
            raise InputError(f"{file}: parameter '{p.parnme}' is of group '{p.pargp}', which is not among the groups")
