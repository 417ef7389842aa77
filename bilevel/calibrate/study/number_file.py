"""Arrays of real numbers in NumPy's .npy files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bilevel.calibrate.study.files import read_bytes
from bilevel.report import InputError

MAX_BYTES = 1_000_000_000


def read_npy(file: Path) -> np.ndarray:
    """The array as doubles; InputError for what holds no real numbers."""
    read_bytes(file, MAX_BYTES)
    try:
        array = np.load(file, allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf":
            raise ValueError(f"it holds {getattr(array, 'dtype', 'an archive')}, no real numbers")
        return array.astype(float)
    except Exception as error:  # NumPy evaluates the header as Python text, and lets anything through that this raises
        raise InputError(f"{file}: cannot be read as numbers: {error}") from None
