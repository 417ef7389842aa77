"""Damaged studies: whatever is wrong, the answer is a sentence and an exit code, never a traceback, never a hang."""

from __future__ import annotations

import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from pydantic import BaseModel
from typer.testing import CliRunner

from bilevel.calibrate.study.examples import write_example
from bilevel.calibrate.study.kinds import kinds
from bilevel.calibrate.study.registry import find_model
from bilevel.calibrate.study.schema import StudySection
from bilevel.calibrate.study.template import write_template
from bilevel.cli import app

SECONDS = 10.0
COUNT = 660
SAMPLE = 60

# What people write by mistake, and what attackers write on purpose; as YAML text, so that its readings are tried too.
SCALARS = [
    "", "~", "yes", "no", "true", "1:30", "010", "1_000", "-1", "0", "1", "1e400", "-.inf", ".nan", "1e-320", "''", "'5'", "x",
    "[]", "{}", "[1, 2, 3]", "[true]", "{a: 1}", "[[1]]", "nan", "0x1F", "1,5", "'$\\frac$'", '"\\0"', "/dev/zero", ".", "..",
    "../../x", "名前", "2001-01-01", "!!str 5", "!!python/name:os.system ''", "9" * 400, "'" + "x" * 3000 + "'", "1e308", "-0.7",
]  # fmt: skip
UNITS = ["0 m", "m^200", "m/0", "degC", "K", "m/d/d", "(m", "m)", "-", "%", "1e400 m", "furlong", "m^-1"]
CELLS = ["", '"', '""', "nan", "inf", "1e400", "x", "-1", "0", "1,5", "#", "é", "\x00", "1_0", "'", '"a', 'a"b', "١"]
TABLE_EDITS = 14


def sources() -> dict[str, Callable[[Path], Any]]:
    """Studies to damage: every kind's template and the examples whose data are shipped, by name of their study file."""
    return {
        **{f"{kind} template": (lambda folder, kind=kind: write_template(folder, kind)) for kind in kinds()},
        **{f"{name}/{file}": (lambda folder, name=name: write_example(name, folder)) for name, file in SHIPPED},
    }


SHIPPED = [
    ("oude_korendijk", "study.yml"),
    ("dalem", "without_P30.yml"),
    ("nist", "misra1a/study.yml"),
    ("treloar", "study_ogden.yml"),
    ("hochstetten_sand", "study.yml"),
]
LONG = ("hochstetten_sand/study.yml", "soil_element_tests template", "atoms template")
WEIGHTS = {"python template": 4.0, "expression template": 2.0, "nist/misra1a/study.yml": 2.0} | dict.fromkeys(LONG, 0.3)
"""How often each is drawn: those that run at once more often."""


def keys_of(schema: type[BaseModel]) -> Iterator[str]:
    """All keys that a schema and the schemas in it know."""
    for name, field in schema.model_fields.items():
        yield field.alias or name
        for part in (field.annotation, *get_args(field.annotation)):
            for inner in (part, *get_args(part)):
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    yield from keys_of(inner)


@cache
def known_keys(kind: str) -> list[str]:
    own = [] if kind == "python" else list(keys_of(find_model(kind).Config))
    return sorted({*keys_of(StudySection), *own, "file", "name", "kind", "unknown"})


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values in nested lists and mappings."""
    if path:
        yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(part, (*path, key))


class Raw(str):
    """A text that goes into the file as it stands."""


yaml.SafeDumper.add_representer(Raw, lambda dumper, text: dumper.represent_scalar("!raw", str(text)))


def written(content: Any) -> str:
    """YAML in which each Raw stands as it is."""
    raws: list[str] = []

    def marked(value: Any) -> Any:
        if isinstance(value, Raw):
            raws.append(str(value))
            return f"RAW{len(raws) - 1}RAW"
        if isinstance(value, dict):
            return {marked(key): marked(part) for key, part in value.items()}
        return [marked(part) for part in value] if isinstance(value, list) else value

    text = yaml.safe_dump(marked(content), sort_keys=False, allow_unicode=True, width=10_000)
    return re.sub(r"RAW(\d+)RAW", lambda match: raws[int(match[1])], text)


def mutate_study(file: Path, dice: random.Random) -> str:
    """Change, remove, add, double or move a value or key of study.yml; returns what was done."""
    content = yaml.safe_load(file.read_text())
    known = known_keys(content["model"]["kind"])
    # `yes` is a program too, and one that does not end.
    path = dice.choice([path for path in places(content) if path != ("model", "command")])
    parent = content
    for part in path[:-1]:
        parent = parent[part]
    what = dice.choice(["set", "set", "set", "unit", "remove", "rename", "add", "double", "swap", "bytes"])
    if what == "bytes":
        data = bytearray(file.read_bytes())
        for _ in range(dice.randrange(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        file.write_bytes(data)
        return "bytes"
    if what == "set":
        parent[path[-1]] = Raw(dice.choice(SCALARS))
    elif what == "unit":
        parent[path[-1]] = Raw(dice.choice(UNITS))
    elif what == "remove":
        del parent[path[-1]]
    elif what == "double" and isinstance(parent, list):
        parent.append(parent[path[-1]])
    elif what == "swap":
        other = dice.choice(list(places(content)))
        place = content
        for part in other[:-1]:
            place = place[part]
        parent[path[-1]] = place[other[-1]] if other[: len(path)] != path and path[: len(other)] != other else None
    else:
        target = parent if isinstance(parent, dict) else parent[path[-1]]
        if isinstance(target, dict):
            key = path[-1] if target is parent else dice.choice(list(target))
            target[dice.choice(known)] = target.pop(key) if what == "rename" else Raw(dice.choice(SCALARS))
    file.write_text(written(content), encoding="utf-8")
    return f"{what} {path}"


def mutate_table(file: Path, dice: random.Random) -> str:
    """Damage cells, rows, quotes, delimiters, line ends or bytes of a CSV file."""
    lines = file.read_text().splitlines()
    what, row = dice.randrange(TABLE_EDITS), dice.randrange(len(lines))
    cells = lines[row].split(",")
    if what < 7:
        cells[dice.randrange(len(cells))] = dice.choice(CELLS)
        lines[row] = ",".join(cells)
    elif what == 7:
        lines.insert(row, lines[row])
    elif what == 8:
        del lines[row:]
    elif what == 9:
        lines[row] += "," + dice.choice(CELLS)
    elif what == 10:
        lines = [line.replace(",", ";") for line in lines]
    elif what == 11:
        lines[row] = '"' + lines[row]
    elif what == 12:
        lines[row] = lines[row].replace(".", ",")
    data = "\n".join(lines).encode()
    if what == 13:
        data = dice.choice([b"", b"\xff\xfe" + data, data[: len(data) // 2], data.replace(b"\n", b"\r"), b"\x00" * 50])
    file.write_bytes(data)
    return f"table {what} {row}"


def mutate_array(file: Path, study: Path, dice: random.Random) -> str:
    """Start values from a .npy file, sound or not."""
    array = dice.choice(
        [np.ones(3), np.array(1j), np.array("a"), np.zeros((2, 2)), np.full(1, np.nan), np.zeros(0), np.ones(1, bool)]
    )
    np.save(file, array)
    data = bytearray(file.read_bytes())
    for _ in range(dice.randrange(3)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    file.write_bytes(data[: dice.choice([len(data), len(data) - 3, 20])])
    content = yaml.safe_load(study.read_text())
    dice.choice(content["parameters"])["value"] = {"file": file.name}
    study.write_text(written(content))
    return "array"


def name_of(seed: int) -> str:
    """Which study a seed damages."""
    names = list(sources())
    return random.Random(seed).choices(names, [WEIGHTS.get(n, 1) for n in names])[0]


@cache
def sound_seconds(name: str) -> float:
    """What the check of the undamaged study takes: damage that does not matter takes as long."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "sound"
        sources()[name](folder)
        began = time.process_time()
        result = CliRunner().invoke(app, ["check", str(folder / (name.partition("/")[2] or "study.yml"))])
        assert result.exit_code == 0, result.output
        return time.process_time() - began


def damaged(seed: int, folder: Path) -> tuple[Path, str]:
    """The damaged study of a seed, and what was done to it."""
    dice, name = random.Random(f"damage {seed}"), name_of(seed)
    sources()[name](folder)
    study = folder / (name.partition("/")[2] or "study.yml")
    tables = sorted(folder.rglob("*.csv"))
    kind = dice.random()
    if kind < 0.65 or not tables:
        done = mutate_study(study, dice)
    elif kind < 0.93:
        done = mutate_table(dice.choice(tables), dice)
    else:
        done = mutate_array(study.with_name("start.npy"), study, dice)
    return study, f"seed {seed}: {name}: {done}"


RAW_EXCEPTION = re.compile(r"\b(?!BilevelError|InputError|ConvergenceError)[A-Z]\w*(Error|Exception)\b:")


def outcome_of(seed: int, folder: Path) -> str:
    """ "" where a damaged study ended as it should, else what is wrong."""
    study, done = damaged(seed, folder)
    began = time.process_time()
    result = CliRunner().invoke(app, ["check", str(study)])
    seconds = time.process_time() - began
    wrong = []
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        wrong.append(f"raised {result.exception!r}")
    if result.exit_code not in (0, 1, 2):
        wrong.append(f"exit code {result.exit_code}")
    if seconds > SECONDS and seconds > SECONDS + sound_seconds(name_of(seed)):
        wrong.append(f"took {seconds:.1f} s")
    # a study's own function may fail on its own terms, if the message leads to its line
    theirs = re.match(rf"error: {re.escape(str(folder))}/\S+\.py, line \d+: ", result.stderr) and result.exit_code == 1
    if "Traceback" in result.output or (RAW_EXCEPTION.search(result.stderr) and not theirs):
        wrong.append("a raw exception")
    if result.exit_code == 2 and not (result.stderr.startswith("error: ") and result.stderr.count("\n") == 1):
        wrong.append("no single sentence")
    if result.exit_code == 2 and (study.parent / "results").exists():
        wrong.append("something was written")
    if result.exit_code == 0 and "nan" in result.stdout.replace(str(study), "").lower():
        wrong.append("accepted with NaN")
    shutil.rmtree(folder)
    return f"{done}: {', '.join(wrong)}: {result.stderr[-500:]}" if wrong else ""


def test_a_sample_of_damaged_studies(tmp_path):
    quick = [seed for seed in range(COUNT) if name_of(seed) not in LONG]
    check_seeds(quick[:: COUNT // SAMPLE], tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_damaged_studies(tmp_path):
    check_seeds(range(COUNT), tmp_path)


def check_seeds(seeds: Sequence[int], tmp_path: Path) -> None:
    found = [wrong for seed in seeds if (wrong := outcome_of(seed, tmp_path / str(seed)))]
    print(f"{len(seeds)} mutations, {len(found)} ended wrongly")
    assert not found, "\n".join(found)
