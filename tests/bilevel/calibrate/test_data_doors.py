"""Tables as loggers, Fortran programs and offices write them: read as they are meant, or refused in one sentence."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest

from bilevel.calibrate import load_study
from bilevel.calibrate.misfit import Censored
from bilevel.calibrate.study.csv_file import as_number, read_csv
from bilevel.calibrate.study.dates import as_date

TIME = "{column: t, units: h}"
HEIGHTS = np.array([203, 158, 117, 98, 71, 59, 43, 29]) / 100
HOURS = np.array([0, 0.5, 1, 1.5, 2, 2.5, 3, 4])


def table_of(study):
    return load_study(study.path).problem.experiments[0].observations


def check(study, heights=HEIGHTS, hours=HOURS):
    table = table_of(study)
    np.testing.assert_allclose(table.value, heights, rtol=1e-12)
    np.testing.assert_allclose(table.columns["time"], 3600 * hours, rtol=1e-12)
    return table


def test_decimal_comma(study):
    text = (study.folder / "data.csv").read_text()
    (study.folder / "data.csv").write_text(text.replace(",", ";").replace(".", ","))
    study.edit("    std: 2", "    std: 2\n    decimal: ','\n    delimiter: ';'")
    check(study)


def test_comments_units_below_the_header_and_fortran(study):
    study.edit("# made up\n", "% made up\n! by a program\n", "data.csv")
    study.edit("t,gauge,height\n", "t,gauge,height\n[h],,[cm]\n", "data.csv")
    study.edit("0.5,a,158\n", "5.0D-01,a,1.58d+2\n", "data.csv")
    study.edit("    std: 2", "    std: 2\n    comment: '%!'\n    second_header: true")
    check(study)


@pytest.mark.parametrize(
    ("written", "column"),
    [
        ("%Y-%m-%dT%H:%M", "{column: t, origin: 2024-02-28T23:00}"),
        ("%Y-%m-%d %H:%M:%S+02:00", "{column: t, origin: '2024-02-28T21:00:00Z'}"),
        ("%d.%m.%Y %H:%M", "{column: t, origin: 28.02.2024 23:00}"),
        ("%m/%d/%Y %I:%M %p", "{column: t, origin: 2024-02-28T23:00, format: '%m/%d/%Y %I:%M %p'}"),
    ],
)
def test_dates(study, written, column):
    text = (study.folder / "data.csv").read_text()
    for hour in sorted(HOURS, reverse=True):
        date = datetime(2024, 2, 28 + (hour >= 1), int(23 + hour) % 24, 30 if hour % 1 else 0)
        text = text.replace(f"\n{hour:g},", f"\n{date.strftime(written)},", 1)
    (study.folder / "data.csv").write_text(text)
    study.edit(TIME, column)
    check(study)


def test_rows_without_a_reading(study):
    study.edit("0.5,a,158\n", "0.5,a,158\n0.6,a,\n0.7,a,NaN\n0.8,a,-9999\n", "data.csv")
    assert "leave such rows out with omit" in study.call("check").err
    study.edit("    std: 2", "    std: 2\n    omit: [empty, nan, -9999]")
    check(study)
    (note,) = load_study(study.path).notes
    assert "3 of 11 rows without a reading in column 'height' are left out" in note


def test_limits(study):
    study.edit("4,b,29\n", "4,b,<40\n", "data.csv")
    study.edit("0,a,203\n", "0,a,> 200\n", "data.csv")
    assert "line 3, column 'height': expected a number, got '> 200'; say censored: fit" in study.call("check").err
    study.edit("    std: 2", "    std: 2\n    censored: fit")
    table = check(study, np.array([2.0, *HEIGHTS[1:-1], 0.4]))
    assert table.censored[0] is Censored.ABOVE
    assert table.censored[-1] is Censored.BELOW
    assert set(table.censored[1:-1]) == {Censored.NO}
    study.edit("units: cm}", "units: cm, sign: -1}")
    assert table_of(study).censored[0] is Censored.BELOW
    study.edit("units: cm, sign: -1}", "units: cm}")
    study.edit("censored: fit", "censored: omit")
    check(study, HEIGHTS[1:-1], HOURS[1:-1])


def test_a_run_with_limits_says_so(study, no_pictures):
    study.edit("4,b,29\n", "4,b,<40\n", "data.csv")
    study.edit("    std: 2", "    std: 2\n    censored: fit")
    outcome = study.call("run")
    assert outcome.code == 0
    assert "1 readings in column 'height' are limits" in outcome.out


WIDE = """\
t,P30,P90
0,203,
0.5,158,59
1,117,43
"""


def test_wide_tables(study):
    (study.folder / "data.csv").write_text(WIDE)
    study.edit(
        "group: {column: gauge}", "group: {column: well}\n    omit: [empty]\n    wide: {columns: [P*], name: well}"
    )
    table = table_of(study)
    assert table.group == ("P30", "P30", "P90", "P30", "P90")
    np.testing.assert_allclose(table.value, np.array([203, 158, 59, 117, 43]) / 100)
    np.testing.assert_allclose(table.columns["time"], 3600 * np.array([0, 0.5, 0.5, 1, 1]))
    assert table.source[2].endswith("data.csv, line 3, column 'P90'")
    study.edit("[P*]", "[Q*]")
    assert "there is no column 'Q*'" in study.call("check").err
    study.edit("columns: [Q*], name: well", "columns: [P30], name: t")
    assert "already; choose another name" in study.call("check").err


def test_workbooks(study):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["nothing", "here"])
    sheet = book.create_sheet("readings")
    for i, line in enumerate((study.folder / "data.csv").read_text().splitlines()):
        cells = line.split(",")
        sheet.append([float(c) if k != 1 and i > 1 else c for k, c in enumerate(cells)])
    book.save(study.folder / "data.xlsx")
    study.edit("file: data.csv", "file: data.xlsx")
    assert "data.xlsx: there is no row" in study.call("check").err
    study.edit("    std: 2", "    std: 2\n    sheet: readings")
    table = check(study)
    assert table.source[0].endswith("data.xlsx, line 3")
    study.edit("sheet: readings", "sheet: reading")
    assert "did you mean 'readings'?" in study.call("check").err
    (study.folder / "data.xlsx").write_bytes(b"PK nonsense")
    outcome = study.call("check")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1)
    assert "cannot be read as a workbook" in outcome.err


def test_numbers():
    assert as_number("1.0D-05") == as_number("1d-5") == as_number(".1E-4") == 1e-5
    assert as_number("-1,5", ",") == -1.5
    for text, decimal in [("1.234,5", ","), ("1_0", "."), ("1,5", "."), ("D-5", "."), ("1.0D", "."), ("", ".")]:
        with pytest.raises(ValueError, match="could not convert"):
            as_number(text, decimal)


def test_dates_that_are_none():
    for text in ("1/2/2024", "2024-13-01", "32.1.2024", "yesterday", "", "12:30"):
        with pytest.raises(ValueError, match="expected a date"):
            as_date(text)


CASES = {
    "two commas": ("    std: 2", "    std: 2\n    decimal: ','", "both decimal sign and delimiter"),
    "a format without an origin": (TIME, "{column: t, format: '%Y'}", "need an origin"),
    "units of dates": (TIME, "{column: t, units: h, origin: 2024-01-01}", "neither units nor a sign"),
    "an origin that is none": (TIME, "{column: t, origin: 1.2}", "origin: expected a date"),
    "dates that are none": (TIME, "{column: t, origin: 2024-01-01}", "data.csv, line 3, column 't': expected a date"),
    "values that are dates": ("{column: height, units: cm}", "{column: height, origin: 2024-01-01}", "a value is a number, no date"),
    "a sheet of a csv": ("    std: 2", "    std: 2\n    sheet: a", "is no .xlsx file"),
    "limits without a std": ("    std: 2", "    weight: 2\n    censored: fit", "needs a std"),
    "everything left out": ("    std: 2", "    std: 2\n    omit: ['203', '158', '117', '98', '71', '59', '43', '29']", "no row is left"),
    "a letter as comment": ("    std: 2", "    std: 2\n    comment: C", "comment"),
    "a decimal that is none": ("    std: 2", "    std: 2\n    decimal: ';'", "'.' or ','"),
    "an unknown rule": ("    std: 2", "    std: 2\n    censored: drop", "'fit' or 'omit'"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused(study, case):
    old, new, says = CASES[case]
    study.edit(old, new)
    outcome = study.call("check")
    assert (outcome.code, outcome.err.count("\n")) == (2, 1), outcome
    assert "study.yml, line" in outcome.err
    assert says in outcome.err


def test_a_time_zone_in_one_place_only(study):
    text = (study.folder / "data.csv").read_text().replace("\n0,a", "\n2024-01-01T00:00Z,a")
    (study.folder / "data.csv").write_text(text)
    study.edit(TIME, "{column: t, origin: 2024-01-01}")
    assert "either all dates and origin have a time zone" in study.call("check").err


def test_a_layout_is_that_of_its_file_alone(study):
    assert read_csv(study.folder / "data.csv").layout.decimal == "."
