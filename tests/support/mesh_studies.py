"""Studies on meshes, written to a folder: what tests of their kinds have in common."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from bilevel.calibrate.study.loading import load_study
from bilevel.calibrate.study.study import Study


def write_rows(file: Path, header: str, rows: Iterable[Sequence[object]]) -> None:
    """A CSV file of a header and rows."""
    text = [header, *(",".join(x if isinstance(x, str) else f"{x:.12g}" for x in row) for row in rows)]  # type: ignore[str-bytes-safe]
    file.write_text("\n".join(text) + "\n")


def study(folder: Path, text: str) -> Study:
    """The study of a text, read."""
    (folder / "study.yml").write_text(textwrap.dedent(text))
    return load_study(folder / "study.yml")


def misfit(loaded: Study) -> float:
    """The largest residual at the start values, in the model's units."""
    problem = loaded.problem
    evaluation = problem.evaluate(problem.parameters.start(), with_jacobian=False)
    return float(np.abs(evaluation.prediction - problem.value.numpy()).max())


def worst_derivative(loaded: Study, steps: Sequence[float] = (1e-5,)) -> float:
    """The largest difference of the Jacobian from central differences, relative to each column's norm.

    Where points begin to yield within a difference it is wrong, so the best of several steps counts.
    """
    problem, t = loaded.problem, loaded.problem.parameters.start()
    exact = problem.evaluate(t).jacobian
    assert exact is not None
    weight = problem.weight.numpy()

    def weighted(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return (weight * problem.predict(torch.as_tensor(x)).numpy())[problem.fitted.numpy()]

    def error(k: int, step: float) -> float:
        direction = step * np.eye(len(t))[k]
        column = (weighted(t + direction) - weighted(t - direction)) / (2 * step)
        return float(np.linalg.norm(column - exact[: len(column), k]) / np.linalg.norm(column))

    return max(min(error(k, step) for step in steps) for k in range(len(t)))
