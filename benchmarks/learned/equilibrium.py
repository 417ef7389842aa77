"""Deep equilibrium against the unrolled network: gradients and memory; and the rules for truncated backpropagation."""

from __future__ import annotations

import torch
from torch import Tensor

import bilevel
from benchmarks.record import Record, at_least, at_most, between, near
from bilevel.inversion.networks import (
    Equilibrium,
    LayerMap,
    StepThresholdISTA,
    depth_from_discount,
    measure_rate,
    truncated,
)
from bilevel.inversion.networks.equilibrium import UnrolledMap

LINE = "equilibrium against unrolled: gradient and saved memory; truncation depth against the measured gradient error"
DURATION = "1 min"


def run(quick: bool) -> list[Record]:
    """The layer is ISTA on a random problem; sizes do not change with `quick`."""
    torch.manual_seed(0)
    A = torch.randn(60, 40, dtype=torch.float64) / 60**0.5
    map = LayerMap(StepThresholdISTA(A, 1, threshold=0.05))
    y = (torch.randn(8, 40, dtype=torch.float64) @ A.mT).requires_grad_()
    return [*gradient_and_memory(map, y), *truncation(map, y)]


def gradient_and_memory(map: LayerMap, y: Tensor) -> list[Record]:
    """Relative difference of the gradients, and the bytes that autograd keeps after 10 and after 1,000 iterations."""
    x0 = torch.zeros(8, 40, dtype=torch.float64)
    tight = bilevel.Anderson(tolerance=bilevel.Tolerance(relative=1e-12))
    tensors = [y, *map.parameters()]
    exact = torch.autograd.grad(Equilibrium(map, solver=tight)(y, x0).square().sum(), tensors)
    unrolled = torch.autograd.grad(UnrolledMap(map, 3000)(y, x0).square().sum(), tensors)
    difference = max(float((a - b).norm() / b.norm()) for a, b in zip(exact, unrolled))

    def equilibrium(iterations: int) -> Tensor:
        picard = bilevel.Picard(tolerance=bilevel.Tolerance(relative=1e-300), max_iterations=iterations)
        return Equilibrium(map, solver=picard, on_fail="ignore")(y, x0)

    kept = {k: saved_bytes(equilibrium(k)) for k in (10, 1000)}
    grown = {k: saved_bytes(UnrolledMap(map, k)(y, x0)) for k in (10, 1000)}
    return [
        at_most("gradient, equilibrium against 3,000 unrolled iterations", difference, 1e-6),
        near("saved memory, 1,000 over 10 iterations, equilibrium", kept[1000] / kept[10], 1.0, 0.01),
        at_least("saved memory, 1,000 over 10 iterations, unrolled", grown[1000] / grown[10], 50.0),
    ]


def saved_bytes(output: Tensor) -> int:
    """Bytes reachable from the graph of `output`, every storage once."""
    storages: dict[int, int] = {}
    pending, seen = [output.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for name in dir(node):
            if name.startswith("_saved_") or name == "saved_tensors":
                held = getattr(node, name)
                for t in held if isinstance(held, (list, tuple)) else [held]:
                    if isinstance(t, Tensor):
                        storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        pending += [parent for parent, _ in node.next_functions]
    return sum(storages.values())


def truncation(map: LayerMap, y: Tensor) -> list[Record]:
    """Measured errors against C rho^K, and the chosen K against the smallest that meets the tolerance."""
    map.requires_grad_(False)  # the data are the parameters here
    data = y.detach()[0]
    goal = torch.randn(40, dtype=torch.float64)

    def T(x: Tensor, p: Tensor) -> Tensor:
        return map(x, p)

    tight = bilevel.Picard(tolerance=bilevel.Tolerance(relative=1e-13), max_iterations=50_000)

    def gradient(kept: int) -> Tensor:
        p = data.clone().requires_grad_()
        return torch.autograd.grad((truncated(T, torch.zeros_like(goal), p, kept, tight).u * goal).sum(), p)[0]

    p = data.clone().requires_grad_()
    solution = bilevel.fixed_point(T, torch.zeros_like(goal), p, solver=tight)
    exact = torch.autograd.grad((solution.u * goal).sum(), p)[0]
    rate = measure_rate(T, solution.u.detach(), data, goal, terms=150)

    def error(kept: int) -> float:
        return float((gradient(kept) - exact).norm() / exact.norm())

    ratios = [error(k) / rate.error(k) for k in (5, 10, 20, 40, 80)]
    records = [
        between("measured error over C rho^K, smallest of K = 5 ... 80", min(ratios), 0.1, 10),
        between("measured error over C rho^K, largest of K = 5 ... 80", max(ratios), 0.1, 10),
    ]
    for tolerance in (1e-1, 1e-2, 1e-3):
        chosen = rate.depth(tolerance)
        low, high = 1, 3 * chosen + 5
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if error(middle) <= tolerance else (middle + 1, high)
        records.append(between(f"chosen K over smallest K, tolerance {tolerance:g}", chosen / low, 1 / 1.5, 1.5))
    return [*records, near("K for lambda 0.9 and tolerance 1e-3", depth_from_discount(0.9, 1e-3), 66, 0)]
