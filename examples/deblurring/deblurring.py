"""Deblurring a picture: Tikhonov, total variation and a learned prior behind the same call, lambda by discrepancy.

    python examples/deblurring/deblurring.py        (needs scikit-image, which ships the pictures)

SciPy's own pictures are downloads since its version 1.10, so scikit-image's are used.
"""

from __future__ import annotations

from pathlib import Path

import skimage.data
import torch
from torch import Tensor

from bilevel.composite import PrimalDual
from bilevel.inversion import Discrepancy, LearnedPrior, Tikhonov, TotalVariationPrior, invert
from bilevel.inversion.networks import ConvexDenoiser, DenoiserSchedule, train_denoiser
from bilevel.linalg.linear_map import Convolution, gaussian_kernel
from bilevel.solvers import Tolerance

SIGMA = 0.01


def grey(name: str) -> Tensor:
    """A picture that ships with scikit-image, as (height, width) in [0, 1]."""
    picture = torch.tensor(getattr(skimage.data, name)().astype("float64")) / 255
    return picture[..., :3].mean(-1) if picture.dim() == 3 else picture


def main() -> None:
    torch.set_default_dtype(torch.float64)
    truth = grey("camera")[114:242, 214:342]
    blur = Convolution(gaussian_kernel(1.6, 8), (128, 128))
    data = blur(truth) + SIGMA * torch.randn(128, 128, generator=torch.Generator().manual_seed(0))

    denoiser = ConvexDenoiser(channels=16, size=5, dtype=torch.float64)
    pictures = [grey(name) for name in ("astronaut", "coffee", "rocket", "coins", "moon")]
    train_denoiser(denoiser, pictures, DenoiserSchedule(steps=500, batch=8, patch=32, rate=1e-2), progress=True)

    choices = {
        "Tikhonov": (Tikhonov(), Discrepancy(sigma=SIGMA, lowest=1e-5, highest=1.0)),
        "total variation": (
            TotalVariationPrior(solver=PrimalDual(tolerance=Tolerance(1e-4))),
            Discrepancy(sigma=SIGMA, lowest=1e-5, highest=1e-2, tolerance=0.1),
        ),
        "learned": (
            LearnedPrior(denoiser, tolerance=1e-4),
            Discrepancy(sigma=SIGMA, lowest=5e-3, highest=0.5, tolerance=0.1),
        ),
    }
    images = {"truth": truth, "data": data}
    for name, (prior, choice) in choices.items():
        found = invert(blur, data, prior, choice)
        images[name] = found.x
        print(found.sentence)
    for name, image in list(images.items())[1:]:
        print(f"{name:16} {float(-10 * torch.log10((image - truth).square().mean())):.2f} dB")
    draw(images)


def draw(images: dict[str, Tensor]) -> None:
    """The pictures side by side, beside this file."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(images), figsize=(3 * len(images), 3))
    for axis, (name, image) in zip(axes, images.items()):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1)
        axis.set_title(name)
        axis.axis("off")
    figure.savefig(Path(__file__).with_name("deblurring.png"), dpi=80, bbox_inches="tight")


if __name__ == "__main__":
    main()
