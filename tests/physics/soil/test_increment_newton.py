"""Increments by bare Newton steps: what they find is what the safeguarded solver finds, and memory shortens the way there."""

from __future__ import annotations

import torch
from torch import Tensor

from bilevel.implicit.memory import Memory, visiting
from physics.constitutive.inelastic.hypoplastic import Hypoplastic
from physics.constitutive.mandel import axisymmetric
from physics.soil import increment_newton
from physics.soil.control import Control, Quantity
from physics.soil.element_test import ControlledIncrement, ElementTest, IncrementSchedule, LoadStage
from physics.soil.sensitivity import sensitive_march

SAND = {
    "friction_angle": 0.576, "granular_hardness": 1e9, "hardness_exponent": 0.25, "void_ratio_min": 0.55,
    "void_ratio_critical": 0.95, "void_ratio_max": 1.05, "pyknotropy": 0.25, "barotropy": 1.5,
}  # fmt: skip
STRETCH = torch.tensor(list(SAND.values()), dtype=torch.float64)
CONTROL = Control((Quantity.STRAIN_AXIAL, Quantity.STRESS_RADIAL))
SCHEDULE = IncrementSchedule.of(
    [
        ElementTest(name, (LoadStage(CONTROL, torch.tensor([[-0.02, -1e5], [-0.05, -1e5]], dtype=torch.float64), 6),))
        for name in ("one", "two")
    ]
)
START = torch.cat(
    [
        axisymmetric(torch.tensor([-1e5, -1e5]), torch.tensor([-1e5, -1e5])).double(),
        torch.tensor([[0.65], [0.75]], dtype=torch.float64),
    ],
    1,
)


def states(scale: Tensor) -> Tensor:
    params = dict(zip(SAND, (STRETCH * scale).unbind()))
    return sensitive_march(Hypoplastic(), params, lambda _: START, SCHEDULE).states / 1e5


def with_slopes(scale: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
    def function(scale: Tensor) -> Tensor:
        with visiting("sand", scale, tuple(SAND)):
            return states(scale)

    with memory.remembering():
        found, slopes = torch.vmap(lambda v: torch.func.jvp(function, (scale,), (v,)))(torch.eye(8).double())
    return found[0], slopes


def test_what_newton_leaves_to_the_safeguarded_solver_is_the_same(monkeypatch):
    one = torch.ones(8, dtype=torch.float64)
    quick, slopes = states(one), torch.func.jacrev(states)(one)
    monkeypatch.setattr(increment_newton, "STEPS", 0)
    torch.testing.assert_close(states(one), quick, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(torch.func.jacrev(states)(one), slopes, rtol=1e-7, atol=1e-7)


def test_memory_saves_steps_and_changes_nothing(monkeypatch):
    steps: list[int] = []
    newton = increment_newton._newton

    def counted(*given: object) -> increment_newton.Increment | None:
        found = newton(*given)  # type: ignore[arg-type]
        assert found is not None
        steps.append(found.steps)
        return found

    monkeypatch.setattr(increment_newton, "_newton", counted)
    one = torch.ones(8, dtype=torch.float64)
    moved = one + 1e-3 * torch.tensor([1.0, -1.0, 1.0, 0.5, -0.5, 0.5, 1.0, -1.0]).double()
    memory = Memory()
    with_slopes(one, memory)
    cold = sum(steps)
    steps.clear()
    warm_states, warm_slopes = with_slopes(moved, memory)
    assert sum(steps) <= 0.7 * cold
    cold_states, cold_slopes = with_slopes(moved, Memory(points=0))
    torch.testing.assert_close(warm_states, cold_states, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(warm_slopes, cold_slopes, rtol=1e-8, atol=1e-8)


def test_no_steps_where_the_machine_asks_for_what_newton_cannot_find():
    """NaN ends the attempt at once, and the safeguarded solver says which test and row it was."""
    problem = ControlledIncrement(Hypoplastic(), SCHEDULE, 0)
    full = torch.cat([START, torch.zeros(2, 6, dtype=torch.float64)], 1)
    theta = STRETCH.clone()
    named = lambda flat: dict(zip(SAND, flat.unbind(-1)))  # noqa: E731
    nowhere = torch.full_like(full, torch.nan)
    assert increment_newton.solve_remembered(problem, named, [nowhere], full, theta, None) is None
