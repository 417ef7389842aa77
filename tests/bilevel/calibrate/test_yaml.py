"""YAML 1.2's core schema, texts as they are written, lines of keys, and limits."""

from __future__ import annotations

import pytest

from bilevel import InputError
from bilevel.calibrate.study.yaml_lines import read_yaml


def read(tmp_path, text):
    path = tmp_path / "file.yml"
    path.write_text(text)
    return read_yaml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"), ("No", "No"), ("on", "on"), ("y", "y"), ("true", True), ("False", False), ("null", None), ("~", None),
        ("1:30", "1:30"), ("1_000", "1_000"), ("2001-12-14", "2001-12-14"), ("010", 10), ("0o10", 8), ("0x1F", 31), ("0b11", "0b11"),
        ("1e-5", 1e-5), ("1.e3", 1e3), (".5", 0.5), ("-.5e-1", -0.05), ("+12", 12), ("+1.5", 1.5), ("1e5", 1e5), ("=", "="),
    ],
)  # fmt: skip
def test_scalars_of_the_core_schema(tmp_path, text, value):
    found = read(tmp_path, f"key: {text}\n").content["key"]
    assert found == value
    assert isinstance(found, bool) is isinstance(value, bool)
    assert isinstance(found, str) is isinstance(value, str)
    if not isinstance(value, (bool, type(None))):
        assert str(found) == text  # as a text, a number is what was written


def test_quotes_make_texts(tmp_path):
    assert read(tmp_path, "a: '5'\nb: !!str 5\nc: \"true\"\n").content == {"a": "5", "b": "5", "c": "true"}


def test_merged_keys_have_the_lines_of_their_alias(tmp_path):
    document = read(tmp_path, "a: &a\n  x: 1\n  y: {z: 2}\nb:\n  <<: *a\n  x: 3\n")
    assert document.content["b"] == {"x": 3, "y": {"z": 2}}
    assert document.lines[("b", "y", "z")] == 3
    assert document.lines[("b", "x")] == 6


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 9)
)
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 10)}]}}\n" for k in range(1, 9))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "aliases unfold to more than"),
        (MERGES, "aliases unfold to more than"),
        ("a: &a [*a]\n", "levels"),
        ("a: &a {b: *a}\n", "levels"),
        ("a: &a {<<: *a}\n", "nested too deeply"),
        ("a: " + "[" * 100_000, "nested too deeply"),
        ("a: !!python/object/apply:os.getcwd []\nb: !x 3\n", "cannot be read"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("? [a, b]\n: 3\n", "a key must be a text"),
        ("a: 3\na: 4\n", "line 2: key 'a' is given twice"),
        ("a: 1" + "0" * 5000 + "\n", "not valid YAML"),
        ('a: "\\U00110000"\n', "not valid YAML"),
        ("a: \x07\n", "not valid YAML"),
        ("- 1\n", "found a list"),
        ("", "found nothing"),
        ("x" * 2_100_000, "at most 2 MB are read"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path, text, says):
    """Unbounded, each of these would take hours or all the memory: that the test ends is part of what it says."""
    with pytest.raises(InputError, match=says):
        read(tmp_path, text)


@pytest.mark.parametrize("name", ["/dev/zero", "."])
def test_devices_and_folders_are_refused(name):
    from pathlib import Path

    with pytest.raises(InputError, match="a folder or a device"):
        read_yaml(Path(name))
