"""Inversions as a user runs them: units that do not matter, rules that say when they cannot choose, dense references."""

import math

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch

from bilevel.composite import SplitBregman
from bilevel.inversion import (
    GCV,
    Bilevel,
    Choice,
    Discrepancy,
    Fixed,
    L1Prior,
    LCurve,
    LearnedPrior,
    Prior,
    Tikhonov,
    TotalVariationPrior,
    diagnose,
    invert,
)
from bilevel.inversion.networks import ConvexDenoiser
from bilevel.linalg.linear_map import Convolution, Matrix, gaussian_kernel
from bilevel.report import ConvergenceError, InputError
from bilevel.solvers import Tolerance

N = 32


def gravity(depth: float = 0.12) -> np.ndarray:
    """Vertical attraction of a row of point masses at a depth (Hansen 2010, section 1.2)."""
    t = (np.arange(N) + 0.5) / N
    return depth / N / (depth**2 + (t[:, None] - t[None, :]) ** 2) ** 1.5


def travel_times() -> np.ndarray:
    """Delays along vertical rays to receivers at growing depth: integrals of slowness, mildly ill posed."""
    return np.tril(np.ones((N, N))) / N


def tomography(n: int, angles: int) -> Matrix:
    """Parallel rays through n x n cells."""
    t = (torch.arange(n) + 0.5) / n - 0.5
    down, right = torch.meshgrid(t, t, indexing="ij")
    rays = [
        torch.clamp(1 - (right * math.cos(a) + down * math.sin(a) - o).abs() * n, min=0).reshape(-1) / n
        for a in torch.arange(angles) * math.pi / angles
        for o in t
    ]
    return Matrix(torch.stack(rays), (n, n), (len(rays),))


def measured(K: np.ndarray, seed: int = 0, level: float = 0.01) -> tuple[np.ndarray, np.ndarray, float]:
    """A smooth truth, its noisy data, and the noise's standard deviation."""
    t = (np.arange(N) + 0.5) / N
    x = np.sin(np.pi * t) + 0.5 * np.sin(2 * np.pi * t)
    clean = K @ x
    sigma = level * float(np.sqrt(np.mean(clean**2)))
    return x, clean + sigma * np.random.default_rng(seed).standard_normal(N), sigma


def relative_error(found: torch.Tensor, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found.numpy() - truth) / np.linalg.norm(truth))


class Dense:
    """Tikhonov's estimates by dense solves, and every rule by SciPy's scalar solvers on them."""

    def __init__(self, K: np.ndarray, y: np.ndarray, L: np.ndarray) -> None:
        self.K, self.y, self.L = K, y, L
        self.scale = 2 * math.log(np.linalg.norm(K, 2) / np.linalg.norm(L, 2))

    def inverse(self, t: float) -> np.ndarray:
        return scipy.linalg.solve(self.K.T @ self.K + math.exp(t) * self.L.T @ self.L, self.K.T, assume_a="pos")

    def estimate(self, t: float) -> np.ndarray:
        return self.inverse(t) @ self.y

    def misfit(self, t: float) -> float:
        return float(np.linalg.norm(self.K @ self.estimate(t) - self.y))

    def gcv(self, t: float) -> float:
        return self.misfit(t) ** 2 / np.trace(np.eye(len(self.y)) - self.K @ self.inverse(t)) ** 2

    def curvature(self, t: float, h: float = 0.02) -> float:
        """Minus that of the L-curve, by central differences."""
        r, e = (
            [math.log(f(s)) for s in (t - h, t, t + h)]
            for f in (self.misfit, lambda s: float(np.linalg.norm(self.L @ self.estimate(s))))
        )
        r1, r2, e1, e2 = (
            (r[2] - r[0]) / 2 / h,
            (r[2] - 2 * r[1] + r[0]) / h**2,
            (e[2] - e[0]) / 2 / h,
            (e[2] - 2 * e[1] + e[0]) / h**2,
        )
        return -(r1 * e2 - e1 * r2) / (r1**2 + e1**2) ** 1.5

    def smallest(self, score) -> np.ndarray:
        """The estimate at the deepest minimum inside the range."""
        grid = self.scale + np.linspace(math.log(1e-6), math.log(1e2), 40)
        scores = [score(t) for t in grid]
        inside = [i for i in range(1, 39) if scores[i] < min(scores[i - 1], scores[i + 1])]
        best = grid[min(inside, key=lambda i: scores[i])]
        found = scipy.optimize.minimize_scalar(score, bounds=(best - 0.5, best + 0.5), method="bounded")
        return self.estimate(found.x)

    def discrepancy(self, target: float) -> np.ndarray:
        limits = self.scale - 20, self.scale + 20
        return self.estimate(scipy.optimize.brentq(lambda t: self.misfit(t) - target, *limits))


@pytest.mark.parametrize("kernel", [gravity, travel_times])
@pytest.mark.parametrize("smooth", [False, True])
def test_the_whole_way_agrees_with_a_dense_reference(kernel, smooth: bool) -> None:
    """Diagnosis, then every rule: the estimate is the reference's, within a fifth of it for the L-curve."""
    K = kernel()
    level = 0.01 if kernel is gravity else 0.05
    x, y, sigma = measured(K, 0, level)
    seen = diagnose(Matrix(K), torch.tensor(y), sigma)
    assert np.allclose(seen.singular_values, np.linalg.svd(K, compute_uv=False))
    assert seen.sentence.startswith("ill posed")
    L = np.diff(np.eye(N), axis=0) if smooth else np.eye(N)
    prior = Tikhonov(torch.tensor(L)) if smooth else Tikhonov()
    dense, truth = Dense(K, y, L), torch.tensor(x)
    examples = [(truth, torch.tensor(measured(K, seed, level)[1])) for seed in (10, 11)]
    taught = [Dense(K, data.numpy(), L) for _, data in examples]
    loss = lambda t: sum(float(np.sum((one.estimate(t) - x) ** 2)) for one in taught)  # noqa: E731
    for choice, expected, within in (
        (Discrepancy(sigma=sigma), dense.discrepancy(sigma * N**0.5), 0.01),
        (GCV(), dense.smallest(dense.gcv), 0.02),
        (LCurve(), dense.smallest(dense.curvature), 0.2),
        (Bilevel(examples=examples), dense.smallest(loss), 0.02),
    ):
        found = invert(K, y, prior, choice)
        assert relative_error(found.x, expected) < within, type(choice).__name__
        if kernel is gravity and not isinstance(choice, LCurve):
            assert relative_error(found.x, x) < 0.2, type(choice).__name__


SPARSE = np.random.default_rng(3).standard_normal((N, 24)) / N**0.5


def case(name: str) -> tuple[Prior, Matrix, np.ndarray, float]:
    rng = np.random.default_rng(1)
    if name.startswith("tikhonov"):
        _, y, sigma = measured(gravity())
        return Tikhonov(torch.diff(torch.eye(N), dim=0) if "smooth" in name else None), Matrix(gravity()), y, sigma
    if name == "l1":
        x = np.zeros(24)
        x[[2, 9, 15]] = 1.0, -2.0, 1.5
        return L1Prior(), Matrix(SPARSE), SPARSE @ x + 0.02 * rng.standard_normal(N), 0.02
    if name == "total variation":
        A = tomography(8, 6)
        x = torch.zeros(8, 8)
        x[2:6, 3:7] = 1.0
        y = A(x).numpy()
        sigma = 0.02 * float(np.sqrt(np.mean(y**2)))
        prior = TotalVariationPrior(solver=SplitBregman(tolerance=Tolerance(1e-4)))
        return prior, A, y + sigma * rng.standard_normal(len(y)), sigma
    blur = Convolution(gaussian_kernel(1.0, 2), (12, 12))
    A = Matrix(blur.matrix(), (12, 12), (12, 12))
    x = torch.zeros(12, 12)
    x[3:9, 4:10] = 1.0
    denoiser = ConvexDenoiser(channels=6, size=3, dtype=torch.float64)
    prior = LearnedPrior(denoiser, tolerance=1e-5)
    return prior, A, A(x).numpy() + 0.02 * rng.standard_normal((12, 12)), 0.02


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("tikhonov", "gcv"),
        ("tikhonov", "l-curve"),
        ("tikhonov", "discrepancy"),
        ("tikhonov smooth", "gcv"),
        ("tikhonov smooth", "l-curve"),
        ("l1", "gcv"),
        ("l1", "discrepancy"),
        ("total variation", "discrepancy"),
        pytest.param("learned", "discrepancy", marks=pytest.mark.slow),
    ],
)
def test_units_of_operator_and_data_do_not_matter(name: str, rule: str) -> None:
    """The operator in units a and the unknown in units b: the same estimate in its units."""
    prior, A, y, sigma = case(name)

    def solved(a: float, b: float) -> torch.Tensor:
        wide = {"lowest": 1e-3, "highest": 10.0}
        choices: dict[str, Choice] = {
            "gcv": GCV(),
            "l-curve": LCurve(),
            "discrepancy": Discrepancy(sigma=sigma * a * b, **wide),
        }
        found = invert(Matrix(a * A.entries, A.domain, A.range), a * b * torch.tensor(y), prior, choices[rule])
        return found.x / b

    reference = solved(1.0, 1.0)
    for a, b in ((1e-5, 1.0), (1e3, 1e-6)):
        assert float((solved(a, b) - reference).norm() / reference.norm()) < 2e-3, (a, b)


@pytest.mark.slow
def test_total_variation_by_gcv_and_l_curve_on_a_tomography() -> None:
    """Twenty-four by twenty-four cells, fewer rays than cells: every trial converges, and GCV's comes close to the best."""
    A = tomography(24, 12)
    x = torch.zeros(24, 24)
    x[5:12, 6:15], x[14:20, 10:18] = 1.0, 0.5
    y = A(x)
    sigma = 0.01 * float(y.norm()) / y.numel() ** 0.5
    y = y + sigma * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    prior = TotalVariationPrior(solver=SplitBregman(tolerance=Tolerance(1e-4)))
    found = invert(A, y, prior, GCV(lowest=1e-5, highest=1.0, points=11))
    assert float((found.x - x).norm() / x.norm()) < 0.03
    assert 0.7 < found.misfit / (sigma * y.numel() ** 0.5) < 1.2
    corner = invert(A, y, prior, LCurve(lowest=1e-6, highest=1.0, points=13))
    assert float((corner.x - x).norm() / x.norm()) < 0.15


def test_an_end_of_the_range_is_no_choice() -> None:
    K = gravity()
    _, y, sigma = measured(K)
    inside = invert(K, y, Tikhonov(), GCV()).weight / np.linalg.norm(K, 2) ** 2
    with pytest.raises(ConvergenceError, match=r"down to lambda = .* move `lowest` outwards"):
        invert(K, y, Tikhonov(), GCV(lowest=30 * inside, highest=1e4 * inside))
    with pytest.raises(ConvergenceError, match=r"up to lambda = .* move `highest` outwards"):
        invert(K, y, Tikhonov(), GCV(lowest=1e-6 * inside, highest=inside / 30))
    with pytest.raises(ConvergenceError, match=r"lowest"):
        invert(K, K @ np.ones(N), Tikhonov(), GCV())  # without noise, the less of the prior the better
    x = torch.tensor(measured(K)[0])
    with pytest.raises(ConvergenceError, match="outer loss falls all the way"):
        invert(K, y, Tikhonov(), Bilevel(examples=[(x, torch.tensor(K) @ x)]))
    with pytest.raises(ConvergenceError, match="corner"):
        invert(K, y, Tikhonov(), LCurve(lowest=1e3, highest=1e6))
    assert invert(K, y, Tikhonov(), Discrepancy(sigma=sigma)).notes == []


def test_flat_and_rival_minima_are_noted() -> None:
    """Data of which a third is noise that the operator's range explains: GCV hardly tells one lambda from another."""
    rng = np.random.default_rng(0)
    orthogonal = np.linalg.qr(rng.standard_normal((200, 6)))[0]
    flat = orthogonal @ np.diag(np.geomspace(1, 1e-5, 6))
    y = 10 * flat @ np.ones(6) + 0.5 * rng.standard_normal(200)
    found = invert(flat, y, Tikhonov(), GCV(lowest=1e-9, highest=1e2))
    assert any("is flat" in note for note in found.notes)
    assert found.notes[0] in found.sentence


def test_an_l_curve_of_few_data_and_a_penalty_that_is_no_square_is_doubted() -> None:
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(20, 40, generator=generator) / 20**0.5
    x = torch.zeros(40)
    x[[3, 11, 27]] = torch.tensor([1.0, -2.0, 1.5])
    y = A @ x + 0.02 * torch.randn(20, generator=generator)
    found = invert(A, y, L1Prior(), LCurve(lowest=1e-4, highest=1.0, points=11))
    assert any("too small a lambda" in note for note in found.notes)


def test_bad_numbers_get_a_sentence() -> None:
    K = gravity()
    _, y, _ = measured(K)
    for bad, match in (
        (y.astype(complex), "complex"),
        (y.astype(np.float32), "float32"),
        (np.append(y, 1.0), "shape"),
        (y[:0], "shape"),
        (np.where(np.arange(N) == 3, np.inf, y), "NaN or infinite"),
    ):
        with pytest.raises(InputError, match=match):
            invert(K, bad, Tikhonov(), GCV())
    with pytest.raises(InputError, match="complex"):
        invert(K.astype(complex), y, Tikhonov(), GCV())
    with pytest.raises(InputError, match="NaN"):
        invert(K * math.nan, y, Tikhonov(), GCV())
    with pytest.raises(InputError, match="needs data and unknowns"):
        invert(np.zeros((0, 4)), np.zeros(0), Tikhonov(), GCV())
    with pytest.raises(ConvergenceError, match="natural size"):
        invert(np.zeros((N, N)), y, Tikhonov(), GCV())
    for prior in (L1Prior(), TotalVariationPrior()):
        with pytest.raises((ConvergenceError, InputError)):
            invert(Matrix(K, (4, 8), (N,)), np.zeros(N), prior, GCV())
    with pytest.raises(InputError, match="smoothing matrix is zero"):
        invert(K, y, Tikhonov(torch.zeros(3, N)), GCV())
    with pytest.raises(InputError, match="at least 5 points"):
        invert(K, y, Tikhonov(), GCV(points=2))
    with pytest.raises(InputError, match="safety factor > 0"):
        invert(K, y, Tikhonov(), Discrepancy(sigma=1.0, safety=-1.0))
    with pytest.raises(InputError, match="lost beside"):
        invert(gravity(0.5), y, Tikhonov(), Fixed(1e-30))


def test_columns_of_zeros_stay_at_the_prior() -> None:
    """Unknowns that no datum depends on: zero by Tikhonov and l1, their neighbours' value by total variation."""
    K = gravity()
    K[:, 5] = 0.0
    _, y, _ = measured(K)
    for prior in (Tikhonov(), L1Prior()):
        assert float(invert(K, y, prior, Fixed(1e-2)).x[5]) == pytest.approx(0.0, abs=1e-12)
    picture = Matrix(K, (4, 8), (N,))
    x = invert(picture, y, TotalVariationPrior(), Fixed(1e-2)).x
    assert float(x[0, 4:7].min()) - 1e-3 <= float(x[0, 5]) <= max(float(x[0, 4]), float(x[0, 6]), float(x[1, 5])) + 1e-3
