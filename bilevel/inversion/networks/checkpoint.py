"""Checkpoints of trainings: one file, put in place in one step, that only the same schedule may take up again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bilevel.report import InputError


def write_checkpoint(state: dict[str, Any], file: Path) -> None:
    """Write tensors and plain values; `state` has the key "schedule"."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(file)


def read_checkpoint(schedule: dict[str, Any], file: Path) -> dict[str, Any]:
    """What `write_checkpoint` wrote; InputError for another file, or one of a training with another schedule."""
    try:
        state: dict[str, Any] = torch.load(file, weights_only=True)
        made_for = state["schedule"]
    except Exception as error:
        raise InputError(f"{file} is not a checkpoint of a training ({type(error).__name__}); remove it") from error
    if made_for != schedule:
        raise InputError(f"{file} was written by a training with another schedule; remove it or use its schedule")
    return state
