"""Covariances of the readings' errors, from files: `covariance` of the keys of observations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from bilevel.calibrate.misfit import GroupNoise
from bilevel.calibrate.study.covariance_file import read_covariance
from bilevel.calibrate.study.observation_schema import ObservationSection
from bilevel.report import InputError


def error_covariances(
    section: ObservationSection, folder: Path, groups: list[str], noise: Mapping[str, GroupNoise], scale: float
) -> dict[str, torch.Tensor]:
    """Of the errors of the groups that have a file of them, in the model's units."""
    names, found = list(dict.fromkeys(groups)), {}
    if section.covariance is not None and len(names) > 1:
        raise InputError(f"covariance: the file has the groups {', '.join(names[:5])}; give each its own under groups")
    for name in names:
        file = section.groups.get(name, section).covariance
        if file is not None:
            matrix = read_covariance(folder / file).matrix
            factor = 1.0 if noise[name].logarithmic else scale**2
            found[name] = torch.as_tensor(factor * matrix)
    return found


def covariance_files(section: ObservationSection, folder: Path) -> list[Path]:
    """Those that a section reads beside its observations."""
    return [folder / w.covariance for w in (section, *section.groups.values()) if w.covariance is not None]
