"""The studies that `bilevel init` writes: commented, with small data, running at once; one for each kind that has any.

A kind's template is the folder `templates/KIND` beside the module of its class, so that other packages bring theirs.
"""

from __future__ import annotations

import inspect
from pathlib import Path

from bilevel.calibrate.study.registry import find_model
from bilevel.report import InputError

_PYTHON = Path(__file__).parent / "templates" / "python"


def write_template(folder: Path, kind: str = "python") -> Path:
    """Write a kind's template into a folder and return the path of study.yml; InputError if one of its files is there."""
    home = _home(kind)
    files = {p.relative_to(home): p.read_bytes() for p in sorted(home.rglob("*")) if p.is_file() and p.suffix != ".pyc"}
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; expected a new folder")
    for name in files:
        if (folder / name).exists():
            raise InputError(f"{folder / name}: is there already; choose a new folder")
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder / "study.yml"


def _home(kind: str) -> Path:
    home = _PYTHON if kind == "python" else Path(inspect.getfile(find_model(kind))).parent / "templates" / kind
    if not (home / "study.yml").is_file():
        raise InputError(f"kind '{kind}' has no template; bilevel models {kind} lists its keys")
    return home
