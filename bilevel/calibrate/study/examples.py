"""The shipped examples: copied with the published measurements that they read, so that they run anywhere."""

from __future__ import annotations

import re
from pathlib import Path

import bilevel
from bilevel.calibrate.study.validated import hint
from bilevel.report import InputError

_REFERENCE = re.compile(r"(?:\.\./)+(physics/data/)([\w.-]+)")
_TEXTS = (".yml", ".md", ".py")
_COPIED = (*_TEXTS, ".csv", ".npy", ".png")


def list_examples() -> dict[str, str]:
    """The name of each example and the first line of its README."""
    return {folder.name: _title(folder) for folder in sorted(_home().iterdir()) if (folder / "README.md").is_file()}


def write_example(name: str, folder: Path) -> Path:
    """Write an example into a new folder and return it; InputError if there is no such example or it is there already."""
    known = list_examples()
    if name not in known:
        raise InputError(f"there is no example '{name}'{hint(name, known)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: is there already; choose a new folder")
    home = _home() / name
    for source in sorted(path for path in home.rglob("*") if path.suffix in _COPIED):
        place = source.relative_to(home)
        if not {"results", "__pycache__"} & set(place.parts):
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / place).write_bytes(_with_data(source, folder / place, folder))
    return folder


def _with_data(source: Path, target: Path, folder: Path) -> bytes:
    """A file's content, in which measurements shipped with the product have become files beside the example."""
    if source.suffix not in _TEXTS:
        return source.read_bytes()

    def moved(match: re.Match[str]) -> str:
        (folder / match[2]).write_bytes((_root() / match[1] / match[2]).read_bytes())
        return "../" * (len(target.relative_to(folder).parts) - 1) + match[2]

    return _REFERENCE.sub(moved, source.read_text(encoding="utf-8")).encode()


def _root() -> Path:
    return Path(bilevel.__file__).parent.parent


def _home() -> Path:
    """`bilevel/examples` where the product is installed, `examples` beside it in its source tree."""
    installed = Path(bilevel.__file__).parent / "examples"
    return installed if installed.is_dir() else _root() / "examples"


def _title(folder: Path) -> str:
    lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    return next((line.lstrip("# ").strip() for line in lines if line.strip()), "")
