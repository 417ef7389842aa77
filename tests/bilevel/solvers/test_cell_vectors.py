"""Vectors of cells: numbers are vectors of one component, and nothing depends on the axes."""

import pytest
import torch

from bilevel.solvers.cellwise import vectors

COUNT = 40


def drawn(seed, *shape):
    return torch.randn(COUNT, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_numbers_are_vectors_of_one_component():
    one, other, share = drawn(0), drawn(1), drawn(2).sigmoid()
    first, second = one[:, None], other[:, None]
    assert torch.equal(vectors.dot(one, other), vectors.dot(first, second))
    assert torch.allclose(vectors.size(one), vectors.size(first))
    assert torch.equal(vectors.scaled(share, one)[:, None], vectors.scaled(share, first))
    assert torch.equal(vectors.outer(one, other)[:, None, None], vectors.outer(first, second))
    assert torch.equal(vectors.times(share, one)[:, None], vectors.times(share[:, None, None], first))
    assert torch.equal(vectors.isotropic(share, one)[:, None, None], vectors.isotropic(share, first))
    agree, take = vectors.agreement(one, other), share > 0.5
    assert torch.allclose(agree.double(), vectors.agreement(first, second))
    line = vectors.direction(one, other, share, agree, take)
    arrow = vectors.direction(first, second, share, agree, take)
    assert torch.allclose(line[:, None], arrow)
    along, across = drawn(3).exp(), drawn(4).exp()
    about = vectors.slope_about(arrow, along, across)
    assert torch.allclose(vectors.slope_about(line, along, across)[:, None, None], about)


@pytest.mark.parametrize("dim", [2, 3])
def test_directions_and_slopes_turn_with_the_axes(dim):
    one, other, share = drawn(0, dim), drawn(1, dim), drawn(2).sigmoid()
    along, across = drawn(3).exp(), drawn(4).exp()
    turn = torch.linalg.qr(torch.randn(dim, dim, generator=torch.Generator().manual_seed(5), dtype=torch.float64))[0]

    def made(first, second):
        agree = vectors.agreement(first, second)
        way = vectors.direction(first, second, share, agree > 0.5, share > 0.5)
        return agree, way, vectors.slope_about(way, along, across)

    agree, way, slope = made(one, other)
    agree_turned, way_turned, slope_turned = made(one @ turn.T, other @ turn.T)
    assert torch.allclose(agree_turned, agree)
    assert torch.allclose(way_turned, way @ turn.T)
    assert torch.allclose(slope_turned, turn @ slope @ turn.T)
    assert torch.allclose(vectors.size(way), torch.ones(COUNT, dtype=torch.float64))
    assert torch.allclose(vectors.times(slope, way), vectors.scaled(along, way))
    cosine = torch.nn.functional.cosine_similarity(one, other)
    assert torch.allclose(agree, 0.5 + 0.5 * cosine)


def test_directions_that_disagree_are_those_of_the_chosen_one():
    one = drawn(0, 2)
    take = torch.arange(COUNT) % 2 == 0
    none = torch.zeros(COUNT, dtype=torch.bool)
    found = vectors.direction(one, -2.0 * one, torch.full((COUNT,), 0.5, dtype=torch.float64), none, take)
    unit = one / one.norm(dim=1, keepdim=True)
    assert torch.allclose(found, torch.where(take[:, None], -unit, unit))


def test_the_size_of_nothing_has_a_derivative():
    nothing = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(vectors.size(nothing).sum(), nothing)
    assert torch.equal(slope, torch.zeros(3, 2, dtype=torch.float64))
