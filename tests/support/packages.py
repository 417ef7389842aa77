"""A third party's package with entry points, as an installer would leave it."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with pytest there


def write_package(folder: Path, name: str, source: str, entry_points: dict[str, dict[str, str]]) -> None:
    """A module `name` and its metadata in `folder`, which is to be on sys.path; entry_points: by group, then by name."""
    (folder / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
    write_metadata(folder, name, entry_points)


def install(folder: Path) -> None:
    """The metadata of the package whose pyproject.toml lies in `folder`."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    write_metadata(folder, project["name"].replace("-", "_"), project.get("entry-points", {}))


def write_metadata(folder: Path, name: str, entry_points: dict[str, dict[str, str]]) -> None:
    """A dist-info folder that names the entry points, by group and then by name."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    groups = (
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in entry_points.items()
    )
    (info / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")
