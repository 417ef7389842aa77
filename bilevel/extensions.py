"""What installed packages add to ours: entry points by group, and a word where a namesake hides our own packages."""

from __future__ import annotations

import importlib.util
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from bilevel.report import InputError

OURS = Path(__file__).resolve().parents[1]
"""The folder in which this package lies, and beside it the others of the same distribution."""


def installed(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name, sorted; none of them is imported."""
    return {entry.name: entry for entry in sorted(entry_points(group=group), key=lambda entry: entry.name)}


def load(entry: EntryPoint) -> Any:
    """What an entry point stands for; an import that fails raises as it does, or InputError where ours is hidden."""
    try:
        return entry.load()
    except ImportError as error:
        refuse_namesake(entry.module.partition(".")[0], error)
        raise


def refuse_namesake(package: str, cause: Exception | None = None) -> None:
    """Raise InputError if `package` lies beside this one, but Python finds something else under its name."""
    ours = OURS / package
    spec = importlib.util.find_spec(package) if ours.is_dir() else None
    if spec is None:
        return
    found = Path(spec.origin) if spec.origin else Path(next(iter(spec.submodule_search_locations or ())))
    if ours not in (found.resolve(), found.resolve().parent):
        raise InputError(
            f"{found} hides the package '{package}' that belongs to bilevel ({ours}); "
            "rename it, or start Python from another folder"
        ) from cause
