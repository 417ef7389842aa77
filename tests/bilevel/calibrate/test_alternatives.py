"""Keys that may be one thing or another: what is wrong is told by the path that was written, of the alternative that fits best."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict

from bilevel.calibrate.study.validated import validated
from bilevel.calibrate.study.yaml_lines import read_yaml
from bilevel.report import InputError


class Period(BaseModel):
    model_config = ConfigDict(extra="forbid")
    start: float
    rate: Annotated[float, BeforeValidator(lambda x: float(str(x).removesuffix(" m3/d")))]


class Keys(BaseModel):
    schedule: float | list[Period]
    groups: dict[str, list[str]] | str = "groups.csv"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schedule: 5\ngroups:\n  old: [a]\n  new: [b, 7]\n", r"line 4: groups.new\[2\]: expected a text"),
        ("schedule: 5\ngroups: 7\n", "line 2: groups: expected a "),
        (
            "schedule:\n  - {start: 0, rate: 1}\n  - {start: 1}\n",
            r"line 3: schedule\[2\]: key 'rate' is missing",
        ),
        (
            "schedule:\n  - {start: 0, rate: 1}\n  - {start: 1, rate: 2, speed: 2}\n",
            r"line 3: schedule\[2\]: unknown key 'speed'",
        ),
        (
            "schedule:\n  - {start: 0, rate: 1}\n  - {start: x, rate: 2}\n",
            r"line 3: schedule\[2\].start: expected a number",
        ),
    ],
)
def test_the_path_is_the_one_that_was_written(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "study.yml").write_text(text)
    document = read_yaml(tmp_path / "study.yml")
    with pytest.raises(InputError, match=message):
        validated(document, Keys, document.content)
