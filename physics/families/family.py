"""What the families of physical problems share: seeded generators; the contract is `bilevel.acceleration.family`."""

from __future__ import annotations

import numpy as np

from bilevel.acceleration.family import Variation


def generator(family: str, size: int, seed: int, variation: Variation) -> np.random.Generator:
    """The random numbers of one instance; other families, sizes, seeds and variations draw others."""
    key = [*family.encode(), size, seed, list(Variation).index(variation)]
    return np.random.default_rng(key)
