"""What cannot make a body, or cannot act on one, is refused in a sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from bilevel import InputError
from physics.discretisation import Shape, rectangle
from physics.solids import Kinematics, LinearElastic, NeoHookean, Solid, Traction

MESH = rectangle(2, 2)
PLANE = Kinematics.PLANE_STRAIN
LEFT = MESH.fixed("left")

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "kinematics nobody knows": (lambda: Solid(MESH, NeoHookean(), "plane", [LEFT]), "Kinematics.PLANE_STRAIN"),
    "a strain nobody knows": (lambda: Solid(MESH, LinearElastic(), PLANE, [LEFT], strain="finite"), "Strain.SMALL"),
    "a law's class": (lambda: Solid(MESH, NeoHookean, PLANE, [LEFT]), "is a \\(\\) missing"),
    "a law's name": (lambda: Solid(MESH, "neo_hookean", PLANE, [LEFT]), "a Density or a function"),
    "a support that is no list": (lambda: Solid(MESH, NeoHookean(), PLANE, LEFT), "constraints must be a list"),
    "a load that is no list": (
        lambda: Solid(MESH, NeoHookean(), PLANE, [LEFT], Traction("pull", "right")),
        "loads must be a list",
    ),
    "a support's second name": (
        lambda: Solid(MESH, NeoHookean(), PLANE, [LEFT, "bottom"]),
        "constraints must be a list",
    ),
    "bricks in the plane": (lambda: rectangle(2, 2, shape=Shape.HEXAHEDRON), "Shape.QUADRILATERAL or Shape.TRIANGLE"),
    "a shape nobody knows": (lambda: rectangle(2, 2, shape="brick"), "Shape.TRIANGLE"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name: str) -> None:
    make, said = REFUSED[name]
    with pytest.raises(InputError, match=said):
        make()


def test_kinematics_by_their_value() -> None:
    assert Solid(MESH, NeoHookean(), "plane strain", [LEFT]).kinematics is PLANE


def test_a_load_has_as_many_components_as_the_body() -> None:
    body = Solid(MESH, NeoHookean(), PLANE, [LEFT], [Traction("pull", "right")])
    with pytest.raises(InputError, match="3 components, what it acts on has 2"):
        body.solve({"material": {"mu": 1.0, "lame_lambda": 2.0}, "pull": torch.tensor([0.1, 0.0, 0.0])})


def test_a_start_is_as_long_as_the_unknown() -> None:
    body = Solid(MESH, NeoHookean(), PLANE, [LEFT])
    with pytest.raises(InputError, match=r"an unknown \(12,\), not \(3,\)"):
        body.solve({"material": {"mu": 1.0, "lame_lambda": 2.0}}, start=torch.zeros(3))
