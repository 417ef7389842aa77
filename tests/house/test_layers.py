"""The house's order: arrows run downwards, nothing goes round, an import stands at the top, one name is one thing."""

from __future__ import annotations

from collections import Counter, defaultdict

import networkx
import pytest
from own_imports import Import, Where, imports, is_face, public_classes, sources

LAYERS = (
    ("bilevel.report",),
    ("bilevel.torch_internals", "bilevel.extensions"),
    ("bilevel.linalg",),
    ("bilevel.problem",),
    ("bilevel.solvers",),
    ("bilevel.composite",),
    ("bilevel.implicit",),
    ("bilevel.testing",),
    ("bilevel.inversion", "bilevel.calibrate"),
    ("bilevel.acceleration",),
    ("bilevel.cli",),
    ("bilevel.__main__",),
    ("physics.discretisation",),
    ("physics.local",),
    ("physics.constitutive",),
    ("physics.solids", "physics.flow", "physics.atoms"),
    ("physics.soil",),
    ("physics.families",),
    ("physics.studies",),
)
"""From the ground up; a room may import those of lower layers, and itself. `bilevel` alone is its face and `lazy_names`."""

START_UP = {
    "bilevel.cli": "`bilevel --help` answers at once, so each command imports what it needs",
}
"""Rooms that may import our own inside functions or for type checkers only, and why."""

RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}


def room(module: str) -> str:
    return ".".join(module.split(".")[:2])


ROOMS = sorted({room(module) for module in sources()})


def listed(found: list[Import]) -> str:
    return "\n".join(map(str, found))


def test_every_room_has_a_layer() -> None:
    assert {room(module) for module in sources()} - {"bilevel", "physics"} <= set(RANK)


@pytest.mark.parametrize("name", ROOMS)
def test_arrows_run_downwards(name: str) -> None:
    upward = [
        found
        for found in imports()
        if room(found.module) == name != room(found.target) and "." in found.target and not is_face(found.module)
        if RANK[room(found.target)] >= RANK[name] or (name.startswith("bilevel") and found.target.startswith("physics"))
    ]
    assert not upward, listed(upward)


@pytest.mark.parametrize("name", ROOMS)
def test_no_circles(name: str) -> None:
    """Wherever the imports stand: hiding one in a function does not open a circle."""
    graph = networkx.DiGraph((i.module, i.target) for i in imports() if not is_face(i.module))
    circles = [sorted(circle) for circle in networkx.strongly_connected_components(graph) if len(circle) > 1]
    assert not [circle for circle in circles if any(room(module) == name for module in circle)]


@pytest.mark.parametrize("name", ROOMS)
def test_imports_stand_at_the_top(name: str) -> None:
    found = [
        i for i in imports() if i.where is Where.FUNCTION and room(i.module) == name and room(i.module) not in START_UP
    ]
    assert not found, listed(found)


@pytest.mark.parametrize("name", ROOMS)
def test_nothing_is_imported_for_type_checkers_alone(name: str) -> None:
    found = [i for i in imports() if i.where is Where.TYPE_CHECKING and room(i.module) == name]
    found = [i for i in found if not is_face(i.module) and room(i.module) not in START_UP]
    assert not found, listed(found)


def test_allowances_are_in_use() -> None:
    used = {room(i.module) for i in imports() if i.where is not Where.TOP}
    assert set(START_UP) <= used


def homes() -> dict[str, list[str]]:
    found = defaultdict(list)
    for module in sources():
        for item in public_classes(module):
            found[item].append(module)
    return found


def test_public_classes_have_names_of_their_own() -> None:
    assert not {item: found for item, found in homes().items() if len(found) > 1}


def test_a_package_has_few_rooms() -> None:
    """At the first level, files and folders."""
    count = Counter(module.split(".")[0] for module in sources() if module.count(".") == 1)
    assert count["bilevel"] <= 15
    assert count["physics"] <= 10
