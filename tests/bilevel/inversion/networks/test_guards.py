"""Guards: norms, cocoercivity, penalties and verdicts against exact values."""

import math

import pytest
import torch

from bilevel.inversion.networks import (
    ALISTA,
    HyperLISTA,
    NeurallyAugmentedALISTA,
    StepThresholdISTA,
    certify,
    certify_network,
    clamp_steps,
    jacobian_norm,
)
from bilevel.inversion.networks.guards import cocoercivity, nonexpansiveness_penalty, step_bound
from bilevel.report import ConvergenceError, InputError


def test_the_jacobian_norm_of_a_matrix_is_its_norm() -> None:
    M = torch.randn(6, 6)
    found = jacobian_norm(lambda x: x @ M.mT, torch.randn(3, 6), iterations=500)
    assert torch.allclose(found, torch.linalg.matrix_norm(M, 2).expand(3), rtol=1e-6)


def test_the_jacobian_norm_of_a_nonlinear_map() -> None:
    x = torch.tensor([[0.0, 1.0], [2.0, 0.3]])
    found = jacobian_norm(lambda v: v.sin(), x, iterations=300)
    assert torch.allclose(found, x.cos().abs().amax(1), rtol=1e-6)


@pytest.mark.parametrize("kind", ["symmetric", "general", "wide"])
def test_cocoercivity_bounds_the_nonexpansive_steps(kind: str) -> None:
    """|1 - s M| <= 1 holds for s = 2 beta and fails just above."""
    if kind == "general":
        M = torch.eye(7) + 0.2 * torch.randn(7, 7)
    else:
        A = torch.randn(12, 7) if kind == "symmetric" else torch.randn(4, 7)
        M = A.mT @ A
    beta = cocoercivity(M)
    assert beta > 0
    norm = torch.linalg.matrix_norm
    assert float(norm(torch.eye(7) - 2 * beta * M, 2)) <= 1 + 1e-9
    assert float(norm(torch.eye(7) - 2.02 * beta * M, 2)) > 1
    if kind != "general":
        assert beta == pytest.approx(1 / float(norm(M, 2)))


def test_operators_that_are_not_monotone_have_no_step() -> None:
    assert cocoercivity(-torch.eye(3)) < 0
    assert cocoercivity(torch.tensor([[0.0, 1.0], [0.0, 0.0]])) == -math.inf
    assert cocoercivity(torch.zeros(3, 3)) == math.inf
    with pytest.raises(InputError, match="square"):
        cocoercivity(torch.zeros(2, 3))


@pytest.mark.parametrize("make", [StepThresholdISTA, ALISTA])
def test_clamped_steps_make_layers_nonexpansive(make) -> None:
    A = torch.randn(15, 10) + 3 * torch.eye(15, 10)
    network = make(A.mT if make is ALISTA else A, 4)
    with torch.no_grad():
        for k, step in enumerate(network.steps):
            step.fill_(100.0 * (-1) ** k)
    bound = step_bound(network)
    if bound <= 0:
        with pytest.raises(InputError, match="not cocoercive"):
            clamp_steps(network)
        return
    assert clamp_steps(network) == 4
    assert clamp_steps(network) == 0
    y, (n,) = torch.randn(5, *network.operator.range), network.operator.domain
    a, b = torch.randn(5, n), torch.randn(5, n)
    for k in range(4):
        fa, fb = (network.layer(k, network.start(y)._replace(x=x), y).x.detach() for x in (a, b))
        assert float(((fa - fb).norm(dim=1) / (a - b).norm(dim=1)).max()) <= 1 + 1e-9


def test_the_penalty_is_zero_exactly_where_the_map_is_firmly_nonexpansive_and_trains() -> None:
    x = torch.randn(4, 6)
    assert float(nonexpansiveness_penalty(lambda v: 0.5 * v, x)) == 0.0
    factor = torch.tensor(1.5, requires_grad=True)
    penalty = nonexpansiveness_penalty(lambda v: factor * v, x, margin=0.1)
    assert float(penalty.detach()) == pytest.approx(2.0 - 0.9)
    assert float(torch.autograd.grad(penalty, factor)[0]) == pytest.approx(2.0)


def test_certificates_tell_stable_from_unstable() -> None:
    x = torch.randn(3, 5)
    rotation = torch.linalg.qr(torch.randn(5, 5)).Q
    good = certify(lambda v: 0.8 * v @ rotation, x)
    assert good.certified
    assert good.rate == pytest.approx(0.8, rel=1e-6)
    assert good.verdict.startswith("stable")
    bad = certify(lambda v: 1.1 * v @ rotation, x)
    assert not bad.stable
    assert bad.verdict.startswith("UNSTABLE")
    with pytest.raises(ConvergenceError, match="UNSTABLE"):
        bad.require_stable()
    # converges to 0 although its Jacobian norm is 5 there: stable, but without a guarantee
    shear = torch.tensor([[0.5, 5.0], [0.0, 0.5]])
    lucky = certify(lambda v: v @ shear.mT, torch.randn(3, 2))
    assert lucky.stable
    assert not lucky.certified
    assert "without a guarantee" in lucky.verdict


def test_only_networks_with_plain_steps_are_clamped() -> None:
    for network in (HyperLISTA(torch.randn(4, 6), 2), NeurallyAugmentedALISTA(torch.randn(4, 6), 2)):
        with pytest.raises(InputError, match="no bound on its steps"):
            clamp_steps(network)


def test_an_exploding_network_is_certified_unstable() -> None:
    A = torch.randn(10, 20)
    network = StepThresholdISTA(A, 12)
    assert certify_network(network, torch.randn(4, 10)).stable
    assert certify_network(network, torch.randn(10)).stable
    with torch.no_grad():
        for step in network.steps:
            step.mul_(20)
    assert not certify_network(network, torch.randn(4, 10)).stable
