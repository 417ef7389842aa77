"""The tables of a model are read however they are written, as the observations are: decimal commas, dates, semicolons, sheets."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import torch

from bilevel.calibrate.study.loading import load_study
from bilevel.calibrate.study.template import write_template
from bilevel.report import InputError

LAYOUT = "delimiter: ';', decimal: ','"
DATES = "time: {column: when, origin: 01.05.2024 00:00}"


def predictions(folder: Path) -> torch.Tensor:
    problem = load_study(folder / "study.yml").problem
    return problem.predict(torch.from_numpy(problem.parameters.start()))


def rewrite(file: Path, dates: str = "") -> None:
    """A table of commas and points as a German one; the column of days called `dates` as dates from May 1st 2024."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    header, *rows = [line.split(",") for line in lines]
    if dates:
        column = header.index(dates)
        header[column] = "when"
        for row in rows:
            when = datetime(2024, 5, 1) + timedelta(days=float(row[column]))
            row[column] = when.strftime("%d.%m.%Y %H:%M:%S")
    written = [
        ";".join(cell if dates and i == header.index("when") else cell.replace(".", ",") for i, cell in enumerate(row))
        for row in rows
    ]
    file.write_text("\n".join([";".join(header), *written, ""]))


def changed(folder: Path, *changes: tuple[str, str]) -> None:
    text = (folder / "study.yml").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "study.yml").write_text(text)


def test_tables_over_time(tmp_path: Path) -> None:
    """A river's stages and a well's rates with dates, decimal commas and semicolons."""
    write_template(tmp_path / "mine", "darcy")
    folder = tmp_path / "mine"
    before = predictions(folder)
    for name in ("river.csv", "pumping.csv"):
        rewrite(folder / name, dates="day")
        changed(folder, (f"{{file: {name}, time: {{column: day, units: d}}", f"{{file: {name}, {LAYOUT}, {DATES}"))
    torch.testing.assert_close(predictions(folder), before, rtol=1e-9, atol=1e-9)
    changed(folder, (", origin: 01.05.2024 00:00}, value: {column: q", "}, value: {column: q"))
    with pytest.raises(InputError, match=r"units are missing; .* dates need an origin"):
        predictions(folder)
    changed(folder, ("time: {column: when}, value: {column: q", f"{DATES}, value: {{column: q"))
    changed(folder, ("value: {column: stage, units: m}", "value: {column: when, origin: 2024-05-01}"))
    with pytest.raises(InputError, match="dates are times"):
        predictions(folder)


def test_gaps_in_a_table_over_time(tmp_path: Path) -> None:
    """Rows without a value are refused, or passed over as if they were not there."""
    write_template(tmp_path / "mine", "darcy")
    folder = tmp_path / "mine"
    before = predictions(folder)
    lines = (folder / "river.csv").read_text().splitlines()
    day = [float(line.split(",")[0]) for line in lines[-2:]]
    (folder / "river.csv").write_text("\n".join([*lines[:-1], f"{sum(day) / 2},", lines[-1], ""]))
    with pytest.raises(
        InputError, match=r"river.csv, line \d+, column 'stage': .* leave such rows out with omit: \[empty\]"
    ):
        predictions(folder)
    changed(folder, ("{file: river.csv,", "{file: river.csv, omit: [empty],"))
    torch.testing.assert_close(predictions(folder), before, rtol=1e-12, atol=0.0)


def test_keys_of_a_table_without_one_are_refused(tmp_path: Path) -> None:
    file = write_template(tmp_path / "mine", "heat")
    text = file.read_text()
    i = text.index("convection: {") + text[text.index("convection: {") :].index("temperature: ") + len("temperature: ")
    end = i + min(text[i:].index(c) for c in "},")
    file.write_text(f"{text[:i]}{{quantity: {text[i:end]}, between: hold}}{text[end:]}")
    with pytest.raises(InputError, match="between: of a table, and there is none"):
        load_study(file)


def with_keys(folder: Path, file: str, new: str, *keys: str) -> None:
    """Another file under each `- file:` of the study, and keys below it."""
    lines = "".join(rf"\1  {key}\n" for key in keys)
    text = re.sub(
        rf"^( *)- file: {file}\n", rf"\1- file: {new}\n{lines}", (folder / "study.yml").read_text(), flags=re.M
    )
    (folder / "study.yml").write_text(text)


def test_soil_tests(tmp_path: Path) -> None:
    write_template(tmp_path / "mine", "soil_element_tests")
    folder = tmp_path / "mine"
    before = predictions(folder)
    rewrite(folder / "triaxial.csv")
    with pytest.raises(InputError, match="separated by ';', say so with delimiter"):
        predictions(folder)
    with_keys(folder, "triaxial.csv", "triaxial.csv", *LAYOUT.split(", "))
    torch.testing.assert_close(predictions(folder), before, rtol=1e-12, atol=0.0)


def test_soil_tests_from_a_sheet(tmp_path: Path) -> None:
    """Of a workbook, whose second sheet has a line of units below the header."""
    openpyxl = pytest.importorskip("openpyxl")
    write_template(tmp_path / "mine", "soil_element_tests")
    folder = tmp_path / "mine"
    before = predictions(folder)
    book = openpyxl.Workbook()
    sheet = book.create_sheet("Triax")
    header, *rows = [line.split(",") for line in (folder / "triaxial.csv").read_text().splitlines() if line[0] != "#"]
    sheet.append(header)
    sheet.append(["-", "kPa", "%", "kPa", "%"])
    for row in rows:
        sheet.append([row[0], *map(float, row[1:])])
    book.save(folder / "triaxial.xlsx")
    with_keys(folder, "triaxial.csv", "triaxial.xlsx", "sheet: Triax", "second_header: true")
    torch.testing.assert_close(predictions(folder), before, rtol=1e-12, atol=0.0)


def test_pipes_and_nodes(tmp_path: Path) -> None:
    write_template(tmp_path / "mine", "network")
    folder = tmp_path / "mine"
    before = predictions(folder)
    for name in ("nodes.csv", "pipes.csv"):
        rewrite(folder / name)
    changed(folder, ("    formula: H-W", f"    {LAYOUT.replace(', d', chr(10) + '    d')}\n    formula: H-W"))
    torch.testing.assert_close(predictions(folder), before, rtol=1e-12, atol=0.0)


def test_what_is_no_number_is_told_with_its_own_line(tmp_path: Path) -> None:
    """Lines with an empty cell before it do not count it away."""
    write_template(tmp_path / "mine", "network")
    nodes = tmp_path / "mine" / "nodes.csv"
    lines = nodes.read_text().splitlines()
    wrong = next(i for i, line in enumerate(lines) if line.startswith("C,"))
    nodes.write_text("\n".join([*lines[:wrong], "C,10,eight,", *lines[wrong + 1 :], ""]))
    with pytest.raises(InputError, match=f"nodes.csv, line {wrong + 1}"):
        predictions(tmp_path / "mine")
