"""Laws by name, as the entry points of `bilevel.laws` make them known; ours are found the same way as anybody's."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from bilevel.report import InputError
from physics.constitutive.law import Law

GROUP = "bilevel.laws"

AnyLaw = TypeVar("AnyLaw", bound=Law)


@cache
def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def laws(kind: type[AnyLaw]) -> dict[str, type[AnyLaw]]:
    """The installed laws of one kind by name, sorted; a package whose law cannot be imported raises as it does."""
    loaded = {name: _installed()[name].load() for name in sorted(_installed())}
    return {name: law for name, law in loaded.items() if isinstance(law, type) and issubclass(law, kind)}


def find_law(name: str, kind: type[AnyLaw]) -> type[AnyLaw]:
    """The law called `name`; raises InputError, which lists the known ones, where there is none of that kind."""
    known = laws(kind)
    if name not in known:
        raise InputError(f"there is no {kind.__name__} named '{name}'; known are {', '.join(known) or 'none'}")
    return known[name]
