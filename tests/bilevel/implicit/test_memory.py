"""What a layer keeps does not grow with its iterations, and repeated gradients do not grow the process."""

from __future__ import annotations

import gc
import os

import pytest
import torch

import bilevel
from bilevel import Constant, GradientDescent


def living_tensors() -> int:
    """Bytes in all tensors that Python can reach."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) is torch.Tensor:
            storages[thing.data_ptr()] = thing.untyped_storage().nbytes()
    return sum(storages.values())


def test_retained_memory_is_flat_in_the_number_of_inner_iterations():
    scale = torch.tensor(1.0, requires_grad=True)
    kept = {}
    for iterations in (10, 10, 2_000):  # the first solve also finds the pattern of the tangent, which is kept
        before = living_tensors()
        solver = GradientDescent(step=Constant(1e-4), max_iterations=iterations, check_minimum=False)
        solution = bilevel.argmin(
            lambda u, p: 0.5 * p * (u**2).sum() - u.sum(), torch.zeros(2000), scale, solver=solver, on_fail="ignore"
        )
        assert solution.report.iterations == iterations
        kept[iterations] = living_tensors() - before
        del solution
    assert kept[10] > 2000 * 8
    assert abs(kept[2_000] - kept[10]) <= 0.02 * kept[10]


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="resident memory is read from /proc")
def test_repeated_gradients_do_not_grow_the_process():
    k = torch.rand(300, requires_grad=True)

    def once():
        solution = bilevel.argmin(
            lambda u, p: 0.5 * (p * (u[1:] - u[:-1]) ** 2).sum() + 0.5 * (u**2).sum() - u.sum(), torch.zeros(301), k
        )
        torch.autograd.grad((solution.u**2).sum(), k)

    for _ in range(3):
        once()
    gc.collect()
    tensors, resident = living_tensors(), resident_bytes()
    for _ in range(6):
        once()
    assert living_tensors() <= tensors
    assert resident_bytes() - resident <= 8 * 2**20
