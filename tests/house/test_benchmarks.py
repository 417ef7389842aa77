"""The benchmarks' records and command line."""

import json
import math
from pathlib import Path

import pytest

from benchmarks.__main__ import discover, main
from benchmarks.record import Record, at_least, at_most, between, median, near, stated, table, write_json


def test_promises_hold_or_do_not_and_nan_never_holds() -> None:
    assert at_most("a", 1.0, 1.0).holds
    assert not at_most("a", 1.1, 1.0).holds
    assert at_least("a", 2.0, 1.0).holds
    assert near("a", -3.72, -3.70, 0.05).holds
    assert not between("a", 3.0, 1.0, 2.0).holds
    assert not any(make("a", math.nan, 1.0).holds for make in (at_most, at_least))
    assert stated("a", 1.0).holds is None
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([4.0, 1.0, 2.0, 3.0]) == 2.5
    assert math.isnan(median([1.0, math.nan, 2.0]))


def test_records_are_printed_and_written(tmp_path: Path) -> None:
    records = [
        at_most("error", 0.5, 1.0, "dB"),
        Record("nothing", math.nan),
        stated("peer", None, target="not installed"),
    ]
    lines = table(records).splitlines()
    assert "yes" in lines[2]
    assert "absent" in lines[4]
    write_json(records, tmp_path / "deep" / "out.json")
    rows = json.loads((tmp_path / "deep" / "out.json").read_text())
    assert [row["value"] for row in rows] == [0.5, None, None]
    assert set(rows[0]) == {"row", "value", "unit", "target", "holds", "seconds", "peak_mb", "versions"}


def test_every_benchmark_has_a_line_and_a_duration(capsys: pytest.CaptureFixture[str]) -> None:
    found = discover()
    assert {"core/block", "learned/networks", "soil/models"} <= set(found)
    assert all(module.LINE and module.DURATION and callable(module.run) for module in found.values())
    assert main(["list"]) == 0
    assert "learned/networks" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["run", "no_such_benchmark"])
