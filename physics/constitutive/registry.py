"""Laws by name, as the entry points of `bilevel.laws` make them known; ours are found the same way as anybody's."""

from __future__ import annotations

from typing import TypeVar

from bilevel.extensions import installed, load
from bilevel.report import InputError
from physics.constitutive.law import Law

GROUP = "bilevel.laws"

AnyLaw = TypeVar("AnyLaw", bound=Law)


def laws(kind: type[AnyLaw]) -> dict[str, type[AnyLaw]]:
    """The installed laws of one kind by name, sorted; a package whose law cannot be imported raises as it does."""
    loaded = {name: load(entry) for name, entry in installed(GROUP).items()}
    return {name: law for name, law in loaded.items() if isinstance(law, type) and issubclass(law, kind)}


def find_law(name: str, kind: type[AnyLaw]) -> type[AnyLaw]:
    """The law called `name`; raises InputError, which lists the known ones, where there is none of that kind."""
    known = laws(kind)
    if name not in known:
        raise InputError(f"there is no {kind.__name__} named '{name}'; known are {', '.join(known) or 'none'}")
    return known[name]
