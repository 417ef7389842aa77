"""Tensors and plain values in one file: put in place in one step, with checksums that a damaged file does not pass."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from bilevel.report import InputError


def write_file(content: dict[str, Any], file: Path) -> None:
    """Write `content` whole or not at all: whoever reads meanwhile, or after a crash, finds what was there before."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        torch.save(content, partial)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def read_file(file: Path, what: str) -> dict[str, Any]:
    """What `write_file` wrote; InputError in which `what` says what was wanted, for a missing, foreign or damaged file."""
    if not file.is_file():
        raise InputError(f"there is no {what} at {file}")
    try:
        # torch.save writes a zip archive with a checksum for each record, but torch.load does not look at them.
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
        content = None if damaged else torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:
        raise InputError(f"{file} is damaged or is not a {what} ({type(error).__name__})") from error
    if damaged:
        raise InputError(f"{file} is damaged: the checksum of its record {damaged} does not match")
    if not isinstance(content, dict):
        raise InputError(f"{file} is not a {what}")
    return content


def write_checkpoint(state: dict[str, Any], file: Path) -> None:
    """Write where a training stands; `state` has the key "schedule", which says all that the training follows from."""
    write_file(state, file)


def read_checkpoint(schedule: dict[str, Any], file: Path) -> dict[str, Any]:
    """What `write_checkpoint` wrote; InputError for another file, or one of a training that followed from something else."""
    state = read_file(file, "checkpoint of a training")
    if not isinstance(state.get("schedule"), dict):
        raise InputError(f"{file} is not a checkpoint of a training; remove it")
    differing = sorted(k for k in {*schedule, *state["schedule"]} if schedule.get(k) != state["schedule"].get(k))
    if differing:
        raise InputError(
            f"{file} was written by a training with another schedule ({', '.join(differing)}); remove it or use its schedule"
        )
    return state
