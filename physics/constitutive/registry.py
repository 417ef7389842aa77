"""Laws by name, as the entry points of `bilevel.laws` make them known; ours are found the same way as anybody's."""

from __future__ import annotations

import inspect
from importlib.metadata import entry_points
from typing import Any, TypeVar

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
    """The law called `name`; raises InputError, which lists the known ones, where there is none or two of that kind."""
    named = {entry.value: entry for entry in entry_points(group=GROUP, name=name)}
    if len(named) > 1:
        raise InputError(f"installed packages have two laws named '{name}': {' and '.join(sorted(named))}")
    law = load(next(iter(named.values()))) if named else None
    if not (isinstance(law, type) and issubclass(law, kind)):
        raise InputError(f"there is no {kind.__name__} named '{name}'; known are {', '.join(laws(kind)) or 'none'}")
    return law


def make_law(name: str, kind: type[AnyLaw], **options: Any) -> AnyLaw:
    """The law called `name`, made with those options that are not None.

    Raises InputError as `find_law`, and for an option that the law does not have.
    """
    law, given = find_law(name, kind), {key: value for key, value in options.items() if value is not None}
    unknown = [key for key in given if key not in inspect.signature(law).parameters]
    if unknown:
        raise InputError(f"the law '{name}' has no option '{unknown[0]}'; leave it out")
    return law(**given)
