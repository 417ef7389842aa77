"""Grey pictures that ship with scikit-image and scikit-learn, split into training and held-out ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def grey(picture: np.ndarray) -> Tensor:
    """A picture as (height, width) in [0, 1], single precision."""
    values = torch.tensor(picture.astype("float32")) / 255
    return values[..., :3] @ torch.tensor([0.299, 0.587, 0.114]) if values.dim() == 3 else values


def training() -> list[Tensor]:
    """Six pictures to train on."""
    import skimage.data as data
    from sklearn.datasets import load_sample_images

    names = (data.astronaut, data.coffee, data.rocket, data.coins, data.moon)
    return [*(grey(name()) for name in names), grey(load_sample_images().images[1])]


def held_out(size: int = 128) -> Tensor:
    """Crops (3, size, size) of three pictures that are never trained on."""
    import skimage.data as data
    from sklearn.datasets import load_sample_images

    pictures = [(grey(data.camera()), 114, 214), (grey(data.chelsea()), 84, 164)]
    pictures.append((grey(load_sample_images().images[0]), 124, 214))
    return torch.stack([p[top : top + size, left : left + size] for p, top, left in pictures])


def psnr(x: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, mean over the pictures."""
    return float((-10 * torch.log10((x - truth).square().mean((-2, -1)))).mean())
