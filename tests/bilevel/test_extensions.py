"""Entry points, and namesakes of our own packages on the path."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bilevel.extensions import OURS, installed, load, refuse_namesake

FIND = "from bilevel.calibrate.study.registry import find_model; print(find_model('rubber_tests').__module__)"


def find_in(folder: Path) -> subprocess.CompletedProcess[str]:
    """Look for a model of ours in a process whose path begins with `folder`.

    -S: without the import hook of an editable installation, which finds the modules of a hidden package all the same.
    """
    path = os.pathsep.join([str(folder), str(OURS), *sys.path])
    call = [sys.executable, "-S", "-c", FIND]
    return subprocess.run(call, cwd=folder, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)


@pytest.mark.parametrize("namesake", ["physics.py", "physics/__init__.py"])
def test_a_namesake_is_named_in_one_sentence(tmp_path: Path, namesake: str) -> None:
    file = tmp_path / namesake
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("gravity = 9.81\n")
    found = find_in(tmp_path)
    assert found.returncode != 0
    last = found.stderr.strip().splitlines()[-1]
    assert "InputError" in last
    assert f"{file} hides the package 'physics'" in last
    assert "rename it" in last


def test_other_neighbours_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "physicist.py").write_text("name = 'Hooke'\n")
    assert find_in(tmp_path).stdout.strip() == "physics.studies.rubber_tests"


def test_our_own_packages_hide_nothing() -> None:
    refuse_namesake("physics")
    refuse_namesake("bilevel")
    refuse_namesake("no_such_package")


def test_a_broken_extension_raises_as_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    information = tmp_path / "broken-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[bilevel.tests]\nbroken = broken_extension:Model\n")
    (tmp_path / "broken_extension.py").write_text("import a_package_that_is_missing\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry = installed("bilevel.tests")["broken"]
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_missing"):
        load(entry)
