"""Denoisers and plug-and-play: guarantees by construction, fixed points, divergence that is caught."""

import pytest
import torch

import bilevel
from bilevel.composite import FISTA, L1, Composite, LeastSquares
from bilevel.inversion.networks import (
    ConvexDenoiser,
    DenoiserSchedule,
    PnPADMM,
    PnPProximalGradient,
    ResidualCNN,
    UnrolledADMM,
    jacobian_norm,
    train_denoiser,
)
from bilevel.linalg.linear_map import Convolution, Matrix, gaussian_kernel
from bilevel.report import ConvergenceError, InputError
from bilevel.solvers import Tolerance


def pictures(count: int = 2, size: int = 24) -> list[torch.Tensor]:
    """Flat discs and bars with values in [0, 1]."""
    t = torch.arange(size)
    found = []
    for i in range(count):
        disc = ((t[:, None] - 8 - i) ** 2 + (t[None, :] - 10) ** 2 < 30).double()
        found.append(0.2 + 0.5 * disc + 0.25 * ((t[None, :] // 6 + i) % 2))
    return found


def convex() -> ConvexDenoiser:
    return ConvexDenoiser(channels=6, size=3, dtype=torch.float64)


def test_the_convex_denoiser_is_firmly_nonexpansive_whatever_its_weights() -> None:
    denoiser = convex()
    with torch.no_grad():
        for p in denoiser.parameters():
            p.add_(torch.randn_like(p))
    for scale in (0.01, 1.0, 10.0):
        a, b = scale * torch.randn(20, 12, 10), scale * torch.randn(20, 12, 10)
        with torch.no_grad():
            moved, asked = (denoiser(a) - denoiser(b)).flatten(1), (a - b).flatten(1)
        assert float((moved.square().sum(1) - (moved * asked).sum(1)).max()) <= 1e-9
    x = torch.randn(3, 12, 10)
    assert float(jacobian_norm(lambda v: 2 * denoiser(v) - v, x).max()) <= 1 + 1e-9
    constant = torch.full((8, 8), 0.3)
    assert torch.allclose(denoiser(constant), constant)


def test_scaling_a_denoiser() -> None:
    denoiser, x = convex(), torch.rand(2, 9, 9)
    assert torch.allclose(denoiser(x, 0.5), 0.5 * denoiser(2 * x), atol=1e-12)
    cnn = ResidualCNN(3, 4, dtype=torch.float64)
    assert torch.allclose(cnn(x, 0.5), cnn(x), atol=1e-12)  # positively homogeneous


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_training_removes_noise(penalty: float) -> None:
    schedule = DenoiserSchedule(sigma=0.1, steps=60, batch=4, patch=12, rate=2e-2, penalty=penalty)
    denoiser = convex() if penalty == 0 else ResidualCNN(2, 6, dtype=torch.float64)
    errors = train_denoiser(denoiser, pictures(), schedule)
    assert sum(errors[-10:]) / 10 < 0.85 * 0.1**2
    with pytest.raises(InputError, match="at least 99"):
        train_denoiser(denoiser, pictures(), DenoiserSchedule(patch=99))


def test_with_a_true_prox_it_is_proximal_gradient() -> None:
    A = Convolution(gaussian_kernel(0.7, 1), (6, 7))
    y = torch.randn(6, 7)
    norm = L1()
    norm.event_dims = 2
    weight, step = 0.1, 1 / A.norm() ** 2
    exact = bilevel.fixed_point(
        Composite(LeastSquares(A, y), norm, weight), torch.zeros(6, 7), solver=FISTA(tolerance=Tolerance(1e-10))
    ).u
    found = PnPProximalGradient(lambda v: norm.prox(v, weight * step), tolerance=1e-9, max_iterations=20_000).restore(
        A, y
    )
    assert torch.allclose(found.x, exact, atol=1e-6)
    assert found.certificate.certified
    split = PnPADMM(lambda v: norm.prox(v, weight / 2.0), rho=2.0, tolerance=1e-9, max_iterations=20_000).restore(A, y)
    assert torch.allclose(split.x, exact, atol=1e-6)


@pytest.mark.parametrize("unit", [1.0, pytest.param(1e4, marks=pytest.mark.slow)])
def test_both_schemes_solve_one_problem_with_one_denoiser(unit: float) -> None:
    """By default and wherever rho = 1 / step, whatever the units of the operator."""
    A = Matrix(unit * torch.randn(60, 81) / 9, (9, 9), (60,))
    y = A(torch.rand(9, 9))
    denoiser = ConvexDenoiser(channels=4, size=3, dtype=torch.float64)
    limits = {"tolerance": 1e-9, "max_iterations": 20_000}
    for step in (None, 0.3 / A.norm() ** 2):
        a = PnPProximalGradient(lambda v: denoiser(v, 3.0), step=step, **limits).restore(A, y).x
        rho = None if step is None else 1 / step
        b = PnPADMM(lambda v: denoiser(v, 3.0), rho=rho, **limits).restore(A, y).x
        assert float((a - b).norm() / a.norm()) < 1e-5
        residual = a - denoiser(a - (step or 1 / A.norm() ** 2) * A.adjoint(A(a) - y), 3.0)
        assert float(residual.detach().norm() / a.norm()) < 1e-7


@pytest.mark.parametrize("scheme", [PnPProximalGradient, PnPADMM])
def test_residuals_fall_to_the_tolerance_with_a_constrained_denoiser(scheme) -> None:
    A = Convolution(gaussian_kernel(1.0, 2), (24, 24))
    clean = torch.stack(pictures())
    y = A(clean) + 0.01 * torch.randn(2, 24, 24)
    denoiser = convex()
    result = scheme(lambda v: denoiser(v, 0.3), tolerance=1e-6, max_iterations=5000).restore(A, y)
    assert result.certificate.residuals[-1] <= 1e-6
    assert result.certificate.certified
    assert result.certificate.verdict.startswith("stable")


def test_a_diverging_denoiser_is_caught() -> None:
    A = Convolution(gaussian_kernel(1.0, 2), (16, 16))
    sharpen = lambda v: v + 1.5 * (v - Convolution(gaussian_kernel(1.0, 2), (16, 16))(v))  # noqa: E731
    y = A(torch.rand(16, 16))
    with pytest.raises(ConvergenceError, match="UNSTABLE"):
        PnPProximalGradient(sharpen, accelerate=False).restore(A, y)
    with pytest.warns(RuntimeWarning, match="UNSTABLE"):
        result = PnPADMM(sharpen, max_iterations=300).restore(A, y, on_fail="warn")
    assert result.certificate.lipschitz > 1.5
    assert not result.certificate.certified


def test_bad_input_is_refused() -> None:
    A = Convolution(gaussian_kernel(1.0, 2), (16, 16))
    with pytest.raises(InputError, match="step 5 lies outside"):
        PnPProximalGradient(lambda v: v, step=5.0).restore(A, torch.zeros(16, 16))
    with pytest.raises(InputError, match="shape"):
        PnPADMM(lambda v: v).restore(A, torch.zeros(15, 16))
    with pytest.raises(InputError, match="rho"):
        UnrolledADMM(convex(), lambda x, y: x.sum(), rho=-1.0)


def test_zero_data_have_a_zero_answer_and_starts_are_checked() -> None:
    A, denoiser = Convolution(gaussian_kernel(1.0, 2), (12, 14)), convex()
    for scheme in (PnPProximalGradient, PnPADMM):
        assert float(scheme(denoiser).restore(A, torch.zeros(12, 14)).x.abs().max()) == 0.0
        with pytest.raises(InputError, match="the start has shape"):
            scheme(denoiser).restore(A, torch.zeros(12, 14), torch.zeros(5, 5))
        with pytest.raises(InputError, match="NaN"):
            scheme(denoiser).restore(A, torch.zeros(12, 14), torch.full((12, 14), torch.nan))
        with pytest.raises(InputError, match="max_iterations"):
            scheme(denoiser, max_iterations=0).restore(A, torch.zeros(12, 14))


def test_denoisers_refuse_what_they_cannot_learn_from() -> None:
    with pytest.raises(InputError, match="at least one picture"):
        train_denoiser(convex(), [], DenoiserSchedule())
    with pytest.raises(InputError, match="NaN"):
        train_denoiser(convex(), [torch.full((50, 50), torch.nan)], DenoiserSchedule())
    with pytest.raises(InputError, match="sigma"):
        DenoiserSchedule(sigma=-1.0)
    with pytest.raises(InputError, match="the denoiser is"):
        convex()(torch.zeros(9, 9, dtype=torch.float32))
    with pytest.raises(InputError, match="at least one layer"):
        UnrolledADMM(convex(), lambda x, y: x.sum(), depth=0)


def test_end_to_end_admm_differentiates_its_x_update_implicitly() -> None:
    """Against the closed form of the x-update differentiated by autograd."""
    A = Matrix(torch.randn(30, 36))
    y, x0, goal = torch.randn(30), torch.zeros(6, 6), torch.randn(6, 6)
    denoiser = convex()
    network = UnrolledADMM(denoiser, lambda x, y: 0.5 * (A(x.reshape(-1)) - y).square().sum(), depth=3, rho=0.7)
    parameters = list(network.parameters())
    found = torch.autograd.grad((network(y, x0) * goal).sum(), parameters)

    rho = network.log_rho.exp()
    z, u = x0, torch.zeros(6, 6)
    normal = A.entries.mT @ A.entries + rho * torch.eye(36)
    for _ in range(3):
        x = torch.linalg.solve(normal, A.adjoint(y) + rho * (z - u).reshape(-1)).reshape(6, 6)
        z = denoiser(x + u)
        u = u + x - z
    expected = torch.autograd.grad((z * goal).sum(), parameters)
    for a, b in zip(found, expected):
        assert torch.allclose(a, b, rtol=1e-7, atol=1e-10)


def test_end_to_end_training_lowers_the_error() -> None:
    A = Convolution(gaussian_kernel(0.8, 1), (6, 6))
    clean = pictures(1, 24)[0][4:10, 4:10]
    y = A(clean) + 0.02 * torch.randn(6, 6)
    network = UnrolledADMM(convex(), lambda x, y: 0.5 * (A(x) - y).square().sum(), depth=2, rho=0.3)
    optimiser = torch.optim.Adam(network.parameters(), 0.1)
    losses = []
    for _ in range(6):
        loss = (network(y, y) - clean).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
