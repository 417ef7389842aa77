"""Deep equilibrium: exact gradients, constant memory; truncated backpropagation and its rules."""

import math

import pytest
import torch

import bilevel
from benchmarks.learned.equilibrium import saved_bytes
from bilevel.inversion.networks import (
    Equilibrium,
    HyperLISTA,
    LayerMap,
    StepThresholdISTA,
    TruncationRate,
    depth_from_discount,
    measure_rate,
    truncated,
)
from bilevel.inversion.networks.equilibrium import UnrolledMap
from bilevel.report import BilevelError, ConvergenceError, InputError


def layer() -> tuple[LayerMap, torch.Tensor, torch.Tensor]:
    A = torch.randn(25, 12) / 5
    network = StepThresholdISTA(A, 1, threshold=0.05)
    y = (torch.randn(4, 12) @ A.mT).requires_grad_()
    return LayerMap(network), y, torch.zeros(4, 12)


def test_the_gradient_is_that_of_the_unrolled_network() -> None:
    map, y, x0 = layer()
    tight = bilevel.Anderson(tolerance=bilevel.Tolerance(relative=1e-12))
    deq = Equilibrium(map, solver=tight)
    goal = torch.randn(4, 12)
    tensors = [y, *map.parameters()]
    found = torch.autograd.grad((deq(y, x0) * goal).sum(), tensors)
    expected = torch.autograd.grad((UnrolledMap(map, 800)(y, x0) * goal).sum(), tensors)
    for a, b in zip(found, expected):
        assert float((a - b).norm() / b.norm()) < 1e-6
    assert deq.solution is not None
    assert deq.solution.report.converged


def test_memory_is_flat_in_the_iterations_while_unrolling_grows() -> None:
    map, y, x0 = layer()
    held = {}
    for iterations in (10, 1000):
        picard = bilevel.Picard(tolerance=bilevel.Tolerance(relative=1e-300), max_iterations=iterations)
        deq = Equilibrium(map, solver=picard, on_fail="ignore")
        held[iterations] = (
            saved_bytes(deq(y, x0)),
            saved_bytes(UnrolledMap(map, iterations)(y, x0)),
        )
    assert held[1000][0] == held[10][0]
    assert held[1000][1] > 50 * held[10][1]


def test_single_precision_and_maps_with_memory() -> None:
    map, y, x0 = layer()
    exact = Equilibrium(map)(y, x0).detach()
    found = Equilibrium(map.float())(y.detach().float(), x0.float())
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), exact, atol=1e-4)
    with pytest.raises(InputError, match="HyperLISTA remembers"):
        LayerMap(HyperLISTA(torch.randn(6, 9), 1))


def test_a_map_that_does_not_converge_is_reported() -> None:
    map, y, x0 = layer()
    with torch.no_grad():
        map.network.steps[0].mul_(50)
    deq = Equilibrium(map, solver=bilevel.Picard(max_iterations=100))
    with pytest.raises(ConvergenceError, match="inner solve"):
        deq(y, x0)
    with pytest.raises(InputError, match="samples"):
        deq(y, x0[:2])
    with pytest.raises(InputError, match="no layer 3"):
        LayerMap(map.network, 3)


def test_the_discount_rule() -> None:
    assert depth_from_discount(0.9, 1e-3) == 66
    assert depth_from_discount(0.5, 0.25) == 2
    with pytest.raises(InputError, match="between 0 and 1"):
        depth_from_discount(1.0, 1e-3)


def contraction(rho: float, n: int = 15):
    """T(u, p) = tanh-bent linear map with spectral radius about rho, and its fixed point."""
    Q = torch.linalg.qr(torch.randn(n, n)).Q
    M = Q @ torch.diag(torch.linspace(0.1, rho, n)) @ Q.mT
    p = 0.1 * torch.randn(n)

    def T(u, p):
        return M @ torch.tanh(0.1 * u) / 0.1 + p

    u = torch.zeros(n)
    for _ in range(3000):
        u = T(u, p)
    return T, u, p


@pytest.mark.parametrize("rho", [0.6, 0.9, 0.95])
@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-5])
def test_the_error_follows_the_rate_and_the_depth_is_right(rho: float, tolerance: float) -> None:
    T, u, p = contraction(rho)
    goal = torch.randn(15)
    rate = measure_rate(T, u, p, goal, terms=int(25 / (1 - rho)) if rho < 0.9 else 150)
    tight = bilevel.Picard(tolerance=bilevel.Tolerance(relative=1e-13), max_iterations=20_000)

    def gradient(kept: int) -> torch.Tensor:
        q = p.clone().requires_grad_()
        return torch.autograd.grad((truncated(T, torch.zeros(15), q, kept, tight).u * goal).sum(), q)[0]

    q = p.clone().requires_grad_()
    exact = torch.autograd.grad((bilevel.fixed_point(T, u, q).u * goal).sum(), q)[0]

    def error(kept: int) -> float:
        return float((gradient(kept) - exact).norm() / exact.norm())

    for kept in (3, 8, 15):
        assert 0.1 <= error(kept) / rate.error(kept) <= 10
    chosen = rate.depth(tolerance)
    low, high = 1, 2 * chosen + 4
    while low < high:  # the smallest depth that meets the tolerance: the error falls monotonically
        middle = (low + high) // 2
        low, high = (low, middle) if error(middle) <= tolerance else (middle + 1, high)
    assert low / 1.5 <= chosen <= max(1.5 * low, low + 1)


def test_the_last_iterations_are_the_ones_that_are_kept() -> None:
    """From a start at the fixed point of other parameters, the first iterations carry another derivative."""
    T, u, p = contraction(0.8)
    q = p.clone().requires_grad_()
    goal = torch.randn(15)
    found = torch.autograd.grad((truncated(T, torch.full((15,), 5.0), q, 4).u * goal).sum(), q)[0]
    v = u.clone()
    for _ in range(4):
        v = T(v, q)
    expected = torch.autograd.grad((v * goal).sum(), q)[0]
    assert torch.allclose(found, expected, atol=1e-7)


def test_rates_that_do_not_fall_are_refused() -> None:
    with pytest.raises(BilevelError, match="does not contract"):
        measure_rate(lambda u, p: 1.3 * u + p, torch.zeros(3), torch.zeros(3), torch.ones(3))
    with pytest.raises(InputError, match="at least one"):
        truncated(lambda u, p: 0.5 * u + p, torch.zeros(3), torch.zeros(3), 0)
    with pytest.raises(InputError, match="tolerance"):
        TruncationRate(0.5, 1.0).depth(2.0)
    assert TruncationRate(0.5, 1.0).depth(1e-3) == math.ceil(math.log(1e-3) / math.log(0.5))
