"""A point of the journal as a file: the evaluation without its Jacobian, and the models' states after it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

import numpy as np
from torch import Tensor

from bilevel.calibrate.evaluation import Evaluation
from bilevel.report import Counts

VERSION = 5
SCALARS = (
    "priors",
    "size",
    "inner_solves",
    "inner_iterations",
    "gradient_error",
    "approximate",
    "stale",
    "seconds",
    "sentence",
    "retried",
    "failing",
)


def arrays_of(file: Path) -> dict[str, np.ndarray]:
    """What a file holds; raises OSError, ValueError or BadZipFile where it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            return dict(stored.items())
    except EOFError:  # an empty file
        raise ValueError(f"{file}: is empty") from None


def array_bytes(array: np.ndarray) -> bytes:
    """An array as the content of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def packed(scope: str, evaluation: Evaluation, states: Mapping[str, Mapping[str, Tensor]]) -> bytes:
    """The content of a point\'s file."""
    arrays: dict[str, np.ndarray] = {
        "version": np.array(VERSION),
        "scope": np.array(scope),
        "t": evaluation.t,
        "residual": evaluation.residual,
        "gradient": evaluation.gradient,
        "prediction": evaluation.prediction,
        "with_jacobian": np.array(evaluation.jacobian is not None),
        "counts": np.array(list(asdict(evaluation.counts).values())),
    }
    arrays |= {name: np.array(getattr(evaluation, name)) for name in SCALARS}
    for experiment, state in states.items():
        name = quote(experiment, safe="")
        arrays |= {f"state/{name}/{key}": value.detach().cpu().numpy() for key, value in state.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpacked(arrays: dict[str, np.ndarray]) -> tuple[str, Evaluation, bool]:
    """The scope, the evaluation, and whether it had a Jacobian."""
    evaluation = Evaluation(
        t=arrays["t"],
        residual=arrays["residual"],
        gradient=arrays["gradient"],
        jacobian=None,
        prediction=arrays["prediction"],
        counts=Counts(*(int(k) for k in arrays["counts"])),
        **{name: arrays[name].item() for name in SCALARS},
    )
    return arrays["scope"].item(), evaluation, bool(arrays["with_jacobian"])
