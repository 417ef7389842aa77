"""The inner states that an evaluation found as a file, so that a resumed run starts its solves as it would have."""

from __future__ import annotations

import io
from collections.abc import Mapping
from urllib.parse import quote, unquote

import numpy as np
import torch

from bilevel.implicit.visit import Visit

MEMORY = ".memory"


def memory_bytes(evaluation: Mapping[str, Visit]) -> bytes:
    """The content of the file: by experiment its point and frame, by place the start, the state and its derivatives."""
    arrays: dict[str, np.ndarray] = {}
    for experiment, visit in evaluation.items():
        name = quote(experiment, safe="")
        arrays[f"{name}/x"] = visit.x.numpy()
        arrays[f"{name}/frame"] = np.array(visit.frame, dtype=str)
        for place, solve in visit.solves.items():
            at = f"{name}/{'.'.join(map(str, place))}"
            arrays[f"{at}/start"], arrays[f"{at}/state"] = solve.start.cpu().numpy(), solve.state.cpu().numpy()
            for what, derivative in (("tangent", solve.tangent), ("by_start", solve.by_start)):
                if derivative is not None:
                    arrays[f"{at}/{what}"] = derivative.cpu().numpy()
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def memory_of(arrays: Mapping[str, np.ndarray]) -> dict[str, Visit]:
    """The inverse of `memory_bytes`; KeyError where something is missing."""
    found: dict[str, Visit] = {}
    for name in (key.removesuffix("/x") for key in arrays if key.endswith("/x")):
        visit = Visit(torch.from_numpy(arrays[f"{name}/x"]), tuple(map(str, arrays[f"{name}/frame"])))
        for key in (key for key in arrays if key.startswith(f"{name}/") and key.endswith("/state")):
            at = key.removesuffix("/state")
            start, state = (torch.from_numpy(arrays[f"{at}/{what}"]) for what in ("start", "state"))
            by_start = torch.from_numpy(arrays[f"{at}/by_start"]) if f"{at}/by_start" in arrays else None
            place = tuple(map(int, at.removeprefix(f"{name}/").split(".")))
            visit.keep(place, start, state, by_start)
            if f"{at}/tangent" in arrays:
                visit.keep_tangent(place, torch.from_numpy(arrays[f"{at}/tangent"]))
        found[unquote(name)] = visit
    return found
