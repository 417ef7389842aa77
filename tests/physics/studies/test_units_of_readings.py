"""Kinds that leave units to the study know what is read: units that are missing, or of another dimension, are refused with the row."""

from __future__ import annotations

from pathlib import Path

import pytest

from bilevel.calibrate.study.loading import load_study
from bilevel.calibrate.study.template import write_template
from bilevel.report import InputError

WRONG = [
    ("soil_element_tests", "column: deviator, units: kPa", "column: deviator", "triaxial.csv, line 3: units are missing; a value of Pa"),
    ("soil_element_tests", "column: deviator, units: kPa", 'column: deviator, units: "%"', "line 3: units '%' .* do not convert"),
    ("soil_element_tests", 'column: volumetric_strain, units: "%"', "column: volumetric_strain, units: kPa", "line 3: units 'kPa' "),
    ("atoms", "column: value, units: angstrom", "column: value", "properties.csv, line 3: units are missing; a value of m"),
    ("atoms", "column: value, units: eV", "column: value, units: kJ/mol", "line 4: units 'kJ/mol' .* do not convert to 'J'"),
    ("atoms", "column: value, units: GPa", "column: value, units: eV", "line 5: units 'eV' .* do not convert to 'Pa'"),
    ("darcy", "column: head, units: m", "column: head", "heads.csv, line 3: units are missing"),
    ("heat", "units: degC", "units: m", "units 'm' .* do not convert to 'K'"),
    ("network", "column: head, units: m", "column: head", "heads.csv, line 3: a head cannot be in no units"),
    ("pumping_test", "column: drawdown_cm, units: cm", "column: drawdown_cm", "drawdown.csv, line 3: .* a value without units"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "old", "new", "message"), WRONG, ids=[f"{kind}: {new}" for kind, _, new, _ in WRONG])
def test_units_that_cannot_be_are_refused(tmp_path: Path, kind: str, old: str, new: str, message: str) -> None:
    file = write_template(tmp_path / "mine", kind)
    text = file.read_text()
    observations = text.index("observations:")
    assert old in text[observations:]
    file.write_text(text[:observations] + text[observations:].replace(old, new, 1))
    with pytest.raises(InputError, match=message):
        load_study(file)
