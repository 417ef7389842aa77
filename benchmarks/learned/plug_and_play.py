"""Plug-and-play deblurring of held-out pictures against Wiener and total variation with tuned lambda."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

import bilevel
from benchmarks.record import Record, at_least, at_most, median, stated
from bilevel.composite import Composite, LeastSquares, PrimalDual, TotalVariation
from bilevel.inversion.networks import (
    ConvexDenoiser,
    DenoiserSchedule,
    PnPADMM,
    PnPProximalGradient,
    ResidualCNN,
    train_denoiser,
)
from bilevel.inversion.networks.fine_tuning import FineTuning, fine_tune
from bilevel.inversion.networks.plug_and_play import Restoration
from bilevel.linalg.linear_map import Convolution, gaussian_kernel
from bilevel.report import ConvergenceError
from bilevel.solvers import Tolerance

LINE = (
    "deblurring of held-out pictures (Gaussian blur, noise 0.01): PnP against Wiener and TV; convergence and its loss"
)
DURATION = "30 min on 2 idle cores"

SIGMA = 0.01
WIDTH = 1.6


def run(quick: bool) -> list[Record]:
    """Needs scikit-image and scikit-learn for pictures; peers' lambda is tuned on the held-out pictures themselves."""
    try:
        from benchmarks.learned.pictures import held_out, psnr, training

        pictures, truth = training(), held_out()
    except ImportError:
        return [stated("pictures", None, target="scikit-image or scikit-learn is not installed")]
    A = Convolution(gaussian_kernel(WIDTH, 8, torch.float32), (128, 128))
    y = A(truth) + SIGMA * torch.randn(truth.shape, generator=torch.Generator().manual_seed(3))
    wiener = max(psnr(wiener_filter(A, y, w), truth) for w in (2e-3, 4e-3, 8e-3, 1.6e-2))
    tv = max(psnr(total_variation(A, y, w), truth) for w in ((4e-4,) if quick else (2e-4, 4e-4, 6e-4, 9e-4)))

    restored = [restoration(A, y, pictures, seed, quick) for seed in range(1 if quick else 3)]
    found = [psnr(r.x, truth) for r in restored]
    print(f"plug-and-play by training seed: {', '.join(f'{value:.3f} dB' for value in found)}", flush=True)
    return [
        stated("blurred and noisy", psnr(y, truth), "dB"),
        stated("Wiener, best lambda", wiener, "dB"),
        stated("total variation, best lambda", tv, "dB"),
        stated("plug-and-play, scale from training, median of 3 seeds", median(found), "dB"),
        at_least("margin over Wiener", median(found) - wiener, 0.5, "dB"),
        at_least("margin over total variation", median(found) - tv, 0.05, "dB"),
        at_most("fixed-point residual, largest", max(r.certificate.residuals[-1] for r in restored), 1e-6),
        at_most("Jacobian norm of 2 D - 1, largest", max(r.certificate.lipschitz for r in restored), 1.0001),
        unconstrained(A, y[:1], pictures, quick),
    ]


def restoration(A: Convolution, y: Tensor, pictures: list[Tensor], seed: int, quick: bool) -> Restoration:
    """What a denoiser that was trained from `seed` makes of the data."""
    denoiser = ConvexDenoiser(channels=24, size=5, seed=seed)
    schedule = DenoiserSchedule(steps=30 if quick else 1000, batch=8, patch=32, rate=1e-2, seed=seed)
    train_denoiser(denoiser, pictures, schedule, progress=True)
    tuning = FineTuning(steps=3 if quick else 160, seed=seed)
    scale = fine_tune(denoiser, gaussian_kernel(WIDTH, 8, torch.float32), SIGMA, pictures, tuning, progress=True)
    tolerance, most = (1e-4, 100) if quick else (1e-6, 20_000)
    scheme = PnPProximalGradient(lambda v: denoiser(v, scale), tolerance=tolerance, max_iterations=most)
    return scheme.restore(A, y, on_fail="ignore" if quick else "raise")


def wiener_filter(A: Convolution, y: Tensor, weight: float) -> Tensor:
    """Division by the transfer function, damped by a constant."""
    h = A.transfer()
    return torch.fft.irfft2(torch.fft.rfft2(y) * h.conj() / (h.abs().square() + weight), s=A.domain)


def total_variation(A: Convolution, y: Tensor, weight: float) -> Tensor:
    """Isotropic total variation, to a relative change of 1e-4."""
    return bilevel.fixed_point(
        Composite(LeastSquares(A, y), TotalVariation(), weight), y.clone(), solver=PrimalDual(tolerance=Tolerance(1e-4))
    ).u


def unconstrained(A: Convolution, y: Tensor, pictures: list[Tensor], quick: bool) -> Record:
    """1 where a CNN without constraint is caught: it raises, or its certificate denies the guarantee."""
    cnn = ResidualCNN(depth=4, channels=12)
    schedule = DenoiserSchedule(steps=10 if quick else 300, batch=8, patch=32, rate=5e-3)
    train_denoiser(cnn, pictures, replace(schedule, sigma=0.02), progress=True)
    try:
        scheme = PnPADMM(lambda v: cnn(v), rho=0.05, max_iterations=60 if quick else 600)
        caught = not scheme.restore(A, y).certificate.certified
    except ConvergenceError:
        caught = True
    return at_least("unconstrained denoiser caught (1 = yes)", float(caught), 1.0)
