"""What must not change an answer: units, datum, the order of rows and nodes, the start, weights, how rows are cut in experiments."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from prepared_examples import script
from study_copies import (
    Copy,
    another_start,
    heavier_weights,
    other_datum,
    other_units,
    renumbered_nodes,
    shuffled_network,
    shuffled_rows,
    split_experiments,
    split_rows,
)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
Change = Callable[[Copy], None]
EVERYWHERE = [other_units, shuffled_rows, another_start, heavier_weights, split_rows, split_experiments]
CURVE = [other_units, another_start, heavier_weights]
"""Rows of a laboratory test are a path; their order is what was done."""

QUICK = ["nist/misra1a/study.yml", "nist/kirby2/study.yml", "nist/hahn1/study.yml", "treloar/study_extended_tube.yml"]
LONG = {
    "oude_korendijk/study.yml": EVERYWHERE,
    "dalem/study.yml": EVERYWHERE,
    "treloar/study_ogden.yml": EVERYWHERE,
    "net3/study.yml": [c for c in EVERYWHERE if c is not heavier_weights]
    + [shuffled_network, other_datum],  # noise is known
    "argon/study.yml": [other_units, shuffled_rows, another_start, heavier_weights],
}

PREPARED = {
    "steel_304l/study.yml": (script("", "--out", "{copy}"), CURVE),
    "plate_with_hole/study.yml": (script("dic_s235_hole_raw.csv"), [*CURVE, shuffled_rows, renumbered_nodes]),
}


def compare(source: Path, change: Change, folder: Path) -> None:
    """Parameters to 1e-6 of a standard deviation, standard deviations to 1e-4."""
    (folder / "before").mkdir()
    (folder / "after").mkdir()
    before, after = Copy(source, folder / "before"), Copy(source, folder / "after")
    change(after)
    first, second = before.run(), after.run()
    assert first.converged
    assert second.converged
    for one, other in zip(first.estimates, second.estimates, strict=True):
        if one.label not in {parameter.label for parameter in first.problem.parameters.free}:
            continue
        factor = after.factors.get(one.label, 1.0)
        assert other.value / factor == pytest.approx(one.value, rel=1e-13, abs=1e-6 * one.std), one.label
        assert other.std / factor == pytest.approx(one.std, rel=1e-4, nan_ok=True), one.label  # none at a bound


@pytest.mark.parametrize("change", EVERYWHERE, ids=lambda c: c.__name__)
@pytest.mark.parametrize("name", QUICK)
def test_an_answer_does_not_depend_on(name: str, change: Change, tmp_path: Path) -> None:
    compare(EXAMPLES / name, change, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "change"), [(name, c) for name, changes in LONG.items() for c in changes])
def test_a_longer_answer_does_not_depend_on(name: str, change: Change, tmp_path: Path) -> None:
    compare(EXAMPLES / name, change, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "change"), [(name, c) for name, (_, changes) in PREPARED.items() for c in changes])
def test_an_answer_from_published_measurements_does_not_depend_on(
    name: str, change: Change, shared_data: Path, tmp_path: Path
) -> None:
    source = EXAMPLES / name
    shutil.copytree(source.parent, tmp_path / "example")
    PREPARED[name][0](shared_data, tmp_path / "example")
    compare(tmp_path / "example" / source.name, change, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("change", CURVE)
def test_sand_does_not_depend_on(change: Change, tmp_path: Path) -> None:
    compare(EXAMPLES / "hochstetten_sand/study.yml", change, tmp_path)
