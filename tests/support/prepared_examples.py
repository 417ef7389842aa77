"""Examples whose data are not shipped: how their own scripts prepare them from the published measurements."""

from __future__ import annotations

import runpy
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def script(name: str, *options: str) -> Callable[[Path, Path], None]:
    """Running the example's own prepare.py on a file or folder of the published measurements."""

    def prepare(data: Path, copy: Path) -> None:
        given = [str(data / name), *(option.format(copy=copy) for option in options)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["prepare.py", *given])
            runpy.run_path(str(copy / "prepare.py"), run_name="__main__")

    return prepare


def copied(name: str) -> Callable[[Path, Path], None]:
    return lambda data, copy: shutil.copy(data / name, copy)
