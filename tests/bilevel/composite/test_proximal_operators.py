"""Proximal operators against their definition, by brute force."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import lsq_linear, minimize_scalar

from bilevel.composite import (
    L1,
    Box,
    GraphTotalVariation,
    GroupL1,
    NonNegative,
    Nuclear,
    Regulariser,
    SquaredL2,
    TotalVariation,
    Zero,
    block_soft_threshold,
    soft_threshold,
    soft_threshold_with_support,
)
from bilevel.report import ConvergenceError, InputError

EDGES = torch.tensor([[0, 1, 2, 0, 3], [1, 2, 3, 2, 4]])
CASES: dict[str, tuple[Regulariser, tuple[int, ...]]] = {
    "zero": (Zero(), (6,)),
    "squared l2": (SquaredL2(), (6,)),
    "l1": (L1(), (6,)),
    "groups": (GroupL1(3), (6,)),
    "box": (Box(-0.5, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])), (6,)),
    "nonnegative": (NonNegative(), (6,)),
    "nuclear": (Nuclear(), (3, 4)),
    "tv": (TotalVariation(tolerance=1e-11), (4, 5)),
    "anisotropic tv": (TotalVariation(isotropic=False, tolerance=1e-11), (4, 5)),
    "graph tv": (GraphTotalVariation(EDGES, 5, torch.tensor([1.0, 0.5, 2.0, 1.0, 0.1]), tolerance=1e-11), (5,)),
}


def objective(g: Regulariser, x: torch.Tensor, v: torch.Tensor, step: float) -> torch.Tensor:
    return step * g.value(x) + 0.5 * (x - v).flatten(x.dim() - g.event_dims).square().sum(-1)


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("step", [0.05, 0.7, 3.0])
def test_no_other_point_is_better(name: str, step: float) -> None:
    """The objective is 1-strongly convex: F(x) >= F(prox) + |x - prox|^2 / 2 for all x; tried at 5,000 points."""
    g, shape = CASES[name]
    v = torch.randn(shape)
    best = g.prox(v, step)
    scale = 10.0 ** (-4 + 4.5 * torch.rand(5_000, *([1] * len(shape))))
    others = best + scale * torch.randn(5_000, *shape)
    if isinstance(g, Box):
        others = g.prox(others, 1.0)  # all feasible points
    gain = (
        objective(g, best, v, step) + 0.5 * (others - best).flatten(1).square().sum(1) - objective(g, others, v, step)
    )
    assert float(gain.max()) <= 1e-6 * (1 + float(v.square().sum()))


@pytest.mark.parametrize("name", list(CASES))
def test_batches_and_firm_nonexpansiveness(name: str) -> None:
    g, shape = CASES[name]
    a, b = torch.randn(20, *shape), torch.randn(20, *shape)
    pa, pb = g.prox(a, 0.4), g.prox(b, 0.4)
    assert torch.allclose(pa[7], g.prox(a[7], 0.4), atol=1e-6)
    moved, asked = (pa - pb).flatten(1), (a - b).flatten(1)
    assert float((moved.square().sum(1) - (moved * asked).sum(1)).max()) <= 1e-5
    assert torch.allclose(g.value(a)[3], g.value(a[3]))


@given(v=st.floats(-3, 3), step=st.floats(0, 2))
@settings(max_examples=40, deadline=None)
def test_l1_against_a_scalar_search(v: float, step: float) -> None:
    found = minimize_scalar(lambda x: step * abs(x) + 0.5 * (x - v) ** 2, bounds=(-4, 4), method="bounded")
    assert float(L1().prox(torch.tensor([v]), step)) == pytest.approx(found.x, abs=1e-4)


@given(
    v=st.lists(st.floats(-3, 3), min_size=4, max_size=4),
    step=st.floats(0.01, 2),
)
@example(v=[0.0, 0.0, 0.0, 3.732573720217076e-291], step=1.0)  # squares underflow
@settings(max_examples=25, deadline=None)
def test_graph_tv_against_the_exact_dual(v: list[float], step: float) -> None:
    """The dual is a bounded least-squares problem, solved exactly by an active-set method."""
    edges = torch.tensor([[0, 1, 2, 0], [1, 2, 3, 3]])
    difference = np.zeros((4, 4))
    for row, (i, j) in enumerate(edges.T.tolist()):
        difference[row, i], difference[row, j] = 1.0, -1.0
    dual = lsq_linear(difference.T, np.array(v), bounds=(-step, step), method="bvls", tol=1e-14)
    expected = np.array(v) - difference.T @ dual.x
    found = GraphTotalVariation(edges, 4, tolerance=1e-13).prox(torch.tensor(v), step)
    assert np.allclose(found.numpy(), expected, atol=2e-6)


def test_tv_of_a_step_is_its_height_and_its_prox_lowers_it() -> None:
    """A picture of two flat halves (4 x 3 each): the halves move together by step * edge length / area."""
    picture = torch.zeros(4, 6)
    picture[:, 3:] = 1.0
    assert float(TotalVariation().value(picture)) == pytest.approx(4.0)
    found = TotalVariation(tolerance=1e-14).prox(picture, 0.3)
    expected = picture.clone()
    expected[:, :3] += 0.3 * 4 / 12
    expected[:, 3:] -= 0.3 * 4 / 12
    assert torch.allclose(found, expected, atol=1e-6)


def test_nuclear_prox_soft_thresholds_singular_values() -> None:
    x = torch.randn(5, 3)
    before, after = torch.linalg.svdvals(x), torch.linalg.svdvals(Nuclear().prox(x, 0.8))
    assert torch.allclose(after, torch.relu(before - 0.8), atol=1e-12)


def test_support_selection_lets_the_largest_pass() -> None:
    v = torch.tensor([[3.0, -2.0, 0.9, -0.4], [0.1, -5.0, 1.5, 1.2]])
    found = soft_threshold_with_support(v, 1.0, 1)
    assert torch.allclose(found, torch.tensor([[3.0, -1.0, 0.0, 0.0], [0.0, -5.0, 0.5, 0.2]]))
    each = soft_threshold_with_support(v, 1.0, torch.tensor([0.0, 2.0]))
    assert torch.allclose(each, torch.tensor([[2.0, -1.0, 0.0, 0.0], [0.0, -5.0, 1.5, 0.2]]))
    assert torch.equal(soft_threshold_with_support(v, 1.0, 0), soft_threshold(v, 1.0))


def test_groups_of_one_are_entries() -> None:
    v = torch.randn(20, 12)
    assert torch.allclose(block_soft_threshold(v, 0.6, 1), soft_threshold(v, 0.6), atol=1e-15)
    assert torch.allclose(GroupL1(1).value(v), L1().value(v))


def test_a_group_at_zero_has_a_finite_gradient() -> None:
    v = torch.zeros(6, requires_grad=True)
    block_soft_threshold(v, 0.5, 3).sum().backward()
    assert torch.equal(v.grad, torch.zeros(6))


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="groups of 4"):
        GroupL1(4).value(torch.zeros(6))
    with pytest.raises(InputError, match="empty"):
        Box(1.0, 0.0)
    with pytest.raises(InputError, match="not negative"):
        TotalVariation().prox(torch.zeros(3, 3), -1.0)
    with pytest.raises(InputError, match="nodes"):
        GraphTotalVariation(torch.tensor([[0], [9]]), 5)
    with pytest.raises(InputError, match="not differentiated"):
        TotalVariation().prox(torch.zeros(3, 3, requires_grad=True), 1.0)
    with pytest.raises(ConvergenceError, match="duality gap"):
        TotalVariation(tolerance=1e-14, max_iterations=10).prox(torch.randn(20, 20), 5.0)


def test_every_sample_may_have_its_own_step() -> None:
    """As many samples as a picture has difference directions: a step must not slip into their dimension."""
    cases = [(TotalVariation(), (2, 5, 6)), (TotalVariation(isotropic=False), (2, 5, 6)), (Nuclear(), (2, 3, 4))]
    cases += [(L1(), (2, 6)), (GroupL1(3), (2, 6)), (GraphTotalVariation(EDGES, 5), (2, 5))]
    steps = (0.1, 0.8)
    for g, shape in cases:
        v = torch.randn(shape)
        together = g.prox(v, torch.tensor(steps).reshape(2, *[1] * (len(shape) - 1)))
        for one, sample, step in zip(together, v, steps):
            assert torch.allclose(one, g.prox(sample, step), atol=1e-4)


def test_total_variation_in_single_precision_and_of_thin_pictures() -> None:
    v = torch.randn(20, 20)
    single = TotalVariation().prox(v.float(), 0.3)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), TotalVariation().prox(v, 0.3), atol=1e-2)
    assert torch.equal(TotalVariation().prox(v[:1, :1], 0.3), v[:1, :1])
    chain = torch.stack([torch.arange(8), torch.arange(1, 9)])
    row = v[:1, :9]
    exact = GraphTotalVariation(chain, 9).prox(row[0], 0.3)
    assert torch.allclose(TotalVariation().prox(row, 0.3)[0], exact, atol=1e-4)


def test_a_graph_without_edges_has_no_variation() -> None:
    graph, v = GraphTotalVariation(torch.zeros(2, 0, dtype=torch.long), 3), torch.randn(4, 3)
    assert torch.equal(graph.prox(v, 0.5), v)
    assert torch.equal(graph.value(v), torch.zeros(4))


@pytest.mark.parametrize("g", [SquaredL2(), L1(), GroupL1(3), Nuclear()])
def test_a_negative_step_is_refused(g: Regulariser) -> None:
    with pytest.raises(InputError, match="not negative"):
        g.prox(torch.randn(3, 3), -0.1)


def test_what_does_not_fit_a_graph_or_is_not_finite_is_refused() -> None:
    with pytest.raises(InputError, match="3 nodes"):
        GraphTotalVariation(torch.tensor([[0], [1]]), 3).prox(torch.zeros(5), 0.1)
    with pytest.raises(InputError, match="give one each"):
        GraphTotalVariation(torch.tensor([[0], [1]]), 3, torch.ones(4))
    with pytest.raises(InputError, match="NaN"):
        TotalVariation().prox(torch.full((3, 3), torch.nan), 0.1)
