"""Inversion behind one call: diagnosis, priors and rules for lambda against closed forms and optimal choices."""

import math

import pytest
import torch

from bilevel.composite import GraphTotalVariation
from bilevel.inversion import (
    GCV,
    Bilevel,
    Discrepancy,
    Fixed,
    L1Prior,
    LCurve,
    LearnedPrior,
    Tikhonov,
    TotalVariationPrior,
    diagnose,
    invert,
)
from bilevel.inversion.networks import ConvexDenoiser
from bilevel.inversion.problem import InverseProblem
from bilevel.linalg.linear_map import Convolution, Matrix, gaussian_kernel
from bilevel.report import ConvergenceError, InputError


def smoothing_kernel(n: int = 40) -> Matrix:
    """A Fredholm equation of the first kind: Gaussian blur on [0, 1], severely ill posed."""
    t = (torch.arange(n) + 0.5) / n
    return Matrix(torch.exp(-0.5 * ((t[:, None] - t[None, :]) / 0.08) ** 2) / n / 0.08)


def smooth_truth(n: int = 40) -> torch.Tensor:
    t = (torch.arange(n) + 0.5) / n
    return torch.sin(math.pi * t) + 0.5 * torch.sin(2 * math.pi * t)


SIGMA = 0.02


def sparse_data(seed: int = 0) -> tuple[Matrix, torch.Tensor]:
    """Three spikes among 20 unknowns, seen through a well-conditioned random matrix."""
    g = torch.Generator().manual_seed(seed)
    A = Matrix(torch.randn(30, 20, generator=g) / 30**0.5)
    x = torch.zeros(20)
    x[[2, 9, 15]] = torch.tensor([1.0, -2.0, 1.5])
    return A, A(x) + SIGMA * torch.randn(30, generator=g)


def data(seed: int = 0) -> tuple[Matrix, torch.Tensor, torch.Tensor]:
    A, x = smoothing_kernel(), smooth_truth()
    return A, A(x) + SIGMA * torch.randn(40, generator=torch.Generator().manual_seed(seed)), x


def test_the_diagnosis_tells_ill_posed_from_well_posed() -> None:
    A, y, _ = data()
    found = diagnose(A, y, SIGMA)
    assert found.usable < 15
    assert found.condition > 1e6
    assert found.sentence.startswith("ill posed")
    assert torch.allclose(found.singular_values, torch.linalg.svdvals(A.entries))
    assert diagnose(A, y).noise == pytest.approx(SIGMA, rel=0.7)
    orthogonal = Matrix(torch.linalg.qr(torch.randn(20, 20)).Q)
    assert diagnose(orthogonal, torch.full((20,), 5.0) + torch.randn(20), 1e-3).sentence.startswith("well posed")


def test_the_picard_plot_draws_three_series() -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    A, y, _ = data()
    axes = diagnose(A, y).plot()
    assert [line.get_label() for line in axes.lines[:3]] == [
        "singular values $s_i$",
        "$|u_i^T y|$",
        "$|u_i^T y| / s_i$",
    ]
    mpl.pyplot.close("all")


def test_tikhonov_has_a_closed_form_with_and_without_a_smoothing_matrix() -> None:
    A, y, _ = data()
    found = invert(A, y, Tikhonov(), Fixed(0.01))
    exact = torch.linalg.solve(A.entries.mT @ A.entries + 0.01 * torch.eye(40), A.adjoint(y))
    assert torch.allclose(found.x, exact, atol=1e-9)
    L = torch.diff(torch.eye(40), dim=0)
    found = invert(A, y, Tikhonov(L), Fixed(0.01))
    exact = torch.linalg.solve(A.entries.mT @ A.entries + 0.01 * L.mT @ L, A.adjoint(y))
    assert torch.allclose(found.x, exact, atol=1e-7)


@pytest.mark.parametrize("L", [None, torch.diff(torch.eye(40), dim=0)])
def test_degrees_of_freedom_are_the_divergence(L: torch.Tensor | None) -> None:
    A, y, _ = data()
    prior = Tikhonov(L)
    influence = torch.func.jacrev(lambda d: A(prior.solve(A, d, 0.02)))(y)
    assert prior.freedom(A, y, 0.02, torch.zeros(40)) == pytest.approx(float(influence.trace()), rel=1e-6)
    blur = Convolution(gaussian_kernel(0.7, 1), (5, 6))
    picture = torch.randn(5, 6)
    influence = torch.func.jacrev(lambda d: blur(Tikhonov().solve(blur, d, 0.1)))(picture).reshape(30, 30)
    assert Tikhonov().freedom(blur, picture, 0.1, picture) == pytest.approx(float(influence.trace()), rel=1e-6)


@pytest.mark.parametrize(
    ("choice", "factor"),
    [
        (Discrepancy(sigma=SIGMA), 2.0),
        (GCV(), 1.6),
        (Bilevel(examples=[(data(s)[2], data(s)[1]) for s in range(10, 13)]), 1.4),
    ],
    ids=["discrepancy", "gcv", "bilevel"],
)
def test_every_rule_comes_close_to_the_best_lambda(choice, factor: float) -> None:
    """Median over five data sets of error / (error at the best lambda)."""
    ratios = []
    for seed in range(5):
        A, y, x = data(seed)
        best = min(float((Tikhonov().solve(A, y, 10.0**p) - x).norm()) for p in torch.linspace(-6, 2, 60).tolist())
        found = invert(A, y, Tikhonov(), choice)
        ratios.append(float((found.x - x).norm()) / best)
    assert sorted(ratios)[2] < factor


def test_the_l_curve_finds_the_corner_between_fitting_noise_and_losing_signal() -> None:
    """At the corner the misfit is about the noise, and the penalty about the truth's."""
    for seed in range(5):
        A, y, x = data(seed)
        found = invert(A, y, Tikhonov(), LCurve())
        assert 0.5 < found.misfit / (SIGMA * 40**0.5) < 1.5
        assert 0.9 < Tikhonov().penalty(found.x) / Tikhonov().penalty(x) < 1.5


def test_the_discrepancy_principle_meets_its_equation() -> None:
    A, y, _ = data()
    found = invert(A, y, Tikhonov(), Discrepancy(sigma=SIGMA))
    assert found.misfit == pytest.approx(SIGMA * 40**0.5, rel=1e-2)
    random, spikes = sparse_data()
    found = invert(random, spikes, L1Prior(), Discrepancy(sigma=SIGMA, lowest=1e-3))
    assert found.misfit == pytest.approx(SIGMA * 30**0.5, rel=1e-2)
    with pytest.raises(ConvergenceError, match="underestimated"):
        invert(A, y, Tikhonov(), Discrepancy(sigma=1e-9))
    with pytest.raises(ConvergenceError, match="no signal"):
        invert(A, y, Tikhonov(), Discrepancy(sigma=1e3))


def test_the_outer_gradient_is_exact() -> None:
    A, y = sparse_data()
    x = torch.zeros(20)
    x[[2, 9, 15]] = torch.tensor([1.0, -2.0, 1.5])
    rule = Bilevel(examples=[(x, y), (x, y + 0.01)])
    for prior, t in ((Tikhonov(), -2.0), (L1Prior(), -4.0)):
        problem = InverseProblem(A, y, prior)
        h = 1e-4
        expected = (rule.loss(problem, t + h) - rule.loss(problem, t - h)) / (2 * h)
        assert rule.gradient(problem, t) == pytest.approx(expected, rel=1e-3)


def test_total_variation_finds_blocks_on_a_graph_and_l1_finds_spikes() -> None:
    A = Matrix(torch.randn(30, 40) / 30**0.5)
    blocks = torch.cat([torch.zeros(13), torch.ones(15), torch.full((12,), -0.5)])
    chain = torch.stack([torch.arange(39), torch.arange(1, 40)])
    prior = TotalVariationPrior(GraphTotalVariation(chain, 40))
    found = invert(A, A(blocks) + 0.01 * torch.randn(30), prior, Fixed(0.02))
    assert float((found.x - blocks).norm() / blocks.norm()) < 0.1
    spikes = torch.zeros(40)
    spikes[[3, 17, 30]] = torch.tensor([1.0, -2.0, 1.5])
    y = A(spikes) + 0.01 * torch.randn(30)
    sparse, ridge = (invert(A, y, p, GCV(lowest=1e-4)) for p in (L1Prior(), Tikhonov()))
    assert float((sparse.x - spikes).norm()) < 0.3 * float((ridge.x - spikes).norm())


def test_a_learned_prior_is_a_prior_like_any_other() -> None:
    A = Convolution(gaussian_kernel(1.0, 2), (12, 12))
    x = torch.zeros(12, 12)
    x[3:9, 4:10] = 1.0
    y = A(x) + 0.02 * torch.randn(12, 12)
    prior = LearnedPrior(ConvexDenoiser(channels=6, size=3, dtype=torch.float64))
    found = invert(A, y, prior, Discrepancy(sigma=0.02, lowest=1e-3, highest=30.0, tolerance=0.05))
    assert found.misfit == pytest.approx(0.02 * 12, rel=0.1)
    assert float((found.x - x).norm()) < float((y - x).norm())
    assert found.sentence.startswith("LearnedPrior with lambda")


def test_bad_input_gets_a_sentence() -> None:
    A, y, _ = data()
    with pytest.raises(InputError, match="lambda must be positive"):
        Fixed(-1.0)
    with pytest.raises(InputError, match="shape"):
        invert(A, y[:-1], Tikhonov(), Fixed(1.0))
    with pytest.raises(InputError, match="NaN"):
        invert(A, y * math.nan, Tikhonov(), Fixed(1.0))
    with pytest.raises(InputError, match="positive and finite"):
        Fixed(math.inf)
    with pytest.raises(InputError, match="one sample at a time"):
        invert(A, torch.zeros(3, 40), Tikhonov(), Fixed(1.0))
    with pytest.raises(InputError, match="takes a prior such as"):
        invert(A, y, Tikhonov, Fixed(1.0))
    with pytest.raises(InputError, match="takes a prior such as"):
        invert(A, y, Tikhonov(), 0.1)
    with pytest.raises(InputError, match=r"an example has shape \(39,\)"):
        invert(A, y, Tikhonov(), Bilevel(examples=[(torch.zeros(39), y)]))
    with pytest.raises(InputError, match="the data have shape"):
        invert(A, y, Tikhonov(), Bilevel(examples=[(torch.zeros(40), y[:-1])]))
    with pytest.raises(InputError, match="pictures"):
        invert(A, y, LearnedPrior(ConvexDenoiser()), Fixed(1.0))
    with pytest.raises(ConvergenceError, match="all zero"):
        invert(A, torch.zeros(40), Tikhonov(), GCV())
    with pytest.raises(InputError, match="one sample"):
        diagnose(A, torch.zeros(3, 40))
    with pytest.raises(InputError, match="noise"):
        diagnose(A, y, -1.0)
    with pytest.raises(InputError, match="sigma > 0"):
        invert(A, y, Tikhonov(), Discrepancy(sigma=0.0))
    with pytest.raises(InputError, match="at least one example"):
        invert(A, y, Tikhonov(), Bilevel(examples=[]))
    with pytest.raises(InputError, match="columns"):
        invert(A, y, Tikhonov(torch.eye(3)), Fixed(1.0))
    with pytest.raises(InputError, match="lowest < highest"):
        invert(A, y, Tikhonov(), GCV(lowest=1.0, highest=0.1))


def test_arrays_and_operators_of_deficient_rank_are_inverted() -> None:
    matrix = torch.randn(20, 3) @ torch.randn(3, 30)
    x = torch.linalg.pinv(matrix) @ matrix @ torch.randn(30)
    found = invert(matrix.numpy(), (matrix @ x).numpy(), Tikhonov(), Fixed(1e-5))
    assert torch.allclose(found.x, x, atol=1e-4)
    assert diagnose(Matrix(matrix), matrix @ x + 1e-6 * torch.randn(20), 1e-6).usable == 3
