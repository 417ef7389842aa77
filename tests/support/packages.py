"""A third party's package with entry points, as an installer would leave it."""

from __future__ import annotations

import textwrap
from pathlib import Path


def write_package(folder: Path, name: str, source: str, entry_points: dict[str, dict[str, str]]) -> None:
    """A module `name` and its metadata in `folder`, which is to be on sys.path; entry_points: by group, then by name."""
    (folder / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    groups = (
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in entry_points.items()
    )
    (info / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")
